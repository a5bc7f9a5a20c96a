"""Reading and writing volumes and labels; the one place that knows LPS. Importing it loads nothing heavy."""

from __future__ import annotations

import importlib

_HOMES = {
    "DEFAULT_TERMINOLOGY": "labels",
    "Labels": "labels",
    "Segment": "labels",
    "Series": "dicom",
    "check_output": "write",
    "check_same_grid": "labels",
    "labels_on_grid": "labels",
    "list_series": "dicom",
    "read_fused": "fused",
    "read_labels": "label_files",
    "read_volume": "images",
    "write_labels": "write",
    "write_volume": "write",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
