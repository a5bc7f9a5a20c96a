"""SAM and SAM-HQ as one module whose keys are those of the original checkpoints (Kirillov et al. 2023,
arXiv:2304.02643; Ke et al. 2023, arXiv:2306.01567)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from SegmentAnythingMedLib.errors import ModelFileError

from .prompt_encoder import PromptEmbedding, PromptEncoder
from .sam_mask_decoder import HqMaskDecoder, SamMaskDecoder, SamMasks
from .vit import ImageEncoder, VitConfig

NOT_WEIGHTS = ("pixel_mean", "pixel_std")
"""What some checkpoints hold beside weights: the preprocessing, which here belongs to the card."""
_BLOCK = re.compile(r"image_encoder\.blocks\.(\d+)\.attn\.rel_pos_h")
_HQ = "mask_decoder.hf_token.weight"


@dataclass(frozen=True)
class SamFeatures:
    """Image features of B slices.

    Attributes
    ----------
    embedding : (B, C, S/16, S/16)
    fine : (B, C/8, S/4, S/4) for SAM-HQ, else None
    """

    embedding: Tensor
    fine: Tensor | None = None

    @property
    def nbytes(self) -> int:
        return self.embedding.nbytes + (0 if self.fine is None else self.fine.nbytes)

    def row(self, index: int) -> SamFeatures:
        """One slice of the batch."""
        part = slice(index, index + 1)
        return SamFeatures(self.embedding[part], None if self.fine is None else self.fine[part])


class SamPromptEncoder(PromptEncoder):
    """SAM's: the padding token is there only where there are points and no box, and a box comes after the points."""

    def forward(self, points: Tensor | None, labels: Tensor | None, mask_logits: Tensor | None) -> PromptEmbedding:
        """Embed prompts; see `PromptEncoder`.

        Parameters
        ----------
        points, labels : points first, then the two corners of the box; None for no point and no box
        mask_logits : (B, 1, S/4, S/4) float, or None
        """
        if points is None or not (labels == 2).any():
            return super().forward(points, labels, mask_logits)
        dense = super().forward(None, None, mask_logits).dense
        return PromptEmbedding(self.embed_points(points, labels), dense.expand(len(points), -1, -1, -1))


class SamNetwork(nn.Module):
    """SAM's three parts. Everything is pure and differentiable.

    Parameters
    ----------
    config : of the image encoder
    hq : whether the decoder is SAM-HQ's
    """

    def __init__(self, config: VitConfig, hq: bool = False) -> None:
        super().__init__()
        self.config = config
        self.image_encoder = ImageEncoder(config)
        self.prompt_encoder = SamPromptEncoder(config.channels, config.image_size)
        self.mask_decoder = HqMaskDecoder(config.channels, config.dim) if hq else SamMaskDecoder(config.channels)

    @property
    def image_size(self) -> int:
        """Pixels along the side of the input."""
        return self.config.image_size

    @property
    def mask_size(self) -> int:
        """Cells along the side of mask logits, given and received."""
        return self.image_size // 4

    @property
    def device(self) -> torch.device:
        return self.prompt_encoder.no_mask_embed.weight.device

    def encode_image(self, pixels: Tensor) -> SamFeatures:
        """Features of (B, 3, S, S) normalised pixels."""
        embedding, early = self.image_encoder(pixels)
        return SamFeatures(embedding, self.mask_decoder.fine_features(embedding, early))

    def decode(
        self,
        features: SamFeatures,
        points: Tensor | None,
        labels: Tensor | None,
        mask_logits: Tensor | None = None,
        multimask: bool = False,
    ) -> SamMasks:
        """Masks of B prompts on one slice, or on B slices.

        Parameters
        ----------
        features : of batch 1 or B
        points, labels, mask_logits : see `SamPromptEncoder`
        multimask : three candidates, or one; for SAM-HQ the best of three, or the single one
        """
        prompts = self.prompt_encoder(points, labels, mask_logits)
        position = self.prompt_encoder.grid_encoding(*features.embedding.shape[2:])
        return self.mask_decoder(features.embedding, features.fine, position, prompts, multimask)


def is_hq(state: Mapping[str, Tensor]) -> bool:
    """Whether a checkpoint is of SAM-HQ."""
    return _HQ in state


def infer_sam_config(state: Mapping[str, Tensor]) -> VitConfig:
    """Shape of the image encoder of a checkpoint of SAM, MedSAM, SAM-HQ or a model fine-tuned from them.

    Raises
    ------
    ModelFileError
        The keys are not SAM's.
    """
    sides = {
        int(found[1]): (len(table) + 1) // 2
        for key, table in state.items()
        if (found := _BLOCK.fullmatch(key)) and table.ndim == 2 and table.shape[1]
    }
    needed = [
        state.get(f"image_encoder.{key}")
        for key in (
            "patch_embed.proj.weight",
            "pos_embed",
            "neck.0.weight",
            "blocks.0.mlp.lin1.weight",
            "blocks.0.attn.rel_pos_h",
        )
    ]
    if not sides or any(one is None or one.ndim < 2 or 0 in one.shape for one in needed) or needed[1].ndim != 4:
        raise ModelFileError(
            "The file is not a SAM checkpoint: the parts of its image encoder are not there. 'models import' tells "
            "what a file is."
        )
    patches, places, neck, mlp, heights = needed
    grid, dim = places.shape[1], patches.shape[0]
    whole = tuple(index for index, side in sorted(sides.items()) if side == grid)
    return VitConfig(
        dim,
        max(1, dim // heights.shape[1]),
        len(sides),
        whole,
        min(sides.values()),
        grid * patches.shape[-1],
        patches.shape[-1],
        neck.shape[0],
        mlp.shape[0],
    )
