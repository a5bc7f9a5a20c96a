"""EfficientTAM as users meet it: cards, loading, recognition, policies. What it shares with SAM 2 is in test_sam2."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
safetensors_torch = pytest.importorskip("safetensors.torch")

from SegmentAnythingMedLib.errors import ModelFileError, ModelUnavailableError  # noqa: E402
from SegmentAnythingMedLib.geometry import Plane, VolumeGeometry  # noqa: E402
from SegmentAnythingMedLib.memory.policy import policy_names  # noqa: E402
from SegmentAnythingMedLib.models import efficient_tam, sam2  # noqa: E402
from SegmentAnythingMedLib.models.base import Recall, SliceImage  # noqa: E402
from SegmentAnythingMedLib.models.card import ModelCard  # noqa: E402
from SegmentAnythingMedLib.models.networks.efficient_tam_network import (  # noqa: E402
    EfficientTamConfig,
    EfficientTamNetwork,
)
from SegmentAnythingMedLib.models.networks.plain_vit import PLAIN_VIT_SIZES  # noqa: E402
from SegmentAnythingMedLib.models.networks.pooled_attention import CrossAttention  # noqa: E402
from SegmentAnythingMedLib.models.registry import ModelRegistry  # noqa: E402
from SegmentAnythingMedLib.models.sam2 import Sam2Model  # noqa: E402
from SegmentAnythingMedLib.models.weights.importing import import_weights  # noqa: E402
from SegmentAnythingMedLib.models.weights.recognition import PLAIN_LAYOUTS, recognise  # noqa: E402
from SegmentAnythingMedLib.prompts import BoxPrompt, SlicePrompts  # noqa: E402
from SegmentAnythingMedLib.session import VolumeSession  # noqa: E402
from SegmentAnythingMedLib.volume import Volume  # noqa: E402
from Testing.models.small_efficient_tam import small_network  # noqa: E402
from Testing.models.weights_files import Shapes, folder, save_pt, shapes_of  # noqa: E402

__all__ = ["folder"]

K = Plane(2)


def shapes_of_size(size: str) -> Shapes:
    with torch.device("meta"):
        network = EfficientTamNetwork(EfficientTamConfig.published(size))
    return {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}


@pytest.fixture
def card() -> ModelCard:
    """A published card at a small input size."""
    return replace(ModelRegistry().card("efficienttam-ti-512"), input_size=64, sha256="")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_checkpoint_of_the_published_layout_loads_strictly(card: ModelCard, tmp_path: Path, suffix: str) -> None:
    torch.manual_seed(0)
    state = EfficientTamNetwork(EfficientTamConfig.published("ti")).state_dict()
    path = tmp_path / f"efficienttam{suffix}"
    if suffix == ".pt":
        torch.save({"model": state}, path)
    else:
        safetensors_torch.save_file(state, path)
    loaded = efficient_tam.load(card, path, "cpu", precision="fp32").network.state_dict()
    assert len(loaded) == 455
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize(
    ("name", "kind", "side"),
    [
        ("efficienttam-s", CrossAttention.FULL, 1024),
        ("efficienttam-s-512", CrossAttention.FULL, 512),
        ("efficienttam-ti-1", CrossAttention.POOLED_SCORES, 1024),
        ("efficienttam-s-2", CrossAttention.POOLED_KEYS, 1024),
        ("efficient-medsam2-ti", CrossAttention.FULL, 512),
    ],
)
def test_cards_say_how_memories_are_looked_at(
    folder: Path, tmp_path: Path, name: str, kind: CrossAttention, side: int
) -> None:
    card = ModelRegistry().card(name)
    save_pt(folder / card.file, shapes_of_size(card.options["size"]))
    config = ModelRegistry().load(name, "cpu").network.config
    assert (config.cross_attention, config.image_size) == (kind, side)


def test_all_cards_of_medical_weights_are_for_research_and_as_their_makers_prepare_slices() -> None:
    cards = [card for card in ModelRegistry().cards if card.family == "efficient_tam"]
    medical = {card.name for card in cards if card.research_only}
    assert len(cards) == 10 and medical == {"efficient-medsam2-s", "efficient-medsam2-ti"}
    assert {card.preprocessing for card in cards if card.research_only} == {"imagenet-stretch"}


def test_an_image_has_a_mask_and_a_memory(card: ModelCard) -> None:
    model = efficient_tam.load(card, None, "cpu", random_seed=1)
    (features,) = model.encode_slices([SliceImage(np.random.default_rng(0).random((1, 40, 60), dtype=np.float32))])
    prediction = model.predict(features, SlicePrompts(box_rc=(5, 5, 30, 40)), Recall(), multimask=True)
    memory = model.encode_memory(features, prediction, prompted=True)
    assert prediction.logits.shape == (1, 40, 60) and features.nbytes == 256 * 16 * 4
    assert memory.map.shape == (1, 64, 4, 4) and memory.nbytes == 64 * 16 * 2 + 256 * 4


def test_a_cpu_computes_it_with_the_engine_and_in_the_precision_of_the_card(
    card: ModelCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[object, ...]] = []
    monkeypatch.setattr(sam2, "make_ready", lambda network, *how: asked.append(how))  # itself in test_accelerate
    efficient_tam.load(card, None, "cpu", random_seed=1)
    efficient_tam.load(card, None, "cpu", random_seed=1, engine="openvino", precision="bf16")
    assert asked == [(torch.float32, "torch", None), (torch.bfloat16, "openvino", None)]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda s: {k: v for k, v in s.items() if k != "no_obj_ptr"}, r"1 missing \(no_obj_ptr\)"),
        (lambda s: {**s, "stranger": (1,)}, r"1 unexpected \(stranger\)"),
    ],
)
def test_a_checkpoint_with_a_key_too_few_or_too_many_is_refused(
    card: ModelCard, tmp_path: Path, change: object, sentence: str
) -> None:
    changed = change(shapes_of_size("ti"))
    with pytest.raises(ModelFileError, match=sentence):
        efficient_tam.load(card, save_pt(tmp_path / "odd.pt", changed), "cpu")
    with pytest.raises(ModelFileError, match=sentence):
        recognise(changed, "odd.pt")


@pytest.mark.parametrize(("shapes", "sentence"), [("tiny", "is not an EfficientTAM checkpoint"), ("s", "but s")])
def test_a_checkpoint_of_another_model_is_refused(card: ModelCard, tmp_path: Path, shapes: str, sentence: str) -> None:
    path = save_pt(tmp_path / "x.pt", shapes_of(shapes) if shapes == "tiny" else shapes_of_size(shapes))
    with pytest.raises(ModelFileError, match=sentence):
        efficient_tam.load(card, path, "cpu")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"size": "m"}, "the option size must be one of ti, s, got 'm'"),
        ({"cross_attention": "some"}, "the option cross_attention must be one of full, pooled-1, pooled-2, got 'some'"),
        ({"max_pointers": "many"}, "the option max_pointers must be a whole number, got 'many'"),
    ],
)
def test_an_option_that_is_none_is_named(card: ModelCard, options: dict, sentence: str) -> None:
    with pytest.raises(ModelFileError, match=sentence):
        efficient_tam.load(card, None, "cpu", random_seed=0, **options)


def test_random_weights_come_only_when_asked_for(card: ModelCard) -> None:
    with pytest.raises(ModelFileError, match="neither weights nor a random seed"):
        efficient_tam.load(card, None, "cpu")


def test_weights_that_are_not_here_say_where_to_get_them(folder: Path) -> None:
    with pytest.raises(ModelUnavailableError, match=r"https://huggingface\.co/.*/efficienttam_s\.pt and put"):
        ModelRegistry().load("efficienttam-s")


@pytest.mark.parametrize("size", PLAIN_VIT_SIZES)
def test_it_is_recognised_by_its_keys(size: str) -> None:
    layout = recognise(shapes_of_size(size), "x.pt")
    assert (layout.family, layout.size, str(layout)) == ("efficient_tam", size, "EfficientTAM")


def test_the_sizes_known_without_torch_are_those_of_the_networks() -> None:
    assert {trunk.dim: size for size, trunk in PLAIN_VIT_SIZES.items()} == PLAIN_LAYOUTS


def test_a_file_brought_by_hand_becomes_the_model_of_its_name_or_one_of_its_size(folder: Path, tmp_path: Path) -> None:
    shapes = shapes_of_size("s")
    named = import_weights(save_pt(tmp_path / "efficienttam_s_2.pt", shapes), ModelRegistry())
    assert named.card.name == "efficienttam-s-2" and not named.assumed
    own = import_weights(save_pt(tmp_path / "own.pt", shapes, 1.0), ModelRegistry())
    assert own.assumed and (own.card.options["size"], own.card.preprocessing) == ("s", "imagenet")
    medical = import_weights(save_pt(tmp_path / "eff_medsam2_mine.pt", shapes, 2.0), ModelRegistry())
    assert (medical.card.input_size, medical.card.preprocessing) == (512, "imagenet-stretch")


def a_small_model(kind: CrossAttention) -> Sam2Model:
    network = small_network(kind)
    with torch.no_grad():
        network.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(5.0)
        network.maskmem_tpos_enc.normal_(generator=torch.Generator().manual_seed(0))
    card = ModelCard("e", "e", "efficient_tam", "none", ("slice", "memory"), ("point", "box"), preprocessing="imagenet")
    return Sam2Model(card, network)


@pytest.fixture(scope="module")
def a_model() -> Sam2Model:
    return a_small_model(CrossAttention.POOLED_SCORES)


@pytest.fixture(scope="module")
def a_drifting_column() -> Volume:
    """(14, 28, 34) on a flipped, anisotropic grid: a column that drifts over slices 1 to 12 and is hidden on 9."""
    voxels = np.full((14, 28, 34), 30, dtype=np.uint8)
    for index in range(1, 13):
        if index != 9:
            voxels[index, 8:20, 4 + index // 3 : 16 + index // 3] = 220
    return Volume.from_array(voxels, VolumeGeometry(np.diag([-0.7, 1.1, 4.0, 1.0]), (34, 28, 14)))


def tracked(model: Sam2Model, volume: Volume, policy: str = "recent") -> tuple[VolumeSession, list]:
    session = VolumeSession(volume, model, policy=policy)
    session.segment_slice(1, session.add_prompt(1, BoxPrompt.on_slice((5, 8, 16, 19), 4, K)))
    return session, list(session.propagate(plane=K, first=0, last=13))


@pytest.mark.parametrize("policy", policy_names())
def test_every_policy_runs_it_both_ways_and_gives_the_same_twice(
    a_model: Sam2Model, a_drifting_column: Volume, policy: str
) -> None:
    (first, results), (again, _) = (tracked(a_model, a_drifting_column, policy) for _ in range(2))
    np.testing.assert_array_equal(first.labelmap(1), again.labelmap(1))
    assert {result.key.index for result in results} == set(range(14)) - {4}
    assert all(np.isfinite(result.quality) for result in results)


def test_how_memories_are_looked_at_changes_what_is_tracked(a_drifting_column: Volume) -> None:
    qualities = []
    for kind in CrossAttention:
        _, results = tracked(a_small_model(kind), a_drifting_column)
        qualities.append([result.quality for result in sorted(results, key=lambda result: result.key.index)])
    first, second, third = qualities
    assert first[4] == second[4] == third[4]  # slice 5 looks at one memory, which is seen in full
    assert first != second and first != third and second != third


def test_a_half_precision_model_answers_nearly_the_same(card: ModelCard) -> None:
    image = SliceImage(np.random.default_rng(0).random((1, 40, 40), dtype=np.float32))
    logits = []
    for precision in ("fp32", "bf16"):
        model = efficient_tam.load(card, None, "cpu", random_seed=1, precision=precision)
        (features,) = model.encode_slices([image])
        logits.append(model.predict(features, SlicePrompts(box_rc=(5, 5, 30, 30)), Recall()).logits)
    difference = np.abs(logits[0] - logits[1]).max() / np.abs(logits[0]).max()
    assert 0 < difference < 0.1
