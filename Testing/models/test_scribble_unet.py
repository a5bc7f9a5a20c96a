"""ScribblePrompt-UNet: the published layout and answers, prompts as channels, chaining through a volume."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
safetensors_torch = pytest.importorskip("safetensors.torch")

from SegmentAnythingMedLib.errors import ModelFileError  # noqa: E402
from SegmentAnythingMedLib.geometry import Plane  # noqa: E402
from SegmentAnythingMedLib.models import scribble_unet  # noqa: E402
from SegmentAnythingMedLib.models.base import Prediction, Recall, SliceImage, SliceModel  # noqa: E402
from SegmentAnythingMedLib.models.card import ModelCard  # noqa: E402
from SegmentAnythingMedLib.models.networks.early_fusion_unet import EarlyFusionUnet, UnetConfig  # noqa: E402
from SegmentAnythingMedLib.models.networks.expected_overlap import expected_iou  # noqa: E402
from SegmentAnythingMedLib.models.preprocess import Placement  # noqa: E402
from SegmentAnythingMedLib.models.registry import ModelRegistry  # noqa: E402
from SegmentAnythingMedLib.models.scribble_unet_prompts import prompt_maps  # noqa: E402
from SegmentAnythingMedLib.models.weights.recognition import Layout, recognise  # noqa: E402
from SegmentAnythingMedLib.phantom import make_phantom, middle_box  # noqa: E402
from SegmentAnythingMedLib.prompts import BoxPrompt, ScribblePrompt, SlicePrompts  # noqa: E402
from SegmentAnythingMedLib.session import VolumeSession  # noqa: E402
from SegmentAnythingMedLib.volume import Volume  # noqa: E402

BOX = SlicePrompts(box_rc=(2, 3, 20, 30))
CLICK = SlicePrompts(np.array([[10.0, 12.0]]), np.array([True]))
SQUARE = Placement((32, 32), 32, 32, 32)
BRIGHT = 0.5


@pytest.fixture(scope="module")
def card() -> ModelCard:
    return ModelRegistry().card("scribbleprompt-unet")


@pytest.fixture(scope="module")
def network() -> EarlyFusionUnet:
    """Narrow, random, with logits of 5 and more."""
    torch.manual_seed(0)
    network = EarlyFusionUnet(UnetConfig((8, 8, 8))).eval()
    scatter(network)
    return network


@pytest.fixture(scope="module")
def model(card: ModelCard, network: EarlyFusionUnet) -> scribble_unet.ScribbleUnetModel:
    return scribble_unet.ScribbleUnetModel(replace(card, input_size=32), network)


@pytest.fixture
def image() -> SliceImage:
    return SliceImage(np.random.default_rng(0).random((1, 24, 40), dtype=np.float32), (1.0, 1.5))


@torch.no_grad()
def scatter(module: torch.nn.Module) -> None:
    """The same numbers on every machine; convolutions keep the size of what passes."""
    generator, state = torch.Generator().manual_seed(0), module.state_dict()
    for key in sorted(state):
        noise = torch.randn(state[key].shape, generator=generator)
        scaled = noise * (1.9 / state[key][0].numel()) ** 0.5 if noise.ndim == 4 else 0.2 + 0.1 * noise
        state[key].copy_(scaled)


@torch.no_grad()
def thresholding_model(card: ModelCard) -> scribble_unet.ScribbleUnetModel:
    """Weights made by hand: what is brighter than `BRIGHT` within the box is the object, with logits of about 10."""
    network = EarlyFusionUnet(UnetConfig((1,))).eval()
    for tensor in network.state_dict().values():
        tensor.zero_()
    network.downs[0].conv[0].weight[0, :2, 1, 1] = 1.0
    network.downs[0].conv[0].bias[0] = -1.0 - BRIGHT  # image + inside of the box
    network.ups[1].conv[0].weight[0, 0, 1, 1] = 1.0
    network.final_conv.conv[0].weight[0, 0] = 40.0
    network.final_conv.conv[0].bias[0] = -4.0
    return scribble_unet.ScribbleUnetModel(replace(card, options={"chain_margin": 0.15}), network)


# -- the published network -----------------------------------------------------------------------------------------


def test_the_network_has_the_published_size() -> None:
    with torch.device("meta"):
        state = EarlyFusionUnet().state_dict()
    assert len(state) == 29 and sum(tensor.numel() for tensor in state.values()) == 3_991_882
    assert state["downs.0.conv.0.weight"].shape == (192, 5, 3, 3) and state["downs.0.conv.1.weight"].shape == (1,)
    assert state["ups.7.conv.0.weight"].shape == (192, 384, 3, 3)
    assert state["final_conv.conv.0.weight"].shape == (1, 192, 1, 1)


def test_the_answer_is_that_of_the_published_code() -> None:
    """Numbers of its authors' network with the same weights and input."""
    network = EarlyFusionUnet().eval()
    scatter(network)
    x = torch.rand(1, 5, 64, 64, generator=torch.Generator().manual_seed(1))
    x[:, 4] = 10 * x[:, 4] - 5
    with torch.no_grad():
        logits = network(x)
    assert logits.abs().max().item() == pytest.approx(5.13611, abs=2e-5)
    assert logits.mean().item() == pytest.approx(-1.083953, abs=2e-5)
    assert logits.std().item() == pytest.approx(1.289884, abs=2e-5)
    assert logits[0, 0, [0, 13, 40], [0, 50, 7]].tolist() == pytest.approx([-0.502398, -1.086448, 0.160095], abs=2e-5)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_checkpoint_of_the_published_layout_loads_strictly(card: ModelCard, tmp_path: Path, suffix: str) -> None:
    path, state = tmp_path / f"unet{suffix}", EarlyFusionUnet().state_dict()
    torch.save(state, path) if suffix == ".pt" else safetensors_torch.save_file(state, path)
    loaded = scribble_unet.load(card, path, "cpu").network.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize(("change", "sentence"), [("missing", "1 missing"), ("extra", "1 unexpected .stranger")])
def test_a_checkpoint_with_a_key_too_few_or_too_many_is_refused(
    card: ModelCard, tmp_path: Path, change: str, sentence: str
) -> None:
    state = dict(EarlyFusionUnet().state_dict())
    if change == "missing":
        del state["bottleneck.conv.0.bias"]
    else:
        state["stranger"] = torch.zeros(1)
    torch.save(state, tmp_path / "odd.pt")
    with pytest.raises(ModelFileError, match=sentence):
        scribble_unet.load(card, tmp_path / "odd.pt", "cpu")


def test_an_import_recognises_it() -> None:
    with torch.device("meta"):
        shapes = {key: tuple(tensor.shape) for key, tensor in EarlyFusionUnet().state_dict().items()}
    assert recognise(shapes, "some.pt") == Layout("scribble_unet")
    del shapes["ups.3.conv.0.bias"]
    with pytest.raises(ModelFileError, match="1 missing"):
        recognise(shapes, "some.pt")


@pytest.mark.parametrize("size", [0, 100, 1 << 20])
def test_an_input_size_that_cannot_be_halved_so_often_is_refused(card: ModelCard, size: int) -> None:
    with pytest.raises(ModelFileError, match=f"input_size must be a multiple of 16 up to 4096, got {size}"):
        scribble_unet.load(replace(card, input_size=size), None, "cpu", random_seed=0)


def test_random_weights_come_only_when_asked_for_and_are_the_same_twice(card: ModelCard) -> None:
    with pytest.raises(ModelFileError, match="neither weights nor a random seed"):
        scribble_unet.load(card, None, "cpu")
    a, b = (scribble_unet.load(card, None, "cpu", random_seed=7).network.bottleneck.conv[0].bias for _ in range(2))
    assert torch.equal(a, b)


# -- prompts as channels -------------------------------------------------------------------------------------------


def test_scribbles_reach_the_network_as_scribbles(
    model: scribble_unet.ScribbleUnetModel, image: SliceImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []
    forward = model.network.forward
    monkeypatch.setattr(model.network, "forward", lambda x: seen.append(x) or forward(x))
    inside, outside = np.array([[3.0, 4.0], [3.0, 35.0]]), np.array([[20.0, 4.0], [20.0, 35.0]])
    (features,) = model.encode_slices([image])
    model.predict(features, SlicePrompts(scribbles=((inside, True), (outside, False))), Recall())
    positive, negative = seen[0][0, 2], seen[0][0, 3]
    # 31 of 40 columns on 32 cells, not a handful of clicks, and each in its own channel and row.
    assert 24 <= positive.sum() <= 26 and positive[4].sum() == positive.sum()
    assert 24 <= negative.sum() <= 26 and negative[27].sum() == negative.sum()
    assert not seen[0][0, 1].any() and not seen[0][0, 4].any()


def test_a_box_fills_the_cells_whose_centre_it_holds() -> None:
    box = prompt_maps(SlicePrompts(box_rc=(4, 8, 11, 23)), SQUARE)[0, 0]
    assert box.sum() == 8 * 16 and box[4:12, 8:24].all()
    halved = prompt_maps(SlicePrompts(box_rc=(4, 8, 11, 23)), Placement((32, 64), 16, 16, 16))[0, 0]
    assert halved.sum() == 4 * 4 and halved[2:6, 2:6].all()


@pytest.mark.parametrize("box", [(31.4, 31.4, 31.5, 31.5), (0, 0, 0, 0), (-5, -5, -3, -3), (40, 40, 50, 50)])
def test_a_tiny_box_or_one_beyond_the_border_still_marks_a_cell(box: tuple[float, ...]) -> None:
    assert prompt_maps(SlicePrompts(box_rc=box), SQUARE)[0, 0].sum() == 1


def test_a_click_marks_the_cell_it_is_in_and_the_later_one_counts() -> None:
    points = np.array([[10.0, 12.0], [3.0, 5.0], [10.0, 12.4]])
    marks = prompt_maps(SlicePrompts(points, np.array([True, True, False])), SQUARE)[0, 1:]
    assert marks[0].nonzero().tolist() == [[3, 5]] and marks[1].nonzero().tolist() == [[10, 12]]


def test_the_network_refines_its_own_logits_as_they_came(
    model: scribble_unet.ScribbleUnetModel, image: SliceImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    (features,) = model.encode_slices([image])
    first = model.predict(features, BOX, Recall())
    seen: list[torch.Tensor] = []
    forward = model.network.forward
    monkeypatch.setattr(model.network, "forward", lambda x: seen.append(x) or forward(x))
    refined = model.predict(features, CLICK, Recall(), previous=first)
    assert torch.equal(seen[0][:, 4:], first.state)
    assert np.abs(refined.logits - model.predict(features, CLICK, Recall()).logits).max() > 1e-2


def test_a_mask_from_elsewhere_is_refined_in_its_place(
    model: scribble_unet.ScribbleUnetModel, image: SliceImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    painted = np.full((1, 24, 40), -10, np.float32)
    painted[0, 6:12, 20:30] = 10
    seen: list[torch.Tensor] = []
    forward = model.network.forward
    monkeypatch.setattr(model.network, "forward", lambda x: seen.append(x) or forward(x))
    (features,) = model.encode_slices([image])
    model.predict(features, CLICK, Recall(), previous=Prediction(painted, np.ones(1)))
    given = seen[0][0, 4]
    assert given[9:15, 17:23].min() > 9 and given[:6].max() < -9 and given[:, 26:].max() < -9


# -- as a slice model ----------------------------------------------------------------------------------------------


def test_it_is_a_slice_model_with_one_answer(model: scribble_unet.ScribbleUnetModel, image: SliceImage) -> None:
    assert isinstance(model, SliceModel)
    (features,) = model.encode_slices([image])
    prediction = model.predict(features, CLICK, Recall(), multimask=True)
    assert prediction.logits.shape == (1, 24, 40) and prediction.logits.dtype == np.float32
    assert 0 <= prediction.quality[0] <= 1 and features.nbytes == 32 * 32 * 4


def test_the_network_sees_a_slice_from_its_darkest_to_its_brightest_pixel(
    model: scribble_unet.ScribbleUnetModel, image: SliceImage
) -> None:
    dim = replace(image, pixels=0.2 + 0.3 * image.pixels)
    (a,), (b,) = model.encode_slices([image]), model.encode_slices([dim])
    assert (a.image.min(), a.image.max()) == (0, 1)
    torch.testing.assert_close(a.image, b.image, atol=1e-5, rtol=0)


def test_a_slice_in_colour_is_seen_in_grey(model: scribble_unet.ScribbleUnetModel, image: SliceImage) -> None:
    colour = replace(image, pixels=np.concatenate([image.pixels * 0, image.pixels, 2 * image.pixels]) / 2)
    (grey,), (mixed,) = model.encode_slices([image]), model.encode_slices([colour])
    torch.testing.assert_close(grey.image, mixed.image, atol=1e-5, rtol=0)


def test_a_mask_that_is_certain_has_more_expected_overlap_than_one_that_is_not() -> None:
    certain = torch.where(torch.eye(8) > 0, 10.0, -10.0)
    quality = expected_iou(torch.stack([certain, certain / 10, -10 * torch.ones(8, 8)]))
    assert quality[0] > 0.99 and quality[1] < 0.6 and quality[2] == 0


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_stays_close(model: scribble_unet.ScribbleUnetModel, image: SliceImage, precision: str) -> None:
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    half = scribble_unet.ScribbleUnetModel(model.card, model.network, dtype)
    exact, rounded = (one.predict(one.encode_slices([image])[0], BOX, Recall()).logits for one in (model, half))
    assert 0 < np.abs(exact - rounded).max() < 0.05 * np.abs(exact).max()


def test_track_step_is_differentiable_for_several_objects_on_one_slice(
    model: scribble_unet.ScribbleUnetModel,
) -> None:
    logits = model.track_step(torch.rand(1, 1, 32, 32), torch.rand(3, 4, 32, 32))
    assert logits.shape == (3, 1, 32, 32)
    logits.sum().backward()
    assert model.network.downs[0].conv[0].weight.grad.abs().sum() > 0
    model.network.zero_grad()


# -- through a volume ----------------------------------------------------------------------------------------------


def test_propagation_follows_a_bright_column_and_stops_where_it_ends(card: ModelCard) -> None:
    voxels = np.full((14, 40, 50), 10, np.uint8)
    truth = np.zeros(voxels.shape, bool)
    for index in range(3, 10):
        truth[index, 10:22, 8 + index : 22 + index] = True
    voxels[truth] = 240
    voxels[:, 34:38, 40:48] = 240  # always there: neither the darkest nor the brightest pixel changes
    session = VolumeSession(Volume.from_array(voxels), thresholding_model(card))
    plane = Plane(2)
    session.segment_slice(1, session.add_prompt(1, BoxPrompt.on_slice((11, 8, 30, 24), 5, plane)))
    results = list(session.propagate(plane=plane))
    found = session.labelmap(1) > 0
    overlap = 2 * np.count_nonzero(found & truth) / (np.count_nonzero(found) + np.count_nonzero(truth))
    assert overlap > 0.95 and not found[:2].any() and not found[11:].any()
    assert {result.key.index for result in results} == set(range(1, 12)) - {5}


def test_a_session_on_the_phantom_takes_a_box_and_then_a_scribble(card: ModelCard) -> None:
    phantom = make_phantom("CT", (48, 40, 12), (6.4, 6.4, 12.0))
    geometry = phantom.volume.geometry
    index, corners = middle_box(phantom.structure("liver").mask(), geometry, 2)
    session = VolumeSession(phantom.volume, scribble_unet.load(replace(card, input_size=32), None, random_seed=3))
    first = session.segment_slice(1, session.add_prompt(1, BoxPrompt(corners)))
    assert first.mask.shape == (40, 48) and first.key.index == index
    (i0, j0, k), (i1, j1, _) = corners
    scribble = ScribblePrompt(((i0 + 2.0, j0 + 2.0, float(k)), (i1 - 2.0, j1 - 2.0, float(k))), positive=False)
    second = session.segment_slice(1, session.add_prompt(1, scribble))
    assert second.quality != first.quality
    results = list(session.propagate(plane=Plane(2), first=index - 3, last=index))
    assert {result.key.index for result in results} == {index - 3, index - 2, index - 1}
