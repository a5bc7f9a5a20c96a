"""Writes the embedded network as the ONNX file that the extension ships.

``python -m SegmentAnythingMedLib.finetune.export_embedded --state DIR --output embedded.onnx``

With ``--file OLDER.onnx`` in place of ``--state``: the network of an older export, laid out as it is fastest.
"""

from __future__ import annotations

import argparse
import json
import logging
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from SegmentAnythingMedLib.finetune.embedded_checkpoint import load_average
from SegmentAnythingMedLib.finetune.embedded_network import EmbeddedConfig, EmbeddedNetwork, EmbeddedOutput
from SegmentAnythingMedLib.models.embedded_channels import CHANNELS
from SegmentAnythingMedLib.models.embedded_crop import INPUT_SIZE

log = logging.getLogger(__name__)
OPSET = 17


def export(network: EmbeddedNetwork, path: Path, half: bool = True, notes: Mapping[str, str] | None = None) -> Path:
    """Write a network; batch, height and width stay free.

    Parameters
    ----------
    network
        On the CPU.
    path
        The file.
    half
        Store weights in 16 bits, 8 MB in place of 16; the runtime widens them once, at load, and computes in 32.
    notes
        Kept in the file's metadata; ``weighing`` is read by `models.embedded`.
    """
    import onnx

    network = network.eval()
    names = list(EmbeddedOutput._fields)
    # No axis may be as long as a constant of the network, or the tracer takes it for one.
    example = torch.rand(2, len(CHANNELS), INPUT_SIZE, INPUT_SIZE + 32)
    axes = {"maps": {0: "batch", 2: "height", 3: "width"}, "logits": {0: "batch", 2: "height", 3: "width"}}
    axes |= {name: {0: "batch"} for name in names[1:]}
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter(
            "ignore"
        )  # the tracing exporter warns that it is the old one; the new one needs onnxscript
        torch.onnx.export(
            network,
            (example,),
            str(path),
            input_names=["maps"],
            output_names=names,
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )
    model = onnx.load(str(path))
    if half:
        _halve(model)
    merge_folding(model)
    for key, value in (notes or {}).items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, str(value)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def merge_folding(model: object) -> bool:
    """Let the first convolution read the maps as they are, with strides of 2, in place of maps folded 2 x 2.

    The same sums; a window costs 0.7 of 12 ms less, which the runtime needs for the folding and for padded channels.
    False if the model does so already.
    """
    from onnx import helper, numpy_helper

    graph = model.graph
    made_by = {name: node for node in graph.node for name in node.output}
    stem = next(node for node in graph.node if node.op_type == "Conv" and node.name.startswith("/stem"))
    folded = made_by.get(stem.input[0])
    while folded is not None and folded.op_type in ("Squeeze", "Reshape", "Transpose", "Unsqueeze"):
        stem.input[0] = folded.input[0]
        folded = made_by.get(folded.input[0])
    cast = made_by.get(stem.input[1])
    stored = stem.input[1] if cast is None else cast.input[0]
    weight = next(one for one in graph.initializer if one.name == stored)
    values = numpy_helper.to_array(weight)
    if values.shape[2:] != (3, 3):
        return False
    weight.CopyFrom(numpy_helper.from_array(unfolded(values), stored))
    del stem.attribute[:]
    shape = {"kernel_shape": [6, 6], "pads": [2, 2, 2, 2], "strides": [2, 2], "dilations": [1, 1], "group": 1}
    stem.attribute.extend(helper.make_attribute(key, value) for key, value in shape.items())
    _drop_unused(graph)
    return True


def unfolded(weight: np.ndarray) -> np.ndarray:
    """(n, 4 c, 3, 3) weights on maps folded 2 x 2 to the (n, c, 6, 6) weights on the maps themselves."""
    parts = weight.reshape(len(weight), -1, 2, 2, *weight.shape[2:]).transpose(0, 1, 4, 2, 5, 3)
    return np.ascontiguousarray(parts.reshape(*parts.shape[:2], 2 * weight.shape[2], 2 * weight.shape[3]))


def folded(weight: np.ndarray) -> np.ndarray:
    """The way back from `unfolded`."""
    count, maps, height, width = weight.shape
    parts = weight.reshape(count, maps, height // 2, 2, width // 2, 2).transpose(0, 1, 3, 5, 2, 4)
    return np.ascontiguousarray(parts.reshape(count, 4 * maps, height // 2, width // 2))


def _drop_unused(graph: object) -> None:
    """Remove nodes that nothing reads."""
    while True:
        read = {name for node in graph.node for name in node.input} | {one.name for one in graph.output}
        unused = [node for node in graph.node if not read.intersection(node.output)]
        if not unused:
            return
        for node in unused:
            graph.node.remove(node)


def _halve(model: object) -> None:
    """Store large float32 constants as float16, each behind a Cast that the runtime folds away."""
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    casts = []
    for weight in list(graph.initializer):
        values = numpy_helper.to_array(weight)
        if values.dtype != np.float32 or values.size < 256:
            continue
        graph.initializer.remove(weight)
        stored = f"{weight.name}.half"
        graph.initializer.append(numpy_helper.from_array(values.astype(np.float16), stored))
        casts.append(helper.make_node("Cast", [stored], [weight.name], to=TensorProto.FLOAT))
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend([*casts, *nodes])


def _lay_out_anew(file: Path, output: Path) -> None:
    import onnx

    model = onnx.load(str(file))
    changed = merge_folding(model)
    onnx.checker.check_model(model)
    onnx.save(model, str(output))
    log.info("%s: %s", output, "laid out anew" if changed else "was laid out so already")


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m SegmentAnythingMedLib.finetune.export_embedded", description=__doc__.splitlines()[0]
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--state", type=Path, help="a training run's folder, or its average.pt")
    source.add_argument("--file", type=Path, help="a file of an older export, which is only laid out anew")
    parser.add_argument("--output", type=Path, default=Path("out/embedded/embedded.onnx"))
    parser.add_argument("--notes", type=json.loads, default={}, help="JSON object for the file's metadata")
    chosen = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if chosen.file is not None:
        return _lay_out_anew(chosen.file, chosen.output)
    network = EmbeddedNetwork(EmbeddedConfig())
    network.load_state_dict(load_average(chosen.state))
    path = export(network, chosen.output, notes=chosen.notes)
    log.info("%s: %.1f MB", path, path.stat().st_size / 1e6)


if __name__ == "__main__":
    main()
