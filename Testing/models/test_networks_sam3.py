"""SAM 3's tracker by transformers' parts: names of its tensors in every layout, batches, time slots."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

import pytest

for _package in ("torch", "safetensors", "transformers"):
    if importlib.util.find_spec(_package) is None:
        pytest.skip(f"the package {_package!r} is not installed (extra 'sam3')", allow_module_level=True)

import torch  # noqa: E402

from SegmentAnythingMedLib.errors import ModelFileError  # noqa: E402
from SegmentAnythingMedLib.models.weights.recognition import read_shapes, recognise  # noqa: E402
from Testing.models.sam3_layouts import as_published, as_whole  # noqa: E402
from Testing.models.small_sam3 import SIDE, small_network  # noqa: E402

from SegmentAnythingMedLib.models.networks.sam3_keys import tracker_state  # noqa: E402  isort: skip
from SegmentAnythingMedLib.models.networks.sam3_network import Sam3Network, published_config  # noqa: E402  isort: skip

# Of the lines "name [shape]", sorted, of transformers' tracker (5.23); and of the tensors it takes of the modules that
# the published source builds (commit 99d02f2), under their names in the published file.
TRACKER_KEYS, TRACKER_PARAMETERS = 845, 465_782_146
TRACKER_DIGEST = "e1febe1e29eade57322e19b5c7ba0509a4c91272caa03f208f3affc63598c178"
PUBLISHED_KEYS = 719
PUBLISHED_DIGEST = "4071c982fddc1e4602f8e5ee1d6aba4fe4e7dfca5b931cc507f03e2d3a34bac2"


def digest(state: dict[str, torch.Tensor]) -> str:
    lines = sorted(f"{name} {list(tensor.shape)}" for name, tensor in state.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@pytest.fixture(scope="module")
def network() -> Sam3Network:
    return small_network()


@pytest.fixture(scope="module")
def published() -> Sam3Network:
    """Of the published size, without content."""
    with torch.device("meta"):
        return Sam3Network(published_config())


def test_the_published_size_is_built_without_memory(published: Sam3Network) -> None:
    state = published.model.state_dict()
    assert all(tensor.is_meta for tensor in state.values())
    assert (len(state), sum(each.numel() for each in published.parameters())) == (TRACKER_KEYS, TRACKER_PARAMETERS)
    assert digest(state) == TRACKER_DIGEST
    assert (published.config.image_size, published.config.mask_size) == (1008, 288)


def test_the_names_in_the_published_file_are_those_the_published_source_gives(published: Sam3Network) -> None:
    named = as_published(published.model.state_dict())
    assert len(named) == PUBLISHED_KEYS
    assert digest(named) == PUBLISHED_DIGEST


@pytest.mark.parametrize("layout", [dict, as_whole, as_published])
def test_every_layout_is_read_to_the_same_tensors(network: Sam3Network, layout: object) -> None:
    state = network.model.state_dict()
    named = layout(state)
    named |= {"tracker.x.freqs_cis": torch.zeros(1, dtype=torch.complex64)} if layout is as_published else {}
    found = tracker_state(named)
    assert set(found) == set(state)
    assert all(torch.equal(found[key], tensor) for key, tensor in state.items())


@pytest.mark.parametrize("layout", [dict, as_whole, as_published])
def test_it_is_recognised_by_its_keys(published: Sam3Network, layout: object) -> None:
    shapes = {key: tuple(tensor.shape) for key, tensor in layout(published.model.state_dict()).items()}
    assert str(recognise(shapes, "x.pt")) == "SAM 3"
    del shapes[next(key for key in shapes if key.endswith("mask_downsample.bias"))]
    with pytest.raises(ModelFileError, match=r"1 missing \(mask_downsample.bias\)"):
        recognise(shapes, "x.pt")


def test_the_rotary_tables_of_the_published_file_are_passed_over(tmp_path: Path) -> None:
    tables = {"detector.backbone.vision_backbone.trunk.blocks.0.attn.freqs_cis": torch.ones(2, dtype=torch.complex64)}
    torch.save({**tables, "tracker.no_obj_ptr": torch.zeros(1, 4)}, tmp_path / "sam3.pt")
    assert read_shapes(tmp_path / "sam3.pt")[1] == {"tracker.no_obj_ptr": (1, 4)}


def test_objects_of_a_batch_equal_single_ones(network: Sam3Network) -> None:
    pixels = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(3))
    boxes, labels = torch.tensor([[[5.0, 6], [30, 31]], [[20, 12], [50, 44]]]), torch.tensor([[2, 3], [2, 3]])

    def next_slice(rows: slice) -> torch.Tensor:
        before, now = (network.encode_image(each[None]) for each in pixels)
        prompts = network.encode_prompts(boxes[rows], labels[rows])
        first = network.decode_masks(
            network.condition(before.embedding, (), ()), before.high_resolution, prompts, multimask=False
        )
        memory = network.encode_memory(before.embedding, first.mask_logits, first.object_logits, True)
        conditioned = network.condition(now.embedding, [(memory, 0), (memory, 3)], [(first.pointers[:, 0], 1.0)])
        return network.decode_masks(
            conditioned, now.high_resolution, network.encode_no_clicks(len(memory)), multimask=True
        ).mask_logits

    with torch.inference_mode():
        together = next_slice(slice(0, 2))
        apart = torch.cat([next_slice(slice(0, 1)), next_slice(slice(1, 2))])
    torch.testing.assert_close(together, apart, atol=1e-4, rtol=1e-4)


def test_a_time_slot_out_of_range_is_named(network: Sam3Network) -> None:
    embedding, memory = torch.zeros(1, 128, 4, 4), torch.zeros(1, 64, 4, 4)
    with pytest.raises(ValueError, match="time slots must be 0 to 6, got 7"):
        network.condition(embedding, [(memory, 7)], [])
