"""EdgeTAM's networks in a small random configuration of 64 pixels, for tests of what does not depend on weights."""

from __future__ import annotations

import torch
from torch import nn

from SegmentAnythingMedLib.models.networks.edgetam_network import EdgeTamConfig, EdgeTamNetwork
from SegmentAnythingMedLib.models.networks.repvit import RepVitConfig

SMALL = EdgeTamConfig(
    RepVitConfig(dims=(8, 16, 16, 32), blocks=(1, 1, 2, 1)),
    image_size=64,
    dim=32,
    memory_dim=8,
    memory_layers=1,
    mlp_dim=32,
    latents=5,
    window_grid=4,
)


@torch.no_grad()
def scatter(module: nn.Module, seed: int = 0) -> None:
    """Parameters away from zero and one, running statistics of batch norms away from their start."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in module.state_dict().items():
        noise = torch.randn(tensor.shape, generator=generator)
        if name.endswith("running_var"):
            tensor.copy_(1 + 0.3 * noise.clamp(-2, 2))
        elif tensor.is_floating_point():
            tensor.add_(0.05 * noise)


def small_network() -> EdgeTamNetwork:
    """With random weights, in evaluation."""
    torch.manual_seed(0)
    network = EdgeTamNetwork(SMALL)
    scatter(network)
    return network.eval()
