"""What a user does to segment a volume: the same verbs for the desktop module, the browser app and tests.

Example
-------
>>> controller = Controller(scene)
>>> controller.set_volume(volume)
>>> controller.start_placing("box")  # two clicks in a slice view; then, every 20 to 50 ms from a timer:
>>> controller.poll()
>>> controller.propagate("both"), controller.accept()
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from SegmentAnythingMedLib.errors import PromptError, VolumeError
from SegmentAnythingMedLib.geometry import Plane
from SegmentAnythingMedLib.mrml.controller_link import Purpose
from SegmentAnythingMedLib.mrml.controller_segment import WorkedSegment
from SegmentAnythingMedLib.mrml.controller_states import Signal, State
from SegmentAnythingMedLib.mrml.controller_suggesting import Suggesting
from SegmentAnythingMedLib.mrml.controller_work import told
from SegmentAnythingMedLib.mrml.scene import has_voxels
from SegmentAnythingMedLib.mrml.sequences import current_time

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode


class Controller(Suggesting):
    """One user's work in one scene. No verb raises or waits: what goes wrong is a sentence in `status`.

    Parameters
    ----------
    scene
        Where all nodes live.
    client_factory
        Makes the worker's client when it is first needed; opening the panel starts nothing.
    """

    # -- what is worked on ---------------------------------------------------------------------------------------

    @told
    def set_volume(
        self, node: vtkMRMLScalarVolumeNode | None, channels: Iterable[vtkMRMLScalarVolumeNode] = ()
    ) -> None:
        """Work on a volume, with up to two co-located ones as further channels; None: on nothing.

        The segmentation chosen for an earlier volume is let go; it stays in the scene.
        """
        nodes = (node, *channels) if node is not None else ()
        if nodes and nodes == self._watch.volumes:
            return
        if self.volume is not None:
            self.end_work()
            self.segmentation, self.segment_id, self._watch.segmentation = None, "", None
        self.link.set_volume(nodes)
        self.volume, self._watch.volumes, self.proposals = node, nodes, None
        if node is None:
            self.send(Signal.CLOSED)
            self.tell("Choose a volume.")
            return
        if not has_voxels(node):
            self.volume, self._watch.volumes = None, ()
            self.link.set_volume(())
            self.send(Signal.CLOSED)
            raise VolumeError(f"The volume {node.GetName()!r} has no voxels: load it again or choose another.")
        self.time = current_time(node)
        self._make_proposals()
        self.send(Signal.OPENED)
        self.tell("Draw a box or click on the structure.")
        if self.segmentation is not None:
            self._take_up_prompts()

    @told
    def set_segmentation(self, node: vtkMRMLSegmentationNode | None) -> None:
        """Work on a segmentation; prompts saved with it are taken up. None: the next prompt makes a new one."""
        if node is self.segmentation:
            return
        self.end_work()
        self.send(Signal.ENDED)
        self.send(Signal.SETTLED)
        self.segmentation, self.segment_id, self._watch.segmentation = node, "", node
        if node is not None and self.volume is not None:
            self._take_up_prompts()

    @told
    def set_segment(self, name: str) -> str:
        """Work on the segment with this id or name, made when missing (named, coloured, with terminology); its id."""
        self._choose_segment(name)
        return self.segment_id

    @told
    def add_segment(self, name: str = "") -> str:
        """Make another segment and work on it; its id."""
        self._add_segment(name)
        return self.segment_id

    @told
    def set_model(self, name: str, device: str = "auto", **options: object) -> None:
        """Choose a model by its card's name; it is loaded when first needed, or at once if one was."""
        was_open, was_failed = self.link.is_open, self.state is State.FAILED
        self.model_loaded = None
        self.link.set_model(name, device, options)
        if self.markups is not None:
            self.markups.model = name
        if self.volume is not None and (was_open or was_failed):
            self.reopen(f"Loading the model {name}.", "model", "session")

    @told
    def set_window(self, name: str) -> None:
        """Choose what the model sees as black and white: a preset, ``WIDTH/LEVEL`` or ``display``, as it is shown."""
        is_needed = self.link.is_open or self.state is State.FAILED
        self.link.set_window(name)
        if self.volume is not None and is_needed:
            self.reopen("The window was changed: outlines are made again, propagate again.", "session")

    @told
    def set_policy(self, name: str) -> None:
        """Choose which finished slices the model remembers, by the name of a memory policy."""
        is_needed = self.link.is_open or self.state is State.FAILED
        self.link.set_policy(name)
        if self.volume is not None and is_needed:
            self.reopen("The memory policy was changed: outlines are made again, propagate again.", "session")

    @told
    def begin_install(self, sentence: str = "Installing what the model needs.") -> None:
        """The host installs packages: prompts are kept, the worker is not asked."""
        self.send(Signal.INSTALL)
        self.tell(sentence)

    @told
    def end_install(self, error: str = "") -> None:
        """The host is done; ``error`` is what went wrong, in words."""
        if error:
            self.fail(error)
            return
        self.send(Signal.INSTALLED if self.volume is not None else Signal.CLOSED)
        if self.volume is not None:
            self.link.restart()
            self.reopen("Installed: go on.")

    @told
    def restart_worker(self) -> None:
        """Start a worker again that was given up, or that hangs; it is told what the last one knew."""
        if self.link.is_lost:
            self.link.restart()
        elif self.link.started is not None and self.state is not State.FAILED:
            self.link.started.restart("The worker was stopped.")
        self.send(Signal.RECOVERED)

    def close(self) -> None:
        """End the work and the worker; the user's nodes stay."""
        self.end_work()
        self.finish_writing()
        self.link.close()
        self._watch.close()
        self._observers.clear()
        self.state = State.IDLE

    # -- many slices ---------------------------------------------------------------------------------------------

    @told
    def propagate(
        self,
        direction: str = "both",
        first: int | None = None,
        last: int | None = None,
        segment_ids: Iterable[str] | str | None = None,
    ) -> None:
        """Carry the outline through the volume: ``forward``, ``backward`` or ``both``.

        Parameters
        ----------
        direction
            To higher slices, lower ones, or both.
        first, last
            Range; by default the one chosen with `from_here` and `to_here`, else automatic.
        segment_ids
            Segments that are carried together, by default the current one. They need an outline in its plane. With
            ``"all"`` every segment that has an outline is carried in the plane of its own last prompt; the range counts
            for the current segment's plane.
        """
        self._needed_segment()
        bounds = (self.range[0] if first is None else first), (self.range[1] if last is None else last)
        is_all = segment_ids == "all"
        carried = [self.segments.of(name) for name in self._named_segments(segment_ids)]
        self.confirm_painted(*carried)
        for segment in carried:
            self.make_known(segment)
        plane = next((segment.at[0] for segment in carried), None) if is_all and not self._has_plane else self._plane()

        def start() -> None:
            groups = _by_plane([item for item in carried if item.is_outlined]) if is_all else {plane: carried}
            if not groups:
                raise PromptError("There is no outline yet: draw a box or click on the structure first.")
            for at, together in groups.items():
                low, high = bounds if at == plane else (None, None)
                ids = [segment.object_id for segment in together]
                job = self.link.client.propagate(ids, plane=at, first=low, last=high, direction=direction)
                self.link.track(job, Purpose.PROPAGATION, together[0].segment_id)
            self.tell("Carrying the outline through the volume.")

        self._start_when_replayed(start)

    @told
    def cancel(self) -> None:
        """End a propagation; slices that are finished stay."""
        self._when_outlined.clear()
        if self.link.cancel(Purpose.PROPAGATION):
            self.tell("Cancelling after this slice.")

    @property
    def _has_plane(self) -> bool:
        return self.segments.of(self.segment_id).at is not None

    def _plane(self) -> Plane:
        segment = self.segments.of(self.segment_id)
        if segment.at is None:
            raise PromptError("There is no outline yet: draw a box or click on the structure first.")
        return segment.at[0]

    def _start_when_replayed(self, start: Callable[[], None]) -> None:
        """Now; or, while prompts are being said again, when that is done."""
        if any(segment.replay for segment in self.segments):
            self.do_when_outlined(start)
        else:
            start()


def _by_plane(segments: list[WorkedSegment]) -> dict[Plane, list[WorkedSegment]]:
    """Segments by the plane of their last prompt."""
    planes: dict[Plane, list[WorkedSegment]] = {}
    for segment in segments:
        planes.setdefault(segment.at[0], []).append(segment)
    return planes
