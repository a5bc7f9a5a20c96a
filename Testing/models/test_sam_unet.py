"""SAM-UNet: the answers of its authors' code, what its branch and skips do, a card of one's own, a session."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from SegmentAnythingMedLib.errors import ModelFileError, PromptError  # noqa: E402
from SegmentAnythingMedLib.geometry import Plane  # noqa: E402
from SegmentAnythingMedLib.models import sam_unet  # noqa: E402
from SegmentAnythingMedLib.models.base import Recall, SliceImage, SliceModel  # noqa: E402
from SegmentAnythingMedLib.models.card import ModelCard  # noqa: E402
from SegmentAnythingMedLib.models.networks.expected_overlap import expected_iou  # noqa: E402
from SegmentAnythingMedLib.models.networks.resnet import RESNETS, ResNet, ResNetConfig  # noqa: E402
from SegmentAnythingMedLib.models.networks.sam_unet_network import SamUnetConfig, SamUnetNetwork  # noqa: E402
from SegmentAnythingMedLib.models.networks.vit import VIT_SIZES, VitConfig  # noqa: E402
from SegmentAnythingMedLib.models.preprocess import IMAGENET_MEAN, IMAGENET_STD  # noqa: E402
from SegmentAnythingMedLib.models.sam import SamModel  # noqa: E402
from SegmentAnythingMedLib.models.weights.recognition import Layout, recognise  # noqa: E402
from SegmentAnythingMedLib.phantom import make_phantom, middle_box  # noqa: E402
from SegmentAnythingMedLib.prompts import BoxPrompt, SlicePrompts  # noqa: E402
from SegmentAnythingMedLib.session import VolumeSession  # noqa: E402

NARROW = VitConfig(dim=32, heads=2, depth=12, global_blocks=(2, 5, 8, 11), window=3, image_size=64)
TINY = SamUnetConfig(
    VitConfig(dim=16, heads=2, depth=5, global_blocks=(1, 2, 3, 4), window=3, image_size=64, channels=32),
    ResNetConfig((1, 1, 1, 1), width=8),
)
PUBLISHED = replace(VIT_SIZES["b"], image_size=256)
CORNERS = torch.tensor([[[10.0, 12], [50, 40]]]), torch.tensor([[2, 3]])
BOX = SlicePrompts(box_rc=(2, 3, 20, 30))


@torch.no_grad()
def scatter(network: torch.nn.Module) -> None:
    """The same numbers on every machine."""
    generator, state = torch.Generator().manual_seed(0), network.state_dict()
    for key in sorted(state):
        if state[key].is_floating_point():
            noise = torch.randn(state[key].shape, generator=generator)
            state[key].copy_(noise * (2 / state[key][0].numel()) ** 0.5 if noise.ndim > 1 else 0.5 + 0.1 * noise)


@pytest.fixture(scope="module")
def card() -> ModelCard:
    """The one in the family's docstring."""
    example = re.search(r"```json\n(.*?)```", sam_unet.__doc__, re.DOTALL)[1]
    return ModelCard.from_fields(json.loads(example), "the docstring")


@pytest.fixture(scope="module")
def network() -> SamUnetNetwork:
    network = SamUnetNetwork(TINY).eval()
    scatter(network)
    return network


@pytest.fixture(scope="module")
def model(card: ModelCard, network: SamUnetNetwork) -> SamModel:
    return SamModel(replace(card, input_size=64), network)


@pytest.fixture
def image() -> SliceImage:
    return SliceImage(np.random.default_rng(0).random((1, 24, 40), dtype=np.float32), (1.0, 1.5))


@pytest.fixture
def small_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The family's sizes, but small."""
    monkeypatch.setattr(sam_unet, "VIT_SIZES", {"b": TINY.vit})


# -- the network of the published code -----------------------------------------------------------------------------


def test_the_answer_is_that_of_the_published_code() -> None:
    """Numbers of its authors' network of the same size, with the same weights, input and box."""
    network = SamUnetNetwork(SamUnetConfig(NARROW, RESNETS[34])).eval()
    scatter(network)
    pixels = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    pixels = (pixels - torch.tensor(IMAGENET_MEAN).view(3, 1, 1)) / torch.tensor(IMAGENET_STD).view(3, 1, 1)
    with torch.no_grad():
        logits = network.decode(network.encode_image(pixels), *CORNERS).mask_logits
    found = [logits.abs().max().item(), logits.mean().item(), logits.std().item()]
    assert found == pytest.approx([73.68192, -13.64917, 28.77338], abs=7e-4)


@pytest.mark.parametrize(("depth", "keys", "parameters"), [(34, 559, 116_019_884), (50, 661, 138_428_204)])
def test_the_networks_have_the_size_of_the_published_code(depth: int, keys: int, parameters: int) -> None:
    with torch.device("meta"):
        network = SamUnetNetwork(SamUnetConfig(PUBLISHED, RESNETS[depth]))
    assert len(network.state_dict()) == keys
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


def test_sams_image_encoder_is_frozen_and_nothing_else() -> None:
    frozen = {name for name, parameter in SamUnetNetwork(TINY).named_parameters() if not parameter.requires_grad}
    everything = {name for name, _ in SamUnetNetwork(TINY).named_parameters()}
    assert frozen == {name for name in everything if name.startswith("image_encoder.sam_img_encoder.")}


def test_a_resnet_halves_the_slice_stage_by_stage() -> None:
    maps = ResNet(ResNetConfig((1, 1, 1, 1), bottleneck=True, width=8)).eval()(torch.rand(1, 3, 64, 64))
    assert [tuple(one.shape[1:]) for one in maps] == [(32, 16, 16), (64, 8, 8), (128, 4, 4), (256, 2, 2)]


@pytest.mark.parametrize("stage", range(4))
def test_each_stage_of_the_branch_reaches_the_tokens(network: SamUnetNetwork, stage: int) -> None:
    pixels = torch.rand(1, 3, 64, 64)
    last = network.adapters_in[stage].reshaper[-1]
    kept = last.weight.detach().clone()
    with torch.no_grad():
        whole = network.encode_image(pixels).embedding
        last.weight.zero_()
        without = network.encode_image(pixels).embedding
        last.weight.copy_(kept)
    assert (whole - without).abs().max() > 1e-3


def test_the_first_three_global_blocks_skip_to_the_decoder(network: SamUnetNetwork) -> None:
    """The last bridge from the first of them, the first from the third."""
    pixels = torch.rand(1, 3, 64, 64)
    encoder = network.image_encoder.sam_img_encoder
    seen: list[torch.Tensor] = []
    hooks = [encoder.blocks[index].register_forward_hook(lambda *all_: seen.append(all_[2])) for index in (1, 2, 3)]
    with torch.no_grad():
        features = network.encode_image(pixels)
        expected = network.embedding_encoder(features.embedding)
        for bridge, out in zip((2, 1, 0), seen, strict=True):
            expected = expected + network.adapters_bridge[bridge](out.permute(0, 3, 1, 2))
    for hook in hooks:
        hook.remove()
    torch.testing.assert_close(features.fine, expected)


def test_gradients_reach_the_branch(network: SamUnetNetwork) -> None:
    network.decode(network.encode_image(torch.rand(1, 3, 64, 64)), *CORNERS).mask_logits.sum().backward()
    assert network.resnet.stage1[0].conv1.weight.grad.abs().sum() > 0
    assert network.image_encoder.sam_img_encoder.pos_embed.grad is None
    network.zero_grad()


# -- loading -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_sizes")
def test_a_checkpoint_of_the_published_layout_loads_strictly(card: ModelCard, tmp_path: Path) -> None:
    state = SamUnetNetwork(SamUnetConfig(TINY.vit, RESNETS[34])).state_dict()
    path = tmp_path / "our-sam-unet.pth"
    torch.save({"model": state, "epoch": 3}, path)
    loaded = sam_unet.load(replace(card, input_size=64), path, "cpu").network.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())
    with pytest.raises(ModelFileError, match="has a ResNet-34 for slices of 64 pixels"):
        sam_unet.load(replace(card, input_size=64), path, "cpu", resnet=50)
    with pytest.raises(ModelFileError, match="has a ResNet-34 for slices of 64 pixels"):
        sam_unet.load(card, path, "cpu")
    del state["resnet.stage3.5.bn2.running_mean"]
    torch.save({"model": state}, path)
    with pytest.raises(ModelFileError, match="1 missing"):
        sam_unet.load(replace(card, input_size=64), path, "cpu")


def test_an_import_recognises_it() -> None:
    with torch.device("meta"):
        state = SamUnetNetwork(SamUnetConfig(PUBLISHED, RESNETS[50])).state_dict()
    shapes = {key: tuple(tensor.shape) for key, tensor in state.items()}
    assert recognise(shapes, "some.pth") == Layout("sam_unet")
    del shapes["adapters_bridge.1.0.weight"]
    with pytest.raises(ModelFileError, match="1 missing"):
        recognise(shapes, "some.pth")


@pytest.mark.parametrize(
    ("change", "options", "sentence"),
    [
        ({"input_size": 240}, {"random_seed": 1}, "input_size must be a multiple of 32"),
        ({}, {"random_seed": 1, "resnet": 18}, "resnet must be 34 or 50"),
        ({}, {"random_seed": 1, "resnet": [34]}, "resnet must be 34 or 50"),
        ({}, {}, "neither weights nor a random seed"),
    ],
)
def test_what_it_cannot_be_is_refused(
    card: ModelCard, change: dict[str, object], options: dict[str, object], sentence: str
) -> None:
    with pytest.raises(ModelFileError, match=sentence):
        sam_unet.load(replace(card, **change), None, "cpu", **options)


# -- as a slice model ----------------------------------------------------------------------------------------------


def test_it_is_a_slice_model_asked_by_a_box(model: SamModel, image: SliceImage) -> None:
    assert isinstance(model, SliceModel)
    (features,) = model.encode_slices([image])
    prediction = model.predict(features, BOX, Recall())
    assert prediction.logits.shape == (1, 24, 40) and prediction.logits.dtype == np.float32
    assert prediction.quality[0] == pytest.approx(float(expected_iou(prediction.state.mask_logits)), abs=1e-6)
    with pytest.raises(PromptError, match="box"):
        model.predict(features, SlicePrompts(np.array([[10.0, 12.0]]), np.array([True])), Recall())


def test_a_batch_gives_what_single_slices_give(model: SamModel, image: SliceImage) -> None:
    other = SliceImage(1 - image.pixels, image.spacing_mm)
    together, (alone,) = model.encode_slices([image, other])[1], model.encode_slices([other])
    torch.testing.assert_close(together.maps.fine, alone.maps.fine, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(together.maps.embedding, alone.maps.embedding, atol=1e-4, rtol=1e-4)


@pytest.mark.usefixtures("small_sizes")
def test_a_session_on_the_phantom_takes_a_box_and_propagates(card: ModelCard) -> None:
    phantom = make_phantom("CT", (48, 40, 12), (6.4, 6.4, 12.0))
    index, corners = middle_box(phantom.structure("liver").mask(), phantom.volume.geometry, 2)
    model = sam_unet.load(replace(card, input_size=64), None, "cpu", random_seed=3)
    session = VolumeSession(phantom.volume, model)
    first = session.segment_slice(1, session.add_prompt(1, BoxPrompt(corners)))
    assert first.mask.shape == (40, 48) and first.key.index == index
    session.confirm_slice(1, first.key, phantom.structure("liver").mask()[index])
    results = list(session.propagate(plane=Plane(2), first=index - 3, last=index))
    assert {result.key.index for result in results} == {index - 3, index - 2, index - 1}
