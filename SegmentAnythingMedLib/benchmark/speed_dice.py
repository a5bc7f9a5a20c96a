"""What the lossy ways to compute a network cost in Dice, with weights that mean something: `small_sam2`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from SegmentAnythingMedLib.benchmark.report import Line
from SegmentAnythingMedLib.benchmark.small_sam2 import CARD, ORGANS, Patient
from SegmentAnythingMedLib.benchmark.speed_contenders import looking_back_by
from SegmentAnythingMedLib.geometry import Plane
from SegmentAnythingMedLib.models.networks.pooled_attention import CrossAttention
from SegmentAnythingMedLib.models.networks.sam2_network import Sam2Network
from SegmentAnythingMedLib.models.sam2 import Sam2Model
from SegmentAnythingMedLib.models.sam2_engine import make_ready
from SegmentAnythingMedLib.phantom import largest_slice_box
from SegmentAnythingMedLib.prompts import BoxPrompt
from SegmentAnythingMedLib.propagation import dice
from SegmentAnythingMedLib.session import VolumeSession

MUST_EQUAL, MUST_SEGMENT = 0.995, 0.9
PLAIN = "torch fp32"
CONTROL = "control, memories without places"
"""Every memory replaced by its mean over the slice: where this changes little, the organs do not tell whether places
in a memory matter, and what merges its cells is not judged by them."""
WAYS: dict[str, tuple[str, torch.dtype, CrossAttention]] = {
    PLAIN: ("torch", torch.float32, CrossAttention.FULL),
    "torch bf16": ("torch", torch.bfloat16, CrossAttention.FULL),
    "openvino fp32": ("openvino", torch.float32, CrossAttention.FULL),
    "openvino bf16": ("openvino", torch.bfloat16, CrossAttention.FULL),
    "merged, torch fp32": ("torch", torch.float32, CrossAttention.POOLED_SCORES),
    "merged, openvino bf16": ("openvino", torch.bfloat16, CrossAttention.POOLED_SCORES),
    CONTROL: ("torch", torch.float32, CrossAttention.FULL),
}
"""Engine, precision, and whether cells of memories are merged."""
BY_DEFAULT = ("torch bf16", "openvino fp32", "openvino bf16")
"""Ways that are taken without being asked for."""
_PLANE = Plane(2)


def run_dice(
    network: Sam2Network, patient: Patient, ways: Sequence[str] = tuple(WAYS), organs: Sequence[str] = ORGANS
) -> dict[str, Any]:
    """Every organ from a box on its largest slice through its slices, by every way.

    Returns
    -------
    dict
        For each way and organ: ``truth`` and ``plain``, Dice with the truth and with torch in fp32.
    """
    found: dict[str, Any] = {}
    plain: dict[str, np.ndarray] = {}
    for way in ways:
        engine, precision, attention = WAYS[way]
        own = looking_back_by(network, attention)
        if make_ready(own, precision, engine) != engine:
            continue  # the log says why
        if way == CONTROL:
            own.encode_memory = _without_places(own.encode_memory)
        model = Sam2Model(CARD, own, precision)
        masks = {organ: _segmented(patient, model, organ) for organ in organs}
        plain = plain or masks
        found[way] = {
            organ: {"truth": dice(mask, patient.truths[organ]), "plain": dice(mask, plain[organ])}
            for organ, mask in masks.items()
        }
    return found


def acceptance(found: dict[str, Any]) -> list[Line]:
    """What must hold; a way is judged on organs that the network segments, where a mask means something."""
    judged = [organ for organ, one in found[PLAIN].items() if one["truth"] >= MUST_SEGMENT]
    best = float(np.mean([one["truth"] for one in found[PLAIN].values()]))
    lines = [Line(f"the small SAM 2 segments the phantom: Dice {MUST_SEGMENT}", best >= MUST_SEGMENT, f"{best:.3f}")]
    for way, organs in found.items():
        if way in BY_DEFAULT:
            worst = min((organs[organ]["plain"] for organ in judged), default=0.0)
            text = f"{way}: Dice at least {MUST_EQUAL} with {PLAIN}, each of {len(judged)} organs that it segments"
            lines.append(Line(text, worst >= MUST_EQUAL, f"{worst:.4f}"))
    return lines


def markdown(found: dict[str, Any], facts: dict[str, Any]) -> str:
    """The report."""
    lines = ["# Dice of what is lossy", "", *(f"- {name}: {value}" for name, value in facts.items())]
    lines += [f"- {line}" for line in acceptance(found)]
    organs = list(next(iter(found.values())))
    lines += ["", "Dice with the truth / with torch in fp32:", "", f"| | {' | '.join(organs)} |"]
    lines.append("|---" * (len(organs) + 1) + "|")
    for way, scores in found.items():
        lines.append(f"| {way} | {' | '.join(_both(one) for one in scores.values())} |")
    return "\n".join(lines) + "\n"


def _without_places(encode: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def encode_memory(*arguments: Any, **options: Any) -> Tensor:
        memory = encode(*arguments, **options)
        return memory.mean((2, 3), keepdim=True).expand_as(memory).contiguous()

    return encode_memory


def _both(one: dict[str, float]) -> str:
    return f"{one['truth']:.3f} / {one['plain']:.4f}"


def _segmented(patient: Patient, model: Sam2Model, organ: str) -> np.ndarray:
    truth = patient.truths[organ]
    there = np.flatnonzero(truth.any((1, 2)))
    session = VolumeSession(patient.volume, model)
    index, box = largest_slice_box(truth, _PLANE.axis)
    key = session.add_prompt(1, BoxPrompt.on_slice(box, index, _PLANE))
    if session.segment_slice(1, key).mask.any():  # a network that was hardly trained may find nothing to carry
        for _ in session.propagate([1], plane=_PLANE, first=int(there[0]), last=int(there[-1])):
            pass
    return session.labelmap(1) > 0
