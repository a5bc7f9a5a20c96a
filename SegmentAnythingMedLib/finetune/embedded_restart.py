"""Training that goes on from a released ONNX file, where no checkpoint lies: its weights are put back into the network.

Batch norms were folded into the file's convolutions. They are built anew from a batch of examples so that the network
answers exactly as the file does, and trains as if it had been stopped there; only the optimizer starts afresh.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from SegmentAnythingMedLib.errors import ModelFileError
from SegmentAnythingMedLib.finetune.embedded_network import EmbeddedNetwork
from SegmentAnythingMedLib.finetune.export_embedded import folded


def restart(network: EmbeddedNetwork, path: Path, maps: Tensor) -> int:
    """Take over the weights of an exported file.

    Parameters
    ----------
    network
        Of the sizes that the file was exported from; left in evaluation mode.
    path
        Written by `export_embedded.export`.
    maps
        (B, 11, h, w) input of the network: examples from which its batch norms are built.

    Returns
    -------
    int
        Examples that the file's network had seen, 0 if that was not noted.

    Raises
    ------
    ModelFileError
        If the file is no network of these sizes.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(str(path))
    except (OSError, DecodeError) as error:
        raise ModelFileError(f"{path.name} is not an ONNX file: start from embedded.onnx, or from nothing.") from error
    stored = _constants(model.graph)
    # The likelihood maps' smoothing is a Conv, too; it has no weights to learn.
    learnt = [pair for pair in _convolutions(model.graph, stored) if pair[0].ndim == 4]
    convolutions = _in_order(network, maps[:1])
    shapes = [tuple(weight.shape) for weight, _ in learnt]
    if shapes != [tuple(one.weight.shape) for one, _ in convolutions]:
        raise ModelFileError(f"{path.name} is a network of other sizes: start from another file, or from nothing.")
    _take_linear(network, stored, path)
    handles = []
    for (convolution, norm), (weight, bias) in zip(convolutions, learnt, strict=True):
        convolution.weight.data.copy_(torch.from_numpy(weight))
        if norm is None:
            convolution.bias.data.copy_(torch.from_numpy(bias))
        else:
            handles.append(norm.register_forward_pre_hook(_Rebuild(torch.from_numpy(bias))))
    network.eval()
    with torch.no_grad():
        network(maps)
    for handle in handles:
        handle.remove()
    noted = {entry.key: entry.value for entry in model.metadata_props}
    return int(noted.get("examples", 0))


class _Rebuild:
    """Sets a batch norm, just before it is first used, so that it adds ``bias`` to what it is given, nothing else."""

    def __init__(self, bias: Tensor) -> None:
        self._bias = bias

    def __call__(self, norm: nn.BatchNorm2d, inputs: tuple[Tensor, ...]) -> None:
        mean, variance = inputs[0].mean((0, 2, 3)), inputs[0].var((0, 2, 3), unbiased=False)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        norm.weight.data.copy_((variance + norm.eps).sqrt())
        norm.bias.data.copy_(mean + self._bias)


def _in_order(network: EmbeddedNetwork, maps: Tensor) -> list[tuple[nn.Conv2d, nn.BatchNorm2d | None]]:
    """Convolutions in the order they are used, each with the batch norm behind it."""
    used: list[nn.Module] = []
    modules = [one for one in network.modules() if isinstance(one, nn.Conv2d | nn.BatchNorm2d)]
    handles = [one.register_forward_hook(lambda module, *_: used.append(module)) for one in modules]
    with torch.no_grad():
        network.eval()(maps)
    for handle in handles:
        handle.remove()
    pairs = []
    for number, module in enumerate(used):
        if isinstance(module, nn.Conv2d):
            behind = used[number + 1] if number + 1 < len(used) else None
            pairs.append((module, behind if isinstance(behind, nn.BatchNorm2d) else None))
    return pairs


def _constants(graph: object) -> dict[str, np.ndarray]:
    """Values by name, 16-bit ones widened as the file's own Cast nodes do."""
    from onnx import numpy_helper

    stored = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    for node in graph.node:
        if node.op_type == "Cast" and node.input[0] in stored:
            stored[node.output[0]] = stored[node.input[0]].astype(np.float32)
    return stored


def _convolutions(graph: object, stored: dict[str, np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Weight and bias of each, the first one's on folded maps."""
    found = [_weights(node, stored) for node in graph.node if node.op_type == "Conv"]
    return [(folded(weight) if weight.shape[2:] == (6, 6) else weight, bias) for weight, bias in found]


def _weights(node: object, stored: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    weight = np.array(stored.get(node.input[1], np.empty(0)), dtype=np.float32)
    given = stored.get(node.input[2]) if len(node.input) > 2 else None
    return weight, np.zeros(len(weight), np.float32) if given is None else np.array(given, dtype=np.float32)


def _take_linear(network: EmbeddedNetwork, stored: dict[str, np.ndarray], path: Path) -> None:
    for name, parameter in network.judge.named_parameters(prefix="judge"):
        value = stored.get(name)
        if value is None or tuple(value.shape) != tuple(parameter.shape):
            raise ModelFileError(f"{path.name} lacks {name}, or has it in another size: start from another file.")
        parameter.data.copy_(torch.from_numpy(np.array(value, dtype=np.float32)))
