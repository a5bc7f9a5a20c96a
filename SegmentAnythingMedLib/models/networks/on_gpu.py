"""What makes a SAM 2 network fast on a GPU: weights kept in the precision they are used in, calls made faster."""

from __future__ import annotations

from enum import Enum
from functools import partial

import torch
from torch import nn

from .layers import ConvNorm
from .repeated_call import CudaGraphs, Record, RepeatedCall


class Compile(Enum):
    """Which parts `torch.compile` makes faster; the value is what a card's option ``compile`` says."""

    NONE = "none"
    ENCODER = "encoder"
    ALL = "all"

    @property
    def parts(self) -> tuple[str, ...]:
        """Methods of the network."""
        return {"none": (), "encoder": REPEATED[:1], "all": REPEATED}[self.value]


REPEATED = ("encode_image", "track", "encode_memory")
"""Methods that are called again with the same shapes."""


def keep_weights_in(network: nn.Module, precision: torch.dtype) -> None:
    """Cast the weights of matrix products and convolutions once; autocast would do so on every call, alike.

    Those that are computed with before they are used (`ConvNorm`) stay as they are.
    """
    folded = {id(one.c) for one in network.modules() if isinstance(one, ConvNorm)}
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d) and id(module) not in folded:
            module.to(precision)


def make_faster(
    network: nn.Module, compile_parts: Compile = Compile.NONE, graphs: bool = False, record: Record | None = None
) -> None:
    """Compile or record the network's calls; it is no longer trained then.

    Parameters
    ----------
    network
        With the methods `REPEATED`; those it lacks are left out.
    compile_parts
        What is compiled. Needs Triton on a GPU, on a CPU a C++ compiler.
    graphs
        Whether calls are recorded as CUDA graphs.
    record
        What records in place of CUDA graphs.
    """
    network.requires_grad_(False)
    recording = (record or CudaGraphs()) if graphs else None
    for name in REPEATED:
        compiled = name in compile_parts.parts
        if hasattr(network, name) and (graphs or compiled):
            # Shapes are fixed; kernels for any shape would be slower.
            compiler = partial(torch.compile, dynamic=False) if compiled else None
            setattr(network, name, RepeatedCall(getattr(network, name), recording, compiler))


def failures(network: nn.Module) -> list[str]:
    """Why calls were not made faster."""
    calls = {name: getattr(network, name, None) for name in REPEATED}
    return [f"{name}: {one.failure}" for name, one in calls.items() if isinstance(one, RepeatedCall) and one.failure]
