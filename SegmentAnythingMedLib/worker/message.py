"""What all messages between host and worker have in common."""

from __future__ import annotations

from dataclasses import dataclass

from SegmentAnythingMedLib.worker import fields as of


@dataclass(frozen=True, eq=False)
class Message:
    """Base of all messages. Every message belongs to a job; 0 where there is none."""

    job: int = of.whole()


@dataclass(frozen=True, eq=False)
class Command(Message):
    """From the host to the worker."""


@dataclass(frozen=True, eq=False)
class Event(Message):
    """From the worker to the host. Every job ends with one JobDone, JobCancelled or JobFailed."""
