"""Where a GPU's memory is not enough for a job: the same model in steps that need less of it, until the job fits."""

from __future__ import annotations

from dataclasses import dataclass, replace

from SegmentAnythingMedLib.worker import messages as m

NOTICE = "NOTICE"
"""Level of a `messages.Log` that the user is told."""
REPEATABLE = (m.SegmentSlice, m.Propagate, m.Repropagate, m.PropagateThroughTime, m.Prefetch)
"""Commands that may be started again after they failed half-way: the second time they overwrite what they did."""


@dataclass(frozen=True)
class Step:
    """How to load the model instead, and what to tell the user."""

    command: m.LoadModel
    sentence: str


def lighter_steps(command: m.LoadModel) -> list[Step]:
    """Ways to load a model that need less and less memory of a GPU; those that change nothing are left out."""
    alone = {**command.options, "encoder_batch": 1, "object_batch": 1}
    half = {**alone, "precision": "bf16"}
    steps = [
        Step(replace(command, options=alone), "slices and segments are now computed one by one"),
        Step(replace(command, options=half), "the model now computes in bfloat16"),
        Step(replace(command, device="cpu"), "the model now runs on the processor, slower"),
    ]
    before = [(command.device, dict(command.options))]
    kept = []
    for step in steps:
        after = step.command.device, dict(step.command.options)
        if after not in before:
            kept.append(step)
        before.append(after)
    return kept


def is_out_of_memory(error: Exception) -> bool:
    """Whether a GPU had no memory left; torch says so with an error of this name, which is not imported here."""
    return type(error).__name__ == "OutOfMemoryError"


def told(step: Step) -> str:
    """The sentence for the user."""
    return f"The GPU's memory is not enough: {step.sentence}. The job goes on."
