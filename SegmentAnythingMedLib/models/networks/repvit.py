"""RepViT, the convolutional trunk under EdgeTAM (Wang et al. 2023, arXiv:2307.09283).

Outside of training every batch norm is folded into its convolution, and the three branches of a token mixer into one
depthwise convolution, each time the trunk runs: the folded weights are never stored, so checkpoints keep their keys,
gradients still reach every weight, and folding costs little beside the passes over the maps that it saves.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from .layers import ConvNorm


@dataclass(frozen=True)
class RepVitConfig:
    """Channels and blocks of the stages at strides 4, 8, 16 and 32; the defaults are RepViT-m1's."""

    dims: tuple[int, int, int, int] = (48, 96, 192, 384)
    blocks: tuple[int, int, int, int] = (2, 2, 14, 2)

    def build(self) -> RepVit:
        """A trunk of this shape."""
        return RepVit(self)


class _TokenMixer(nn.Module):
    """Each channel mixed over its neighbours: a 3 x 3 and a 1 x 1 depthwise convolution and the input itself."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = ConvNorm(dim, dim, kernel=3, groups=dim)
        self.conv1 = ConvNorm(dim, dim, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        if self.conv.bn.training:
            return self.conv(x) + self.conv1(x) + x
        (weight, bias), (center, offset) = self.conv.folded(), self.conv1.folded()
        weight = weight + functional.pad(center + 1, (1, 1, 1, 1))
        return functional.conv2d(x, weight, bias + offset, padding=1, groups=len(weight))


class _SqueezeExcite(nn.Module):
    """Channels weighted by what the whole map holds (Hu et al. 2018, arXiv:1709.01507)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        squeezed = max(8, (dim // 4 + 4) // 8 * 8)
        self.fc1 = nn.Conv2d(dim, squeezed, kernel_size=1)
        self.fc2 = nn.Conv2d(squeezed, dim, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc2(functional.relu(self.fc1(x.mean((2, 3), keepdim=True)))).sigmoid()


class _ChannelMixer(nn.Module):
    """Two pointwise convolutions."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(dim, 2 * dim)
        self.conv2 = ConvNorm(2 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(functional.gelu(self.conv1(x)))


class _Block(nn.Module):
    """Token mixer, in every other block squeeze and excitation, channel mixer with a skip."""

    def __init__(self, dim: int, excite: bool) -> None:
        super().__init__()
        self.token_mixer = _TokenMixer(dim)
        self.se = _SqueezeExcite(dim) if excite else nn.Identity()
        self.channel_mixer = _ChannelMixer(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.se(self.token_mixer(x))
        return x + self.channel_mixer(x)


class _Downsample(nn.Module):
    """Half the resolution, more channels."""

    def __init__(self, dim: int, dim_out: int) -> None:
        super().__init__()
        self.pre_block = _Block(dim, excite=False)
        self.spatial_downsample = ConvNorm(dim, dim, kernel=3, stride=2, groups=dim)
        self.channel_downsample = ConvNorm(dim, dim_out)
        self.ffn = _ChannelMixer(dim_out)

    def forward(self, x: Tensor) -> Tensor:
        x = self.channel_downsample(self.spatial_downsample(self.pre_block(x)))
        return x + self.ffn(x)


class _Stage(nn.Module):
    def __init__(self, dim: int, dim_out: int, blocks: int, downsample: bool) -> None:
        super().__init__()
        self.downsample = _Downsample(dim, dim_out) if downsample else nn.Identity()
        self.blocks = nn.Sequential(*(_Block(dim_out, excite=index % 2 == 0) for index in range(blocks)))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.downsample(x))


class _Stem(nn.Module):
    """Pixels to a map at stride 4."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(3, dim // 2, kernel=3, stride=2)
        self.conv2 = ConvNorm(dim // 2, dim, kernel=3, stride=2)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.conv2(functional.gelu(self.conv1(pixels)))


class RepVit(nn.Module):
    """RepViT without its classifier."""

    def __init__(self, config: RepVitConfig) -> None:
        super().__init__()
        before = (config.dims[0], *config.dims)
        stages = {
            f"stages_{index}": _Stage(before[index], dim, blocks, downsample=index > 0)
            for index, (dim, blocks) in enumerate(zip(config.dims, config.blocks, strict=True))
        }
        self.body = nn.Sequential(OrderedDict(stem=_Stem(config.dims[0]), **stages))

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Feature maps of the four stages.

        Parameters
        ----------
        pixels : (B, 3, S, S) float, normalised; S a multiple of 32

        Returns
        -------
        four maps (B, dims[i], S / 2**(i + 2), S / 2**(i + 2)), finest first
        """
        stem, *stages = self.body
        x = stem(pixels)
        maps = []
        for stage in stages:
            x = stage(x)
            maps.append(x)
        return maps
