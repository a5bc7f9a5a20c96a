"""Training runs of the embedded model: they learn, resume exactly, and export what they trained."""

from __future__ import annotations

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from SegmentAnythingMedLib.errors import ModelFileError, SegmentAnythingMedError  # noqa: E402
from SegmentAnythingMedLib.finetune.embedded_checkpoint import load_average  # noqa: E402
from SegmentAnythingMedLib.finetune.embedded_curve import draw_curve  # noqa: E402
from SegmentAnythingMedLib.finetune.embedded_network import EmbeddedConfig, EmbeddedNetwork  # noqa: E402
from SegmentAnythingMedLib.finetune.embedded_pool import StackPool, draw_batch  # noqa: E402
from SegmentAnythingMedLib.finetune.embedded_trainer import Trainer, TrainingSettings  # noqa: E402
from SegmentAnythingMedLib.finetune.embedded_unroll import _boxes  # noqa: E402
from SegmentAnythingMedLib.finetune.embedded_weighing import Judgements, presence_offset  # noqa: E402
from SegmentAnythingMedLib.finetune.stack import Stack, save_stacks  # noqa: E402
from SegmentAnythingMedLib.models.embedded_opinions import Weighing  # noqa: E402

TINY = EmbeddedConfig((8, 12, 16, 16, 16), (0, 1, 1, 1, 1), (1, 1, 1, 1))


@pytest.fixture
def shards(tmp_path):
    """A folder with a shard of two stacks of bright discs."""
    rows, columns = np.mgrid[:48, :48]
    stacks = []
    for center in (20, 27):
        labels = ((rows - center) ** 2 + (columns - 25) ** 2 < 120).astype(np.uint8) * np.ones((4, 1, 1), np.uint8)
        stacks.append(Stack(40 + 160 * labels, labels, (2.0, 1.0, 1.0), "MR", "synthetic"))
    folder = tmp_path / "stacks"
    folder.mkdir()
    save_stacks(folder / "synthetic_0_0.npz", stacks)
    return folder


def batches(shards, first, count):
    pool = StackPool(shards)
    return [draw_batch(pool, number, 0, 2, 0) for number in range(first, first + count)]


def a_trainer(**settings):
    torch.set_num_threads(1)
    return Trainer(TrainingSettings(warm_up=2, **settings), TINY, torch.device("cpu"))


def test_a_batch_is_the_same_whenever_it_is_drawn(shards):
    first, second = (batches(shards, 5, 1)[0] for _ in range(2))
    assert torch.equal(first.images, second.images) and torch.equal(first.prompt, second.prompt)


def test_the_loss_falls(shards):
    trainer = a_trainer()
    losses = [trainer.train_batch(batch) for batch in batches(shards, 0, 8)]
    assert np.mean(losses[-2:]) < 0.8 * losses[0]
    assert trainer.take_log().keys() >= {"loss", "memory"}


def test_a_resumed_run_has_the_same_next_loss(shards, tmp_path):
    trainer = a_trainer()
    done, following = batches(shards, 0, 2), batches(shards, 2, 1)[0]
    for batch in done:
        trainer.train_batch(batch)
    trainer.save(tmp_path / "run")
    again = a_trainer()
    assert again.resume(tmp_path / "run")
    assert (again.steps, again.examples, again.batches) == (trainer.steps, trainer.examples, 2)
    for own, other in zip(trainer.average.values(), again.average.values(), strict=True):
        assert torch.equal(own, other)
    maps = torch.rand(1, 11, 64, 64)
    assert torch.equal(trainer.network.eval()(maps).logits, again.network.eval()(maps).logits)
    # Moments are kept in 16 bits: steps after the first differ a little.
    assert again.train_batch(following) == pytest.approx(trainer.train_batch(following), rel=0.02)


def test_a_run_goes_on_from_the_weights_alone(shards, tmp_path):
    trainer = a_trainer()
    trainer.train_batch(batches(shards, 0, 1)[0])
    trainer.save(tmp_path)
    for name in ("average.pt", "moments1.pt", "moments2.pt"):
        (tmp_path / name).unlink()
    again = a_trainer()
    assert again.resume(tmp_path) and np.isfinite(again.train_batch(batches(shards, 1, 1)[0]))
    assert not a_trainer().resume(tmp_path / "nowhere")


def test_a_state_of_another_network_is_refused(shards, tmp_path):
    a_trainer().save(tmp_path)
    other = Trainer(TrainingSettings(), EmbeddedConfig((8, 8, 8, 8, 8)), torch.device("cpu"))
    with pytest.raises(ModelFileError, match="not a state of this network"):
        other.resume(tmp_path)
    (tmp_path / "average.pt").write_bytes(b"nothing")
    with pytest.raises(ModelFileError, match="average.pt"):
        load_average(tmp_path)


def test_state_files_stay_below_sixteen_megabytes(tmp_path):
    trainer = Trainer(TrainingSettings(), EmbeddedConfig(), torch.device("cpu"))
    trainer.save(tmp_path)
    assert max(path.stat().st_size for path in tmp_path.iterdir()) < 16 * 2**20


def test_the_rate_warms_up_holds_and_cools_down():
    trainer = a_trainer()
    assert trainer.rate(0.1) < trainer.settings.rate
    trainer._run_steps = 100
    assert trainer.rate(0.1) == trainer.settings.rate
    assert trainer.rate(1.0) == pytest.approx(0.02 * trainer.settings.rate)
    trainer.examples = int(trainer.settings.halving * 3)
    assert trainer.rate(0.1) == pytest.approx(trainer.settings.rate / 2)


def test_an_empty_folder_of_stacks_is_named(tmp_path):
    with pytest.raises(SegmentAnythingMedError, match="holds no shards"):
        StackPool(tmp_path).draw(np.random.default_rng(0))


def test_the_curve_is_drawn_from_the_log(tmp_path):
    lines = [
        {"examples": 100, "loss": 1.0, "box": 0.5},
        {"examples": 200, "loss": 0.8, "box": 0.6},
        {"examples": 200, "measured": {"synthetic box dice": 0.7, "synthetic box dice (ellipse)": 0.6}},
    ]
    (tmp_path / "log.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    draw_curve(tmp_path / "log.jsonl", tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 1000


@pytest.mark.parametrize(("half", "tolerance"), [(False, 1e-4), (True, 2e-2)])
def test_the_exported_network_equals_the_trained_one(tmp_path, half, tolerance):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from SegmentAnythingMedLib.finetune.export_embedded import export
    from SegmentAnythingMedLib.models.embedded_runtime import OnnxRun

    torch.manual_seed(1)
    network = EmbeddedNetwork(TINY)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.weight, 1.0, 0.3)
            torch.nn.init.normal_(module.running_mean, 0.0, 0.3)
    run = OnnxRun(export(network, tmp_path / "tiny.onnx", half=half), threads=1)
    for shape in ((1, 11, 128, 128), (3, 11, 64, 96)):
        maps = torch.rand(*shape)
        maps[:, 1] = (maps[:, 1] > 0.5).float()
        with torch.no_grad():
            wanted = network(maps)
        for ours, theirs in zip(run(maps.numpy()), wanted, strict=True):
            assert np.abs(ours - theirs.numpy()).max() < tolerance * max(1.0, float(theirs.abs().max()))


def test_a_file_of_an_older_export_is_laid_out_anew(tmp_path, monkeypatch):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from SegmentAnythingMedLib.finetune import export_embedded
    from SegmentAnythingMedLib.models.embedded_runtime import OnnxRun

    network, older, newer = EmbeddedNetwork(TINY), tmp_path / "older.onnx", tmp_path / "newer.onnx"
    with monkeypatch.context() as patch:
        patch.setattr(export_embedded, "merge_folding", lambda model: False)
        export_embedded.export(network, older, notes={"examples": "77"})
    export_embedded.main(["--file", str(older), "--output", str(newer)])
    maps = np.random.default_rng(0).random((2, 11, 64, 96), dtype=np.float32)
    runs = [OnnxRun(path, threads=1) for path in (older, newer)]
    for ours, theirs in zip(*(run(maps) for run in runs), strict=True):
        assert np.abs(ours - theirs).max() < 1e-4
    assert runs[1].note("examples") == "77" and older.read_bytes() != newer.read_bytes()
    export_embedded.main(["--file", str(newer), "--output", str(older)])
    assert older.read_bytes() == newer.read_bytes()


def test_training_goes_on_from_an_exported_file_as_if_it_had_stopped_there(tmp_path):
    pytest.importorskip("onnx")
    from SegmentAnythingMedLib.finetune.embedded_restart import restart
    from SegmentAnythingMedLib.finetune.export_embedded import export

    torch.manual_seed(1)
    network = EmbeddedNetwork(TINY)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.weight, 1.0, 0.3)
            torch.nn.init.normal_(module.running_mean, 0.0, 0.3)
    path = export(network, tmp_path / "tiny.onnx", half=False, notes={"examples": "77"})
    again, maps, others = EmbeddedNetwork(TINY), torch.rand(4, 11, 64, 64), torch.rand(2, 11, 64, 96)
    assert restart(again, path, maps) == 77
    with torch.no_grad():
        for ours, theirs in zip(again(others), network(others), strict=True):
            assert (ours - theirs).abs().max() < 1e-4 * max(1.0, float(theirs.abs().max()))
        wanted = network(maps)
        for ours, theirs in zip(again.train()(maps), wanted, strict=True):
            assert (ours - theirs).abs().max() < 1e-3 * max(1.0, float(theirs.abs().max()))


def test_a_file_of_another_network_is_not_started_from(tmp_path):
    pytest.importorskip("onnx")
    from SegmentAnythingMedLib.finetune.embedded_restart import restart
    from SegmentAnythingMedLib.finetune.export_embedded import export

    path = export(EmbeddedNetwork(TINY), tmp_path / "tiny.onnx")
    with pytest.raises(ModelFileError, match="other sizes"):
        restart(EmbeddedNetwork(EmbeddedConfig()), path, torch.rand(1, 11, 64, 64))
    (tmp_path / "text.onnx").write_text("not a network")
    with pytest.raises(ModelFileError, match="not an ONNX file"):
        restart(EmbeddedNetwork(TINY), tmp_path / "text.onnx", torch.rand(1, 11, 64, 64))


def test_the_box_of_an_answer_is_the_smallest_round_it() -> None:
    masks = torch.zeros(2, 6, 7, dtype=torch.bool)
    masks[0, 1, 2] = masks[0, 3, 5] = True
    box = _boxes(masks)
    assert box[0].nonzero().amin(0).tolist() == [1, 2]
    assert box[0].nonzero().amax(0).tolist() == [3, 5]
    assert box[0].sum() == 12
    assert box[1].sum() == 0


def test_the_presence_offset_lies_between_slices_with_and_without_the_structure() -> None:
    pairs = [(True, 3.0), (True, 2.5), (True, 4.0), (False, 0.5), (False, 1.0), (False, -1.0)]
    assert 1.0 <= presence_offset(pairs) < 2.5
    assert presence_offset([(True, 1.0)]) == 0.0


def test_a_weighing_is_fitted_to_what_was_judged() -> None:
    random, judgements = np.random.default_rng(0), Judgements()
    for _ in range(400):
        clue = np.append(1.0, random.normal(size=4))
        overlap = 1 / (1 + np.exp(-(0.3 + 1.5 * clue[2])))
        judgements.joined.append((clue, 2 * overlap / (1 + overlap)))
    fitted = judgements.weighing()
    assert fitted.joined == pytest.approx((0.3, 0.0, 1.5, 0.0, 0.0), abs=0.1)
    assert fitted.network == Weighing().network, "nothing was judged"
