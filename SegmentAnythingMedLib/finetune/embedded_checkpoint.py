"""What a training run leaves to go on from: plain tensors and numbers, in files below 16 MB."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor, nn

from SegmentAnythingMedLib.errors import ModelFileError
from SegmentAnythingMedLib.models.networks.checkpoint import read_checkpoint

STATE = "state.pt"
AVERAGE = "average.pt"
_NUMBER = "number."
_MOMENTS = {"exp_avg": "moments1.pt", "exp_avg_sq": "moments2.pt"}


def save_checkpoint(
    folder: Path,
    network: nn.Module,
    average: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    numbers: dict[str, int],
) -> None:
    """Write weights and their average in float32 and the optimizer's moments in bfloat16; each file appears whole.

    Parameters
    ----------
    folder
        Made if it is not there.
    network, average, optimizer
        State of the run; ``average`` has the keys of the network's state.
    numbers
        Steps, examples ...
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.detach().cpu() for name, value in network.state_dict().items()}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for kind, name in _MOMENTS.items():
        moments = [optimizer.state[one][kind] for one in parameters if one in optimizer.state]
        _write(folder / name, {str(n): value.detach().cpu().bfloat16() for n, value in enumerate(moments)})
    _write(folder / AVERAGE, {name: value.detach().cpu() for name, value in average.items()})
    counted = {_NUMBER + name: torch.tensor(int(value)) for name, value in numbers.items()}
    _write(folder / STATE, {**weights, **counted})


def load_checkpoint(
    folder: Path, network: nn.Module, average: dict[str, Tensor], optimizer: torch.optim.Optimizer
) -> dict[str, int]:
    """Put a checkpoint's state into its arguments and return its numbers; empty if there is no checkpoint.

    The average and the moments are optional: without them training goes on from the weights alone.

    Raises
    ------
    ModelFileError
        If the weights do not fit the network.
    """
    if not (folder / STATE).is_file():
        return {}
    weights, numbers = _read_state(folder / STATE)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise ModelFileError(f"{folder / STATE} is not a state of this network: use another --output.") from error
    source = read_checkpoint(folder / AVERAGE) if (folder / AVERAGE).is_file() else weights
    for name, value in average.items():
        value.copy_(source[name])
    if all((folder / name).is_file() for name in _MOMENTS.values()):
        _restore_moments(folder, optimizer, float(numbers.get("steps", 1)))
    return numbers


def load_average(path: Path) -> dict[str, Tensor]:
    """Averaged weights from a checkpoint folder, or from one of its files."""
    return _read_state(path / AVERAGE if path.is_dir() else path)[0]


def _read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Weights and numbers of a file."""
    content = read_checkpoint(path)
    numbers = {name.removeprefix(_NUMBER): int(value) for name, value in content.items() if name.startswith(_NUMBER)}
    return {name: value for name, value in content.items() if not name.startswith(_NUMBER)}, numbers


def _restore_moments(folder: Path, optimizer: torch.optim.Optimizer, steps: float) -> None:
    read = {kind: read_checkpoint(folder / name) for kind, name in _MOMENTS.items()}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for n, parameter in enumerate(parameters):
        state = {kind: values[str(n)].to(parameter).clone() for kind, values in read.items() if str(n) in values}
        if len(state) == len(_MOMENTS):
            device = parameter.device if optimizer.param_groups[0]["fused"] else "cpu"
            optimizer.state[parameter] = {"step": torch.tensor(steps, dtype=torch.float32, device=device), **state}


def _write(path: Path, content: dict[str, Tensor]) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    torch.save(content, partial)
    partial.replace(path)
