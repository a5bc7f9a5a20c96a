"""What can be downloaded: the accepted segments as a file, and the prompts."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import TYPE_CHECKING

from SegmentAnythingMedLib.errors import OutputError
from SegmentAnythingMedLib.io.write import write_labels
from SegmentAnythingMedLib.web.upload_checks import safe_name
from SegmentAnythingMedLib.web.volume_nodes import FoundSegment, geometry_lps, labels_of, segments_of

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode

    from SegmentAnythingMedLib.web.workspace import Workspace

SEGMENT_KINDS = {"seg.nrrd": "Segmentation (.seg.nrrd)", "nii.gz": "Label map (.nii.gz)", "dcm": "DICOM SEG (.dcm)"}
PROMPTS_KIND = "prompts.json"


class Downloads:
    """Writes files for the browser.

    Parameters
    ----------
    workspace
        Whose segments.
    folder
        Where files are written; the caller removes each after it was sent.
    """

    def __init__(self, workspace: Workspace, folder: Path) -> None:
        self._workspace = workspace
        self._folder = folder
        self._numbers = itertools.count(1)

    async def make(self, kind: str) -> tuple[Path, str]:
        """Write a file; its path and the name the user gets.

        Raises
        ------
        OutputError
            If there is nothing to write or the format cannot hold it.
        """
        controller = self._workspace.controller
        if controller.volume is None or controller.segmentation is None:
            raise OutputError("There is no segmentation yet: draw a box or click on the structure first.")
        stem = safe_name(controller.volume.GetName() or "volume")
        folder = self._folder / f"download-{next(self._numbers)}"
        folder.mkdir(mode=0o700)
        path = folder / f"{stem}.{kind}"
        if kind == PROMPTS_KIND:
            controller.export_prompts(path)
            if not path.exists():
                raise OutputError(controller.status)
        elif kind in SEGMENT_KINDS:
            await self._write_segments(path, controller.volume, controller.segmentation)
        else:
            raise OutputError(f"{kind} cannot be written: choose one of {', '.join((*SEGMENT_KINDS, PROMPTS_KIND))}.")
        return path, path.name

    async def _write_segments(
        self, path: Path, node: vtkMRMLScalarVolumeNode, segmentation: vtkMRMLSegmentationNode
    ) -> None:
        """Read the scene in short steps, and do what needs no scene in a thread: the views go on."""
        found: list[FoundSegment] = []
        volume = self._workspace.volume_of(node)
        geometry = volume.geometry if volume is not None else geometry_lps(node)
        for one in segments_of(segmentation, node):
            if one is not None:
                found.append(one)
            await asyncio.sleep(0)
        labels = await asyncio.to_thread(labels_of, found, geometry)
        await asyncio.to_thread(write_labels, path, labels, volume=volume)
