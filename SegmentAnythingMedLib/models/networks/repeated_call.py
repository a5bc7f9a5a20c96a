"""Calls that come again with the same shapes, made faster: compiled by torch, or recorded as a CUDA graph and replayed.

On a GPU a small network waits for Python, which starts a thousand kernels one by one. A recorded graph starts them at
once, and compiling joins them. Both want fixed shapes, so a call is only made faster once its shapes have come again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

log = logging.getLogger(__name__)

RECORD_AT, COMPILE_AT = 2, 5
"""Which call of the same shapes is recorded, and which in a row is compiled: that takes a minute, and while a memory
fills every slice has shapes of its own."""
MOST_COMPILED = 4
"""Shapes of one function that are ever compiled."""

Function = Callable[..., Any]
Replay = Callable[[], Any]
Record = Callable[[Function, tuple[Any, ...]], Replay]


class RepeatedCall:
    """A function of tensors, in tuples and frozen dataclasses or not, that is called again and again.

    While gradients are wanted it is called as it is. Where recording or compiling fails, a warning says so, `failure`
    holds the reason, and the function is called as it is from then on.

    Parameters
    ----------
    function
        Without side effects; nothing in it may wait for the device.
    record
        Records a call, from the function and its lasting inputs; None records nothing.
    compiler
        Makes a faster function; None compiles nothing.
    """

    def __init__(self, function: Function, record: Record | None = None, compiler: Function | None = None) -> None:
        self.failure = ""
        self._function, self._record = function, record
        self._compiled = None if compiler is None else compiler(function)
        self._done: set[tuple[Any, ...]] = set()
        self._seen: dict[tuple[Any, ...], int] = {}
        self._newest: tuple[Any, ...] = ()
        self._in_a_row = 0
        self._ready: dict[tuple[Any, ...], Function] = {}

    def __call__(self, *arguments: Any) -> Any:
        if torch.is_grad_enabled():
            return self._function(*arguments)
        key = _signature(arguments)
        self._seen[key] = self._seen.get(key, 0) + 1
        self._in_a_row, self._newest = (self._in_a_row + 1 if key == self._newest else 1), key
        if not self.failure:
            self._improve(key, arguments)
        return self._ready.get(key, self._function)(*arguments)

    def _improve(self, key: tuple[Any, ...], arguments: tuple[Any, ...]) -> None:
        wanted = self._compiled is not None and key not in self._done and len(self._done) < MOST_COMPILED
        if wanted and self._in_a_row >= COMPILE_AT:
            self._done.add(key)
            chosen = self._compiled
        elif self._record is not None and self._seen[key] == RECORD_AT:
            chosen = self._function
        else:
            return
        try:
            self._ready[key] = self._faster(chosen, arguments)
        except RuntimeError as error:  # what torch's compiler and its CUDA calls raise
            self.failure = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
            self._ready.clear()
            log.warning("Not made faster, goes on as before: %s", self.failure)

    def _faster(self, function: Function, arguments: tuple[Any, ...]) -> Function:
        if self._record is None:
            function(*arguments)  # compiles
            return function
        inputs = _mapped(arguments, torch.clone)
        return _Recording(tuple(_tensors(inputs)), self._record(function, inputs))


@dataclass(frozen=True, eq=False)
class _Recording:
    """A recorded call: new inputs are copied over the lasting ones, results are copied before the next call."""

    inputs: tuple[Tensor, ...]
    replay: Replay

    def __call__(self, *arguments: Any) -> Any:
        for lasting, given in zip(self.inputs, _tensors(arguments), strict=True):
            lasting.copy_(given, non_blocking=True)
        return _mapped(self.replay(), torch.clone)


class CudaGraphs:
    """Records calls as CUDA graphs that share one memory pool.

    Sharing is safe because results are copied out before another graph runs; the graphs' results are kept alive.
    """

    def __init__(self) -> None:
        self._pool: object = None

    def __call__(self, function: Function, arguments: tuple[Any, ...]) -> Replay:
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):  # libraries set themselves up here, which a graph must not hold
            for _ in range(3):
                function(*arguments)
        torch.cuda.current_stream().wait_stream(aside)
        torch.clear_autocast_cache()  # weights cast before the recording would be freed under it
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            results = function(*arguments)
        torch.clear_autocast_cache()

        def replay() -> Any:
            graph.replay()
            return results

        return replay


def _signature(value: Any) -> Any:
    """What must be equal for two calls to be the same: shapes, types, and all that is no tensor."""
    if isinstance(value, Tensor):
        return tuple(value.shape), value.dtype, value.device
    if isinstance(value, tuple | list):
        return tuple(map(_signature, value))
    if is_dataclass(value):
        return type(value), *(_signature(getattr(value, field.name)) for field in fields(value))
    return value


def _tensors(value: Any) -> Iterator[Tensor]:
    """All tensors, in one order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for one in value:
            yield from _tensors(one)
    elif is_dataclass(value):
        for field in fields(value):
            yield from _tensors(getattr(value, field.name))


def _mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same with every tensor changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, tuple | list):
        return tuple(_mapped(one, change) for one in value)
    if is_dataclass(value):
        return replace(value, **{field.name: _mapped(getattr(value, field.name), change) for field in fields(value)})
    return value
