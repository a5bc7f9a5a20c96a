"""How long the host's calls of the worker take while the worker is at full load; the GUI thread makes them."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence

import numpy as np

from SegmentAnythingMedLib.errors import WorkerError
from SegmentAnythingMedLib.geometry import Plane, VolumeGeometry
from SegmentAnythingMedLib.prompts import BoxPrompt, PointPrompt
from SegmentAnythingMedLib.volume import Modality, Volume
from SegmentAnythingMedLib.worker import messages as m
from SegmentAnythingMedLib.worker.client import WorkerClient

_AXIAL = Plane(2)
_TICK_S = 0.01
_PATIENCE_S = 120.0


def measure_client_latency(
    model: str = "classic",
    *,
    seconds: float = 8.0,
    shape_kji: tuple[int, int, int] = (300, 512, 512),
    opened: int = 5,
    cancelled: int = 5,
    arguments: Sequence[str] | None = None,
) -> dict[str, dict[str, float]]:
    """Play a GUI thread that polls every 10 ms and clicks while the worker propagates without a pause.

    Parameters
    ----------
    model
        Runs in the worker.
    seconds
        How long to click and poll.
    shape_kji
        Of the int16 volume; the default has 157 MB.
    opened, cancelled
        How often to open the volume and to cancel a propagation, at full load each.
    arguments
        Of `WorkerClient`, for another worker.

    Returns
    -------
    dict
        For ``submit``, ``poll``, ``poll_while_opening``, ``cancel`` and ``open_volume`` p50, p99, max in milliseconds
        and the count; for ``cancel_to_quiet`` the slices that still came, and milliseconds until the job ended; for
        ``open_to_ready`` milliseconds until the worker had mapped the volume.
    """
    volume = noisy_ellipsoid(shape_kji)
    with tempfile.TemporaryDirectory() as folder:
        options = {} if arguments is None else {"arguments": arguments}
        measured = _Measured(WorkerClient(folder=folder, **options))
        try:
            measured.prepare(volume, model)
            measured.click_and_poll(seconds)
            for _ in range(cancelled):
                measured.cancel()
            for _ in range(opened):
                measured.open_again(volume)
        finally:
            measured.client.shutdown()
    return measured.summary()


class _Measured:
    """A client whose calls are timed."""

    def __init__(self, client: WorkerClient) -> None:
        self.client = client
        self._times: dict[str, list[float]] = {}
        self._middle = 0
        self._rows = 0

    def prepare(self, volume: Volume, model: str) -> None:
        self._middle, self._rows = volume.voxels.shape[2] // 2, volume.voxels.shape[3]
        self.client.start()
        self.client.open_volume(volume)
        self.client.load_model(model)
        self._open_session()

    def click_and_poll(self, seconds: float) -> None:
        job, end, tick = self._propagate(), time.perf_counter() + seconds, 0
        while time.perf_counter() < end:
            tick += 1
            if tick % 5 == 0:
                at = self._rows / 2 + tick % 20
                point = PointPrompt((at, at, float(self._middle)), True, _AXIAL)
                self._timed("submit", lambda point=point: self.client.set_prompts(2, [point]))
                self._timed("submit", lambda: self.client.segment_slice(2, _AXIAL, self._middle))
            self._tick("poll")
            if job not in self.client.jobs:
                job = self._propagate()
        self.client.cancel(job)
        self._until(lambda _: job not in self.client.jobs)

    def cancel(self) -> None:
        job = self._propagate()
        self._until(lambda events: any(isinstance(event, m.SliceMask) and event.job == job for event in events))
        while self.client.poll():
            pass
        start, late = time.perf_counter(), 0
        self._timed("cancel", lambda: self.client.cancel(job))
        while job in self.client.jobs:
            late += sum(isinstance(event, m.SliceMask) for event in self.client.poll())
        self._times.setdefault("cancel_to_quiet_ms", []).append((time.perf_counter() - start) * 1e3)
        self._times.setdefault("cancel_to_quiet_slices", []).append(late)

    def open_again(self, volume: Volume) -> None:
        self._propagate()
        self._until(lambda events: any(isinstance(event, m.SliceMask) for event in events))
        start = time.perf_counter()
        job = self._timed("open_volume", lambda: self.client.open_volume(volume))
        while job in self.client.jobs:
            self._tick("poll_while_opening")
        self._times.setdefault("open_to_ready", []).append((time.perf_counter() - start) * 1e3)
        self._open_session()

    def summary(self) -> dict[str, dict[str, float]]:
        return {
            name: {
                "p50": round(float(np.percentile(values, 50)), 3),
                "p99": round(float(np.percentile(values, 99)), 3),
                "max": round(max(values), 3),
                "count": len(values),
            }
            for name, values in self._times.items()
        }

    def _open_session(self) -> None:
        self.client.open_session(cache_bytes=1 << 30)
        side = self._rows
        corners = (side * 0.25, side * 0.25, side * 0.75, side * 0.75)
        self.client.add_prompts(1, BoxPrompt.on_slice(corners, self._middle, _AXIAL))
        job = self.client.segment_slice(1, _AXIAL, self._middle)
        self._until(lambda _: job not in self.client.jobs)

    def _propagate(self) -> int:
        return self.client.propagate([1], plane=_AXIAL)

    def _until(self, done: Callable[[list[m.Event]], bool]) -> None:
        end = time.perf_counter() + _PATIENCE_S
        while not done(events := self.client.poll()):
            failed = [event for event in events if isinstance(event, (m.JobFailed, m.WorkerDied))]
            if failed or time.perf_counter() > end:
                raise WorkerError(failed[0].sentence if failed else "The worker did not answer in time.")
            time.sleep(0.001)

    def _tick(self, name: str) -> None:
        self._timed(name, self.client.poll)
        time.sleep(_TICK_S)

    def _timed(self, name: str, call: Callable[[], object]) -> object:
        start = time.perf_counter()
        result = call()
        self._times.setdefault(name, []).append((time.perf_counter() - start) * 1e3)
        return result


def noisy_ellipsoid(shape_kji: tuple[int, int, int]) -> Volume:
    """A bright ellipsoid in noise, like an organ in CT."""
    rng = np.random.default_rng(0)
    voxels = np.empty(shape_kji, dtype=np.int16)
    _, rows, columns = shape_kji
    row, column = np.ogrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
    noise = rng.normal(0, 15, (rows, columns))
    for index, depth in enumerate(np.linspace(-1, 1, len(voxels))):
        inside = row**2 + column**2 + depth**2 < 0.18
        voxels[index] = np.where(inside, 120, 20) + np.roll(noise, index * 37)
    geometry = VolumeGeometry.from_spacing(shape_kji[::-1], (0.8, 0.8, 1.5))
    return Volume.from_array(voxels, geometry, modality=Modality.CT)
