"""Writes the embedded network as the ONNX file that the extension ships.

``python -m SegmentAnythingMedLib.finetune.export_embedded --state DIR --output embedded.onnx``
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
    for key, value in (notes or {}).items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, str(value)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


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


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m SegmentAnythingMedLib.finetune.export_embedded", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--state", type=Path, required=True, help="a training run's folder, or its average.pt")
    parser.add_argument("--output", type=Path, default=Path("out/embedded/embedded.onnx"))
    parser.add_argument("--notes", type=json.loads, default={}, help="JSON object for the file's metadata")
    chosen = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    network = EmbeddedNetwork(EmbeddedConfig())
    network.load_state_dict(load_average(chosen.state))
    path = export(network, chosen.output, notes=chosen.notes)
    log.info("%s: %.1f MB", path, path.stat().st_size / 1e6)


if __name__ == "__main__":
    main()
