"""One session's work: a scene, its controller, and the files that were opened in it."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import slicer

from SegmentAnythingMedLib.errors import SegmentAnythingMedError, VolumeError
from SegmentAnythingMedLib.io.images import read_volume
from SegmentAnythingMedLib.io.label_files import read_labels
from SegmentAnythingMedLib.mrml.controller import Controller
from SegmentAnythingMedLib.mrml.nodes import nodes_of
from SegmentAnythingMedLib.mrml.scene import default_volume
from SegmentAnythingMedLib.prompts_file import load_prompts
from SegmentAnythingMedLib.web.segment_nodes import add_segmentation
from SegmentAnythingMedLib.web.volume_nodes import add_volume, show_window
from SegmentAnythingMedLib.windowing import WINDOW_NAMES
from SegmentAnythingMedLib.worker.client import WorkerClient

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
    from trame_slicer.core import SlicerApp

    from SegmentAnythingMedLib.volume import Volume
    from SegmentAnythingMedLib.web.views import Views

MOST_CHANNELS = 2
"""Further volumes that a model can be given."""

logger = logging.getLogger(__name__)


class Workspace:
    """What the user of one browser session works on.

    Parameters
    ----------
    app
        trame-slicer's scene and logics.
    folder
        The session's own, for the worker's voxels.
    """

    def __init__(self, app: SlicerApp, folder: Path) -> None:
        self.app = app
        self.scene = app.scene
        self.controller = Controller(app.scene, lambda: WorkerClient(folder=folder))
        self.views: Views | None = None
        self.reading = ""
        self.arriving = 0
        self.channels: tuple[str, ...] = ()
        self._opening = asyncio.Lock()
        self._volumes: dict[str, Volume] = {}
        # kept here: the application logic alone does not keep it alive, and without it sequences have no volume
        self._sequences = app.register_module_logic(slicer.vtkSlicerSequencesLogic())

    # -- volumes -------------------------------------------------------------------------------------------------

    def volume_of(self, node: vtkMRMLScalarVolumeNode) -> Volume | None:
        """What a volume node was read from; None if it came with a scene."""
        return self._volumes.get(node.GetID())

    @property
    def volume_nodes(self) -> tuple[vtkMRMLScalarVolumeNode, ...]:
        """All volumes that can be chosen."""
        nodes = nodes_of(self.scene, "vtkMRMLScalarVolumeNode")
        return tuple(node for node in nodes if not node.GetHideFromEditors() and node.GetImageData() is not None)

    def choose_volume(self, node_id: str) -> None:
        """Work on another volume of the scene."""
        node = self.scene.GetNodeByID(node_id)
        if node is not None and node.IsA("vtkMRMLScalarVolumeNode"):
            self._show(node)

    def choose_channels(self, node_ids: Sequence[str]) -> None:
        """Give the model up to two other volumes as further channels; the segmentation stays."""
        controller, volume = self.controller, self.controller.volume
        known = {node.GetID(): node for node in self.volume_nodes if node is not volume}
        chosen = tuple(dict.fromkeys(name for name in node_ids if name in known))[:MOST_CHANNELS]
        if volume is None or chosen == self.channels:
            return
        segmentation, segment = controller.segmentation, controller.segment_id
        self.channels = chosen
        controller.set_volume(volume, [known[name] for name in chosen])
        controller.set_segmentation(segmentation)
        if segment:
            controller.set_segment(segment)

    def choose_window(self, name: str) -> None:
        """Show the volume through a window, and give it to the model like that."""
        if name not in (*WINDOW_NAMES, "display"):
            return
        node = self.controller.volume
        volume = self.volume_of(node) if node is not None else None
        if volume is not None:
            try:
                show_window(node, volume, name)
            except SegmentAnythingMedError as error:
                self.controller.tell(str(error))
                return
        self.controller.set_window(name)

    @property
    def busy(self) -> str:
        """What the user waits for, in words; empty when for nothing."""
        return self.reading or ("Receiving files" if self.arriving else "")

    # -- files ---------------------------------------------------------------------------------------------------

    async def open(self, paths: Sequence[Path]) -> bool:
        """Open files: one volume or DICOM series, a segmentation, a scene bundle, prompts; whether all went well."""
        async with self._opening:  # what comes meanwhile waits: it may lie on what is being read
            self.reading = f"Reading {paths[0].name}" + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")
            try:
                # volumes before what lies on them
                for group in sorted(_groups(paths), key=lambda group: _rank(group[0])):
                    await self._open(group)
            except SegmentAnythingMedError as error:
                sentence = str(error)
                for folder in {str(path.parent) for path in paths}:  # where it lies here is no concern of the browser's
                    sentence = sentence.replace(f"{folder}{os.sep}", "")
                self.controller.tell(sentence)
                return False
            except MemoryError:
                self.controller.tell(
                    "There is not enough memory for this file: close other sessions or crop the volume."
                )
                return False
            finally:
                self.reading = ""
        return True

    async def _open(self, group: tuple[Path, ...]) -> None:
        path, lower = group[0], group[0].name.lower()
        if lower.endswith(".mrb"):
            self._open_scene(path)
        elif lower.endswith(".json"):
            self.import_prompts(path)
        elif lower.endswith(".seg.nrrd"):
            await self._open_segmentation(path)
        else:
            volume = await asyncio.to_thread(read_volume, path.parent if len(group) > 1 else path)
            node = add_volume(self.scene, volume)
            self._volumes[node.GetID()] = volume
            self._show(node)

    async def _open_segmentation(self, path: Path) -> None:
        node = self.controller.volume
        if node is None:
            raise VolumeError("Open the volume first, then its segmentation.")
        labels = await asyncio.to_thread(read_labels, path, self.volume_of(node))
        if self.controller.volume is not node:
            raise VolumeError(f"Another volume was chosen while {path.name} was read: open it again.")
        self.controller.set_segmentation(add_segmentation(self.scene, labels, node, path.name.partition(".")[0]))
        self.controller.tell(f"Opened {path.name}: {len(labels.segments)} segments.")

    def _open_scene(self, path: Path) -> None:
        before = set(self.volume_nodes)
        if not self.app.io_manager.load_scene(path):
            raise VolumeError(f"{path.name} could not be read: save it again with 3D Slicer.")
        new = [node for node in self.volume_nodes if node not in before]
        if not new:
            raise VolumeError(f"{path.name} holds no volume.")
        shown = default_volume(self.scene)
        self._show(shown if shown in new else new[0])
        saved = self._segmentations()
        if saved:
            saved[-1].SetDisplayVisibility(True)
            self.controller.set_segmentation(saved[-1])

    def import_prompts(self, path: Path) -> None:
        """Read prompts and show the place of the last one."""
        if self.controller.volume is None:
            raise VolumeError("Open the volume first, then its prompts.")
        load_prompts(path)  # wrong files end here
        before = self.controller.markups.records() if self.controller.markups is not None else ()
        self.controller.import_prompts(path)
        markups = self.controller.markups
        new = markups.records()[len(before) :] if markups is not None else ()
        placed = [one for one in new if hasattr(one.prompt, "points_ijk")]
        if placed and self.views is not None:
            self.views.center_on(markups.frame.ras_from_ijk(placed[-1].prompt.points_ijk.mean(axis=0)))
            self.controller.tell('The prompts were read: press "Both ways" to carry the outline through the volume.')

    def _segmentations(self) -> list[vtkMRMLSegmentationNode]:
        return [node for node in nodes_of(self.scene, "vtkMRMLSegmentationNode") if not node.GetHideFromEditors()]

    def _show(self, node: vtkMRMLScalarVolumeNode) -> None:
        self.channels = ()
        self.controller.set_volume(node)
        for other in self._segmentations():
            if other is not self.controller.segmentation:  # of another volume: it would stand in the way in 3D
                other.SetDisplayVisibility(False)
        if self.views is not None:
            self.views.show_volume(node)

    def close(self) -> None:
        """End the worker."""
        self.controller.close()


def _groups(paths: Sequence[Path]) -> list[tuple[Path, ...]]:
    """Files of other formats one by one, all DICOM files as one."""
    slices = tuple(path for path in paths if _is_slice(path))
    others = [(path,) for path in paths if not _is_slice(path)]
    return [*others, slices] if slices else others


def _is_slice(path: Path) -> bool:
    lower = path.name.lower()
    return not path.is_dir() and (
        lower.endswith((".dcm", ".ima")) or lower.replace(".", "").isdigit() or "." not in lower
    )


def _rank(path: Path) -> int:
    lower = path.name.lower()
    return 2 if lower.endswith(".json") else 1 if lower.endswith(".seg.nrrd") else 0
