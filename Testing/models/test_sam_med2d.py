"""SAM-Med2D: what its adapters do, the published layout and answers, prompts as it was trained with."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from SegmentAnythingMedLib.errors import ModelFileError  # noqa: E402
from SegmentAnythingMedLib.geometry import Plane  # noqa: E402
from SegmentAnythingMedLib.models import sam_med2d  # noqa: E402
from SegmentAnythingMedLib.models.base import Recall, SliceImage, SliceModel  # noqa: E402
from SegmentAnythingMedLib.models.card import ModelCard  # noqa: E402
from SegmentAnythingMedLib.models.networks.checkpoint import load_strictly, read_checkpoint  # noqa: E402
from SegmentAnythingMedLib.models.networks.sam_med2d_network import (  # noqa: E402
    Adapter,
    SamMed2dNetwork,
    has_adapters,
    without_adapters,
)
from SegmentAnythingMedLib.models.networks.sam_network import SamNetwork  # noqa: E402
from SegmentAnythingMedLib.models.networks.vit import VIT_SIZES, VitConfig  # noqa: E402
from SegmentAnythingMedLib.models.registry import ModelRegistry  # noqa: E402
from SegmentAnythingMedLib.models.weights.importing import import_weights  # noqa: E402
from SegmentAnythingMedLib.models.weights.recognition import Layout, recognise  # noqa: E402
from SegmentAnythingMedLib.phantom import make_phantom, middle_box  # noqa: E402
from SegmentAnythingMedLib.prompts import BoxPrompt, PointPrompt, SlicePrompts  # noqa: E402
from SegmentAnythingMedLib.session import VolumeSession  # noqa: E402
from Testing.models.weights_files import folder, save_pt  # noqa: E402

__all__ = ["folder"]

SMALL = VitConfig(dim=32, heads=2, depth=3, global_blocks=(1,), window=3, image_size=64, channels=32)
KEYS = ("norm.weight", "norm.bias", "channel.0.weight", "channel.2.weight", "spatial.0.weight", "spatial.2.weight")
PUBLISHED = replace(VIT_SIZES["b"], image_size=256)
BOX = SlicePrompts(box_rc=(2, 3, 20, 30))
CLICK = SlicePrompts(np.array([[10.0, 12.0]]), np.array([True]))


@torch.no_grad()
def scatter(network: torch.nn.Module) -> None:
    """The same numbers on every machine, with logits of 5 and more."""
    generator, state = torch.Generator().manual_seed(0), network.state_dict()
    for key in sorted(state):
        noise = torch.randn(state[key].shape, generator=generator)
        state[key].copy_(noise * (2 / state[key][0].numel()) ** 0.5 if noise.ndim > 1 else 0.3 + 0.2 * noise)
    for mlp in network.mask_decoder.output_hypernetworks_mlps:
        mlp.layers[-1].weight.mul_(8)


@pytest.fixture(scope="module")
def card() -> ModelCard:
    return ModelRegistry().card("sam-med2d")


@pytest.fixture(scope="module")
def network() -> SamMed2dNetwork:
    network = SamMed2dNetwork(SMALL).eval()
    scatter(network)
    return network


@pytest.fixture(scope="module")
def model(card: ModelCard, network: SamMed2dNetwork) -> sam_med2d.SamMed2dModel:
    return sam_med2d.SamMed2dModel(replace(card, input_size=64), network)


@pytest.fixture
def small_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The family's sizes, but small."""
    monkeypatch.setattr(sam_med2d, "VIT_SIZES", {"b": SMALL})


@pytest.fixture
def image() -> SliceImage:
    return SliceImage(np.random.default_rng(0).random((1, 24, 40), dtype=np.float32), (1.0, 1.5))


# -- the published network -----------------------------------------------------------------------------------------


def test_the_network_has_the_published_size() -> None:
    with torch.device("meta"):
        state, plain = SamMed2dNetwork(PUBLISHED).state_dict(), SamNetwork(PUBLISHED).state_dict()
    assert sum(tensor.numel() for tensor in state.values()) == 271_242_032
    assert set(state) - set(plain) == {f"image_encoder.blocks.{n}.Adapter.{key}" for n in range(12) for key in KEYS}
    assert {key: tensor.shape for key, tensor in without_adapters(state).items()} == {
        key: tensor.shape for key, tensor in plain.items()
    }


def test_the_answers_are_those_of_the_published_code(network: SamMed2dNetwork) -> None:
    """Numbers of its authors' network of the same size, with the same weights, input and prompts."""
    pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        features = network.encode_image(pixels)
        first = network.decode(features, torch.tensor([[[10.0, 12], [50, 40]]]), torch.tensor([[2, 3]]), None, True)
        probabilities = first.mask_logits[:, :1].sigmoid()
        second = network.decode(features, torch.tensor([[[20.0, 30]]]), torch.tensor([[1]]), probabilities, True)
    assert statistics(features.embedding) == pytest.approx([1.602754, 0.353388, 0.351251], abs=1e-5)
    assert statistics(first.mask_logits) == pytest.approx([12.640547, 5.801879, 2.822199], abs=5e-5)
    assert first.iou[0].tolist() == pytest.approx([-0.579398, -3.302469, 1.624004], abs=1e-4)
    assert statistics(second.mask_logits) == pytest.approx([13.862301, 6.622887, 3.495767], abs=5e-5)
    assert second.iou[0].tolist() == pytest.approx([-0.518803, -3.061378, 1.186262], abs=1e-4)


def statistics(values: torch.Tensor) -> list[float]:
    return [values.abs().max().item(), values.mean().item(), values.std().item()]


# -- adapters ------------------------------------------------------------------------------------------------------


def test_an_adapter_whose_norm_is_zero_leaves_sam_as_it_is(network: SamMed2dNetwork) -> None:
    silent, plain = SamMed2dNetwork(SMALL).eval(), SamNetwork(SMALL).eval()
    silent.load_state_dict(network.state_dict())
    load_strictly(plain, without_adapters(network.state_dict()), "without")
    pixels = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        for block in silent.image_encoder.blocks:
            block.Adapter.norm.weight.zero_()
            block.Adapter.norm.bias.zero_()
        adapted, quiet, bare = (one.encode_image(pixels).embedding for one in (network, silent, plain))
    assert torch.equal(quiet, bare)
    assert (adapted - bare).abs().max() > 0.1 * bare.abs().max()


def test_an_adapter_without_convolutions_still_adds_its_normalised_input() -> None:
    adapter = Adapter(8)
    x = torch.randn(1, 4, 4, 8)
    with torch.no_grad():
        adapter.spatial[2].weight.zero_()
        torch.testing.assert_close(adapter(x), torch.nn.functional.layer_norm(x, (8,)))


def test_the_gate_of_an_adapter_sees_the_whole_slice_and_its_convolutions_the_surroundings() -> None:
    adapter = Adapter(8)
    x = torch.randn(1, 8, 8, 8)
    far = x.clone()
    far[0, 7, 7] += 5
    with torch.no_grad():
        gates = [adapter.channel(one.mean(dim=(1, 2))) for one in (x, far)]
        changed = (adapter(far) - adapter(x))[0].abs().amax(dim=-1)
        adapter.channel[2].weight.zero_()  # gates of a half, whatever the slice is
        nearby = (adapter(far) - adapter(x))[0].abs().amax(dim=-1)
    assert not torch.equal(*gates) and changed[0, 0] > 0
    assert nearby[0, 0] == 0 and nearby[:4].sum() == 0 and nearby[6, 6] > 0


# -- loading -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_sizes")
@pytest.mark.parametrize("adapter", [True, False, None])
def test_a_checkpoint_loads_strictly_with_its_adapters_or_without(
    card: ModelCard, network: SamMed2dNetwork, tmp_path: Path, adapter: bool | None
) -> None:
    torch.save({"model": network.state_dict()}, tmp_path / "sam-med2d_b.pth")
    asked = {} if adapter is None else {"adapter": adapter}
    small = replace(card, input_size=64, options={"size": "b"})
    loaded = sam_med2d.load(small, tmp_path / "sam-med2d_b.pth", "cpu", **asked).network.state_dict()
    assert has_adapters(loaded) is (adapter is not False)
    assert all(torch.equal(loaded[name], network.state_dict()[name]) for name in loaded)


@pytest.mark.usefixtures("small_sizes")
def test_a_checkpoint_without_adapters_is_refused_where_the_card_promises_them(
    card: ModelCard, network: SamMed2dNetwork, tmp_path: Path
) -> None:
    torch.save({"model": without_adapters(network.state_dict())}, tmp_path / "plain.pth")
    with pytest.raises(ModelFileError, match="plain.pth has no adapters, its card .* correct adapter there"):
        sam_med2d.load(replace(card, input_size=64), tmp_path / "plain.pth", "cpu")
    left_to_the_file = replace(card, input_size=64, options={})
    assert type(sam_med2d.load(left_to_the_file, tmp_path / "plain.pth", "cpu").network) is SamNetwork


@pytest.mark.usefixtures("small_sizes")
def test_a_checkpoint_of_another_input_size_is_refused(
    card: ModelCard, network: SamMed2dNetwork, tmp_path: Path
) -> None:
    torch.save({"model": network.state_dict()}, tmp_path / "small.pth")
    with pytest.raises(ModelFileError, match="for slices of 64 pixels"):
        sam_med2d.load(card, tmp_path / "small.pth", "cpu")


def test_the_optimizer_that_its_trainer_saves_beside_the_weights_is_passed_over(tmp_path: Path) -> None:
    layer = torch.nn.Linear(2, 1)
    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.ones(2)).sum().backward()
    optimizer.step()
    torch.save({"model": layer.state_dict(), "optimizer": optimizer}, tmp_path / "trained.pth")
    read = read_checkpoint(tmp_path / "trained.pth")
    assert list(read) == ["weight", "bias"] and torch.equal(read["weight"], layer.weight)


def test_an_optimizer_in_place_of_weights_is_refused(tmp_path: Path) -> None:
    torch.save({"model": torch.optim.Adam(torch.nn.Linear(2, 1).parameters())}, tmp_path / "odd.pth")
    with pytest.raises(ModelFileError, match="not a checkpoint"):
        read_checkpoint(tmp_path / "odd.pth")


def test_an_import_recognises_it() -> None:
    with torch.device("meta"):
        shapes = {key: tuple(tensor.shape) for key, tensor in SamMed2dNetwork(PUBLISHED).state_dict().items()}
    assert recognise(shapes, "some.pth") == Layout("sam_med2d", adapter=True)
    del shapes["image_encoder.blocks.7.Adapter.channel.2.weight"]
    with pytest.raises(ModelFileError, match="1 missing"):
        recognise(shapes, "some.pth")


def test_without_adapters_an_import_takes_it_for_sam_med2d_by_its_size(folder: Path, tmp_path: Path) -> None:
    with torch.device("meta"):
        shapes = {key: tuple(tensor.shape) for key, tensor in SamNetwork(PUBLISHED).state_dict().items()}
    done = import_weights(save_pt(tmp_path / "sam-med2d_b.pth", shapes), ModelRegistry())
    assert done.assumed and str(done.layout).startswith("SAM-Med2D without adapters (or SAM ViT-B")
    assert (done.card.family, done.card.input_size, done.card.options["adapter"]) == ("sam_med2d", 256, False)
    assert done.card.preprocessing == "imagenet-stretch-nearest"
    assert type(ModelRegistry().load(done.card.name, "cpu").network) is SamNetwork
    with pytest.raises(ModelFileError, match="not the model 'sam-med2d'"):
        import_weights(tmp_path / "sam-med2d_b.pth", ModelRegistry(), "sam-med2d")
    own = {"name": "mine", "title": "SAM fine-tuned at 256", "family": "sam", "licence": "ours", "file": "mine.pt"}
    (folder / "mine.json").write_text(json.dumps(own | {"input_size": 256, "preprocessing": "imagenet"}))
    mine = import_weights(save_pt(tmp_path / "x.pt", shapes, 1.0), ModelRegistry(), "mine")
    assert mine.card.family == "sam" and not mine.assumed


@pytest.mark.parametrize(
    ("change", "options", "sentence"),
    [
        ({"input_size": 240}, {"random_seed": 1}, "input_size must be a multiple of 32"),
        ({}, {"random_seed": 1, "adapter": "yes"}, "adapter must be true or false"),
        ({}, {"random_seed": 1, "size": "x"}, "size must be b, l or h"),
        ({}, {"random_seed": 1, "size": ["b"]}, "size must be b, l or h, got"),
        ({}, {}, "neither weights nor a random seed"),
    ],
)
def test_what_it_cannot_be_is_refused(
    card: ModelCard, change: dict[str, object], options: dict[str, object], sentence: str
) -> None:
    with pytest.raises(ModelFileError, match=sentence):
        sam_med2d.load(replace(card, **change), None, "cpu", **options)


# -- as a slice model ----------------------------------------------------------------------------------------------


def test_the_best_of_three_answers_any_prompt(model: sam_med2d.SamMed2dModel, image: SliceImage) -> None:
    assert isinstance(model, SliceModel)
    (features,) = model.encode_slices([image])
    for prompts in (BOX, CLICK):
        one = model.predict(features, prompts, Recall())
        three = model.predict(features, prompts, Recall(), multimask=True)
        assert one.logits.shape == (1, 24, 40) and three.logits.shape == (3, 24, 40)
        assert list(three.quality) == sorted(three.quality, reverse=True)
        np.testing.assert_array_equal(one.logits[0], three.logits[0])


def test_what_is_refined_enters_as_probabilities(model: sam_med2d.SamMed2dModel, image: SliceImage) -> None:
    (features,) = model.encode_slices([image])
    first = model.predict(features, BOX, Recall())
    given = model.tensors(CLICK, features.placement, first).previous
    torch.testing.assert_close(given, first.state.mask_logits[:, :1].sigmoid())
    assert model.tensors(CLICK, features.placement, None).previous is None


def test_slices_are_made_smaller_by_leaving_pixels_out(model: sam_med2d.SamMed2dModel) -> None:
    """As its authors do: nothing is smoothed, so every grey value of the input is one of the slice."""
    checkers = (np.indices((160, 200)).sum(axis=0) % 3 == 0).astype(np.float32)[None]
    seen: list[torch.Tensor] = []
    encode = model.network.encode_image
    model.network.encode_image = lambda pixels: seen.append(pixels) or encode(pixels)
    try:
        model.encode_slices([SliceImage(checkers)])
    finally:
        del model.network.encode_image
    assert seen[0].shape == (1, 3, 64, 64) and len(seen[0][0, 0].unique()) == 2


@pytest.mark.usefixtures("small_sizes")
def test_a_session_on_the_phantom_takes_a_box_and_a_click_and_propagates(card: ModelCard) -> None:
    phantom = make_phantom("CT", (48, 40, 12), (6.4, 6.4, 12.0))
    index, corners = middle_box(phantom.structure("liver").mask(), phantom.volume.geometry, 2)
    model = sam_med2d.load(replace(card, input_size=64), None, "cpu", random_seed=3)
    session = VolumeSession(phantom.volume, model)
    first = session.segment_slice(1, session.add_prompt(1, BoxPrompt(corners)))
    assert first.mask.shape == (40, 48) and first.key.index == index
    second = session.segment_slice(1, session.add_prompt(1, PointPrompt((*corners[0][:2], index), positive=False)))
    assert second.quality != first.quality
    session.confirm_slice(1, second.key, phantom.structure("liver").mask()[index])
    results = list(session.propagate(plane=Plane(2), first=index - 3, last=index))
    assert {result.key.index for result in results} == {index - 3, index - 2, index - 1}
