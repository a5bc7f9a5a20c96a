"""Feature pyramid neck of SAM 2's image encoder (Lin et al. 2017, arXiv:1612.03144; Ravi et al. 2024)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

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

    def forward(self, stages: list[Tensor], further: Sequence[nn.Conv2d] = ()) -> tuple[Tensor, Tensor, Tensor]:
        """Maps at strides 4, 8 and 16, each (B, dim, h, w), from four trunk stages, finest first.

        The first maps are passed on through the 1 x 1 convolutions `further`, if there are any: each is joined with
        the one before it into one from few channels to few, without the `dim` channels between.
        """
        layers = [step.conv for step in reversed(self.convs)]
        joined = [_joined(first, then) for first, then in zip(layers, further, strict=False)]
        kernels = joined + [(conv.weight, conv.bias) for conv in layers[len(joined) :]]
        stride4, stride8, stride16, stride32 = (
            functional.conv2d(x, *kernel) for x, kernel in zip(stages, kernels, strict=True)
        )
        return stride4, stride8, stride16 + functional.interpolate(stride32.float(), scale_factor=2, mode="nearest")


def _joined(first: nn.Conv2d, then: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of the one 1 x 1 convolution that two are, one after the other."""
    weight = then.weight.flatten(1)
    bias = weight @ first.bias
    return (weight @ first.weight.flatten(1))[:, :, None, None], bias + then.bias.to(bias.dtype)


class ImageEncoder(nn.Module):
    """A trunk and its neck: pixels (B, 3, S, S) to maps at strides 4, 8 and 16."""

    def __init__(self, trunk: nn.Module, stage_dims: tuple[int, ...], dim: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.neck = FeaturePyramid(stage_dims, dim)

    def forward(self, pixels: Tensor, further: Sequence[nn.Conv2d] = ()) -> tuple[Tensor, Tensor, Tensor]:
        """See `FeaturePyramid` for `further`."""
        return self.neck(self.trunk(pixels), further)
