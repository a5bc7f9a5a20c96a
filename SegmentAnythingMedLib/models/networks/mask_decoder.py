"""Mask decoder of SAM 2 (Ravi et al. 2024, arXiv:2408.00714), grown from SAM's (Kirillov et al. 2023)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .layers import MLP, LayerNorm2d
from .prompt_encoder import PromptEmbedding
from .two_way import TwoWayTransformer

MASK_TOKENS = 4  # one for an unambiguous prompt, three for an ambiguous one
STABILITY_OFFSET, STABILITY_THRESHOLD = 0.05, 0.98  # SAM 2's values


@dataclass(frozen=True)
class DecoderOutput:
    """What the decoder predicts for M candidate masks.

    Attributes
    ----------
    mask_logits : (B, M, 4H, 4W), at four times the resolution of the image embedding
    iou : (B, M), predicted quality in 0..1
    object_logits : (B, 1), above 0 where the object is in the slice
    tokens : (B, M, C), the tokens that object pointers are made of
    """

    mask_logits: Tensor
    iou: Tensor
    object_logits: Tensor
    tokens: Tensor


class MaskDecoder(nn.Module):
    """Image embedding and prompt tokens to masks, their quality and the object's presence."""

    def __init__(
        self,
        dim: int,
        heads: int = 8,
        mlp_dim: int = 2048,
        dynamic_multimask: bool = True,
        high_resolution: bool = True,
    ) -> None:
        super().__init__()
        self.dynamic_multimask = dynamic_multimask
        self.transformer = TwoWayTransformer(dim, heads, lambda: MLP(dim, mlp_dim, dim))
        self.iou_token = nn.Embedding(1, dim)
        self.mask_tokens = nn.Embedding(MASK_TOKENS, dim)
        self.obj_score_token = nn.Embedding(1, dim)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(dim, dim // 4, kernel_size=2, stride=2),
            LayerNorm2d(dim // 4),
            nn.GELU(),
            nn.ConvTranspose2d(dim // 4, dim // 8, kernel_size=2, stride=2),
            nn.GELU(),
        )
        if high_resolution:
            self.conv_s0 = nn.Conv2d(dim, dim // 8, kernel_size=1)
            self.conv_s1 = nn.Conv2d(dim, dim // 4, kernel_size=1)
        self.output_hypernetworks_mlps = nn.ModuleList(MLP(dim, dim, dim, dim // 8) for _ in range(MASK_TOKENS))
        self.iou_prediction_head = MLP(dim, dim, dim, MASK_TOKENS)
        self.pred_obj_score_head = MLP(dim, dim, dim, 1)

    def forward(
        self,
        embedding: Tensor,
        position: Tensor,
        high_resolution: tuple[Tensor, Tensor] | None,
        prompts: PromptEmbedding,
        multimask: bool,
    ) -> DecoderOutput:
        """Decode masks; image maps of batch 1 serve every prompt of the batch.

        Parameters
        ----------
        embedding : (B or 1, C, H, W)
        position : (1, C, H, W), encoding of the grid
        high_resolution : (B or 1, C/8, 4H, 4W) and (B or 1, C/4, 2H, 2W), through `conv_s0` and `conv_s1`;
            None in a network without such maps
        prompts : embedding of B prompts
        multimask : three candidates, or one. In evaluation the one gives way to the best of the three where it is
            unstable, if the decoder is `dynamic_multimask`; the token stays that of the one.
        """
        image = embedding + prompts.dense
        batch, _, height, width = image.shape
        own = torch.cat([self.obj_score_token.weight, self.iou_token.weight, self.mask_tokens.weight])
        tokens, image = self.transformer(
            torch.cat([own.expand(batch, -1, -1), prompts.sparse.expand(batch, -1, -1)], dim=1),
            image.flatten(2).transpose(1, 2),
            position.flatten(2).transpose(1, 2),
        )
        image = self._upscale(image.transpose(1, 2).unflatten(2, (height, width)), high_resolution)
        mask_tokens = tokens[:, 2 : 2 + MASK_TOKENS]
        kernels = torch.stack([mlp(mask_tokens[:, i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)], dim=1)
        masks = (kernels @ image.flatten(2)).unflatten(2, image.shape[2:])
        iou = self.iou_prediction_head(tokens[:, 1]).sigmoid()
        object_logits = self.pred_obj_score_head(tokens[:, 0])
        if multimask:
            return DecoderOutput(masks[:, 1:], iou[:, 1:], object_logits, mask_tokens[:, 1:])
        if self.dynamic_multimask and not self.training:
            masks, iou = _stable_or_best(masks, iou)
        return DecoderOutput(masks[:, :1], iou[:, :1], object_logits, mask_tokens[:, :1])

    def _upscale(self, image: Tensor, high_resolution: tuple[Tensor, Tensor] | None) -> Tensor:
        if high_resolution is None:
            return self.output_upscaling(image)
        up2, norm, activation, up4, _ = self.output_upscaling
        stride4, stride8 = high_resolution
        return activation(up4(activation(norm(up2(image) + stride8))) + stride4)


def _stable_or_best(masks: Tensor, iou: Tensor) -> tuple[Tensor, Tensor]:
    """The single mask where small changes of the threshold keep its area, else the best of the three."""
    single = masks[:, 0].flatten(1)
    inner = (single > STABILITY_OFFSET).sum(1)
    outer = (single > -STABILITY_OFFSET).sum(1)
    stable = (outer == 0) | (inner.float() / outer >= STABILITY_THRESHOLD)
    chosen = torch.where(stable, 0, 1 + iou[:, 1:].argmax(1))
    return pick(masks, chosen), pick(iou, chosen)


def pick(candidates: Tensor, index: Tensor) -> Tensor:
    """Candidate `index` (B,) of each row of (B, M, ...), as (B, 1, ...)."""
    return candidates[torch.arange(len(index), device=index.device), index][:, None]
