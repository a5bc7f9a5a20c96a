"""Mask decoders of SAM (Kirillov et al. 2023, arXiv:2304.02643) and SAM-HQ (Ke et al. 2023, arXiv:2306.01567)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .layers import MLP, LayerNorm2d, TwoLayerMLP
from .mask_decoder import MASK_TOKENS, pick
from .prompt_encoder import PromptEmbedding
from .two_way import TwoWayTransformer


@dataclass(frozen=True)
class SamMasks:
    """M candidates for each of B prompts.

    Attributes
    ----------
    mask_logits : (B, M, S/4, S/4)
    iou : (B, M), predicted quality, about 0..1
    """

    mask_logits: Tensor
    iou: Tensor

    def sorted(self) -> SamMasks:
        """The same candidates, best predicted quality first."""
        order = self.iou.argsort(dim=1, descending=True, stable=True)
        rows = torch.arange(len(order), device=order.device)[:, None]
        return SamMasks(self.mask_logits[rows, order], self.iou[rows, order])


class SamMaskDecoder(nn.Module):
    """Image embedding and prompt tokens to masks and their quality."""

    def __init__(self, dim: int, heads: int = 8, mlp_dim: int = 2048) -> None:
        super().__init__()
        self.transformer = TwoWayTransformer(dim, heads, lambda: TwoLayerMLP(dim, mlp_dim))
        self.iou_token = nn.Embedding(1, dim)
        self.mask_tokens = nn.Embedding(MASK_TOKENS, dim)
        self.output_upscaling = nn.Sequential(*_upscaling(dim, dim // 4, dim // 8), nn.GELU())
        self.output_hypernetworks_mlps = nn.ModuleList(MLP(dim, dim, dim, dim // 8) for _ in range(MASK_TOKENS))
        self.iou_prediction_head = MLP(dim, dim, dim, MASK_TOKENS)

    def fine_features(self, embedding: Tensor, early: Tensor) -> Tensor | None:
        """What the decoder wants of a slice beside its embedding and no prompt changes; nothing."""
        return None

    def forward(
        self, embedding: Tensor, fine: Tensor | None, position: Tensor, prompts: PromptEmbedding, multimask: bool
    ) -> SamMasks:
        """Decode masks; image maps of batch 1 serve every prompt of the batch.

        Parameters
        ----------
        embedding : (B or 1, C, H, W)
        fine : from `fine_features`
        position : (1, C, H, W), encoding of the grid
        prompts : embedding of B prompts
        multimask : three candidates, or one
        """
        tokens, image = self._look(embedding, position, prompts)
        wanted = slice(1, MASK_TOKENS) if multimask else slice(0, 1)
        return SamMasks(self._masks(tokens, image)[:, wanted], self._iou(tokens)[:, wanted])

    def _own_tokens(self) -> Tensor:
        """The decoder's tokens, (1 + masks, C): that of quality first."""
        return torch.cat([self.iou_token.weight, self.mask_tokens.weight])

    def _look(self, embedding: Tensor, position: Tensor, prompts: PromptEmbedding) -> tuple[Tensor, Tensor]:
        """All tokens (B, N, C), and the image at four times its resolution, (B, C/8, 4H, 4W)."""
        image = embedding + prompts.dense
        batch, _, height, width = image.shape
        tokens, image = self.transformer(
            torch.cat([self._own_tokens().expand(batch, -1, -1), prompts.sparse.expand(batch, -1, -1)], dim=1),
            image.flatten(2).transpose(1, 2),
            position.flatten(2).transpose(1, 2),
        )
        return tokens, self.output_upscaling(image.transpose(1, 2).unflatten(2, (height, width)))

    def _masks(self, tokens: Tensor, image: Tensor) -> Tensor:
        kernels = [mlp(tokens[:, 1 + index]) for index, mlp in enumerate(self.output_hypernetworks_mlps)]
        return _filtered(torch.stack(kernels, dim=1), image)

    def _iou(self, tokens: Tensor) -> Tensor:
        return self.iou_prediction_head(tokens[:, 0])


class HqMaskDecoder(SamMaskDecoder):
    """SAM's decoder with one more token, whose mask sharpens SAM's from early and late features of the encoder.

    There is one answer: SAM's, or the best of SAM's three, plus the correction.
    """

    def __init__(self, dim: int, encoder_dim: int, heads: int = 8, mlp_dim: int = 2048) -> None:
        super().__init__(dim, heads, mlp_dim)
        self.hf_token = nn.Embedding(1, dim)
        self.hf_mlp = MLP(dim, dim, dim, dim // 8)
        self.compress_vit_feat = nn.Sequential(*_upscaling(encoder_dim, dim, dim // 8))
        self.embedding_encoder = nn.Sequential(*_upscaling(dim, dim // 4, dim // 8))
        self.embedding_maskfeature = nn.Sequential(
            nn.Conv2d(dim // 8, dim // 4, kernel_size=3, padding=1),
            LayerNorm2d(dim // 4),
            nn.GELU(),
            nn.Conv2d(dim // 4, dim // 8, kernel_size=3, padding=1),
        )

    def fine_features(self, embedding: Tensor, early: Tensor) -> Tensor:
        """(B, C/8, 4H, 4W) of the embedding (B, C, H, W) and the encoder's early map (B, encoder_dim, H, W)."""
        return self.embedding_encoder(embedding) + self.compress_vit_feat(early)

    def forward(
        self, embedding: Tensor, fine: Tensor | None, position: Tensor, prompts: PromptEmbedding, multimask: bool
    ) -> SamMasks:
        """See `SamMaskDecoder`; ``multimask`` corrects the best of SAM's three candidates, else SAM's single one."""
        tokens, image = self._look(embedding, position, prompts)
        masks, iou = self._masks(tokens, image), self._iou(tokens)
        chosen = 1 + iou[:, 1:].argmax(dim=1) if multimask else iou.new_zeros(len(iou), dtype=torch.long)
        kernel = self.hf_mlp(tokens[:, 1 + MASK_TOKENS])[:, None]
        correction = _filtered(kernel, self.embedding_maskfeature(image) + fine)
        return SamMasks(pick(masks, chosen) + correction, pick(iou, chosen))

    def _own_tokens(self) -> Tensor:
        return torch.cat([super()._own_tokens(), self.hf_token.weight])


def _upscaling(dim: int, dim_between: int, dim_out: int) -> list[nn.Module]:
    """Two transposed convolutions, each doubling the resolution."""
    return [
        nn.ConvTranspose2d(dim, dim_between, kernel_size=2, stride=2),
        LayerNorm2d(dim_between),
        nn.GELU(),
        nn.ConvTranspose2d(dim_between, dim_out, kernel_size=2, stride=2),
    ]


def _filtered(kernels: Tensor, image: Tensor) -> Tensor:
    """Kernels (B, M, c) applied to every cell of (B, c, h, w): (B, M, h, w)."""
    return (kernels @ image.flatten(2)).unflatten(2, image.shape[2:])
