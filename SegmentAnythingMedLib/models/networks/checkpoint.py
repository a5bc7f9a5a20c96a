"""Read checkpoints without executing what is in them, and load them strictly."""

from __future__ import annotations

import hashlib
import pickle
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from SegmentAnythingMedLib.errors import ModelFileError

from .hiera import HIERA_SIZES
from .sam2_network import Sam2Config

# What torch's reader raises for a pickle that was cut or changed.
_BROKEN = (RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError, struct.error)
_ZIP_MAGIC = b"PK\x03\x04"
_WRAPPERS = ("model", "state_dict")
# Trainers that save the optimizer whole (SAM-Med2D's does) hold it under these names.
_OPTIMIZERS = ("torch.optim.adam.Adam", "torch.optim.adamw.AdamW", "torch.optim.sgd.SGD")
_NAMES_STAND_INS = (2, 6)  # first torch whose reader lets a class be replaced
_COMPUTED = ".freqs_cis"  # rotary tables, complex, in the published SAM 3; networks compute theirs
_NAMED_KEYS = 5
_BLOCKS = "image_encoder.trunk.blocks."
_PATCHES = "image_encoder.trunk.patch_embed.proj.weight"
_POINTER_TIMES, _OCCLUSION = "obj_ptr_tpos_proj.weight", "no_obj_embed_spatial"


def read_checkpoint(path: str | Path, sha256: str | None = None) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint onto the CPU.

    Parameters
    ----------
    path : a .safetensors file, or a zip archive written by torch.save (.pt, .pth, .bin, .ckpt). Of the latter only
        tensors and plain containers are read (`weights_only`); a dictionary under "model" or "state_dict" is unwrapped.
        An optimizer of torch saved beside the weights is passed over, not made.
    sha256 : expected digest of the file in hexadecimal, or None

    Raises
    ------
    ModelFileError
        The file is missing, truncated, of another format or digest, or holds anything but tensors of plain numbers.
    """
    path = Path(path)
    try:
        with path.open("rb") as stream:
            magic = stream.read(9)
            if sha256 is not None:
                stream.seek(0)
                found, expected = hashlib.file_digest(stream, "sha256").hexdigest(), sha256.lower()
                if found != expected:
                    raise ModelFileError(f"{path.name} has sha256 {found}, expected {expected}: download it again.")
    except OSError as error:
        raise ModelFileError(f"{path.name} cannot be read: {error.strerror}.") from error
    if not magic:
        raise ModelFileError(f"{path.name} is empty: download it again.")
    state = _read_safetensors(path, magic) if path.suffix == ".safetensors" else _read_torch(path, magic)
    if not state or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise ModelFileError(f"{path.name} is not a checkpoint: it must map names to tensors only.")
    state = {key: tensor for key, tensor in state.items() if not key.endswith(_COMPUTED)}
    odd = next((key for key, tensor in state.items() if not _is_plain(tensor)), None)
    if odd is not None:
        raise ModelFileError(
            f"{path.name} holds a quantized, complex or sparse tensor ({odd[:80]}): convert it to plain numbers first."
        )
    return dict(state)


def _is_plain(tensor: Tensor) -> bool:
    is_dense = tensor.layout is torch.strided and not tensor.is_quantized and not tensor.is_nested
    return is_dense and not tensor.is_complex() and tensor.device.type == "cpu"


def _read_safetensors(path: Path, magic: bytes) -> Mapping[str, Tensor]:
    if magic[8:] != b"{":
        raise ModelFileError(f"{path.name} is not a safetensors file: its header does not start one.")
    try:
        # Copies: the file's memory map is not aligned for vector units, and would lock the file on Windows.
        return {key: _copied(tensor) for key, tensor in load_file(path).items()}
    except SafetensorError as error:
        raise ModelFileError(f"{path.name} is truncated or damaged ({error}): download it again.") from error


def _copied(tensor: Tensor) -> Tensor:
    """A copy made by one thread: where other programs keep the cores busy, torch's own takes ten times as long."""
    copy = torch.empty_like(tensor, memory_format=torch.contiguous_format)
    np.copyto(copy.view(-1).view(torch.uint8).numpy(), tensor.contiguous().view(-1).view(torch.uint8).numpy())
    return copy


def _read_torch(path: Path, magic: bytes) -> Mapping[str, Tensor]:
    if not magic.startswith(_ZIP_MAGIC):
        raise ModelFileError(f"{path.name} is not a checkpoint: neither safetensors nor torch's zip format.")
    try:
        with _no_optimizer():
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelFileError(f"{path.name} holds more than tensors and was refused; nothing in it was run.") from error
    except _BROKEN as error:
        raise ModelFileError(f"{path.name} is truncated or damaged: download it again.") from error
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping):
        raise ModelFileError(f"{path.name} is not a checkpoint: it holds a {type(content).__name__}, not tensors.")
    return content


class _PassedOver:
    """What is read in place of an optimizer; its state is dropped."""

    def __setstate__(self, state: object) -> None: ...


def _plain_dict(*_: object) -> dict[object, object]:
    """In place of the defaultdict that holds an optimizer's state."""
    return {}


def _no_optimizer() -> AbstractContextManager:
    """Within, torch reads nothing in place of an optimizer; an older torch refuses the file as before."""
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < _NAMES_STAND_INS:
        return nullcontext()
    stand_ins = [(_PassedOver, name) for name in _OPTIMIZERS]
    return torch.serialization.safe_globals([*stand_ins, (_plain_dict, "collections.defaultdict"), dict])


class _Undrawn(TorchFunctionMode):
    """Within, no number is drawn: weights stay as they are."""

    def __torch_function__(
        self, function: Callable[..., Any], types: object, arguments: tuple = (), options: dict[str, Any] | None = None
    ) -> Any:
        options = options or {}
        if getattr(function, "__module__", None) == nn.init.__name__:
            return arguments[0] if arguments else options["tensor"]
        return (torch.empty if function is torch.randn else function)(*arguments, **options)


@contextmanager
def without_weights() -> Iterator[None]:
    """A network built within has shapes alone (it is on the meta device), for `load_strictly` to fill.

    To draw numbers there torch would import its compiler and sympy, 800 modules and 73 MiB for nothing.
    """
    with torch.device("meta"), _Undrawn():
        yield


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], name: str) -> None:
    """Load all of a checkpoint into a module, or nothing.

    A module on the meta device takes the checkpoint's tensors, converted to its own dtypes where they differ.

    Parameters
    ----------
    module : its keys and shapes must be those of `state`
    state : from `read_checkpoint`
    name : what to call the file in a message

    Raises
    ------
    ModelFileError
        Keys are missing or extra, or shapes differ; the message names some, and the SAM 2 size and version of the
        file where it has one.
    """
    own = module.state_dict()
    missing = [key for key in own if key not in state]
    extra = [key for key in state if key not in own]
    reshaped = [key for key in own if key in state and own[key].shape != state[key].shape]
    problems = [
        f"{len(keys)} {what} ({', '.join(keys[:_NAMED_KEYS])}{', ...' if len(keys) > _NAMED_KEYS else ''})"
        for what, keys in (("missing", missing), ("unexpected", extra), ("of another shape", reshaped))
        if keys
    ]
    if problems:
        found = describe_sam2(state)
        hint = f" The file is a {found} checkpoint." if found else ""
        raise ModelFileError(f"{name} does not fit the model: tensors {'; '.join(problems)}.{hint}")
    on_meta = any(tensor.is_meta for tensor in own.values())
    module.load_state_dict({key: state[key].to(own[key].dtype) for key in own}, strict=True, assign=on_meta)


def describe_sam2(state: Mapping[str, Tensor]) -> str | None:
    """Size and version of a SAM 2 checkpoint as words, "SAM 2.1 tiny"; None for anything else."""
    size = _hiera_size(state)
    return None if size is None else f"SAM {_version(state)} {size}"


def infer_sam2_config(state: Mapping[str, Tensor], image_size: int) -> Sam2Config:
    """Configuration that fits a checkpoint of SAM 2, 2.1 or a fine-tuned descendant.

    The image size is not in the file: its card knows it.

    Raises
    ------
    ModelFileError
        The keys are not those of a released size.
    """
    size = _hiera_size(state)
    if size is None:
        raise ModelFileError(f"The file is not a SAM 2 checkpoint of size {', '.join(HIERA_SIZES)}.")
    return replace(
        Sam2Config.released(size, image_size=image_size),
        pointer_time_encoding=_POINTER_TIMES in state,
        occlusion_embedding=_OCCLUSION in state,
    )


def _hiera_size(state: Mapping[str, Tensor]) -> str | None:
    if _PATCHES not in state or not state[_PATCHES].ndim:
        return None
    blocks = {key[len(_BLOCKS) :].split(".")[0] for key in state if key.startswith(_BLOCKS)}
    shape = (state[_PATCHES].shape[0], len(blocks))
    return next((size for size, hiera in HIERA_SIZES.items() if (hiera.dim, sum(hiera.blocks)) == shape), None)


def _version(state: Mapping[str, Tensor]) -> str:
    return "2.1" if _POINTER_TIMES in state or _OCCLUSION in state else "2.0"
