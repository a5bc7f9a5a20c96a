"""EfficientTAM's networks, small and random, at 64 pixels, for tests of what does not depend on weights."""

from __future__ import annotations

from dataclasses import replace

import torch

from SegmentAnythingMedLib.models.networks.efficient_tam_network import EfficientTamConfig, EfficientTamNetwork
from SegmentAnythingMedLib.models.networks.plain_vit import PlainVitConfig
from SegmentAnythingMedLib.models.networks.pooled_attention import CrossAttention
from Testing.models.small_edgetam import scatter

SMALL = EfficientTamConfig(
    PlainVitConfig(dim=16, heads=2, depth=2, global_blocks=(1,), window=3, trained_grid=3),
    image_size=64,
    dim=32,
    memory_dim=8,
    memory_layers=2,
    mlp_dim=32,
)


def small_network(cross_attention: CrossAttention = CrossAttention.FULL) -> EfficientTamNetwork:
    """With the same random weights for every kind of attention, in evaluation."""
    torch.manual_seed(0)
    network = EfficientTamNetwork(replace(SMALL, cross_attention=cross_attention))
    scatter(network)
    return network.eval()
