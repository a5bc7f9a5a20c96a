"""What each command does to the model, the volume and the session. One thread owns it; it knows no pipes."""

from __future__ import annotations

import contextlib
import gc
import os
import time
from collections.abc import Callable, Generator, Iterator
from typing import Protocol

import numpy as np

from SegmentAnythingMedLib.errors import ModelUnavailableError, PromptError, WorkerError
from SegmentAnythingMedLib.geometry import SliceKey
from SegmentAnythingMedLib.memory.policy import load_policy
from SegmentAnythingMedLib.models.base import SliceModel, VolumeModel
from SegmentAnythingMedLib.prompts import Prompt
from SegmentAnythingMedLib.prompts_file import encode_prompt
from SegmentAnythingMedLib.propagation import StopRule
from SegmentAnythingMedLib.session import SliceResult, VolumeSession
from SegmentAnythingMedLib.tracked_object import key_of
from SegmentAnythingMedLib.volume import Volume
from SegmentAnythingMedLib.volume_model_session import open_session
from SegmentAnythingMedLib.windowing import Window
from SegmentAnythingMedLib.worker import messages as m
from SegmentAnythingMedLib.worker.lighter import NOTICE, REPEATABLE, Step, is_out_of_memory, lighter_steps, told
from SegmentAnythingMedLib.worker.suggest_work import suggested
from SegmentAnythingMedLib.worker.time_work import carry_through_time, opened_series

Events = Generator[m.Event, None, None]


class Registry(Protocol):
    """Where models come from; `models.registry.ModelRegistry` or a test's."""

    def load(self, name: str, device: str = "auto", **options: object) -> SliceModel | VolumeModel: ...


class Workbench:
    """Performs commands one at a time; a propagation stays open while clicks are performed between its slices.

    Parameters
    ----------
    registry
        Loads models; by default the library's, read anew for each model so that added cards are seen.
    """

    def __init__(self, registry: Registry | None = None) -> None:
        self._registry = registry
        self._model: SliceModel | VolumeModel | None = None
        self._volume: Volume | None = None
        self._session: VolumeSession | None = None
        self._voxel_path = ""
        self._lighter: list[Step] = []
        self._revisions: dict[int, int] = {}
        self._corrected: set[int] = set()
        self._work: dict[type[m.Command], Callable[..., Events]] = {
            m.LoadModel: self._load_model,
            m.OpenVolume: self._open_volume,
            m.OpenSession: self._open_session,
            m.SetPrompts: self._set_prompts,
            m.AddPrompts: self._add_prompts,
            m.Undo: self._undo,
            m.RemoveObject: self._remove_object,
            m.GetLabelmap: self._labelmap,
            m.ProtectVoxels: self._protect_voxels,
            m.SegmentSlice: self._segment_slice,
            m.ChooseCandidate: self._choose_candidate,
            m.ConfirmSlice: self._confirm_slice,
            m.ClearSlice: self._clear_slice,
            m.RestoreSlice: self._restore_slice,
            m.Propagate: self._propagate,
            m.PropagateThroughTime: self._propagate_through_time,
            m.Repropagate: self._repropagate,
            m.SuggestPrompts: self._suggest_prompts,
            m.Prefetch: self._prefetch,
            m.Ping: self._ping,
        }

    def perform(self, command: m.Command) -> Events:
        """Events of a command, one by one as they are computed; closing the iterator ends it."""
        if isinstance(command, m.ObjectCommand):
            newest = max(command.revision, self._revisions.get(command.object_id, 0))
            self._revisions[command.object_id] = newest
        return self._until_it_fits(command) if isinstance(command, REPEATABLE) else self._work[type(command)](command)

    @property
    def stage_seconds(self) -> dict[str, float]:
        """Seconds per stage of the session so far."""
        return dict(self._session.times.seconds) if self._session else {}

    def free_memory(self) -> None:
        """Give back what can be computed again."""
        if self._session is not None:
            self._session.features.set_window(self._session.features.window)
        gc.collect()

    def remove_voxel_file(self) -> None:
        """Remove the voxel file of a host that is gone."""
        if self._voxel_path:
            with contextlib.suppress(OSError):  # still mapped (Windows) or removed already: the next start sweeps it
                os.unlink(self._voxel_path)

    # -- model, volume, session ------------------------------------------------------------------------------------

    def _load_model(self, command: m.LoadModel) -> Events:
        self._model = self._session = None
        self._lighter = lighter_steps(command)
        gc.collect()
        start = time.perf_counter()
        model = yield from self._load_what_fits(command, command.job)
        if not (model.card.has("slice") or model.card.has("volume")):
            raise ModelUnavailableError(f"Model {command.name!r} sees neither slices nor volumes: choose another one.")
        self._model, card = model, model.card
        device, seconds = str(getattr(model, "device", command.device)), time.perf_counter() - start
        yield m.ModelLoaded(
            command.job, card.name, card.title, device, card.licence, card.research_only, card.capabilities,
            card.prompts, seconds,
        )  # fmt: skip

    def _loaded(self, command: m.LoadModel) -> SliceModel | VolumeModel:
        registry = self._registry
        if registry is None:
            from SegmentAnythingMedLib.models.registry import ModelRegistry

            registry = ModelRegistry()
        return registry.load(command.name, device=command.device, **command.options)

    def _load_what_fits(self, command: m.LoadModel, job: int) -> Generator[m.Event, None, SliceModel | VolumeModel]:
        """The model; lighter where a GPU has no memory left for it."""
        while True:
            try:
                return self._loaded(command)
            except RuntimeError as error:
                if not (is_out_of_memory(error) and self._lighter):
                    raise
            step = self._lighter.pop(0)
            yield m.Log(job, NOTICE, told(step))
            command = step.command

    def _until_it_fits(self, command: m.Command) -> Events:
        """Do a command, again with a lighter model as long as a GPU has no memory left for it."""
        while True:
            try:
                yield from self._work[type(command)](command)
                return
            except RuntimeError as error:
                if not (is_out_of_memory(error) and self._lighter) or self._is_on_cpu():
                    raise
                error.__traceback__ = None  # its frames hold what filled the memory
            yield from self._exchange_model(command.job)

    def _exchange_model(self, job: int) -> Events:
        """Go on with a lighter model; the session keeps prompts and masks."""
        step, session = self._lighter.pop(0), self._session
        yield m.Log(job, NOTICE, told(step))
        self._model = None
        if session is not None:
            session.use_model(None)
        gc.collect()
        self._model = yield from self._load_what_fits(step.command, job)
        if session is not None:
            session.use_model(self._model)

    def _is_on_cpu(self) -> bool:
        return self._model is None or str(getattr(self._model, "device", "cpu")).startswith("cpu")

    def _open_volume(self, command: m.OpenVolume) -> Events:
        self._volume = self._session = None
        gc.collect()
        self._volume, self._voxel_path = opened_series(command), command.path
        yield m.VolumeOpened(command.job, self._volume.fingerprint)

    def _open_session(self, command: m.OpenSession) -> Events:
        self._session = None
        if self._model is None or self._volume is None:
            raise WorkerError("Choose a model and a volume first.")
        window: Window | str = command.window
        if command.window_low is not None and command.window_high is not None:
            window = Window(command.window_low, command.window_high, command.window)
        self._revisions.clear()
        self._session = open_session(
            self._volume,
            self._model,
            window=window,
            time=command.time,
            policy=load_policy(command.policy, **command.policy_parameters),
            cache_bytes=command.cache_bytes,
        )
        yield from ()

    def _opened(self) -> VolumeSession:
        if self._session is None:
            raise WorkerError("Open a volume with a model first.")
        return self._session

    def _ping(self, command: m.Ping) -> Events:
        yield from ()

    # -- one slice -------------------------------------------------------------------------------------------------

    def _add_prompts(self, command: m.AddPrompts) -> Events:
        session = self._opened()
        for prompt in command.prompts:
            self._key_of(prompt)
        for prompt in command.prompts:
            session.add_prompt(command.object_id, prompt)
        yield from ()

    def _set_prompts(self, command: m.SetPrompts) -> Events:
        session, object_id = self._opened(), command.object_id
        known = session.prompts(object_id) if object_id in session.object_ids else ()
        before, after = self._by_slice(known), self._by_slice(command.prompts)
        for key in {**before, **after}:
            old, new = before.get(key, []), after.get(key, [])
            kept = len(old)
            if [encode_prompt(prompt) for prompt in new[:kept]] != [encode_prompt(prompt) for prompt in old]:
                cleared, kept = session.clear_slice(object_id, key), 0
                self._note_correction(object_id)
                if not new:
                    yield self._slice_mask(command.job, cleared)
            for prompt in new[kept:]:
                session.add_prompt(object_id, prompt)

    def _segment_slice(self, command: m.SegmentSlice) -> Events:
        session, key = self._opened(), self._key(command)
        for done, total in session.prepare(command.object_id, key):
            yield m.Progress(command.job, done, total)
        yield self._answer(command, session.segment_slice(command.object_id, key))

    def _choose_candidate(self, command: m.ChooseCandidate) -> Events:
        chosen = self._opened().choose_candidate(command.object_id, self._key(command), command.candidate)
        yield self._answer(command, chosen)

    def _confirm_slice(self, command: m.ConfirmSlice) -> Events:
        yield self._answer(command, self._opened().confirm_slice(command.object_id, self._key(command), command.mask))

    def _clear_slice(self, command: m.ClearSlice) -> Events:
        yield self._answer(command, self._opened().clear_slice(command.object_id, self._key(command)))

    def _undo(self, command: m.Undo) -> Events:
        session, object_id = self._opened(), command.object_id
        result = session.undo_prompt(object_id)
        if result is None:
            raise PromptError("There is nothing to take back.")
        yield self._answer(command, result)

    def _suggest_prompts(self, command: m.SuggestPrompts) -> Events:
        yield suggested(command, self._opened())

    def _answer(self, command: m.ObjectCommand, result: SliceResult) -> m.SliceMask:
        self._note_correction(command.object_id)
        return self._slice_mask(command.job, result)

    # -- one object ------------------------------------------------------------------------------------------------

    def _remove_object(self, command: m.RemoveObject) -> Events:
        self._opened().remove_object(command.object_id)
        self._note_correction(command.object_id)
        yield from ()

    def _protect_voxels(self, command: m.ProtectVoxels) -> Events:
        self._opened().protect_voxels(command.object_id, command.voxels)
        yield from ()

    def _labelmap(self, command: m.GetLabelmap) -> Events:
        voxels = self._opened().labelmap(command.object_id)
        yield m.Labelmap(command.job, command.object_id, voxels, command.revision)

    def _restore_slice(self, command: m.RestoreSlice) -> Events:
        self._opened().restore_slice(command.object_id, self._key(command), command.mask)
        yield from ()

    # -- many slices -----------------------------------------------------------------------------------------------

    def _propagate(self, command: m.Propagate) -> Events:
        asked = {name: getattr(command, name) for name in ("absent_slices", "min_area", "round_trip")}
        stop = StopRule(**{name: value for name, value in asked.items() if value is not None})
        policy = None if command.policy is None else load_policy(command.policy, **command.policy_parameters)
        session = self._opened()

        def start(objects: tuple[int, ...] | None) -> Iterator[SliceResult]:
            return session.propagate(
                objects, plane=command.plane, first=command.first, last=command.last, direction=command.direction,
                policy=policy, stop=stop,
            )  # fmt: skip

        return self._carry(command.job, command.objects, start)

    def _repropagate(self, command: m.Repropagate) -> Events:
        session, key = self._opened(), self._key(command)
        return self._carry(command.job, (command.object_id,), lambda _: session.repropagate(command.object_id, key))

    def _propagate_through_time(self, command: m.PropagateThroughTime) -> Events:
        session = self._opened()
        if not session.model.card.has("slice"):
            name = session.model.card.name
            raise ModelUnavailableError(f"Model {name!r} has no memory to carry outlines through time: choose another.")
        for event in carry_through_time(command, session.model, session.features.window, session.policy, session.times):
            yield event
            if self._session is not session:
                return

    def _carry(
        self,
        job: int,
        objects: tuple[int, ...] | None,
        start: Callable[[tuple[int, ...] | None], Iterator[SliceResult]],
    ) -> Events:
        """Run a propagation; a correction of one of its objects, made between two slices, starts it again.

        Going on would carry the outline the user has just corrected, over the correction too. The second run is
        cheaper: it finds the image features in the cache.
        """
        session = self._opened()
        while objects is None or objects:
            self._corrected = set()
            for result in start(objects):
                yield self._slice_mask(job, result)
                if self._session is not session:
                    return
                if self._corrected if objects is None else self._corrected & set(objects):
                    break
            else:
                return
            if objects is not None:
                objects = tuple(object_id for object_id in objects if object_id in session.object_ids)

    def _prefetch(self, command: m.Prefetch) -> Events:
        session = self._opened()
        for done, _ in enumerate(session.prefetch(command.plane, command.index, command.radius), 1):
            yield m.Progress(command.job, done, 2 * command.radius + 1)
            if self._session is not session:
                return

    # -- inside ----------------------------------------------------------------------------------------------------

    def _note_correction(self, object_id: int) -> None:
        self._corrected.add(object_id)

    def _key(self, command: m.SliceCommand) -> SliceKey:
        return self._opened().slice_key(command.plane, command.index)

    def _key_of(self, prompt: Prompt) -> SliceKey:
        session = self._opened()
        return key_of(prompt, session.slices(prompt.plane), session.volume.fingerprint, session.time)

    def _by_slice(self, prompts: tuple[Prompt, ...]) -> dict[SliceKey, list[Prompt]]:
        found: dict[SliceKey, list[Prompt]] = {}
        for prompt in prompts:
            found.setdefault(self._key_of(prompt), []).append(prompt)
        return found

    def _slice_mask(self, job: int, result: SliceResult) -> m.SliceMask:
        """The event of a result; a model's NaN or infinity becomes a number."""
        quality, presence, overlap, seconds_left = (
            float(np.nan_to_num(x, nan=0.0, posinf=100.0, neginf=-100.0))
            for x in (result.quality, result.presence, result.overlap, result.seconds_left)
        )
        return m.SliceMask(
            job, result.object_id, result.key, result.mask, self._revisions.get(result.object_id, 0), quality, presence,
            overlap, result.candidate, result.candidates, result.prompted, result.cleared, result.final, result.done,
            result.total, seconds_left,
        )  # fmt: skip
