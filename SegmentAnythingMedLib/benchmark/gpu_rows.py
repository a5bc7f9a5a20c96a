"""What the GPU run measures, in which order: what matters most comes first, since the time may end at any row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

MODELS = ("base_plus", "tiny", "small", "large")
SIDES = (512, 1024)


@dataclass(frozen=True)
class Setting:
    """One row.

    Parameters
    ----------
    who
        "ours", "sam2" (the PyPI package), or "machine" (what the GPU itself reaches).
    model
        SAM 2.1: "tiny", "small", "base_plus", "large"; "miniature" only tries the run itself out.
    side
        Pixels of a slice, and of the network's input.
    precision
        "bf16", "fp16" or "fp32".
    mode
        "eager"; "graphs" (ours, calls recorded as CUDA graphs); "compiled" (sam2 as it recommends; ours by
        `torch.compile`); "compiled+graphs" and "compiled encoder+graphs" (ours).
    batch
        Slices encoded at once.
    objects
        Objects carried at once.
    """

    who: str
    model: str = ""
    side: int = 0
    precision: str = "bf16"
    mode: str = "eager"
    batch: int = 1
    objects: int = 1

    @property
    def name(self) -> str:
        """In tables."""
        return f"{self.who} {self.mode}" + f", {self.batch} at once" * (self.batch > 1)


def plan(models: Sequence[str] = MODELS, sides: Sequence[int] = SIDES) -> list[Setting]:
    """All rows, most important first: one network in depth, then all networks, then what takes minutes to compile."""
    first, nearest = models[0], sides[0]
    found = [*_in_short(first, nearest), Setting("machine"), *_compiled(first, nearest), *_in_depth(first, nearest)]
    for side in sides:
        for model in models:
            found += _in_short(model, side)
    found += [
        Setting("ours", first, nearest, "fp32", "graphs", 8),
        Setting("sam2", first, nearest, "fp32"),
        Setting("ours", first, nearest, "bf16", "compiled encoder+graphs", 8),
        Setting("ours", first, nearest, "bf16", "compiled", 8),
        Setting("sam2", first, nearest, "bf16", "compiled", objects=3),
    ]
    for side in sides:
        for model in models:
            found += _compiled(model, side)
    return list(dict.fromkeys(found))


def _in_depth(model: str, side: int) -> Iterator[Setting]:
    for mode, batch in (("eager", 8), ("eager", 1), ("graphs", 1), ("graphs", 4)):
        yield Setting("ours", model, side, "bf16", mode, batch)
    yield Setting("ours", model, side, "fp16", "graphs", 8)
    for mode in ("graphs", "eager"):
        yield Setting("ours", model, side, "bf16", mode, 8, objects=3)
    yield Setting("sam2", model, side, "bf16", objects=3)


def _in_short(model: str, side: int) -> Iterator[Setting]:
    yield Setting("ours", model, side, "bf16", "graphs", 8)
    yield Setting("sam2", model, side, "bf16")


def _compiled(model: str, side: int) -> Iterator[Setting]:
    yield Setting("ours", model, side, "bf16", "compiled+graphs", 8)
    yield Setting("sam2", model, side, "bf16", "compiled")
