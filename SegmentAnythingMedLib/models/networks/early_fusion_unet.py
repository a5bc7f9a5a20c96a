"""ScribblePrompt's UNet (Wong et al. 2024, arXiv:2312.07381): prompts enter as channels beside the image.

Convolutions without normalisation, each followed by one leaky slope that is learned (PReLU); as wide at the bottom as
at the top. The module's keys are those of the original checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

FINAL = "final_conv.conv.0.weight"
"""A key that tells this network from others."""
_FIRST = "downs.0.conv.0.weight"
PROMPT_CHANNELS = 5


@dataclass(frozen=True)
class UnetConfig:
    """Channels of each level, finest first; the input has `PROMPT_CHANNELS` channels and the output one."""

    features: tuple[int, ...] = field(default=(192, 192, 192, 192))

    @property
    def pixel_multiple(self) -> int:
        """What the side of the input must be a multiple of: each level halves it."""
        return 1 << len(self.features)

    @classmethod
    def of(cls, shapes: Mapping[str, tuple[int, ...]]) -> UnetConfig | None:
        """From the shapes of a checkpoint's tensors; None if it is of another network."""
        first = shapes.get(_FIRST, ())
        if FINAL not in shapes or len(first) != 4 or first[1] != PROMPT_CHANNELS:
            return None
        weights = [f"downs.{level}.conv.0.weight" for level in range(len(shapes))]
        return cls(tuple(shapes[key][0] for key in weights if shapes.get(key)))


class _Convolution(nn.Module):
    def __init__(self, channels: int, features: int, kernel: int = 3, activation: bool = True) -> None:
        super().__init__()
        layers = [nn.Conv2d(channels, features, kernel, padding=kernel // 2)]
        self.conv = nn.Sequential(*layers, *([nn.PReLU()] if activation else []))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class _Doubled(nn.Module):
    """Twice the resolution; corners stay corners, as in the original."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)


class EarlyFusionUnet(nn.Module):
    """Image and prompts to mask logits of the same resolution."""

    def __init__(self, config: UnetConfig = UnetConfig()) -> None:
        super().__init__()
        self.config = config
        widths = config.features
        self.downs = nn.ModuleList(_Convolution(a, b) for a, b in zip((PROMPT_CHANNELS, *widths), widths, strict=False))
        self.bottleneck = _Convolution(widths[-1], widths[-1])
        self.ups = nn.ModuleList()
        for width in reversed(widths):
            self.ups.extend([_Doubled(), _Convolution(2 * width, width)])
        self.final_conv = _Convolution(widths[0], 1, kernel=1, activation=False)

    def forward(self, x: Tensor) -> Tensor:
        """Decode a mask.

        Parameters
        ----------
        x : (B, 5, H, W): image from 0 to 1; inside of the box 1, outside 0; cells of positive and of negative clicks
            and scribbles 1, others 0; logits of the mask to refine, 0 without one. H and W are multiples of
            `UnetConfig.pixel_multiple`

        Returns
        -------
        (B, 1, H, W) logits, above 0 inside
        """
        skipped = []
        for down in self.downs:
            x = down(x)
            skipped.append(x)
            x = functional.max_pool2d(x, 2)
        x = self.bottleneck(x)
        for double, convolution in zip(self.ups[::2], self.ups[1::2], strict=True):
            x = convolution(torch.cat([skipped.pop(), double(x)], dim=1))
        return self.final_conv(x)
