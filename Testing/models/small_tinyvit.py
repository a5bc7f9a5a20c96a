"""TinyViT for tests: a small configuration, and weights that are a formula, so that golden values hold anywhere."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from SegmentAnythingMedLib.models.networks.tinyvit import TinyVitConfig

SMALL = TinyVitConfig(dims=(8, 16, 24, 32), blocks=(1, 1, 2, 1), heads=(1, 2, 3, 4), windows=(3, 3, 5, 3), classes=4)


def waves(shape: Sequence[int], number: int) -> Tensor:
    """Values between -1.41 and 1.41 that look random, of mean 0 and deviation 1; another ``number``, other values."""
    at = torch.arange(math.prod(shape), dtype=torch.float64)
    return (torch.sin(at * at * 0.7390851 + at * 12.9898 + number * 1.618034) * 2**0.5).view(*shape).float()


@torch.no_grad()
def fill(module: nn.Module) -> nn.Module:
    """Weights and statistics by formula, such that signals neither die nor explode; in evaluation."""
    for number, (name, tensor) in enumerate(sorted(module.state_dict().items())):
        if not tensor.is_floating_point():
            continue
        values = waves(tensor.shape, number)
        if name.endswith("running_var"):
            tensor.copy_(1 + 0.3 * values)
        elif name.endswith("running_mean"):
            tensor.copy_(0.1 * values)
        elif name.endswith("attention_biases"):
            tensor.copy_(values)
        elif tensor.ndim == 1:
            tensor.copy_(float(name.endswith("weight")) + 0.2 * values)
        else:
            tensor.copy_(1.5 * values / tensor[0].numel() ** 0.5)
    return module.eval()
