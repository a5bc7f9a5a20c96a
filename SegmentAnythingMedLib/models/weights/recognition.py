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
_ONLY_IN_21 = ("obj_ptr_tpos_proj.weight", "no_obj_embed_spatial")
_EDGETAM = ("image_encoder.trunk.body.stem.conv1.c.weight", "spatial_perceiver.latents")
_DAMAGE = (TypeError, AttributeError, IndexError, OverflowError, MemoryError, AssertionError, struct.error)


@dataclass(frozen=True)
class Layout:
    """What a checkpoint is.

    Parameters
    ----------
    family
        ``sam2`` or ``edgetam``.
    size, version
        For sam2: tiny, small, base_plus or large; "2.0" or "2.1". MedSAM2 has the layout of SAM 2.1 tiny.
    """

    family: str
    size: str = ""
    version: str = ""

    def __str__(self) -> str:
        return f"SAM {self.version} {self.size.replace('_', ' ')}" if self.family == "sam2" else "EdgeTAM"


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
            f"{name} holds tensors ({example}, ...) of no model known here: SAM 2, SAM 2.1, MedSAM2 and EdgeTAM are, "
            "in their original layout."
        )
    try:
        import torch  # noqa: F401
    except ModuleNotFoundError:
        return layout  # checked when it is loaded
    _compare(shapes, layout, name)
    return layout


def _layout(shapes: Shapes) -> Layout | None:
    if all(key in shapes for key in _EDGETAM):
        return Layout("edgetam")
    if not shapes.get(_PATCHES):
        return None
    blocks = {found[1] for key in shapes if (found := re.match(_BLOCKS, key))}
    size = HIERA_LAYOUTS.get((shapes[_PATCHES][0], len(blocks)))
    if size is None or not any(key.startswith("memory_attention.") for key in shapes):
        return None
    return Layout("sam2", size, "2.1" if any(key in shapes for key in _ONLY_IN_21) else "2.0")


def _compare(shapes: Shapes, layout: Layout, name: str) -> None:
    """Load tensors without content into a network without content: the strict check, at no cost."""
    import torch

    from SegmentAnythingMedLib.models.networks.checkpoint import infer_sam2_config, load_strictly
    from SegmentAnythingMedLib.models.networks.edgetam_network import EdgeTamConfig, EdgeTamNetwork
    from SegmentAnythingMedLib.models.networks.sam2_network import Sam2Network
    from SegmentAnythingMedLib.models.networks.short_long_network import ShortLongNetwork, is_short_long

    with torch.device("meta"):
        state = {key: torch.empty(shape) for key, shape in shapes.items()}
        if layout.family == "edgetam":
            network = EdgeTamNetwork(EdgeTamConfig())
        else:
            config = infer_sam2_config(state, 1024)
            network = ShortLongNetwork(config) if is_short_long(state) else Sam2Network(config)
    load_strictly(network, state, name)
