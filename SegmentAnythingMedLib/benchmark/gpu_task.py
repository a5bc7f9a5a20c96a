"""What everyone does in the GPU run, who does it, and one run of it by the clock."""

from __future__ import annotations

import copy
import gc
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from SegmentAnythingMedLib.benchmark import reference_sam2
from SegmentAnythingMedLib.benchmark.gpu_rows import Setting
from SegmentAnythingMedLib.benchmark.speed_contenders import Recording, Task
from SegmentAnythingMedLib.geometry import Plane, VolumeGeometry
from SegmentAnythingMedLib.models.card import ModelCard
from SegmentAnythingMedLib.models.device import PRECISIONS
from SegmentAnythingMedLib.models.networks.hiera import HieraConfig
from SegmentAnythingMedLib.models.networks.on_gpu import Compile, failures, keep_weights_in, make_faster
from SegmentAnythingMedLib.models.networks.repeated_call import Function, Replay
from SegmentAnythingMedLib.models.networks.sam2_network import Sam2Config, Sam2Network
from SegmentAnythingMedLib.models.sam2 import Sam2Model
from SegmentAnythingMedLib.prompts import BoxPrompt
from SegmentAnythingMedLib.session import VolumeSession
from SegmentAnythingMedLib.volume import Modality, Volume
from SegmentAnythingMedLib.windowing import Window

_PLANE = Plane(2)
_CACHE_BYTES = 16 << 30
_MINIATURE = HieraConfig(dim=8, heads=1, blocks=(1, 1, 2, 1), global_blocks=(3,))


class GpuTask(Task):
    """As in the CPU's run, on grey slices as medical images are; the weights do not need the package `sam2`."""

    @cached_property
    def pixels(self) -> np.ndarray:
        """(count, 3, side, side) float32, smooth and random, 0 to 1; three equal channels that share memory."""
        coarse = torch.rand(self.count, 1, self.side // 8, self.side // 8, generator=torch.Generator().manual_seed(5))
        smooth = nn.functional.interpolate(coarse, (self.side, self.side), mode="bicubic").clamp(0, 1).numpy()
        return np.broadcast_to(smooth, (self.count, 3, self.side, self.side))

    @cached_property
    def volume(self) -> Volume:
        geometry = VolumeGeometry.from_spacing((self.side, self.side, self.count))
        return Volume(np.ascontiguousarray(self.pixels[:, 0])[np.newaxis, np.newaxis], geometry, Modality.MR)

    @cached_property
    def network(self) -> Sam2Network:
        """On the CPU, in float32."""
        if self.model == "miniature":
            config = Sam2Config(_MINIATURE, self.side, dim=32, memory_dim=8, memory_layers=1, mlp_dim=32)
        else:
            config = Sam2Config.released(self.model, "2.1", self.side)
        network = Sam2Network(config)
        reference_sam2.randomise(network)
        return network.eval().requires_grad_(False)


@dataclass(frozen=True)
class Times:
    """Seconds by the clock until each slice of a propagation was there, with all its objects."""

    until: tuple[float, ...]

    @classmethod
    def of(cls, slices: Iterator[object], wait: Callable[[], None]) -> Times:
        """Run to the end; ``wait`` returns when the device has done all it was told."""
        wait()
        start, until = time.perf_counter(), []
        for _ in slices:
            until.append(time.perf_counter() - start)
        wait()
        until[-1] = time.perf_counter() - start
        return cls(tuple(until))

    def settled(self, slices: int) -> float:
        """Seconds a slice over the last ``slices``; a mean, since encoding comes in batches."""
        return (self.until[-1] - self.until[-1 - slices]) / slices


class Runner:
    """One contender on one device; ``times`` runs a propagation, ``tracked`` one with known features.

    Parameters
    ----------
    task, setting, device
        What is done, how, and where.
    """

    def __init__(self, task: GpuTask, setting: Setting, device: torch.device) -> None:
        self.task, self.setting, self.device = task, setting, device

    @property
    def failures(self) -> list[str]:
        """What did not go as the setting says."""
        return []

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _median_ms(self, call: Callable[[], object], each: int, repeats: int = 9) -> float:
        found = []
        for _ in range(repeats):
            self.wait()
            start = time.perf_counter()
            call()
            self.wait()
            found.append(1e3 * (time.perf_counter() - start) / each)
        return median(found)


class Ours(Runner):
    """Our session."""

    def __init__(self, task: GpuTask, setting: Setting, device: torch.device) -> None:
        super().__init__(task, setting, device)
        precision = PRECISIONS[setting.precision]
        network = copy.deepcopy(task.network).to(device)
        keep_weights_in(network, precision)
        compiled, graphs = "compiled" in setting.mode, "graphs" in setting.mode
        parts = Compile.NONE if not compiled else Compile.ENCODER if "encoder" in setting.mode else Compile.ALL
        make_faster(network, parts, graphs, None if device.type == "cuda" else _called_again)
        options = {"encoder_batch": setting.batch, "object_batch": 8}
        capabilities, prompts = ("slice", "memory"), ("point", "box", "mask")
        card = ModelCard("gpu", "gpu", "sam2", "none", capabilities, prompts, (), "imagenet", options=options)
        self.model = Sam2Model(card, network, precision)

    @property
    def failures(self) -> list[str]:
        return failures(self.model.network)

    def session(self, model: object | None = None) -> VolumeSession:
        """A new session, its first slice outlined."""
        session = VolumeSession(
            self.task.volume, model or self.model, window=Window((0.0,), (1.0,)), cache_bytes=_CACHE_BYTES
        )
        for number in self._objects:
            key = session.add_prompt(number, BoxPrompt.on_slice(self.task.box(number - 1), 0, _PLANE))
            session.segment_slice(number, key)
        return session

    def times(self, session: VolumeSession | None = None) -> Times:
        return Times.of(self.slices(session or self.session()), self.wait)

    def slices(self, session: VolumeSession) -> Iterator[object]:
        """One item for each slice, once all its objects are there."""
        results = session.propagate(self._objects, plane=_PLANE, first=0, last=self.task.count - 1)
        for number, _ in enumerate(results, 1):
            if number % len(self._objects) == 0:
                yield number

    def encoder_ms(self) -> float:
        """Milliseconds a slice, from windowed pixels to features on the device, in batches."""
        features = self.session().features
        stack = VolumeSession(self.task.volume, self.model).slices(_PLANE)
        images = [features.image(stack, index) for index in range(min(self.setting.batch, self.task.count))]
        return self._median_ms(lambda: self.model.encode_slices(images), len(images))

    def logits(self) -> dict[int, np.ndarray]:
        """(S, S) logits of the first object by slice."""
        recording = Recording(self.model)
        session = self.session(recording)
        found = {}
        for result in session.propagate([1], plane=_PLANE, first=0, last=self.task.count - 1):
            found[result.key.index] = recording.newest.logits[0].copy()
        return found

    @property
    def _objects(self) -> list[int]:
        return list(range(1, self.setting.objects + 1))


class Reference(Runner):
    """PyPI's sam2, its slices on the device and normalised beforehand; its masks are brought back as ours are.

    ``graphs`` false: where it is compiled, without the CUDA graphs that it asks the compiler for.
    """

    def __init__(self, task: GpuTask, setting: Setting, device: torch.device, graphs: bool = True) -> None:
        super().__init__(task, setting, device)
        compiled = setting.mode == "compiled"
        with nullcontext() if graphs else _compiling_without_graphs():
            self._predictor = reference_sam2.sam2_predictor(setting.model, "2.1", task.side, str(device), compiled)
        self._predictor.load_state_dict(task.network.state_dict(), strict=True)
        self._frames = task.frames.to(device)

    def times(self) -> Times:
        with self._autocast():
            return Times.of(self._slices(), self.wait)

    def encoder_ms(self) -> float:
        """Milliseconds a slice from normalised pixels; it encodes one at a time."""
        with self._autocast(), torch.inference_mode():
            return self._median_ms(lambda: self._predictor.forward_image(self._frames[:1]), 1)

    def logits(self) -> dict[int, np.ndarray]:
        """(S, S) logits of the first object by slice."""
        with self._autocast():
            return {index: logits[0, 0].float().cpu().numpy() for index, logits in self._tracked()}

    def _slices(self) -> Iterator[object]:
        for _, logits in self._tracked():
            yield (logits > 0).cpu()

    def _tracked(self) -> Iterator[tuple[int, Tensor]]:
        prompts = {number: [self.task.prompt(number - 1)] for number in range(1, self.setting.objects + 1)}
        found = reference_sam2.reference_slices(self._predictor, self._frames, prompts, range(self.task.count))
        return (one for one in found if one[0] != 0)

    def _autocast(self) -> AbstractContextManager:
        if self.setting.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, PRECISIONS[self.setting.precision])


def _called_again(function: Function, inputs: tuple[Any, ...]) -> Replay:
    """What stands in for a CUDA graph where there is no GPU."""
    return lambda: function(*inputs)


@contextmanager
def _compiling_without_graphs() -> Iterator[None]:
    original = torch.compile

    def other(*arguments: Any, mode: str | None = None, **options: Any) -> Any:
        mode = "max-autotune-no-cudagraphs" if mode == "max-autotune" else mode
        return original(*arguments, mode=mode, **options)

    torch.compile = other
    try:
        yield
    finally:
        torch.compile = original


@contextmanager
def tensor_cores(precision: str) -> Iterator[None]:
    """TF32 for what stays in float32, as sam2 recommends beside bf16; rows in fp32 do without."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision != "fp32"
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def forget() -> None:
    """Free what a contender held."""
    gc.collect()
    torch.compiler.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
