"""SAM's networks in a small random configuration of 64 pixels, for tests of what does not depend on weights."""

from __future__ import annotations

import torch
from torch import nn

from SegmentAnythingMedLib.models.card import ModelCard
from SegmentAnythingMedLib.models.networks.sam_network import SamNetwork
from SegmentAnythingMedLib.models.networks.vit import VitConfig

SMALL = VitConfig(dim=24, heads=2, depth=3, global_blocks=(1,), window=3, image_size=64, channels=32, mlp_dim=48)


@torch.no_grad()
def scatter(module: nn.Module, seed: int = 0) -> None:
    """Parameters away from zero and one."""
    generator = torch.Generator().manual_seed(seed)
    for tensor in module.state_dict().values():
        tensor.add_(0.05 * torch.randn(tensor.shape, generator=generator))


def small_network(hq: bool = False, config: VitConfig = SMALL) -> SamNetwork:
    """With random weights, in evaluation; masks are there in part of a slice."""
    torch.manual_seed(0)
    network = SamNetwork(config, hq)
    scatter(network)
    return network.eval()


def small_card(**fields: object) -> ModelCard:
    """A card for the small network."""
    given = {"prompts": ("point", "box", "mask"), "preprocessing": "imagenet", "input_size": 64}
    capabilities = ("slice", "candidates", "color")
    return ModelCard("small", "Small", "sam", "none", capabilities, **(given | fields))
