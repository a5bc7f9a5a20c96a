"""Reading an original .pt once and keeping its tensors as safetensors beside it, which later loads read in its place.

The copy is called ``<file>.safetensors`` and its hash stands in the noted card, beside that of the original. The
original stays: its hash is what its makers publish, and the copy can be made again from it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from SegmentAnythingMedLib.errors import ModelFileError, ModelUnavailableError, OutputError, SegmentAnythingMedError
from SegmentAnythingMedLib.models.card import ModelCard, converted_file, is_converted
from SegmentAnythingMedLib.models.weights.notes import write_note
from SegmentAnythingMedLib.models.weights.structure import TORCH, check_structure, sha256_of
from SegmentAnythingMedLib.replacing import replacing

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")
"""Endings of files that torch.save writes."""


def can_convert(card: ModelCard, folder: Path) -> bool:
    """Whether the model's weights lie in the folder as a file of torch without a safetensors copy; reads nothing."""
    path = folder / card.file
    return path.suffix.lower() in SUFFIXES and path.is_file() and not is_converted(card, path)


def convert_weights(card: ModelCard, folder: Path) -> ModelCard:
    """Write the safetensors copy of a model's weights, whole or not at all, and note both hashes.

    Parameters
    ----------
    card
        Of the weights; its hash is checked, or noted if it knows none.
    folder
        The weights folder, where the file lies.

    Returns
    -------
    ModelCard
        The noted card; the same one if there is nothing to convert.

    Raises
    ------
    ModelUnavailableError
        If torch or safetensors is not installed.
    ModelFileError
        If the file is damaged or hostile, does not have the card's hash, or would become larger than it is.
    OutputError
        If the folder cannot be written or is full.
    """
    if not can_convert(card, folder):
        return card
    path = folder / card.file
    if check_structure(path) != TORCH:
        return card
    try:
        from SegmentAnythingMedLib.models.networks.checkpoint import read_checkpoint
    except ModuleNotFoundError as error:
        raise ModelUnavailableError(f"To convert {path.name} the package {error.name!r} is needed.") from error
    made_of = path.stat()
    sha256 = card.sha256 or sha256_of(path)
    state = read_checkpoint(path, sha256)
    _check_growth(state, path)
    target = converted_file(path)
    with replacing(target) as written:
        _save(state, written)
        os.utime(written, ns=(made_of.st_atime_ns, made_of.st_mtime_ns))
    return write_note(replace(card, sha256=sha256, converted=sha256_of(target)), folder)


def convert_if_possible(card: ModelCard, folder: Path) -> ModelCard:
    """`convert_weights`, or the same card where that cannot be done: then the original is read at every load."""
    try:
        return convert_weights(card, folder)
    except SegmentAnythingMedError as error:
        log.info("%s is read as it is: %s", card.file, error)
        return card


def _check_growth(state: Mapping[str, Tensor], path: Path) -> None:
    """A small file can describe huge tensors that repeat one number; written out they would fill the disk."""
    size = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    if size > path.stat().st_size:
        raise ModelFileError(f"{path.name} has tensors that share their numbers: as safetensors it would grow.")


def _save(state: Mapping[str, Tensor], path: Path) -> None:
    """Tensors of their own: safetensors refuses views and what shares memory."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    seen: set[int] = set()
    own = {}
    for key, tensor in state.items():
        storage = tensor.untyped_storage()
        is_alone = tensor.is_contiguous() and storage.nbytes() == tensor.nbytes and storage.data_ptr() not in seen
        seen.add(storage.data_ptr())
        own[key] = tensor if is_alone else tensor.contiguous().clone()
    try:
        save_file(own, path)
    except SafetensorError as error:  # it is no OSError, even where the disk is full
        raise OutputError(f"No copy can be written into {path.parent} ({error}): free some space.") from error
