"""The embedded network: a small convolutional encoder-decoder that sees prompts and memories as maps beside the image.

3.9 million weights; 64 x 64 is the finest resolution it computes at, as its input is folded 2 x 2 into channels. All
operations fold or export to plain ONNX.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from SegmentAnythingMedLib.finetune.embedded_likelihood import LikelihoodMaps
from SegmentAnythingMedLib.models.embedded_channels import CHANNELS

CANDIDATES = 3


@dataclass(frozen=True)
class EmbeddedConfig:
    """Sizes of the network.

    Parameters
    ----------
    widths
        Channels at 1/2, 1/4 ... of the input's resolution.
    encoder_blocks, decoder_blocks
        Residual blocks at each resolution.
    likelihood
        Whether the log-likelihood maps are added (False only to measure what they bring).
    """

    widths: tuple[int, ...] = (24, 48, 96, 144, 184)
    encoder_blocks: tuple[int, ...] = (0, 1, 2, 2, 2)
    decoder_blocks: tuple[int, ...] = (1, 1, 1, 1)
    likelihood: bool = True


class EmbeddedOutput(NamedTuple):
    """What the network answers for B windows.

    Parameters
    ----------
    logits
        (B, 3, h, w) candidates; the first answers prompts that leave no doubt.
    quality
        (B, 3) logits of the predicted intersection over union.
    presence
        (B,) logit that the object is on the slice.
    """

    logits: Tensor
    quality: Tensor
    presence: Tensor


class EmbeddedNetwork(nn.Module):
    """U-Net (Ronneberger et al. 2015) of residual blocks with early fusion of prompts and two remembered slices."""

    def __init__(self, config: EmbeddedConfig = EmbeddedConfig()) -> None:
        super().__init__()
        self.config = config
        widths, levels = config.widths, len(config.widths)
        self.likelihood = LikelihoodMaps() if config.likelihood else None
        maps = len(CHANNELS) + (2 if config.likelihood else 0)
        self.stem = _convolution(4 * maps, widths[0])
        self.down = nn.ModuleList(_convolution(widths[i], widths[i + 1], stride=2) for i in range(levels - 1))
        self.encoder = nn.ModuleList(_blocks(*pair) for pair in zip(widths, config.encoder_blocks, strict=True))
        self.up = nn.ModuleList(nn.Conv2d(widths[i + 1], widths[i], 1) for i in range(levels - 1))
        self.mix = nn.ModuleList(_convolution(2 * widths[i], widths[i]) for i in range(levels - 1))
        self.decoder = nn.ModuleList(_blocks(*pair) for pair in zip(widths[:-1], config.decoder_blocks, strict=True))
        self.masks = nn.Conv2d(widths[0], 4 * CANDIDATES, 3, padding=1)
        clues = widths[-1] + widths[0] + CANDIDATES * (widths[0] + 3)
        self.judge = nn.Sequential(nn.Linear(clues, 64), nn.ReLU(), nn.Linear(64, CANDIDATES + 1))

    def forward(self, maps: Tensor) -> EmbeddedOutput:
        """(B, 11, h, w) maps from 0 to 1, h and w multiples of 32, to masks and judgements."""
        with torch.autocast(maps.device.type, enabled=False):
            known = [maps * 2 - 0.5] if self.likelihood is None else [maps * 2 - 0.5, self.likelihood(maps)]
        x = self.stem(functional.pixel_unshuffle(torch.cat(known, 1), 2))
        skipped = []
        for level, encode in enumerate(self.encoder):
            x = encode(x)
            if level < len(self.down):
                skipped.append(x)
                x = self.down[level](x)
        summary = x.mean((2, 3))
        for level in reversed(range(len(self.up))):
            x = functional.interpolate(self.up[level](x), scale_factor=2.0, mode="nearest")
            x = self.decoder[level](self.mix[level](torch.cat([x, skipped[level]], 1)))
        folded = self.masks(x)
        logits = functional.pixel_shuffle(folded, 2)
        with torch.autocast(maps.device.type, enabled=False):
            judged = self.judge(self._clues(summary.float(), x.float(), folded.float()))
        return EmbeddedOutput(logits, judged[:, :CANDIDATES], judged[:, CANDIDATES])

    @staticmethod
    def _clues(summary: Tensor, x: Tensor, folded: Tensor) -> Tensor:
        """What quality and presence are judged by: features over the window and under each mask, size and sharpness."""
        inside = folded.detach().unflatten(1, (CANDIDATES, 4)).sigmoid()
        sharp = (inside - 0.5).abs().mean((2, 3, 4)) * 2
        inside = inside.mean(2).flatten(2)
        area = inside.mean(2)
        under = torch.bmm(inside, x.flatten(2).transpose(1, 2)) / (inside.sum(2, keepdim=True) + 1)
        certain = (inside * inside).sum(2) / (inside.sum(2) + 1)
        clues = [summary, x.mean((2, 3)), under.flatten(1), area, sharp, certain]
        return torch.cat(clues, 1)

    def track_step(self, maps: Tensor) -> EmbeddedOutput:
        """One slice of B objects, pure and differentiable; training unrolls it, prompts and memories are maps."""
        return self(maps)


class _Residual(nn.Module):
    """Two 3 x 3 convolutions beside the identity, which it is at first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = _convolution(width, width)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.norm(self.second(self.first(x))))


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


def _blocks(width: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(_Residual(width) for _ in range(count)))
