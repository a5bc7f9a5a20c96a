"""The folder of the weights: what the environment says, else what the user chose in the panel, else the default."""

from __future__ import annotations

import os
from pathlib import Path

import slicer

from SegmentAnythingMedLib.models.registry import FOLDER_VARIABLE

_KEY = "SegmentAnythingMed/WeightsFolder"


def apply_stored_folder() -> bool:
    """Take up the folder that was chosen in an earlier session; False if the environment says another one.

    It is put into this process's environment, where the library and the processes it starts look for it.
    """
    stored = str(slicer.app.userSettings().value(_KEY) or "")
    if os.environ.get(FOLDER_VARIABLE) not in (None, "", stored):
        return False
    if stored:
        os.environ[FOLDER_VARIABLE] = stored
    return True


def store_folder(folder: Path) -> None:
    """Use a folder from now on, also after a restart of Slicer."""
    slicer.app.userSettings().setValue(_KEY, str(folder))
    os.environ[FOLDER_VARIABLE] = str(folder)
