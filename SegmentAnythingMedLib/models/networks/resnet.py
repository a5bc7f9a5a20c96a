"""ResNet (He et al. 2016, arXiv:1512.03385) as a pyramid of four maps, with torchvision's key names in each stage."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class ResNetConfig:
    """Shape of a ResNet.

    Attributes
    ----------
    blocks : in each of the four stages
    bottleneck : blocks of three convolutions that end four times as wide, instead of two
    width : channels of the first stage, before it widens
    """

    blocks: tuple[int, int, int, int] = (3, 4, 6, 3)
    bottleneck: bool = False
    width: int = 64

    @property
    def channels(self) -> tuple[int, ...]:
        """Of the four maps."""
        return tuple(self.width * 2**stage * (4 if self.bottleneck else 1) for stage in range(4))


RESNETS = {34: ResNetConfig(), 50: ResNetConfig(bottleneck=True)}


class _Block(nn.Module):
    """Convolutions `conv1`, `conv2` ... with batch norms `bn1`, `bn2` ... beside a shortcut."""

    def __init__(self, inside: int, width: int, out: int, stride: int, kernels: tuple[int, ...]) -> None:
        super().__init__()
        channels = [inside, *[width] * (len(kernels) - 1), out]
        self.count, strided = len(kernels), kernels.index(3)
        for index, kernel in enumerate(kernels):
            step = stride if index == strided else 1
            convolution = nn.Conv2d(channels[index], channels[index + 1], kernel, step, kernel // 2, bias=False)
            self.add_module(f"conv{index + 1}", convolution)
            self.add_module(f"bn{index + 1}", nn.BatchNorm2d(channels[index + 1]))
        if stride != 1 or inside != out:
            self.downsample = nn.Sequential(nn.Conv2d(inside, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = self.downsample(x) if hasattr(self, "downsample") else x
        for index in range(1, self.count + 1):
            x = getattr(self, f"bn{index}")(getattr(self, f"conv{index}")(x))
            x = x.relu() if index < self.count else (x + shortcut).relu()
        return x


class ResNet(nn.Module):
    """Pixels (B, 3, S, S) to maps of strides 4, 8, 16 and 32."""

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self.stage0 = nn.Sequential(
            nn.Conv2d(3, config.width, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(config.width),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        kernels, inside = (1, 3, 1) if config.bottleneck else (3, 3), config.width
        for stage, (count, out) in enumerate(zip(config.blocks, config.channels, strict=True)):
            blocks = []
            for index in range(count):
                stride = 2 if stage and not index else 1
                blocks.append(_Block(inside, config.width * 2**stage, out, stride, kernels))
                inside = out
            self.add_module(f"stage{stage + 1}", nn.Sequential(*blocks))

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """The maps, finest first."""
        x, maps = self.stage0(pixels), []
        for stage in (self.stage1, self.stage2, self.stage3, self.stage4):
            x = stage(x)
            maps.append(x)
        return maps
