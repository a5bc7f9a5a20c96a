"""OpenVINO in place of torch for parts of a network on a CPU: converted once, kept on disk, compiled when loaded.

OpenVINO's wheel brings a telemetry package that would report to its makers at the first import. Here it is never
imported: OpenVINO finds it missing and goes on with its own empty stand-in.
"""

from __future__ import annotations

import hashlib
import logging
import math
import sys
import tempfile
import warnings
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from SegmentAnythingMedLib.errors import ModelUnavailableError, OutputError
from SegmentAnythingMedLib.models.mapped_conversion import MappedConversion, content_of
from SegmentAnythingMedLib.replacing import make_folder

log = logging.getLogger(__name__)

_TELEMETRY = "openvino_telemetry"
PRECISIONS = {torch.float32: "f32", torch.bfloat16: "bf16"}
"""What OpenVINO calls the precisions it has."""
_SOURCES = ("accelerate.py", "mapped_conversion.py", "sam2_engine.py", "networks/*.py")
"""What a conversion depends on, beside the weights."""
_KEY_LENGTH = 24
_CLOSE = {torch.float32: 1e-3, torch.bfloat16: 0.2}  # of the largest value
_OFTEN, _MOST_PROGRAMS = 3, 4  # while a memory fills lengths change; then one stays
_Shapes = tuple[tuple[int, ...], ...]
_Arrays = list[np.ndarray]
_FAILURES = (RuntimeError, ValueError, TypeError, AttributeError, LookupError, AssertionError, OSError, ImportError)


@dataclass(frozen=True, eq=False)
class Part:
    """A piece of a network that is computed at once.

    Parameters
    ----------
    name
        In the names of cache files.
    module
        Takes tensors alone and answers with a tuple of them; without gradients.
    example
        Tensors as they will come, batch included: other shapes cannot be computed, but for ``growing``. What is
        converted must give for them what torch gives, so they should not be all alike.
    growing
        For each input, by its position, the dimension that may have any length; the same length for all of them.
    precision
        Of its products: float32 or bfloat16. Tensors in and out are float32.
    fused
        Whether OpenVINO may make one kernel of two products and what is between them. For attention over thousands of
        tokens it is slower so (SAM 2.1 tiny at 512 px: memory attention 90 ms, not 69), and some are wrong in bf16.
    spare
        Whether torch seldom computes this itself, so that its weights can leave memory (`Compiled.unload`).
    """

    name: str
    module: nn.Module
    example: tuple[Tensor, ...]
    growing: Mapping[int, int] | None = None
    precision: torch.dtype = torch.float32
    fused: bool = True
    spare: bool = False


class Compiled:
    """A part ready to run; from one thread.

    Parameters
    ----------
    part
        Whose shapes and lengths are known.
    model
        As converted.
    compile_model
        Makes a program of it. A program for one length is up to twice as fast as one for any, but takes 0.3 s to make:
        the example's length and lengths that come often get one.
    kept
        The file that holds the model's weights, or None.
    """

    def __init__(
        self, part: Part, model: Any, compile_model: Callable[[Any], Any], kept: MappedConversion | None = None
    ) -> None:
        self._kept, self._module = kept, part.module if part.spare else None
        self._grows = bool(part.growing)
        self._model, self._compile = model if self._grows else None, compile_model  # it holds all weights
        self._outputs = len(model.outputs)
        self._general = compile_model(model).create_infer_request()
        self._times: Counter[_Shapes] = Counter()
        self._special: OrderedDict[_Shapes, Any] = OrderedDict()
        self._rests = 0  # calls since the program for any length was used
        self._forget()
        if self._grows:
            self._specialize(_arrays(part.example))

    def unload(self) -> None:
        """Let torch's weights of a spare part go; what torch still computes with them it reads from the cache file."""
        module, self._module = self._module, None
        if module is None or self._kept is None:
            return
        for name, tensor in module.state_dict(keep_vars=True).items():
            kept = self._kept.tensor(name, tensor)
            tensor.data = tensor.data if kept is None else kept

    def __call__(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Float32 results; `FloatingPointError` if one is no number."""
        arrays = _arrays(tensors)
        found = self._infer(self._request_for(arrays) if self._grows else self._general, arrays)
        if not all(math.isfinite(float(one.sum())) for one in found):
            raise FloatingPointError("A result is no number.")
        return found

    def _request_for(self, arrays: _Arrays) -> Any:
        shapes = _shapes(arrays)
        self._times[shapes] += 1
        if shapes not in self._special and self._times[shapes] > _OFTEN:
            self._specialize(arrays)
        if shapes not in self._special:
            self._rests = 0
            return self._general
        self._special.move_to_end(shapes)
        self._rests += 1
        if self._rests == _OFTEN:
            _release(self._general)
        return self._special[shapes]

    def _specialize(self, arrays: _Arrays) -> None:
        """Make a program for the arrays' lengths, and use it if it is right.

        In bf16 some are not: memory attention over less than 3000 tokens gave NaN (OpenVINO 2026.4.1, with AMX).
        """
        request, general = self._general, self._infer(self._general, arrays)
        try:
            own = self._model.clone()
            own.reshape({place: list(array.shape) for place, array in enumerate(arrays)})
            special = self._compile(own).create_infer_request()
            if _are_close(self._infer(special, arrays), general, _CLOSE[torch.bfloat16]):
                request = special
        except RuntimeError as error:  # not enough memory for another program: the general one goes on
            log.warning("OpenVINO makes no program for these lengths: %s", str(error).strip()[:200])
        self._forget()
        self._special[_shapes(arrays)] = request
        if len(self._special) > _MOST_PROGRAMS:
            seldom, _ = self._special.popitem(last=False)
            del self._times[seldom]  # or lengths that come by turns would get a new program each time

    def _infer(self, request: Any, arrays: _Arrays) -> tuple[Tensor, ...]:
        found = request.infer(arrays, share_inputs=True)
        return tuple(torch.from_numpy(found[index]) for index in range(self._outputs))

    def _forget(self) -> None:
        """A program has weights of its own, in the order and precision it computes with."""
        if self._kept is not None:
            self._kept.forget()


class Accelerator:
    """OpenVINO, and where it keeps what it converted.

    Parameters
    ----------
    folder
        Cache folder; None, or one that cannot be written to, converts anew each time.
    threads
        As many as torch has.

    Raises
    ------
    ModelUnavailableError
        If OpenVINO is not installed, or was imported elsewhere with its telemetry.
    """

    def __init__(self, folder: Path | None, threads: int | None = None) -> None:
        self._openvino = _import_quietly()
        self._core = self._openvino.Core()
        self._folder = folder
        self._threads = threads or torch.get_num_threads()

    def compile(self, part: Part) -> Compiled:
        """Convert a part, or find it in the cache, and make it ready.

        Raises
        ------
        ModelUnavailableError
            If OpenVINO cannot compute it.
        """
        if part.precision not in PRECISIONS:
            raise ModelUnavailableError(f"OpenVINO does not compute in {part.precision} here: use torch.")
        failures = (*_FAILURES, *_exceptions_of(self._openvino.frontend))
        try:
            model, kept = self._cached(part) if self._folder else (self._converted(part), None)
            return self._compiled(part, model, part.precision, kept)
        except failures as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            raise ModelUnavailableError(f"OpenVINO cannot compute {part.name} ({reason}): use torch.") from error

    def _compiled(
        self, part: Part, model: Any, precision: torch.dtype, kept: MappedConversion | None = None
    ) -> Compiled:
        settings = {
            "INFERENCE_NUM_THREADS": self._threads,
            "INFERENCE_PRECISION_HINT": PRECISIONS[precision],  # by itself it would take bf16 where the CPU has it
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,  # the host needs its cores, too
        }
        compiling = lambda one: self._core.compile_model(one, "CPU", settings)  # noqa: E731
        if part.fused:
            return Compiled(part, model, compiling, kept)
        settings["SNIPPETS_MODE"] = "DISABLE"
        try:
            return Compiled(part, model, compiling, kept)
        except RuntimeError:  # no official setting: another version may not know it
            del settings["SNIPPETS_MODE"]
            return Compiled(part, model, compiling, kept)

    def _cached(self, part: Part) -> tuple[Any, MappedConversion | None]:
        """A part's model, with the file it is in if it could be written."""
        name = f"{part.name}-{PRECISIONS[part.precision]}"
        path = self._folder / f"{name}-{self._key(part)}.ov"
        kept, model = MappedConversion.find(path), None
        if kept is None:
            model = self._converted(part)
            self._keep(part, model, path, name)
            kept = MappedConversion.find(path)
        if kept is None:
            return model, None
        return self._core.read_model(kept.xml, self._openvino.Tensor(kept.weights, shared_memory=True)), kept

    def _converted(self, part: Part) -> Any:
        shapes = None
        if part.growing:
            length = torch.export.Dim("length", min=2)
            shapes = tuple({part.growing[i]: length} if i in part.growing else None for i in range(len(part.example)))
        with torch.no_grad(), _logging_kept(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, about its own tracing
            program = torch.export.export(part.module, part.example, dynamic_shapes=shapes)
            model = self._openvino.convert_model(program)
            expected = part.module(*part.example)
        for precision in {torch.float32, part.precision}:
            # A conversion that runs may still be wrong (seen: a layer norm of flattened maps).
            if not _are_close(self._compiled(part, model, precision)(*part.example), expected, _CLOSE[precision]):
                raise ValueError("its results differ from torch's")
        return model

    def _key(self, part: Part) -> str:
        """Changes with weights, shapes, our code, the processor, torch and OpenVINO."""
        processor = self._core.get_property("CPU", "FULL_DEVICE_NAME")  # results were compared on this one
        versions = f"{self._openvino.get_version()} {torch.__version__} {processor} {part.growing}"
        digest = hashlib.sha256(versions.encode())
        digest.update(repr(part.module).encode() + repr([tuple(one.shape) for one in part.example]).encode())
        for source in (path for pattern in _SOURCES for path in sorted(Path(__file__).parent.glob(pattern))):
            digest.update(source.read_bytes())
        for name, tensor in part.module.state_dict().items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(content_of(tensor))
        return digest.hexdigest()[:_KEY_LENGTH]

    def _keep(self, part: Part, model: Any, path: Path, name: str) -> None:
        """Write a file in place of the part's older ones; where nothing can be written, nothing is."""
        try:
            make_folder(path.parent)
            with tempfile.TemporaryDirectory(dir=path.parent) as folder:
                xml, weights = Path(folder) / "model.xml", Path(folder) / "model.bin"
                self._openvino.serialize(model, str(xml), str(weights))
                tensors = part.module.state_dict() if part.spare else {}
                MappedConversion.write(path, xml.read_bytes(), weights.read_bytes(), tensors)
        except (OSError, OutputError, RuntimeError) as error:
            log.info("What OpenVINO converted is not kept: %s", error)
            return
        for other in path.parent.glob(f"{name}-*.ov"):
            if other != path and len(other.stem) == len(path.stem):
                with suppress(OSError):
                    other.unlink()


def is_installed() -> bool:
    """Whether OpenVINO could be imported, without importing it."""
    from importlib.util import find_spec

    return "openvino" in sys.modules or find_spec("openvino") is not None


def _exceptions_of(module: ModuleType) -> list[type[Exception]]:
    return [one for one in vars(module).values() if isinstance(one, type) and issubclass(one, Exception)]


@contextmanager
def _logging_kept() -> Iterator[None]:
    """A conversion that fails leaves the root logger at ERROR, and everybody's warnings are lost."""
    root = logging.getLogger()
    level, filters, handlers = root.level, list(root.filters), list(root.handlers)
    try:
        yield
    finally:
        root.setLevel(level)
        root.filters, root.handlers = filters, handlers


def _import_quietly() -> ModuleType:
    """OpenVINO without its telemetry, now and for the rest of this process."""
    if sys.modules.get(_TELEMETRY) is not None:
        raise ModelUnavailableError("OpenVINO was imported with its telemetry here: use torch.")
    sys.modules[_TELEMETRY] = None  # an import of it fails from now on
    try:
        import openvino
        import openvino.frontend
    except (ImportError, OSError) as error:
        raise ModelUnavailableError("OpenVINO is not installed: install segment-anything-med[openvino].") from error
    return openvino


def _release(request: Any) -> None:
    """Let go what a program holds between calls but its weights; it makes it again when it is called."""
    program = request.get_compiled_model()
    if hasattr(program, "release_memory"):  # since OpenVINO 2025
        program.release_memory()


def _arrays(tensors: Iterable[Tensor]) -> _Arrays:
    return [tensor.float().contiguous().numpy() for tensor in tensors]


def _shapes(arrays: _Arrays) -> _Shapes:
    return tuple(array.shape for array in arrays)


def _are_close(found: Iterable[Tensor], expected: Iterable[Tensor], close: float) -> bool:
    """Whether no result is off by more than a part of the largest expected one, or no number."""
    return all(
        float((mine - wanted).abs().max()) <= close * float(wanted.abs().max().clamp(min=1e-6))
        for mine, wanted in zip(found, expected, strict=True)
    )
