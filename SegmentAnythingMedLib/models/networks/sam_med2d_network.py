"""SAM-Med2D's image encoder: SAM's with an adapter beside the MLP of each block (Cheng et al. 2023, arXiv:2308.16184).

An adapter weighs the channels of the whole slice, then looks at each cell's surroundings at half the resolution. It is
not nothing before training: its normalised input is added. With the norm's weight and bias 0 the network is SAM.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from .sam_network import SamNetwork
from .vit import ImageEncoder, VitBlock, VitConfig

_REDUCTION = 4


class Adapter(nn.Module):
    """Channel gate, spatial convolutions, skip and norm on a (B, H, W, C) map; H and W are even."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.channel = nn.Sequential(
            nn.Linear(dim, dim // _REDUCTION, bias=False),
            nn.ReLU(),
            nn.Linear(dim // _REDUCTION, dim, bias=False),
            nn.Sigmoid(),
        )
        self.spatial = nn.Sequential(
            nn.Conv2d(dim, dim, kernel_size=3, stride=2, padding=1, bias=False),
            nn.ReLU(),
            nn.ConvTranspose2d(dim, dim, kernel_size=4, stride=2, padding=1, bias=False),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        gated = x * self.channel(x.mean(dim=(1, 2)))[:, None, None]
        around = self.spatial(gated.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.norm(x + around)


class AdaptedBlock(VitBlock):
    """A block whose MLP has the adapter beside it."""

    def __init__(self, config: VitConfig, index: int) -> None:
        super().__init__(config, index)
        self.Adapter = Adapter(config.dim)  # the checkpoint's name

    def feed_forward(self, x: Tensor) -> Tensor:
        """See `VitBlock.feed_forward`."""
        normed = self.norm2(x)
        return self.mlp(normed) + self.Adapter(normed)


class AdaptedImageEncoder(ImageEncoder):
    """SAM's image encoder of such blocks."""

    block = AdaptedBlock


class SamMed2dNetwork(SamNetwork):
    """SAM with adapters; what follows the encoder is SAM's."""

    def __init__(self, config: VitConfig) -> None:
        super().__init__(config)
        self.image_encoder = AdaptedImageEncoder(config)


def has_adapters(names: Mapping[str, object]) -> bool:
    """Whether a checkpoint's keys hold SAM-Med2D's adapters."""
    return any(_is_adapters(name) for name in names)


def without_adapters(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The rest of a checkpoint: SAM with SAM-Med2D's prompt encoder and mask decoder."""
    return {name: tensor for name, tensor in state.items() if not _is_adapters(name)}


def _is_adapters(name: str) -> bool:
    return ".Adapter." in name
