"""Runs the embedded network's ONNX file on one or few CPU cores, with onnxruntime alone."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from SegmentAnythingMedLib.errors import ModelFileError, ModelUnavailableError

MOST_THREADS = 4
"""More do not help a network of this size."""


class Answer(NamedTuple):
    """What the network says of B windows.

    Parameters
    ----------
    logits
        (B, 3, h, w) float32 candidates; the first answers prompts that leave no doubt.
    quality
        (B, 3) logits of the predicted intersection over union.
    presence
        (B,) logit that the object is on the slice.
    """

    logits: np.ndarray
    quality: np.ndarray
    presence: np.ndarray


Run = Callable[[np.ndarray], Answer]
"""From (B, 11, h, w) float32 maps to the answer."""


class OnnxRun:
    """An ONNX file, ready to answer.

    Parameters
    ----------
    path
        Written by `SegmentAnythingMedLib.finetune.export_embedded`.
    threads
        0 takes ``OMP_NUM_THREADS``, which the worker sets, else leaves one core free; `MOST_THREADS` at most.
    sha256
        Of the file, or "" if it is not known.

    Raises
    ------
    ModelUnavailableError
        If onnxruntime is not installed.
    ModelFileError
        If the file is damaged, not what its card says, or another network.
    """

    def __init__(self, path: Path, threads: int = 0, sha256: str = "") -> None:
        try:
            import onnxruntime

            onnxruntime.disable_telemetry_events()
        except ModuleNotFoundError as error:
            raise ModelUnavailableError(
                "The embedded model needs the package 'onnxruntime': install onnxruntime, or use the model classic."
            ) from error
        except (ImportError, OSError, AttributeError) as error:
            raise ModelUnavailableError(
                f"The package 'onnxruntime' is broken ({error}): install onnxruntime anew, or use the model classic."
            ) from error
        content = _checked(path, sha256)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or thread_count()
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Threads that wait must not spin: the core that is left free belongs to the viewer.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except _session_errors() as error:
            raise ModelFileError(f"{path.name} is not a network this version can run: {error}") from error
        names = [output.name for output in self._session.get_outputs()]
        if names != list(Answer._fields):
            raise ModelFileError(f"{path.name} answers {names}, not {list(Answer._fields)}: it is another network.")

    def __call__(self, maps: np.ndarray) -> Answer:
        return Answer(*self._session.run(None, {"maps": np.ascontiguousarray(maps, dtype=np.float32)}))

    def note(self, name: str) -> str:
        """What the file's metadata say under a name; "" if nothing."""
        return self._session.get_modelmeta().custom_metadata_map.get(name, "")


def thread_count() -> int:
    """Threads unless the caller says how many: ``OMP_NUM_THREADS``, else all cores but one; `MOST_THREADS` at most."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    count = int(asked) if asked.isdigit() and int(asked) else (os.cpu_count() or 2) - 1
    return min(max(count, 1), MOST_THREADS)


def _checked(path: Path, sha256: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"{path.name} cannot be read ({error.strerror or error}).") from error
    if sha256 and hashlib.sha256(content).hexdigest() != sha256:
        raise ModelFileError(
            f"{path.name} is damaged or another file than its card says (SHA-256 differs): get it "
            "again, or use the model classic."
        )
    return content


def _session_errors() -> tuple[type[Exception], ...]:
    """What onnxruntime raises for files it cannot use; its classes share no parent but Exception."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    names = (
        "Fail",
        "InvalidArgument",
        "InvalidGraph",
        "InvalidProtobuf",
        "NoModel",
        "NotImplemented",
        "RuntimeException",
    )
    return tuple(getattr(state, name) for name in names if hasattr(state, name))
