"""The two-way transformer in the mask decoders of SAM (Kirillov et al. 2023, arXiv:2304.02643) and SAM 2."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from .layers import Attention


class _TwoWayLayer(nn.Module):
    """Tokens attend to tokens, tokens to the image, the image to tokens; norms come after each step."""

    def __init__(self, dim: int, heads: int, mlp: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.self_attn = Attention(dim, heads)
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attn_token_to_image = Attention(dim, heads, dim // 2)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = mlp()
        self.norm3 = nn.LayerNorm(dim)
        self.cross_attn_image_to_token = Attention(dim, heads, dim // 2)
        self.norm4 = nn.LayerNorm(dim)

    def forward(
        self, tokens: Tensor, image: Tensor, token_position: Tensor, image_position: Tensor, first: bool
    ) -> tuple[Tensor, Tensor]:
        if first:  # the tokens still are their own positions
            tokens = self.norm1(self.self_attn(tokens, tokens, tokens))
        else:
            placed = tokens + token_position
            tokens = self.norm1(tokens + self.self_attn(placed, placed, tokens))
        placed_image = image + image_position
        tokens = self.norm2(tokens + self.cross_attn_token_to_image(tokens + token_position, placed_image, image))
        tokens = self.norm3(tokens + self.mlp(tokens))
        image = self.norm4(image + self.cross_attn_image_to_token(placed_image, tokens + token_position, tokens))
        return tokens, image


class TwoWayTransformer(nn.Module):
    """Two layers between prompt tokens and image, and a last look of the tokens at the image.

    SAM and SAM 2 name the parts of the layers' perceptrons differently: ``mlp`` builds one.
    """

    def __init__(self, dim: int, heads: int, mlp: Callable[[], nn.Module], depth: int = 2) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_TwoWayLayer(dim, heads, mlp) for _ in range(depth))
        self.final_attn_token_to_image = Attention(dim, heads, dim // 2)
        self.norm_final_attn = nn.LayerNorm(dim)

    def forward(self, tokens: Tensor, image: Tensor, image_position: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B, N, C) and image (B, cells, C) after they looked at each other; the tokens are their own places."""
        position = tokens
        for index, layer in enumerate(self.layers):
            tokens, image = layer(tokens, image, position, image_position, first=index == 0)
        seen = self.final_attn_token_to_image(tokens + position, image + image_position, image)
        return self.norm_final_attn(tokens + seen), image
