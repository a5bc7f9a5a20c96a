"""SAM 2's networks in a small random configuration: shapes, gradients, checkpoints. Equality is in test_oracle_sam2."""

from __future__ import annotations

import pickle
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
safetensors_torch = pytest.importorskip("safetensors.torch")

from SegmentAnythingMedLib.errors import ModelFileError  # noqa: E402
from SegmentAnythingMedLib.models.networks.checkpoint import (  # noqa: E402
    infer_sam2_config,
    load_strictly,
    read_checkpoint,
    without_weights,
)
from SegmentAnythingMedLib.models.networks.hiera import HieraConfig  # noqa: E402
from SegmentAnythingMedLib.models.networks.sam2_network import (  # noqa: E402
    ABSENT_LOGIT,
    DecodedMasks,
    Sam2Config,
    Sam2Network,
)

SIDE = 64
SMALL = Sam2Config(
    HieraConfig(dim=8, heads=1, blocks=(1, 1, 2, 1), global_blocks=(3,)),
    image_size=SIDE,
    dim=32,
    memory_dim=8,
    memory_layers=2,
    mlp_dim=32,
)


def random_network(config: Sam2Config = SMALL, seed: int = 0) -> Sam2Network:
    torch.manual_seed(seed)
    network = Sam2Network(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network


@pytest.fixture
def network() -> Sam2Network:
    return random_network().eval()


def two_boxes(side: int = SIDE) -> tuple[torch.Tensor, torch.Tensor]:
    boxes = torch.tensor([[[0.2, 0.2], [0.6, 0.7]], [[0.5, 0.1], [0.9, 0.4]]]) * side
    return boxes, torch.tensor([[2, 3], [2, 3]])


def next_slice(
    network: Sam2Network, first: torch.Tensor, second: torch.Tensor, dtype: torch.dtype | None
) -> DecodedMasks:
    """Two objects prompted by boxes in one slice, and what memory makes of them in the next."""
    before, now = network.encode_image(first), network.encode_image(second)
    embedding = network.condition(before.embedding, (), ())
    prompted = network.decode_masks(embedding, before.high_resolution, network.encode_prompts(*two_boxes()), False)
    memory = network.encode_memory(before.embedding, prompted.mask_logits, prompted.object_logits, False, dtype)
    conditioned = network.condition(now.embedding, [(memory, 0)], [(prompted.pointers[:, 0], 1)], pointer_range=5)
    return network.decode_masks(conditioned, now.high_resolution, network.encode_no_clicks(2), True)


@pytest.mark.parametrize("side", [256, 512])
def test_every_output_has_the_promised_shape(side: int) -> None:
    network = random_network(replace(SMALL, image_size=side)).eval()
    with torch.inference_mode():
        features = network.encode_image(torch.randn(1, 3, side, side))
        assert features.stride4.shape == (1, 4, side // 4, side // 4)
        assert features.stride8.shape == (1, 8, side // 8, side // 8)
        assert features.embedding.shape == (1, 32, side // 16, side // 16)
        assert features.nbytes == 4 * (4 * 16 + 8 * 4 + 32) * (side // 16) ** 2
        previous = torch.randn(2, 1, side // 4, side // 4)
        prompts = network.encode_prompts(*two_boxes(side), previous)
        assert prompts.sparse.shape == (2, 3, 32)
        embedding = network.condition(features.embedding, (), ())
        decoded = network.decode_masks(embedding, features.high_resolution, prompts, multimask=True)
        assert decoded.mask_logits.shape == (2, 3, side // 4, side // 4)
        assert decoded.iou.shape == (2, 3) and decoded.object_logits.shape == (2, 1)
        assert decoded.pointers.shape == (2, 3, 32)
        best = decoded.best()
        assert best.mask_logits.shape == (2, 1, side // 4, side // 4)
        assert torch.equal(best.iou[:, 0], decoded.iou.max(dim=1).values)
        memory = network.encode_memory(features.embedding, best.mask_logits, best.object_logits, from_prompt=True)
        assert memory.shape == (2, 8, side // 16, side // 16) and memory.dtype == torch.bfloat16
        conditioned = network.condition(features.embedding, [(memory, 0), (memory, 6)], [(best.pointers[:, 0], 2)])
        assert conditioned.shape == (2, 32, side // 16, side // 16)


def test_gradients_of_a_tracked_slice_reach_every_part() -> None:
    network = random_network().train()
    first, second = torch.randn(2, 1, 3, SIDE, SIDE)
    decoded = next_slice(network, first, second, dtype=None)
    (decoded.mask_logits.square().mean() + decoded.iou.sum() + decoded.object_logits.sum()).backward()
    unreached = {
        name for name, parameter in network.named_parameters() if parameter.grad is None or not parameter.grad.any()
    }
    # What two boxes without masks, clicks or absent objects cannot reach, and the embedding no version uses.
    assert unreached <= {
        "no_mem_pos_enc",
        "no_obj_ptr",
        "no_obj_embed_spatial",
        "mask_downsample.weight",
        "mask_downsample.bias",
        "sam_prompt_encoder.point_embeddings.0.weight",
        "sam_prompt_encoder.point_embeddings.1.weight",
        *(name for name, _ in network.named_parameters() if "mask_downscaling" in name),
    }


def test_gradients_do_not_change_the_result(network: Sam2Network) -> None:
    first, second = torch.randn(2, 1, 3, SIDE, SIDE)
    with_gradients = next_slice(network, first, second, torch.bfloat16)
    with torch.no_grad():
        without = next_slice(network, first, second, torch.bfloat16)
    torch.testing.assert_close(with_gradients.mask_logits, without.mask_logits, atol=1e-5, rtol=1e-4)


def test_objects_in_one_batch_do_not_see_each_other(network: Sam2Network) -> None:
    features = network.encode_image(torch.randn(1, 3, SIDE, SIDE))
    points, labels = two_boxes()
    embedding = network.condition(features.embedding, (), ())

    def decode(rows: slice) -> torch.Tensor:
        prompts = network.encode_prompts(points[rows], labels[rows])
        return network.decode_masks(embedding, features.high_resolution, prompts, multimask=True).mask_logits

    torch.testing.assert_close(decode(slice(0, 2)), torch.cat([decode(slice(0, 1)), decode(slice(1, 2))]))


def test_an_unstable_single_mask_gives_way_to_the_best_of_three_only_in_evaluation(network: Sam2Network) -> None:
    features = network.encode_image(torch.randn(1, 3, SIDE, SIDE))
    with torch.no_grad():  # logits around 0 everywhere: no mask keeps its area when the threshold moves
        for mlp in network.sam_mask_decoder.output_hypernetworks_mlps:
            mlp.layers[-1].weight.mul_(1e-3)
            mlp.layers[-1].bias.mul_(1e-3)

    def decode(multimask: bool) -> DecodedMasks:
        prompts = network.encode_prompts(*two_boxes())
        return network.decode_masks(features.embedding, features.high_resolution, prompts, multimask)

    best, single = decode(True).best(), decode(False)
    assert torch.equal(single.mask_logits, best.mask_logits) and torch.equal(single.iou, best.iou)
    network.train()
    assert not torch.equal(decode(False).mask_logits, best.mask_logits)


def test_three_candidates_are_asked_for_without_clicks_and_for_one() -> None:
    assert [SMALL.wants_multimask(clicks) for clicks in range(4)] == [True, True, False, False]


def test_an_absent_object_has_no_mask_and_the_pointer_of_absence(network: Sam2Network) -> None:
    with torch.no_grad():
        network.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(-100)
    features = network.encode_image(torch.randn(1, 3, SIDE, SIDE))
    decoded = network.decode_masks(features.embedding, features.high_resolution, network.encode_no_clicks(1), True)
    assert torch.equal(decoded.pointers, network.no_obj_ptr.expand(1, 3, -1))
    assert decoded.mask_logits.max() > ABSENT_LOGIT
    assert torch.all(decoded.suppress_absent().mask_logits == ABSENT_LOGIT)


def test_a_mask_prompt_is_its_own_output(network: Sam2Network) -> None:
    features = network.encode_image(torch.randn(1, 3, SIDE, SIDE))
    mask = torch.zeros(2, 1, SIDE, SIDE, dtype=torch.bool)
    mask[0, 0, 16:48, 8:40] = True
    decoded = network.use_mask_as_output(features, mask)
    assert torch.equal(decoded.mask_logits > 0, mask[:, :, ::4, ::4])
    assert decoded.object_logits.tolist() == [[10.0], [-10.0]]
    assert decoded.iou.tolist() == [[1.0], [1.0]]
    assert torch.equal(decoded.pointers[1], network.no_obj_ptr)


def test_time_slots_and_pointer_distances_change_the_result(network: Sam2Network) -> None:
    embedding = network.encode_image(torch.randn(1, 3, SIDE, SIDE)).embedding
    memory, pointer = torch.randn(1, 8, 4, 4), torch.randn(1, 32)
    base = network.condition(embedding, [(memory, 0)], [(pointer, 1)])
    assert not torch.allclose(base, network.condition(embedding, [(memory, 1)], [(pointer, 1)]))
    assert not torch.allclose(base, network.condition(embedding, [(memory, 0)], [(pointer, 4)]))
    older = random_network(replace(SMALL, pointer_time_encoding=False, occlusion_embedding=False)).eval()
    same = [older.condition(embedding, [(memory, 0)], [(pointer, distance)]) for distance in (1, 4)]
    assert torch.equal(*same)


def test_a_network_in_bf16_autocast_stays_close(network: Sam2Network) -> None:
    first, second = torch.randn(2, 1, 3, SIDE, SIDE)
    with torch.inference_mode():
        exact = next_slice(network, first, second, torch.bfloat16)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = next_slice(network, first, second, torch.bfloat16)
    assert rounded.mask_logits.dtype == torch.float32
    error = (rounded.mask_logits - exact.mask_logits).norm() / exact.mask_logits.norm()
    assert error < 0.05


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_checkpoint_fills_a_network_built_without_memory(network: Sam2Network, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pt":
        torch.save({"model": network.state_dict()}, path)
    else:
        safetensors_torch.save_file(network.state_dict(), path)
    with torch.device("meta"):
        loaded = Sam2Network(SMALL)
    load_strictly(loaded.eval(), read_checkpoint(path), path.name)
    first, second = torch.randn(2, 1, 3, SIDE, SIDE)
    expected = next_slice(network, first, second, torch.bfloat16).mask_logits
    assert torch.equal(next_slice(loaded, first, second, torch.bfloat16).mask_logits, expected)


def test_a_half_precision_checkpoint_fills_a_network_of_single_precision(network: Sam2Network) -> None:
    with torch.device("meta"):
        loaded = Sam2Network(SMALL)
    load_strictly(loaded, {key: tensor.half() for key, tensor in network.state_dict().items()}, "half.pt")
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    assert all(parameter.requires_grad for parameter in loaded.parameters())


class Hostile:
    """Unpickled without care, this creates a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("container", ["torch zip", "bare pickle", "named safetensors"])
def test_a_hostile_pickle_is_refused_without_running_it(tmp_path: Path, container: str) -> None:
    marker = tmp_path / "was_run"
    path = tmp_path / ("weights.safetensors" if container == "named safetensors" else "weights.pt")
    payload = {"model": {"weight": torch.zeros(1), "bias": Hostile(marker)}}
    if container == "torch zip":
        torch.save(payload, path)
    else:
        path.write_bytes(pickle.dumps(payload))
    with pytest.raises(ModelFileError, match="weights"):
        read_checkpoint(path)
    assert not marker.exists()
    if container == "bare pickle":
        pickle.loads(path.read_bytes())  # noqa: S301 - proves that the payload would have run
        assert marker.exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("part", [0.0, 0.001, 0.5, 0.99])
def test_a_truncated_file_is_named_as_such(network: Sam2Network, tmp_path: Path, suffix: str, part: float) -> None:
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pt":
        torch.save(network.state_dict(), path)
    else:
        safetensors_torch.save_file(network.state_dict(), path)
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    with pytest.raises(ModelFileError, match=f"weights{suffix} is (empty|truncated)"):
        read_checkpoint(path)


@pytest.mark.parametrize("content", [b"<!DOCTYPE html><html>404</html>", b"version https://git-lfs.github.com/spec/v1"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_file_of_another_format_is_not_opened(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match="is not a"):
        read_checkpoint(path)


def test_a_missing_file_and_a_wrong_digest_are_named(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    with pytest.raises(ModelFileError, match="cannot be read"):
        read_checkpoint(path)
    safetensors_torch.save_file({"weight": torch.zeros(1)}, path)
    with pytest.raises(ModelFileError, match="expected 00ff"):
        read_checkpoint(path, sha256="00FF")


@pytest.mark.parametrize("content", [[1, 2], {"model": {"epoch": 3}}, {}])
def test_a_file_without_named_tensors_is_not_a_checkpoint(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(ModelFileError, match="is not a checkpoint"):
        read_checkpoint(tmp_path / "weights.pt")


def test_missing_extra_and_reshaped_keys_are_named(network: Sam2Network) -> None:
    state = network.state_dict()
    before = state["no_mem_embed"].clone()
    wrong = {key: torch.zeros(1) if key == "no_obj_ptr" else tensor + 1 for key, tensor in state.items()}
    for key in [key for key in wrong if key.startswith("memory_encoder.fuser")]:
        del wrong[key]
    wrong["stranger"] = torch.zeros(1)
    with pytest.raises(ModelFileError) as caught:
        load_strictly(network, wrong, "odd.pt")
    message = str(caught.value)
    assert message.startswith("odd.pt does not fit the model: tensors 18 missing (memory_encoder.fuser.layers.0.gamma,")
    assert ", ...); 1 unexpected (stranger); 1 of another shape (no_obj_ptr)." in message
    assert torch.equal(network.no_mem_embed, before)


@pytest.mark.parametrize("size", ["tiny", "small", "base_plus", "large"])
@pytest.mark.parametrize("version", ["2.0", "2.1"])
def test_size_and_version_are_read_from_the_keys(size: str, version: str) -> None:
    config = Sam2Config.released(size, version, image_size=512)
    with torch.device("meta"):
        state = Sam2Network(config).state_dict()
        other = Sam2Network(Sam2Config.released("small" if size == "tiny" else "tiny", version, 512))
    assert infer_sam2_config(state, image_size=512) == config
    with pytest.raises(ModelFileError, match=f"The file is a SAM {version} {size} checkpoint"):
        load_strictly(other, state, "file.pt")


def test_keys_of_no_released_size_are_refused(network: Sam2Network) -> None:
    with pytest.raises(ModelFileError, match="not a SAM 2 checkpoint"):
        infer_sam2_config(network.state_dict(), image_size=512)


def test_wrong_arguments_are_named(network: Sam2Network) -> None:
    points, labels = two_boxes()
    with pytest.raises(ValueError, match="image_size must be a positive multiple of 32, got 500"):
        Sam2Config.released("tiny", image_size=500)
    with pytest.raises(ValueError, match=r"pixels must have shape \(B, 3, 64, 64\), got \(1, 3, 32, 32\)"):
        network.encode_image(torch.zeros(1, 3, 32, 32))
    with pytest.raises(ValueError, match="points and labels"):
        network.encode_prompts(points, labels[:, :1])
    with pytest.raises(ValueError, match="time slots must be 0 to 6, got 7"):
        network.condition(torch.zeros(1, 32, 4, 4), [(torch.zeros(1, 8, 4, 4), 7)], ())


def test_tensors_that_are_not_plain_numbers_are_refused(tmp_path: Path) -> None:
    plain = torch.ones(2, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # quantized tensors are deprecated
        quantized = torch.quantize_per_tensor(plain, 0.1, 0, torch.qint8)
        for odd in (quantized, plain.to(torch.complex64), plain.to_sparse(), plain.to("meta")):
            torch.save({"model": {"fine": plain, "odd": odd}}, tmp_path / "weights.pt")
            with pytest.raises(
                ModelFileError, match=r"weights\.pt holds a quantized, complex or sparse tensor \(odd\)"
            ):
                read_checkpoint(tmp_path / "weights.pt")


def test_a_single_number_in_place_of_the_patch_weights_is_no_sam_2() -> None:
    state = {"image_encoder.trunk.patch_embed.proj.weight": torch.tensor(1.0)}
    with pytest.raises(ModelFileError, match="not a SAM 2 checkpoint"):
        infer_sam2_config(state, image_size=512)


def test_a_network_without_weights_is_built_without_importing_torchs_compiler() -> None:
    code = """
import sys
from SegmentAnythingMedLib.models.networks.checkpoint import without_weights
from SegmentAnythingMedLib.models.networks.sam2_network import Sam2Config, Sam2Network

before = set(sys.modules)
with without_weights():
    network = Sam2Network(Sam2Config.released("tiny"))
assert all(tensor.is_meta for tensor in network.state_dict().values())
assert len(set(sys.modules) - before) < 20, sorted(set(sys.modules) - before)[:20]
"""
    root = Path(__file__).resolve().parents[2]
    run = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_within_it_tensors_are_drawn_no_numbers_and_afterwards_they_are() -> None:
    with without_weights():
        assert torch.nn.Linear(3, 4).weight.is_meta and torch.randn(2, 3).is_meta
    assert torch.nn.Linear(3, 4).weight.std() > 0
