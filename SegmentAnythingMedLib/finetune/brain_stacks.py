"""Images of any contrast from brain label maps, after SynthSeg (Billot et al., Medical Image Analysis 2023)."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from SegmentAnythingMedLib.errors import SegmentAnythingMedError
from SegmentAnythingMedLib.finetune.real_stacks import split_of, training_folder
from SegmentAnythingMedLib.finetune.stack import Stack
from SegmentAnythingMedLib.finetune.synthetic_fields import chance, log_uniform, smooth_noise
from SegmentAnythingMedLib.finetune.synthetic_imaging import scanned, windowed
from SegmentAnythingMedLib.finetune.synthetic_visibility import visible_regions

_LEFT = (2, 3, 4, 5, 7, 8, 10, 11, 12, 13, 17, 18, 26, 28, 30, 136, 163)
_RIGHT = (41, 42, 43, 44, 46, 47, 49, 50, 51, 52, 53, 54, 58, 60, 62, 137, 164)
_TWIN = dict(zip(_RIGHT, _LEFT, strict=True))
_OUTSIDE = 500  # labels from here on are skull, eyes, skin: seen, but too coarse to be targets


class BrainStacks:
    """Random images of random parts of real brain anatomies.

    Parameters
    ----------
    folder
        With ``synthseg_labels``; None takes the environment's.
    split
        "train" or "validation", by map.
    """

    def __init__(self, folder: Path | None = None, split: str = "train", seed: int = 0) -> None:
        home = training_folder(folder) / "synthseg_labels"
        names = split_of([path.name for path in home.glob("*.nii.gz")], split, seed)
        if not names:
            raise SegmentAnythingMedError(f"{home} holds no label maps for {split}.")
        self._paths = [home / name for name in names]

    def draw(self, rng: np.random.Generator, depth: int = 12, size: int = 192, difficulty: float = 1.0) -> Stack:
        """A random stack; labels of structures too faint to see are left out."""
        for _ in range(20):
            regions, values = label_map(self._paths[rng.integers(len(self._paths))])
            stack = brain_stack(rng, regions, values, depth, size, difficulty)
            if stack.labels.any():
                return stack
        raise SegmentAnythingMedError(
            f"No brain structure is visible in {depth} slices of {size} pixels: enlarge them."
        )


@lru_cache(maxsize=20)
def label_map(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(K, J, I) uint8 indices into the FreeSurfer labels that follow."""
    import SimpleITK

    labels = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
    values = np.unique(labels)
    table = np.zeros(int(values[-1]) + 1, np.uint8)
    table[values] = np.arange(len(values))
    return table[labels], values


def brain_stack(
    rng: np.random.Generator, regions: np.ndarray, values: np.ndarray, depth: int, size: int, difficulty: float
) -> Stack:
    """A stack in a random orientation, spacing, zoom and contrast of a label map of 1 mm."""
    axis = int(rng.integers(3))
    thick = int(rng.choice([1, 2, 3, 4, 5, 6]))
    regions = np.moveaxis(regions, axis, 0)
    count = min(depth, len(regions) // thick)
    first = int(rng.integers(len(regions) - count * thick + 1))
    zoom = log_uniform(rng, 0.45, 1.25)  # millimetres of a pixel
    planes = _bent(rng, regions[first : first + count * thick], size, zoom)
    middle = planes[thick // 2 :: thick][:count]

    grey = _greys(rng, values, difficulty)
    image = grey[planes] if thick == 1 else grey[planes].reshape(count, thick, size, size).mean(axis=1)
    mottle = np.float32(log_uniform(rng, 0.005, 0.05))
    image = image + mottle * smooth_noise(rng, image.shape, (count, *rng.uniform(15, 80, 2)))
    image = np.maximum(scanned(rng, image, "MR", difficulty), 0)
    image = windowed(rng, image, "MR")
    labels = _targets(rng, middle, values, visible_regions(image, middle))
    return Stack(np.rint(image * 255).astype(np.uint8), labels, (float(thick), zoom, zoom), "MR", "brain")


def _bent(rng: np.random.Generator, planes: np.ndarray, size: int, zoom: float) -> np.ndarray:
    """Planes turned, scaled, shifted and gently bent in their plane; (n, size, size)."""
    line = (np.arange(size) - size / 2) * zoom
    angle = rng.normal(0, 0.25) + np.pi / 2 * rng.integers(4)
    y, x = line[:, None], line[None, :]
    bend = [rng.uniform(0, 5) * smooth_noise(rng, (1, size, size), (0, 4, 4))[0] for _ in range(2)]
    rows = np.cos(angle) * y - np.sin(angle) * x + bend[0]
    columns = np.sin(angle) * y + np.cos(angle) * x + bend[1]
    slack = np.maximum(0, np.array(planes.shape[1:]) / 2 - 0.35 * size * zoom)
    center = np.array(planes.shape[1:]) / 2 + rng.uniform(-1, 1, 2) * slack
    rows, columns = np.rint(rows + center[0]).astype(int), np.rint(columns + center[1]).astype(int)
    outside = (rows < 0) | (rows >= planes.shape[1]) | (columns < 0) | (columns >= planes.shape[2])
    found = planes[:, np.clip(rows, 0, planes.shape[1] - 1), np.clip(columns, 0, planes.shape[2] - 1)]
    found[:, outside] = 0
    return found


def _greys(rng: np.random.Generator, values: np.ndarray, difficulty: float) -> np.ndarray:
    """One grey value per label: twins alike, one in five labels like another one."""
    easy = 1 - difficulty
    drawn: dict[int, float] = {}
    for value in values:
        twin = _TWIN.get(int(value))
        if twin in drawn and chance(rng, 0.9):
            drawn[int(value)] = drawn[twin]
        elif len(drawn) > 2 and chance(rng, 0.2 * difficulty):
            drawn[int(value)] = list(drawn.values())[rng.integers(len(drawn))] + rng.normal(0, 0.03)
        else:
            drawn[int(value)] = rng.uniform(0.05 + 0.1 * easy, 1)
    drawn[0] = 0.0 if chance(rng, 0.8) else rng.uniform(0, 0.3)
    return np.array([drawn[int(value)] for value in values], np.float32)


def _targets(rng: np.random.Generator, regions: np.ndarray, values: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """uint8 labels: each structure, or both sides together, or all of the brain."""
    wanted = (values > 0) & (values < _OUTSIDE) & visible[: len(values)]
    style = rng.random()
    groups: dict[int, int] = {}
    table = np.zeros(256, np.uint8)
    for n, value in enumerate(values):
        if style < 0.1 and 0 < value < _OUTSIDE:
            table[n] = 1
        elif wanted[n]:
            name = _TWIN.get(int(value), int(value)) if style < 0.45 else int(value)
            table[n] = groups.setdefault(name, len(groups) + 1)
    return table[regions]
