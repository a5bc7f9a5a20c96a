"""One training run of the embedded network: batches in, better weights out, in steps that can be interrupted."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from SegmentAnythingMedLib.finetune.embedded_checkpoint import load_checkpoint, save_checkpoint
from SegmentAnythingMedLib.finetune.embedded_loss import LossParts, LossWeights, embedded_loss
from SegmentAnythingMedLib.finetune.embedded_network import EmbeddedConfig, EmbeddedNetwork
from SegmentAnythingMedLib.finetune.embedded_restart import restart
from SegmentAnythingMedLib.finetune.embedded_unroll import Batch, Unroll

PASSES = (3, 6)
"""Answers per example, by turns: prompt, corrections and next slices. Short ones so that first prompts, the hardest
to learn, are a quarter of all answers; long ones so that errors add up as they do at use."""
KINDS = ("box", "click", "memory", "refined")


@dataclass(frozen=True)
class TrainingSettings:
    """How to train.

    Parameters
    ----------
    rate
        Learning rate of AdamW after warming up.
    decay
        Weight decay of matrices; none on biases and norms.
    warm_up
        Steps until the full rate, at the start of every run.
    cool_down
        Last share of a run's time over which the rate falls to a fiftieth.
    halving
        Examples after which the rate has fallen to 0.7, to 0.5 after three times as many.
    averaging
        Decay of the exponential average of the weights, per step.
    seed
        Of batches and simulated users.
    loss
        Weights of the parts.
    """

    rate: float = 2e-3
    decay: float = 0.02
    warm_up: int = 100
    cool_down: float = 0.3
    halving: float = 400_000.0
    averaging: float = 0.998
    seed: int = 0
    loss: LossWeights = field(default_factory=LossWeights)


def has_bfloat16() -> bool:
    """Whether this CPU computes in bfloat16 itself (AMX or AVX-512 BF16)."""
    able = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(able.get("amx_bf16") or able.get("avx512_bf16"))


class Trainer:
    """Network, average and optimizer of a run.

    Parameters
    ----------
    settings
        How to train.
    config
        Sizes of the network.
    device
        Where to train. CUDA trains in bfloat16 mixed precision, and so does a CPU with its instructions (AMX or
        AVX-512 BF16: half the time); any other CPU in float32 (there bfloat16 takes 11 times as long).
    compiled
        Whether `torch.compile` makes the step (needs a C++ compiler; a minute for each size of batch, then about half
        the time again).
    """

    def __init__(
        self, settings: TrainingSettings, config: EmbeddedConfig, device: torch.device, compiled: bool = False
    ) -> None:
        self.settings, self.device = settings, device
        self.mixed = device.type == "cuda" or has_bfloat16()
        torch.manual_seed(settings.seed)
        self.network = EmbeddedNetwork(config).to(device, memory_format=torch.channels_last)
        self.average = {name: value.detach().clone() for name, value in self.network.state_dict().items()}
        matrices = [one for one in self.network.parameters() if one.ndim > 1]
        others = [one for one in self.network.parameters() if one.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": settings.decay}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=settings.rate, fused=True)
        self._forward = torch.compile(self._lose, dynamic=False) if compiled else self._lose
        self.steps = self.examples = self.batches = self.seconds = 0
        self._run_steps = 0
        self._sums: defaultdict[str, Tensor | float] = defaultdict(float)

    def resume(self, folder: Path) -> bool:
        """Go on from a checkpoint; False if there is none."""
        numbers = load_checkpoint(folder, self.network, self.average, self.optimizer)
        for name in ("steps", "examples", "batches", "seconds"):
            setattr(self, name, numbers.get(name, 0))
        return bool(numbers)

    def restart(self, weights: Path, batch: Batch) -> None:
        """Go on from a released ONNX file; ``batch`` is any, see `embedded_restart.restart`."""
        maps = Unroll(batch.to(torch.device("cpu"))).maps()
        copy = EmbeddedNetwork(self.network.config)
        self.examples = restart(copy, weights, maps)
        self.network.load_state_dict(copy.state_dict())
        for name, value in self.network.state_dict().items():
            self.average[name].copy_(value)
        self.steps = self.examples // max(len(maps), 1)
        self.batches = round(self.steps / (sum(PASSES) / len(PASSES)))

    def save(self, folder: Path) -> None:
        """Write a checkpoint."""
        numbers = {name: getattr(self, name) for name in ("steps", "examples", "batches", "seconds")}
        save_checkpoint(folder, self.network, self.average, self.optimizer, numbers)

    def rate(self, progress: float) -> float:
        """Learning rate at a share of the run's time: warm up, hold (falling slowly over runs), cool down."""
        settings = self.settings
        warm = min(1.0, (self._run_steps + 1) / settings.warm_up)
        left = (1 - min(max(progress, 0.0), 1.0)) / settings.cool_down
        cool = 1.0 if left >= 1 else 0.02 + 0.98 * 0.5 * (1 - math.cos(math.pi * left))
        return settings.rate * warm * cool / math.sqrt(1 + self.examples / settings.halving)

    def train_batch(self, batch: Batch, progress: float = 0.0) -> float:
        """Some steps along a batch, see `PASSES`; the mean loss."""
        torch.manual_seed(hash((self.settings.seed, self.batches)) % 2**31)
        unroll = Unroll(batch.to(self.device))
        total, passes = 0.0, PASSES[self.batches % len(PASSES)]
        for number in range(passes):
            loss, logits = self._step(unroll, progress)
            total = total + loss
            if number < passes - 1:
                unroll.advance(logits)
        self.batches += 1
        return float(total) / passes

    def _step(self, unroll: Unroll, progress: float) -> tuple[Tensor, Tensor]:
        """One answer and one step of the optimizer; the loss and the chosen (B, h, w) logits, both detached."""
        self.network.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(progress)
        maps = unroll.maps().contiguous(memory_format=torch.channels_last)
        parts, answers = self._forward(maps, unroll.target, unroll.single)
        self.optimizer.zero_grad(set_to_none=True)
        parts.total.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.steps += 1
        self._run_steps += 1
        self.examples += len(maps)
        self._average()
        self._log(unroll, parts.total.detach(), parts.dice)
        rows = torch.arange(len(maps), device=self.device)
        return parts.total.detach(), answers.detach()[rows, parts.chosen].float()

    def _lose(self, maps: Tensor, target: Tensor, single: Tensor) -> tuple[LossParts, Tensor]:
        """The loss and the (B, 3, h, w) logits."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed):
            output = self.network.track_step(maps)
        return embedded_loss(output, target, single, self.settings.loss), output.logits

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(self.settings.averaging, self.steps / (self.steps + 10))
        state = self.network.state_dict()
        floats = [name for name, value in state.items() if value.is_floating_point()]
        torch._foreach_lerp_([self.average[name] for name in floats], [state[name] for name in floats], 1 - decay)
        for name in state.keys() - set(floats):
            self.average[name].copy_(state[name])

    @torch.no_grad()
    def _log(self, unroll: Unroll, loss: Tensor, dice: Tensor) -> None:
        kind = unroll.kind
        there = unroll.target.flatten(1).amax(1) > 0
        self._sums["loss"] += loss
        self._sums["steps"] += 1
        for number, name in enumerate(KINDS):
            chosen = (kind == number) & there
            self._sums[f"{name}"] += (dice * chosen).sum()
            self._sums[f"{name} count"] += chosen.sum()

    def take_log(self) -> dict[str, float]:
        """Mean loss, and mean Dice on training examples by kind of answer, since the last call."""
        sums, self._sums = {name: float(value) for name, value in self._sums.items()}, defaultdict(float)
        figures = {"loss": sums.get("loss", 0.0) / max(sums.get("steps", 1.0), 1.0)}
        for name in KINDS:
            if sums.get(f"{name} count", 0.0) > 0:
                figures[name] = sums[name] / sums[f"{name} count"]
        return {name: round(value, 4) for name, value in figures.items()}

    def averaged_network(self) -> EmbeddedNetwork:
        """A copy of the network with the averaged weights, on the CPU, for measuring and export."""
        network = EmbeddedNetwork(self.network.config)
        network.load_state_dict({name: value.cpu() for name, value in self.average.items()})
        return network.eval()
