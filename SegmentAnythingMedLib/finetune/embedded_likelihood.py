"""Log-likelihood ratios of grey values, object against background, as a layer without weights.

Without these maps a network this small stays for thousands of steps with answers that ignore the image (rounded
boxes, discs round clicks; measured in docs/embedded-model.md). They are part of the exported network, so training and
inference cannot differ.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

BINS = 24
_FLOOR = 0.01
"""Added to both densities: what was seen in neither is even."""
_MOST = 3.0
"""Log-ratios are clipped to this and divided by it."""
_CLICK_WEIGHT = 30.0
"""A clicked pixel counts as this many others when there is an answer to refine."""


class LikelihoodMaps(nn.Module):
    """Two maps from the network's input maps, see `SegmentAnythingMedLib.models.embedded_channels.CHANNELS`.

    The grey value is averaged over 3 x 3 pixels and looked up in two smoothed histograms: the object's and the
    background's. The first map takes them from this slice: the answer to refine if there is one, else the middle of
    the box against what is outside, clicks added; the second from the remembered slices and their masks. Where
    nothing was said the map is 0.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("smoothing", torch.tensor([1.0, 2.0, 3.0, 2.0, 1.0]).view(1, 1, 5) / 9, persistent=False)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, 11, h, w) float32 to (B, 2, h, w) from -1 to 1."""
        image, region, positive, negative, previous, key, key_mask, _, last, last_mask, _ = maps.unbind(1)
        bins = _bins(image)
        inside, outside = _weights(region, positive, negative, previous)
        here = self._ratio(self._histogram(bins, inside), self._histogram(bins, outside))
        key_bins, last_bins = _bins(key), _bins(last)
        seen = self._histogram(key_bins, key_mask) + self._histogram(last_bins, last_mask)
        around = self._histogram(key_bins, 1 - key_mask) + self._histogram(last_bins, 1 - last_mask)
        remembered = self._ratio(seen / 2, around / 2)
        prompted = (inside.flatten(1).sum(1) > 0).to(maps.dtype)
        known = ((key_mask + last_mask).flatten(1).amax(1) > 0.5).to(maps.dtype)
        tables = torch.stack([here * prompted[:, None], remembered * known[:, None]], 1)
        looked_up = tables.gather(2, bins[:, None].expand(-1, 2, -1))
        return looked_up.view(maps.shape[0], 2, maps.shape[2], maps.shape[3])

    def _histogram(self, bins: Tensor, weights: Tensor) -> Tensor:
        """(B, BINS) smoothed density of (B, h * w) bins under (B, h, w) weights."""
        counts = torch.zeros(bins.shape[0], BINS, dtype=weights.dtype, device=bins.device)
        counts = counts.scatter_add(1, bins, weights.flatten(1))
        counts = counts / counts.sum(1, keepdim=True).clamp(min=1e-6)
        ends = torch.cat([counts[:, :1], counts[:, :1], counts, counts[:, -1:], counts[:, -1:]], 1)
        return functional.conv1d(ends[:, None], self.smoothing)[:, 0]

    @staticmethod
    def _ratio(inside: Tensor, outside: Tensor) -> Tensor:
        return ((inside + _FLOOR) / (outside + _FLOOR)).log().clamp(-_MOST, _MOST) / _MOST


def _bins(image: Tensor) -> Tensor:
    """(B, h * w) int64 histogram bin of the smoothed grey value."""
    smooth = functional.avg_pool2d(image[:, None], 3, 1, 1, count_include_pad=False)[:, 0]
    return (smooth.clamp(0, 1) * (BINS - 1e-3)).long().clamp(0, BINS - 1).flatten(1)


def _weights(region: Tensor, positive: Tensor, negative: Tensor, previous: Tensor) -> tuple[Tensor, Tensor]:
    """How much each pixel counts as object and as background, each (B, h, w)."""
    refines = (previous.flatten(1).amax(1) > 0.5).to(region.dtype)[:, None, None]
    framed = (region.flatten(1).amax(1) > 0).to(region.dtype)[:, None, None]
    middle = region * torch.exp(-2.5 * _radius(region))
    inside = (1 - refines) * middle + refines * previous + positive * (3 + _CLICK_WEIGHT * refines)
    unframed = framed * (1 - region) + (1 - framed) * 0.3
    outside = refines * (1 - previous) + (1 - refines) * unframed + _CLICK_WEIGHT * negative
    return inside, outside


def _radius(region: Tensor) -> Tensor:
    """Squared distance from the region's middle, 1 at its sides."""
    total = []
    for axis in (2, 1):
        profile = region.amax(axis)
        steps = torch.arange(profile.shape[1], dtype=region.dtype, device=region.device)
        length = profile.sum(1, keepdim=True).clamp(min=1)
        middle = (profile * steps).sum(1, keepdim=True) / length
        total.append(((steps - middle) / (length / 2)) ** 2)
    return total[0][:, :, None] + total[1][:, None, :]
