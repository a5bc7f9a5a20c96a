"""TinyViT under SAM's decoder: keys, golden values of the published sources, equality with timm, gradients."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from SegmentAnythingMedLib.models.networks.tinyvit import TinyVit, TinyVitConfig, infer_tinyvit_config  # noqa: E402
from Testing.models.small_tinyvit import SMALL, fill, waves  # noqa: E402

MOBILE_SAM, LITE_MEDSAM = TinyVitConfig(), TinyVitConfig(patch_stride=1, classes=0)
ESP_MEDSAM = TinyVitConfig(medical_branch=True)

# What the published sources build: MobileSAM 34bbbfd (TinySAM 11589bc has the same file), LiteMedSAM b0fab47,
# ESP-MedSAM 9c3ade6. Keys, parameters, and the hash of the sorted lines "name [shape]".
PUBLISHED = {
    "mobile_sam": (MOBILE_SAM, 302, 6_065_532, "004ac00230ae44bb5309b1b607f18bd124d02f0932ef7c085abb90abd27b6652"),
    "lite_medsam": (LITE_MEDSAM, 298, 5_726_740, "1a5275c7690790e5ffab6938a78984aa0f4ec73f77af29df8ee756f856ad6063"),
    "esp_medsam": (ESP_MEDSAM, 382, 9_209_734, "ad4831891b2802660c3f7a1e9d1bc07697c817ec243609d1412a4a090a1e11f8"),
}
# What the published sources compute with the weights of `fill`, from the pixels waves((1, 3, side, side), -1): mean,
# deviation, largest, smallest value, and the values at channel c, row c, column 3 c for c = 0, 37, 101, 255 (modulo
# the map's side). Their fixed side of 64 cells was replaced by that of the input.
GOLDEN = {
    "mobile_sam": (224, (-0.02661, 1.00860, 4.42095, -4.71551), (-0.69901, 0.03507, 0.10317, 0.18518)),
    "lite_medsam": (64, (0.02237, 1.08144, 4.51495, -5.87217), (-1.55091, -0.81567, -1.13032, 0.35447)),
    "esp_medsam": (224, (0.01762, 1.04487, 4.70207, -4.62425), (-0.16439, 0.80226, -0.21965, 0.33569)),
}


@pytest.fixture
def encoder() -> TinyVit:
    return fill(TinyVit(SMALL))


def on_meta(config: TinyVitConfig) -> TinyVit:
    with torch.device("meta"):
        return TinyVit(config)


@pytest.mark.parametrize("name", PUBLISHED)
def test_keys_and_shapes_are_those_of_the_published_encoders(name: str) -> None:
    config, keys, parameters, digest = PUBLISHED[name]
    encoder = on_meta(config)
    state = encoder.state_dict()
    lines = sorted(f"{key} {list(tensor.shape)}" for key, tensor in state.items())
    assert len(state) == keys
    assert sum(parameter.numel() for parameter in encoder.parameters()) == parameters
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == digest


@pytest.mark.parametrize("name", PUBLISHED)
def test_an_encoder_on_the_meta_device_holds_no_memory(name: str) -> None:
    encoder = on_meta(PUBLISHED[name][0])
    assert all(tensor.is_meta for tensor in (*encoder.parameters(), *encoder.buffers()))


@pytest.mark.parametrize(("config", "side"), [(MOBILE_SAM, 1024), (LITE_MEDSAM, 256)])
def test_the_published_sizes_give_the_map_of_64_cells_that_sam_decodes(config: TinyVitConfig, side: int) -> None:
    embedding = on_meta(config).eval()(torch.empty(2, 3, side, side, device="meta"))
    assert embedding.shape == (2, 256, 64, 64) and side // config.stride == 64


@pytest.mark.parametrize("name", GOLDEN)
def test_the_embedding_is_what_the_published_source_computes(name: str) -> None:
    side, statistics, samples = GOLDEN[name]
    with torch.inference_mode():
        embedding = fill(TinyVit(PUBLISHED[name][0]))(waves((1, 3, side, side), -1))
    cells = embedding.shape[2]
    found = [embedding.mean(), embedding.std(), embedding.max(), embedding.min()]
    assert [float(value) for value in found] == pytest.approx(statistics, abs=4e-5)
    found = [embedding[0, c, c % cells, 3 * c % cells] for c in (0, 37, 101, 255)]
    assert [float(value) for value in found] == pytest.approx(samples, abs=4e-5)


def test_the_trunk_equals_timms_with_the_same_weights() -> None:
    """timm's TinyViT halves the map before the last stage, too; with that stride 1 it is MobileSAM's."""
    from Testing.models.oracle_sam2 import declare_torchvision_operators

    declare_torchvision_operators()
    timm = pytest.importorskip("timm")
    reference = timm.create_model("tiny_vit_5m_224").eval()
    reference.stages[3].downsample.conv2.conv.stride = (1, 1)
    ours = fill(TinyVit(MOBILE_SAM))
    ours.neck = torch.nn.Identity()
    renamed = {timm_key(key): tensor for key, tensor in ours.state_dict().items() if "head" not in key}
    heads = {key: tensor for key, tensor in reference.state_dict().items() if key.startswith("head.")}
    reference.load_state_dict(renamed | heads, strict=True)
    pixels = waves((1, 3, 200, 264), 5)  # 25 x 33 cells at stride 8: windows of 7 and 14 reach beyond the map
    with torch.inference_mode():
        expected, found = reference.forward_features(pixels), ours(pixels)
    assert found.shape == expected.shape == (1, 320, 13, 17) and expected.abs().max() > 3
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def timm_key(key: str) -> str:
    """One of our keys as timm calls it: convolutions have other names, steps belong to the stage they lead to."""
    key = key.replace(".c.weight", ".conv.weight").replace("seq.0.", "conv1.").replace("seq.2.", "conv2.")
    if key.startswith("layers.") and ".downsample." in key:
        return key.replace(f"layers.{key[7]}", f"stages.{int(key[7]) + 1}")
    return key.replace("layers.", "stages.")


def test_slices_of_a_batch_do_not_see_each_other(encoder: TinyVit) -> None:
    pixels = waves((2, 3, 64, 64), 1)
    with torch.inference_mode():
        together = encoder(pixels)
        apart = torch.cat([encoder(pixels[:1]), encoder(pixels[1:])])
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=1e-5)


def test_a_bias_belongs_to_a_distance_in_rows_and_columns_whichever_way(encoder: TinyVit) -> None:
    attention = encoder.layers[1].blocks[0].attn
    biases, table = attention._biases(), attention.attention_biases
    first, last = (0, 2), (2, 1)  # two rows and one column apart, in a window of 3 x 3
    i, j = first[0] * 3 + first[1], last[0] * 3 + last[1]
    assert torch.equal(biases[:, i, j], table[:, 2 * 3 + 1]) and torch.equal(biases[:, j, i], table[:, 2 * 3 + 1])
    assert torch.equal(biases.diagonal(dim1=1, dim2=2), table[:, :1].expand(-1, 9))


def test_a_medical_branch_adds_to_every_transformer_block() -> None:
    with_branch = fill(TinyVit(replace(SMALL, medical_branch=True)))
    plain = TinyVit(SMALL).eval()
    plain.load_state_dict({key: with_branch.state_dict()[key] for key in plain.state_dict()})
    pixels = waves((1, 3, 48, 48), 2)
    with torch.inference_mode():
        assert not torch.allclose(with_branch(pixels), plain(pixels), atol=1e-2)
        for name, tensor in with_branch.named_parameters():
            if name.endswith("med_attention_biases"):
                tensor.fill_(-1e4)  # nothing looks at the token
            elif ".med_dah.fc2." in name:
                tensor.zero_()
        torch.testing.assert_close(with_branch(pixels), plain(pixels), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("medical_branch", [True, False])
def test_gradients_reach_every_weight_but_the_classifiers(medical_branch: bool) -> None:
    encoder = fill(TinyVit(replace(SMALL, medical_branch=medical_branch)))
    encoder(waves((1, 3, 64, 64), 3)).square().mean().backward()
    unreached = {name for name, weight in encoder.named_parameters() if weight.grad is None or not weight.grad.any()}
    assert unreached == {"norm_head.weight", "norm_head.bias", "head.weight", "head.bias"}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_configuration_is_read_from_a_checkpoints_shapes(name: str) -> None:
    config = PUBLISHED[name][0]
    prefix = "SemiTViT." if name == "esp_medsam" else "image_encoder."
    shapes = {f"{prefix}{key}": tuple(tensor.shape) for key, tensor in on_meta(config).state_dict().items()}
    assert infer_tinyvit_config(shapes, prefix) == config


def test_shapes_of_another_model_have_no_configuration() -> None:
    assert infer_tinyvit_config({"image_encoder.patch_embed.proj.weight": (768, 3, 16, 16)}) is None


def test_patches_of_two_pixels_are_refused() -> None:
    with pytest.raises(ValueError, match="patch_stride must be 1 or 4, got 2"):
        replace(SMALL, patch_stride=2)
