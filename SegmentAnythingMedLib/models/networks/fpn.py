"""Feature pyramid neck of SAM 2's image encoder (Lin et al. 2017, arXiv:1612.03144; Ravi et al. 2024)."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn
from torch.nn import functional


class FeaturePyramid(nn.Module):
    """Bring every stage of a trunk to `dim` channels; only the map at stride 16 receives the coarser one."""

    def __init__(self, stage_dims: tuple[int, ...], dim: int) -> None:
        super().__init__()
        # Checkpoints number the convolutions from the coarsest stage.
        self.convs = nn.ModuleList(
            nn.Sequential(OrderedDict(conv=nn.Conv2d(channels, dim, kernel_size=1)))
            for channels in reversed(stage_dims)
        )

    def forward(self, stages: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Maps at strides 4, 8 and 16, each (B, dim, h, w), from four trunk stages, finest first."""
        stride32, stride16, stride8, stride4 = (conv(x) for conv, x in zip(self.convs, reversed(stages), strict=True))
        return stride4, stride8, stride16 + functional.interpolate(stride32.float(), scale_factor=2, mode="nearest")


class ImageEncoder(nn.Module):
    """A trunk and its neck: pixels (B, 3, S, S) to maps at strides 4, 8 and 16."""

    def __init__(self, trunk: nn.Module, stage_dims: tuple[int, ...], dim: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.neck = FeaturePyramid(stage_dims, dim)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.neck(self.trunk(pixels))
