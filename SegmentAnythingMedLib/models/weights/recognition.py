"""Which family and size a checkpoint is of, from the names and shapes of its tensors."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from SegmentAnythingMedLib.errors import ModelFileError, ModelUnavailableError
from SegmentAnythingMedLib.models.weights.structure import SAFETENSORS, check_structure, tensor_shapes

Shapes = Mapping[str, tuple[int, ...]]

HIERA_LAYOUTS = {(96, 12): "tiny", (96, 16): "small", (112, 24): "base_plus", (144, 48): "large"}
_PATCHES, _BLOCKS = "image_encoder.trunk.patch_embed.proj.weight", r"image_encoder\.trunk\.blocks\.(\d+)\."
PLAIN_LAYOUTS = {192: "ti", 384: "s"}
_PLAIN_NECK = "image_encoder.neck.convs.0.conv_1x1.weight"
VIT_LAYOUTS = {(768, 12): "b", (1024, 24): "l", (1280, 32): "h"}
_VIT_PLACES, _VIT_BLOCKS = "image_encoder.pos_embed", r"image_encoder\.blocks\.(\d+)\.attn\.rel_pos_h"
_MED2D_GRID = 16
"""Patches along the side of SAM-Med2D's input, 256 pixels; SAM has 64."""
_SAM_DECODER, _HQ_DECODER = "mask_decoder.iou_token.weight", "mask_decoder.hf_token.weight"
_TINYVIT_PATCHES = "image_encoder.patch_embed.seq.0.c.weight"
_SAM3 = (
    ("memory_encoder.projection.weight", "vision_encoder.neck.fpn_layers.0.proj1.weight"),
    ("tracker_model.memory_encoder.projection.weight",),
    ("tracker.maskmem_backbone.out_proj.weight",),
    ("sam2_predictor.model.maskmem_backbone.out_proj.weight",),
)
"""Of transformers' tracker, transformers' whole SAM 3, and the published checkpoint with two sets of names."""
_ONLY_IN_21 = ("obj_ptr_tpos_proj.weight", "no_obj_embed_spatial")
_TELLING = {
    "edgetam": ("image_encoder.trunk.body.stem.conv1.c.weight", "spatial_perceiver.latents"),
    "scribble_unet": ("final_conv.conv.0.weight", "ups.7.conv.0.weight", "bottleneck.conv.1.weight"),
    "sam_med2d": ("image_encoder.pos_embed", "image_encoder.blocks.0.Adapter.norm.weight"),
    "sam_unet": ("image_encoder.sam_img_encoder.pos_embed", "mask_decoder.med_token.weight"),
}
"""Keys that tell families of one layout; of two that fit the first is taken."""
_TITLES = {
    "edgetam": "EdgeTAM",
    "efficient_tam": "EfficientTAM",
    "sam": "SAM (MedSAM, SAM-HQ)",
    "sam_med2d": "SAM-Med2D",
    "sam_unet": "SAM-UNet",
    "sam3_tracker": "SAM 3",
    "scribble_unet": "ScribblePrompt-UNet",
    "tinyvit_sam": "MobileSAM (TinySAM, LiteMedSAM)",
}
_DAMAGE = (TypeError, AttributeError, IndexError, OverflowError, MemoryError, AssertionError, struct.error)


@dataclass(frozen=True)
class Layout:
    """What a checkpoint is.

    Parameters
    ----------
    family
        Name of a module in ``models``.
    size, version
        For sam2: tiny, small, base_plus or large; "2.0" or "2.1". MedSAM2 has the layout of SAM 2.1 tiny.
        For efficient_tam: ti or s; Efficient MedSAM2 has the same layouts.
        For tinyvit_sam: mobile_sam, which is TinySAM's as well, or lite_medsam.
        For sam: b, l or h, for SAM-HQ hq_b, hq_l or hq_h; MedSAM has the layout of SAM b.
    input_size
        Pixels along the side of the input, where the tensors say so, else 0.
    adapter
        For sam_med2d: whether its adapters are there. Without them its tensors are those of SAM b at 256 pixels, which
        is told from a SAM fine-tuned at that size by nothing in the file: that is taken for SAM-Med2D.
    """

    family: str
    size: str = ""
    version: str = ""
    input_size: int = 0
    adapter: bool | None = None

    def __str__(self) -> str:
        if self.adapter is False:
            return "SAM-Med2D without adapters (or SAM ViT-B, fine-tuned at 256 pixels)"
        if self.family == "sam":
            return f"SAM{'-HQ' if self.size.startswith('hq_') else ''} ViT-{self.size[-1].upper()}"
        return _TITLES.get(self.family) or f"SAM {self.version} {self.size.replace('_', ' ')}"


def read_shapes(path: Path) -> tuple[str, Shapes]:
    """Format of a file (see `check_structure`) and shapes of its tensors.

    Of a safetensors file only the header is read. A .pt file is read by torch onto the CPU, tensors only.

    Raises
    ------
    ModelFileError
        If the file is damaged, hostile or no weights file.
    ModelUnavailableError
        If torch is needed and not installed.
    """
    form = check_structure(path)
    if form == SAFETENSORS:
        return form, tensor_shapes(path)
    try:
        from SegmentAnythingMedLib.models.networks.checkpoint import read_checkpoint
    except ModuleNotFoundError as error:
        raise ModelUnavailableError(
            f"To look into {path.name} the package {error.name!r} is needed: install segment-anything-med[torch], or "
            "bring the weights as .safetensors."
        ) from error
    try:
        state = read_checkpoint(path)
    except _DAMAGE as error:
        raise ModelFileError(
            f"{path.name} is damaged or made to harm: it was refused, nothing in it was run."
        ) from error
    return form, {key: tuple(tensor.shape) for key, tensor in state.items()}


def recognise(shapes: Shapes, name: str) -> Layout:
    """Family and size; with torch at hand every key and shape is compared with the network's.

    Raises
    ------
    ModelFileError
        If it is of no family this program knows, or tensors are missing, extra or of another shape.
    """
    layout = _layout(shapes)
    if layout is None:
        example = ", ".join(sorted(shapes)[:2])[:120]
        raise ModelFileError(
            f"{name} holds tensors ({example}, ...) of no model known here: SAM 2, SAM 2.1, MedSAM2, "
            f"{', '.join(_TITLES.values())} are, in their original layout."
        )
    try:
        import torch  # noqa: F401
    except ModuleNotFoundError:
        return layout  # checked when it is loaded
    _compare(shapes, layout, name)
    return layout


def _layout(shapes: Shapes) -> Layout | None:
    for family, keys in _TELLING.items():
        if all(key in shapes for key in keys):
            adapted = True if family == "sam_med2d" else None
            return Layout(family, adapter=adapted)
    if any(all(key in shapes for key in keys) for keys in _SAM3):
        return Layout("sam3_tracker")
    if len(shapes.get(_TINYVIT_PATCHES, ())) == 4:
        return Layout("tinyvit_sam", "lite_medsam" if shapes[_TINYVIT_PATCHES][2:] == (1, 1) else "mobile_sam")
    if len(shapes.get(_VIT_PLACES, ())) == 4 and _SAM_DECODER in shapes:
        return _sam_layout(shapes)
    if not shapes.get(_PATCHES):
        return None
    if _PLAIN_NECK in shapes:
        size = PLAIN_LAYOUTS.get(shapes[_PATCHES][0])
        return None if size is None else Layout("efficient_tam", size)
    blocks = {found[1] for key in shapes if (found := re.match(_BLOCKS, key))}
    size = HIERA_LAYOUTS.get((shapes[_PATCHES][0], len(blocks)))
    if size is None or not any(key.startswith("memory_attention.") for key in shapes):
        return None
    return Layout("sam2", size, "2.1" if any(key in shapes for key in _ONLY_IN_21) else "2.0")


def _sam_layout(shapes: Shapes) -> Layout | None:
    _, grid, _, dim = shapes[_VIT_PLACES]
    size = VIT_LAYOUTS.get((dim, sum(re.fullmatch(_VIT_BLOCKS, key) is not None for key in shapes)))
    if size is None:
        return None
    size = f"hq_{size}" if _HQ_DECODER in shapes else size
    if (size, grid) == ("b", _MED2D_GRID):
        return Layout("sam_med2d", size, input_size=16 * grid, adapter=False)
    return Layout("sam", size, input_size=16 * grid)


def _compare(shapes: Shapes, layout: Layout, name: str) -> None:
    """Load tensors without content into a network without content: the strict check, at no cost."""
    import torch

    from SegmentAnythingMedLib.models.networks.checkpoint import infer_sam2_config, load_strictly, without_weights
    from SegmentAnythingMedLib.models.networks.early_fusion_unet import EarlyFusionUnet
    from SegmentAnythingMedLib.models.networks.edgetam_network import EdgeTamConfig, EdgeTamNetwork
    from SegmentAnythingMedLib.models.networks.efficient_tam_network import EfficientTamConfig, EfficientTamNetwork
    from SegmentAnythingMedLib.models.networks.sam2_network import Sam2Network
    from SegmentAnythingMedLib.models.networks.sam_med2d_network import SamMed2dNetwork
    from SegmentAnythingMedLib.models.networks.sam_network import NOT_WEIGHTS, SamNetwork, infer_sam_config, is_hq
    from SegmentAnythingMedLib.models.networks.sam_unet_network import SamUnetNetwork, infer_sam_unet_config
    from SegmentAnythingMedLib.models.networks.short_long_network import ShortLongNetwork, is_short_long
    from SegmentAnythingMedLib.models.networks.tinyvit_sam_network import TinyVitSamNetwork, infer_tinyvit_sam_config

    if layout.family == "sam3_tracker":
        _compare_sam3(shapes, name)
        return
    with without_weights():
        state = {key: torch.empty(shape) for key, shape in shapes.items()}
        if layout.family == "edgetam":
            network = EdgeTamNetwork(EdgeTamConfig())
        elif layout.family == "efficient_tam":
            network = EfficientTamNetwork(EfficientTamConfig.published(layout.size))
        elif layout.family == "scribble_unet":
            network = EarlyFusionUnet()
        elif layout.family == "sam":
            state = {key: tensor for key, tensor in state.items() if key not in NOT_WEIGHTS}
            network = SamNetwork(infer_sam_config(state), is_hq(state))
        elif layout.family == "sam_med2d":
            state = {key: tensor for key, tensor in state.items() if key not in NOT_WEIGHTS}
            config = infer_sam_config(state)
            network = SamNetwork(config) if layout.adapter is False else SamMed2dNetwork(config)
        elif layout.family == "sam_unet":
            network = SamUnetNetwork(infer_sam_unet_config(state))
        elif layout.family == "tinyvit_sam":
            network = TinyVitSamNetwork(infer_tinyvit_sam_config(state))
        else:
            config = infer_sam2_config(state, 1024)
            network = ShortLongNetwork(config) if is_short_long(state) else Sam2Network(config)
    load_strictly(network, state, name)


def _compare_sam3(shapes: Shapes, name: str) -> None:
    """As `_compare`, where the package that builds the network can be imported; else it is checked when loaded."""
    import torch

    try:
        from SegmentAnythingMedLib.models.networks.sam3_network import Sam3Network, published_config
    except (ModuleNotFoundError, RuntimeError):
        return
    from SegmentAnythingMedLib.models.networks.checkpoint import load_strictly, without_weights
    from SegmentAnythingMedLib.models.networks.sam3_keys import tracker_state

    with without_weights():
        state = tracker_state({key: torch.empty(shape) for key, shape in shapes.items()})
        network = Sam3Network(published_config())
    load_strictly(network.model, state, name)
