"""One training example of the embedded model: a short stack of slices with labelled structures, and shards of many."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from SegmentAnythingMedLib.errors import SegmentAnythingMedError

KINDS = ("CT", "MR", "PET", "US", "RGB", "XR")


@dataclass(frozen=True, eq=False)
class Stack:
    """Slices and their structures.

    Parameters
    ----------
    image
        (D, H, W) uint8 with 255 the top of the window (all readers and generators here), or float32 from 0 to 1.
        `pixels` gives either as float32.
    labels
        (D, H, W) uint8 or uint16; 0 is background, every other value one structure to train on. A structure may be
        absent from any slice.
    spacing_mm
        Between slices, rows and columns.
    kind
        One of `KINDS`: what the image looks like. Colour images are given as their luminance.
    source
        "synthetic", "brain", "sts", "nuclei", "derm" or "superpixel".
    parents
        A nested structure's label -> the label of the structure it lies inside (a lesion's organ, a lumen's wall). The
        parent's own voxels exclude its children: `mask` adds them.
    """

    image: np.ndarray
    labels: np.ndarray
    spacing_mm: tuple[float, float, float]
    kind: str
    source: str
    parents: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.image.ndim != 3 or self.image.shape != self.labels.shape:
            raise SegmentAnythingMedError(
                f"A stack needs (D, H, W) image and labels, got {self.image.shape} and {self.labels.shape}."
            )
        if self.kind not in KINDS:
            raise SegmentAnythingMedError(f"Stack kind {self.kind!r} is not known: use one of {', '.join(KINDS)}.")

    def pixels(self, slices: slice | Sequence[int] = slice(None)) -> np.ndarray:
        """(n, H, W) float32 from 0 to 1."""
        chosen = self.image[slices]
        return chosen * np.float32(1 / 255) if chosen.dtype == np.uint8 else chosen.astype(np.float32, copy=False)

    def structures(self) -> list[int]:
        """Labels that occur, ascending, without the background."""
        counts = np.bincount(self.labels.reshape(-1))
        return [int(label) for label in np.flatnonzero(counts) if label]

    def descendants(self, label: int) -> set[int]:
        """The labels nested in a structure, at any depth."""
        found: set[int] = set()
        while children := {child for child, parent in self.parents.items() if parent in found | {label}} - found:
            found |= children
        return found - {label}

    def mask(self, label: int, nested: bool = True) -> np.ndarray:
        """(D, H, W) bool: a structure with or without what lies nested in it."""
        inner = self.descendants(label) if nested else set()
        if not inner:
            return self.labels == label
        chosen = np.zeros(int(max(self.labels.max(), label)) + 1, bool)
        chosen[[value for value in {label, *inner} if value < len(chosen)]] = True
        return chosen[self.labels]


def save_stacks(path: Path, stacks: Sequence[Stack]) -> None:
    """Write a shard: .npz with uint8 images and labels of any shapes, no pickle; appears complete or not at all."""
    arrays = {
        "image": np.concatenate([_as_bytes(stack.image).reshape(-1) for stack in stacks]),
        "labels": np.concatenate([compact_labels(stack).labels.reshape(-1) for stack in stacks]),
        "shapes": np.array([stack.image.shape for stack in stacks], np.int32),
        "spacing_mm": np.array([stack.spacing_mm for stack in stacks], np.float32),
        "kinds": np.array([stack.kind for stack in stacks]),
        "sources": np.array([stack.source for stack in stacks]),
        "parents": np.array(
            [
                (n, child, parent)
                for n, stack in enumerate(stacks)
                for child, parent in compact_labels(stack).parents.items()
            ],
            np.int32,
        ).reshape(-1, 3),
    }
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with zipfile.ZipFile(partial, "w") as archive:
        for name, array in arrays.items():
            # Images do not shrink (8 %) but labels do, 30-fold; level 1 keeps reading fast.
            how = zipfile.ZIP_STORED if name == "image" else zipfile.ZIP_DEFLATED
            entry = zipfile.ZipInfo(f"{name}.npy")
            entry.compress_type = how
            with archive.open(entry, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)
    partial.replace(path)


def load_stacks(path: Path) -> list[Stack]:
    """The stacks of a shard; images are uint8 views into one array."""
    with np.load(path, allow_pickle=False) as shard:
        arrays = {name: shard[name] for name in shard.files}
    return list(_stacks_of(arrays))


def _stacks_of(arrays: dict[str, np.ndarray]) -> Iterator[Stack]:
    start = 0
    for n, shape in enumerate(arrays["shapes"]):
        end = start + int(np.prod(shape))
        nested = arrays["parents"][arrays["parents"][:, 0] == n]
        yield Stack(
            arrays["image"][start:end].reshape(shape),
            arrays["labels"][start:end].reshape(shape),
            tuple(float(value) for value in arrays["spacing_mm"][n]),
            str(arrays["kinds"][n]),
            str(arrays["sources"][n]),
            {int(child): int(parent) for _, child, parent in nested},
        )
        start = end


def compact_labels(stack: Stack) -> Stack:
    """The same stack with labels that fit 8 bits: unchanged if they do, else the 255 largest structures, renumbered."""
    if stack.labels.dtype == np.uint8:
        return stack
    counts = np.bincount(stack.labels.reshape(-1))
    counts[0] = 0
    kept = np.sort(np.argsort(-counts, kind="stable")[: min(255, int((counts > 0).sum()))])
    new = np.zeros(len(counts), np.uint8)
    new[kept] = np.arange(1, len(kept) + 1)
    parents = {
        int(new[child]): int(new[parent])
        for child, parent in stack.parents.items()
        if child < len(new) and parent < len(new) and new[child] and new[parent]
    }
    return Stack(stack.image, new[stack.labels], stack.spacing_mm, stack.kind, stack.source, parents)


def _as_bytes(image: np.ndarray) -> np.ndarray:
    return image if image.dtype == np.uint8 else np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
