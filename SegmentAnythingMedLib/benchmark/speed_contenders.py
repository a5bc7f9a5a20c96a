"""Who takes part in the speed run: our session and the packages a user would run instead, with the same weights."""

from __future__ import annotations

import copy
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import islice
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from SegmentAnythingMedLib.benchmark import reference_edgetam, reference_sam2
from SegmentAnythingMedLib.benchmark.reference_sam2 import Prompt
from SegmentAnythingMedLib.errors import ModelUnavailableError
from SegmentAnythingMedLib.geometry import Plane, SliceKey, VolumeGeometry
from SegmentAnythingMedLib.models.base import Prediction
from SegmentAnythingMedLib.models.card import ModelCard
from SegmentAnythingMedLib.models.networks.checkpoint import infer_sam2_config, load_strictly
from SegmentAnythingMedLib.models.networks.pooled_attention import CrossAttention
from SegmentAnythingMedLib.models.networks.sam2_network import Sam2Network
from SegmentAnythingMedLib.models.preprocess import IMAGENET_MEAN, IMAGENET_STD
from SegmentAnythingMedLib.models.sam2 import Sam2Model
from SegmentAnythingMedLib.models.sam2_engine import make_ready
from SegmentAnythingMedLib.prompts import BoxPrompt, PointPrompt
from SegmentAnythingMedLib.session import VolumeSession
from SegmentAnythingMedLib.slice_result import SliceResult
from SegmentAnythingMedLib.volume import Modality, Volume
from SegmentAnythingMedLib.windowing import Window

SETTLED = 7
"""Slices until the memory is full: times are taken after them."""
_CACHE_BYTES = 4 << 30
_PLANE = Plane(2)
MERGED = "openvino merged"
"""The way to run SAM 2 that is lossy and asked for: 2 x 2 cells of each memory as one."""
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class SliceTimes:
    """Seconds of each tracked slice: by the clock, and of the process's computing."""

    wall: tuple[float, ...]
    computing: tuple[float, ...]

    @classmethod
    def of(cls, slices: Iterator[object]) -> SliceTimes:
        """Run to the end."""
        wall, computing = [], []
        clock, used = time.perf_counter(), time.process_time()
        for _ in slices:
            wall.append(time.perf_counter() - clock)
            computing.append(time.process_time() - used)
            clock, used = time.perf_counter(), time.process_time()
        return cls(tuple(wall), tuple(computing))

    @property
    def settled(self) -> SliceTimes:
        """Without the slices before the memory was full."""
        return SliceTimes(self.wall[SETTLED:], self.computing[SETTLED:])


@dataclass(frozen=True)
class Task:
    """What everyone does: carry objects from a box on the first slice through all others.

    Parameters
    ----------
    model
        "tiny", "small", "base_plus", "large" (SAM 2.1) or "edgetam".
    side
        Pixels of a slice, and of the network's input.
    count
        Slices.
    """

    model: str
    side: int
    count: int

    @cached_property
    def pixels(self) -> np.ndarray:
        """(count, 3, side, side) float32, smooth and random, 0 to 1."""
        coarse = torch.rand(self.count, 3, self.side // 8, self.side // 8, generator=torch.Generator().manual_seed(5))
        smooth = nn.functional.interpolate(coarse, (self.side, self.side), mode="bicubic")
        return smooth.clamp(0, 1).numpy()

    @cached_property
    def frames(self) -> Tensor:
        """(count, 3, side, side) float32, normalised as the references want it."""
        mean, std = (np.array(values, np.float32)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
        return torch.from_numpy(((self.pixels - mean) / std).astype(np.float32))

    @cached_property
    def volume(self) -> Volume:
        geometry = VolumeGeometry.from_spacing((self.side, self.side, self.count))
        return Volume(self.pixels.transpose(1, 0, 2, 3)[np.newaxis], geometry, Modality.COLOR)

    def shortened(self, count: int) -> Task:
        """The same with fewer slices, and the same networks."""
        short = replace(self, count=count)
        for name in ("network", "_predictor", "_transformers"):
            if name in self.__dict__:
                short.__dict__[name] = self.__dict__[name]
        return short

    def box(self, number: int = 0) -> tuple[int, int, int, int]:
        """First row and column, last row and column, of an object's box."""
        quarter, shift = self.side // 4, number * self.side // 10
        return quarter + shift, quarter, 2 * quarter + shift, 2 * quarter

    def prompt(self, number: int = 0) -> Prompt:
        row0, column0, row1, column1 = self.box(number)
        return Prompt(0, [[float(column0), float(row0)], [float(column1), float(row1)]], [2, 3])

    @cached_property
    def network(self) -> nn.Module:
        """Our network; its random weights are everyone's."""
        if self.model == "edgetam":
            return reference_edgetam.random_network(self.side).requires_grad_(False)
        network = Sam2Network(infer_sam2_config(self._predictor.state_dict(), self.side))
        load_strictly(network, self._predictor.state_dict(), "reference")
        return network.eval().requires_grad_(False)

    @cached_property
    def _predictor(self) -> nn.Module:
        return reference_sam2.sam2_predictor(self.model, "2.1", self.side)

    @cached_property
    def _transformers(self) -> nn.Module:
        if self.model == "edgetam":
            model = reference_edgetam.transformers_model(self.side)
            renamed = reference_edgetam.to_transformers_keys(self.network.state_dict())
        else:
            model = reference_sam2.transformers_model(self.model, self.side)
            renamed = reference_sam2.to_transformers_keys(self.network.state_dict())
        model.load_state_dict(renamed, strict=True)
        return model

    def sam2_slices(self) -> Iterator[tuple[int, Tensor]]:
        """PyPI's sam2; not for EdgeTAM, which it does not contain."""
        order = range(self.count)
        return _without_first(
            reference_sam2.reference_slices(self._predictor, self.frames, {1: [self.prompt()]}, order)
        )

    def transformers_slices(self) -> Iterator[tuple[int, Tensor]]:
        order = range(self.count)
        if self.model == "edgetam":
            found = reference_edgetam.transformers_slices(self._transformers, self.frames, {1: [self.prompt()]}, order)
        else:
            found = reference_sam2.transformers_slices(self._transformers, self.frames, {1: self.prompt()}, order)
        return _without_first(found)

    def published_slices(self) -> Iterator[tuple[int, Tensor]]:
        """The reference's logits as its makers' own predictor gives them, see `reference_edgetam.as_published`."""
        if self.model != "edgetam":
            yield from self.sam2_slices()
            return
        with reference_edgetam.as_published(self._transformers):
            yield from self.transformers_slices()


def _without_first(slices: Iterator[tuple[int, Tensor]]) -> Iterator[tuple[int, Tensor]]:
    """The prompted slice is not tracked: it is not timed either."""
    return (found for found in slices if found[0] != 0)


class Reference:
    """A package that runs again from the start after every correction."""

    def __init__(self, name: str, slices: Callable[[], Iterator[object]], precision: str) -> None:
        self.name = f"{name} {precision}"
        self._slices, self._precision = slices, precision

    def warm_up(self) -> None:
        """Build what is built once."""
        with _autocast(self._precision):
            next(self._slices())

    def run(self) -> dict[str, SliceTimes]:
        """Times of the slices of a propagation."""
        slices = self._slices()
        with _autocast(self._precision):
            next(slices)  # the prompted slice's features and the first tracked slice are not timed
            return {"first": SliceTimes.of(slices)}


@dataclass
class Ours:
    """Our session.

    Parameters
    ----------
    task
        What is done.
    name
        In tables.
    make
        Makes the model, when first needed.
    """

    task: Task
    name: str
    make: Callable[[], Sam2Model]
    stages: dict[str, float] = field(default_factory=dict)
    """Seconds of computing of each stage of the newest first propagation, by `STAGES`."""

    @cached_property
    def _model(self) -> Staged:
        return Staged(self.make())

    def warm_up(self) -> None:
        """Build what is built once."""
        next(self.tracked_slices())

    def run(self) -> dict[str, SliceTimes]:
        """Times of the first propagation, of the one after a correction, and of three objects with known features."""
        session = self._session(self._model)
        key = self._outline(session, 1)
        self._model.seconds.clear()
        found = {"first": self._times(session, [1])}
        self.stages = {name: median(each[SETTLED:]) for name, each in self._model.seconds.items()}
        session.add_prompt(1, PointPrompt((self.task.side * 0.4, self.task.side * 0.3, 0.0), True, _PLANE))
        session.segment_slice(1, key)
        found["second"] = self._times(session, [1])
        self._outline(session, 2)
        self._outline(session, 3)
        found["three again"] = self._times(session, [1, 2, 3])
        return found

    def tracked_slices(self) -> Iterator[SliceResult]:
        """One object's slices, as they come."""
        session = self._session(self._model)
        self._outline(session, 1)
        yield from self._tracked(session, [1])

    def logits(self) -> dict[int, np.ndarray]:
        """(S, S) logits of each tracked slice."""
        session = self._session(Recording(self._model))
        self._outline(session, 1)
        return {found.key.index: session.model.newest.logits[0] for found in self._tracked(session, [1])}

    def operations(self) -> dict[str, float]:
        """GFLOP of each stage of a tracked slice with a full memory, counted by torch."""
        session = self._session(self._model)
        self._outline(session, 1)
        slices = self._tracked(session, [1])
        for _ in range(min(self.task.count - 3, 8)):
            next(slices)
        with self._model.counting():
            next(slices)
        return dict(self._model.gflop)

    def _session(self, model: Sam2Model | Staged) -> VolumeSession:
        return VolumeSession(self.task.volume, model, window=Window((0.0,), (1.0,)), cache_bytes=_CACHE_BYTES)

    def _outline(self, session: VolumeSession, number: int) -> SliceKey:
        key = session.add_prompt(number, BoxPrompt.on_slice(self.task.box(number - 1), 0, _PLANE))
        session.segment_slice(number, key)
        return key

    def _times(self, session: VolumeSession, ids: list[int]) -> SliceTimes:
        slices = self._tracked(session, ids)
        _take(slices, len(ids))  # as for the references, the first tracked slice is not timed
        return SliceTimes.of(iter(lambda: _take(slices, len(ids)), ()))

    def _tracked(self, session: VolumeSession, ids: list[int]) -> Iterator[SliceResult]:
        return session.propagate(ids, plane=_PLANE, first=0, last=self.task.count - 1)


STAGES = {"encode_slices": "image encoder", "predict": "attention and mask", "encode_memory": "memory encoder"}
"""Calls of a model, as the report names them."""


class Staged:
    """A model whose stages are timed, and whose operations can be counted."""

    def __init__(self, model: Sam2Model) -> None:
        self._model, self._counts = model, False
        self.seconds: defaultdict[str, list[float]] = defaultdict(list)
        self.gflop: dict[str, float] = {}

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._model, name)
        return found if name not in STAGES else partial(self._run, STAGES[name], found)

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Within, operations are counted."""
        self._counts = True
        try:
            yield
        finally:
            self._counts = False

    def _run(self, stage: str, call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        if not self._counts:
            start = time.process_time()
            found = call(*arguments, **options)
            self.seconds[stage].append(time.process_time() - start)
            return found
        with FlopCounterMode(display=False) as counter:
            found = call(*arguments, **options)
        self.gflop[stage] = counter.get_total_flops() / 1e9
        return found


class Recording:
    """A model that keeps its newest prediction."""

    def __init__(self, model: Sam2Model) -> None:
        self._model, self.newest = model, None

    def __getattr__(self, name: str) -> object:
        return getattr(self._model, name)

    def predict(self, *arguments: object, **options: object) -> Prediction:
        self.newest = self._model.predict(*arguments, **options)
        return self.newest


def _torch_model(task: Task, precision: str) -> Sam2Model:
    return _ready_model(task, precision, "torch")


def _openvino_model(task: Task, precision: str) -> Sam2Model:
    return _ready_model(task, precision, "openvino")


def _merged_model(task: Task, precision: str) -> Sam2Model:
    return _ready_model(task, precision, "openvino", CrossAttention.POOLED_SCORES)


def looking_back_by(network: Sam2Network, attention: CrossAttention) -> Sam2Network:
    """A copy of a network that looks at its memories in another way."""
    if network.config.cross_attention is attention:
        return copy.deepcopy(network)
    other = Sam2Network(replace(network.config, cross_attention=attention)).eval()
    other.load_state_dict(network.state_dict())
    return other.requires_grad_(False)


def _ready_model(task: Task, precision: str, engine: str, attention: CrossAttention = CrossAttention.FULL) -> Sam2Model:
    card = ModelCard("speed", "speed", "sam2", "none", ("slice", "memory"), ("point", "box", "mask"), (), "imagenet")
    network = looking_back_by(task.network, attention)
    if make_ready(network, PRECISIONS[precision], engine) != engine:
        raise ModelUnavailableError(f"{engine} does not compute {task.model}: the log says why.")
    return Sam2Model(card, network, PRECISIONS[precision])


BACKENDS: dict[str, Callable[[Task, str], Sam2Model]] = {
    "torch": _torch_model,
    "openvino": _openvino_model,
    MERGED: _merged_model,
}
"""Ways to run our networks, from a task and a precision."""


def ours_in(task: Task, backend: str, precision: str) -> Ours:
    """Our session with one backend."""
    return Ours(task, f"ours, {backend} {precision}", lambda: BACKENDS[backend](task, precision))


def contenders(
    task: Task, backends: Sequence[str] = ("torch",), precisions: Sequence[str] = ("fp32", "bf16")
) -> list[Ours | Reference]:
    """Everyone for this model, ours first."""
    backends = [one for one in backends if one != MERGED or task.model != "edgetam"]  # its memories are no maps
    found: list[Ours | Reference] = [ours_in(task, backend, one) for backend in backends for one in precisions]
    if task.model != "edgetam":
        found += [Reference("sam2", task.sam2_slices, one) for one in precisions]
    return found + [Reference("transformers", task.transformers_slices, one) for one in precisions]


def _autocast(precision: str) -> AbstractContextManager:
    return nullcontext() if precision == "fp32" else torch.autocast("cpu", PRECISIONS[precision])


def _take(slices: Iterator[object], count: int) -> tuple[object, ...]:
    """The next results: all objects of a slice."""
    return tuple(islice(slices, count))
