"""Every error this library raises on purpose: one sentence for a person, and what the caller needs to react."""

from __future__ import annotations


class SegmentAnythingMedError(Exception):
    """Base of all errors of this library. ``str(error)`` is a sentence for the user that says what to do next."""

    exit_code = 2


class VolumeError(SegmentAnythingMedError):
    """A volume or label file cannot be read, or holds something this library does not work on."""


class SeriesChoiceError(VolumeError):
    """A DICOM folder holds more than one volume; the caller has to choose.

    Parameters
    ----------
    message
        Sentence that lists the choices.
    choices
        ``(identifier, description)`` of every volume found.
    """

    def __init__(self, message: str, choices: tuple[tuple[str, str], ...]) -> None:
        super().__init__(message)
        self.choices = choices


class GeometryError(SegmentAnythingMedError):
    """A plane, slice index or geometry is outside what the volume has, or two grids do not match."""


class PromptError(SegmentAnythingMedError):
    """A prompt is empty, outside the volume or on another plane than its slice; the message names the valid range."""


class ModelUnavailableError(SegmentAnythingMedError):
    """The model is not known, its weights are not there, or a package it needs is not installed."""

    exit_code = 3


class ModelFileError(ModelUnavailableError):
    """A checkpoint is truncated, hostile, of the wrong family or does not match its card."""


class OutputError(SegmentAnythingMedError):
    """A result cannot be written; whatever was at that path before is still there."""


class WorkerError(SegmentAnythingMedError):
    """The worker process died, hangs, or speaks another version of the protocol."""
