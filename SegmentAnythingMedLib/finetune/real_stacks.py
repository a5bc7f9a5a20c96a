"""Stacks from real images whose licences let weights be released: sarcomas (CC BY), nuclei and skin lesions (CC0).

``python -m SegmentAnythingMedLib.finetune.real_stacks --output DIR`` writes shards of these, of brain label maps and of
superpixels. The hippocampi of the same collection are ShareAlike and stay out, so that our weights keep our licence.
"""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np

from SegmentAnythingMedLib.errors import SegmentAnythingMedError
from SegmentAnythingMedLib.finetune.stack import Stack, save_stacks
from SegmentAnythingMedLib.finetune.synthetic_fields import chance, resize_matrix
from SegmentAnythingMedLib.volume import Modality, Volume
from SegmentAnythingMedLib.windowing import choose_window

log = logging.getLogger(__name__)

DATA_VARIABLE = "SEGMENT_ANYTHING_MED_TRAIN_DATA"
SOURCES = ("sts", "nuclei", "derm")
SPLITS = ("train", "validation")
_SERIES = {"CT": (Modality.CT, "CT"), "MR_T1": (Modality.MR, "MR"), "PET": (Modality.PET, "PET")}
_SOURCE_SHARES = {"sts": 0.6, "nuclei": 0.25, "derm": 0.15}


def training_folder(folder: Path | None = None) -> Path:
    """The folder of the training data: the argument, or the environment's; never the data that models are tested on."""
    chosen = folder or os.environ.get(DATA_VARIABLE)
    if not chosen:
        raise SegmentAnythingMedError(f"Where is the training data? Give its folder or set {DATA_VARIABLE}.")
    path = Path(chosen).resolve()
    if "dev" in path.parts:
        raise SegmentAnythingMedError(f"{path} is for testing: train on the folder 'train' beside it.")
    if not path.is_dir():
        raise SegmentAnythingMedError(f"The training data {path} is not a folder.")
    return path


def split_of(names: list[str], split: str, seed: int = 0, share: float = 0.15) -> list[str]:
    """The names of one split, sorted; the same seed always parts the same names."""
    if split not in SPLITS:
        raise SegmentAnythingMedError(f"Split {split!r} is not known: use one of {', '.join(SPLITS)}.")
    ordered = sorted(names)
    mixed = np.random.default_rng(seed).permutation(len(ordered))
    held_out = set(mixed[: round(share * len(ordered))].tolist())
    return [name for n, name in enumerate(ordered) if (n in held_out) == (split == "validation")]


class RealStacks:
    """Random crops of real images, by patient.

    Parameters
    ----------
    folder
        With ``ibsi_sts``, ``nuclei_dsb2018`` and ``derm_isic``, as far as they are there; None takes the environment's.
    split
        "train" or "validation"; a patient is in one of them.
    sources
        Of `SOURCES`.
    seed
        Of the split.
    """

    def __init__(
        self, folder: Path | None = None, split: str = "train", sources: tuple[str, ...] = SOURCES, seed: int = 0
    ) -> None:
        self._folder = training_folder(folder)
        found = {source: self._names(source) for source in sources}
        self.patients = {source: split_of(names, split, seed) for source, names in found.items() if names}
        self.patients = {source: names for source, names in self.patients.items() if names}
        if not self.patients:
            raise SegmentAnythingMedError(f"{self._folder} holds no images of {', '.join(sources)} for {split}.")

    def draw(self, rng: np.random.Generator, depth: int = 12, size: int = 192) -> Stack:
        """A random crop of a random patient: at most so many slices, at most so many pixels along a side."""
        sources = list(self.patients)
        shares = np.array([_SOURCE_SHARES[source] for source in sources])
        source = sources[rng.choice(len(sources), p=shares / shares.sum())]
        names = self.patients[source]
        return self.crop(source, names[rng.integers(len(names))], rng, depth, size)

    def crop(self, source: str, patient: str, rng: np.random.Generator, depth: int = 12, size: int = 192) -> Stack:
        """A random crop of one patient."""
        if source == "sts":
            folder = self._folder / "ibsi_sts" / patient
            series = [name for name in _SERIES if (folder / f"{name}_image.nii.gz").exists()]
            return sarcoma_crop(folder, str(rng.choice(series)), rng, depth, size)
        if source == "nuclei":
            folder = self._folder / "nuclei_dsb2018"
            return nuclei_crop(folder / "images" / patient, folder / "instances" / patient, rng, size)
        folder = self._folder / "derm_isic"
        return skin_crop(folder / "images" / f"{patient}.jpg", folder / "masks" / f"{patient}.png", rng, size)

    def _names(self, source: str) -> list[str]:
        if source == "sts":
            return sorted(path.name for path in self._folder.glob("ibsi_sts/*") if path.is_dir())
        if source == "nuclei":
            return sorted(path.name for path in self._folder.glob("nuclei_dsb2018/images/*.png"))
        if source == "derm":
            return sorted(path.stem for path in self._folder.glob("derm_isic/images/*.jpg"))
        raise SegmentAnythingMedError(f"Source {source!r} is not known: use one of {', '.join(SOURCES)}.")


@lru_cache(maxsize=24)
def sarcoma(folder: Path, series: str) -> tuple[np.ndarray, np.ndarray, tuple[float, float, float]]:
    """One series of a patient: (D, H, W) float32 from 0 to 1 as the product windows it, the tumour, the spacing."""
    import SimpleITK

    image = SimpleITK.ReadImage(str(folder / f"{series}_image.nii.gz"))
    mask = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(folder / f"{series}_mask.nii.gz"))) > 0
    volume = Volume.from_array(SimpleITK.GetArrayFromImage(image), modality=_SERIES[series][0])
    pixels = choose_window(volume).apply(volume.voxels[0])[0]
    return pixels, mask.astype(np.uint8), tuple(float(value) for value in image.GetSpacing()[::-1])


def sarcoma_crop(folder: Path, series: str, rng: np.random.Generator, depth: int, size: int) -> Stack:
    """Slices round the tumour or its ends, axial or (a fifth, where slices are thin enough) in another plane."""
    pixels, mask, spacing = sarcoma(folder, series)
    if chance(rng, 0.2) and spacing[0] < 4:
        axes = (1, 0, 2) if chance(rng, 0.5) else (2, 0, 1)
        pixels, mask = pixels.transpose(axes), mask.transpose(axes)
        spacing = tuple(spacing[axis] for axis in axes)
    step = int(rng.integers(1, 4)) if spacing[0] < 2 else 1
    offset = int(rng.integers(step))
    pixels, mask, spacing = pixels[offset::step], mask[offset::step], (spacing[0] * step, *spacing[1:])
    count = len(pixels)
    inside = np.flatnonzero(mask.any(axis=(1, 2)))
    middle = int(rng.choice(inside)) if len(inside) else count // 2
    first = int(np.clip(middle - rng.integers(depth), 0, max(0, count - depth)))
    window = (slice(first, first + depth), *_around(mask[middle], size, rng))
    image = np.rint(pixels[window] * 255).astype(np.uint8)
    return Stack(image, np.ascontiguousarray(mask[window]), spacing, _SERIES[series][1], "sts")


def nuclei_crop(image: Path, instances: Path, rng: np.random.Generator, size: int) -> Stack:
    """One slice; every nucleus is a structure."""
    pixels, labels = _grey(image), _read(instances).astype(np.int64)
    window = _around(labels, size, rng)
    pixels, labels = pixels[window], labels[window]
    counts = np.bincount(labels.reshape(-1))
    counts[0] = 0
    kept = np.argsort(-counts, kind="stable")[: min(255, int((counts >= 12).sum()))]
    table = np.zeros(len(counts), np.uint8)
    table[kept] = np.arange(1, len(kept) + 1)
    return Stack(_bytes(pixels)[None], table[labels][None], (1.0, 1.0, 1.0), "RGB", "nuclei")


def skin_crop(image: Path, mask: Path, rng: np.random.Generator, size: int) -> Stack:
    """One slice, reduced so that most of the picture is in view: a lesion without its edge teaches nothing."""
    pixels, lesion = _grey(image), (_read(mask) > 0).astype(np.float32)
    short = int(rng.uniform(0.8 * size, 1.15 * size) // 8 * 8)
    height, width = (round(side * short / min(pixels.shape) / 8) * 8 for side in pixels.shape)
    rows, columns = resize_matrix(pixels.shape[0], height), resize_matrix(pixels.shape[1], width)
    pixels, lesion = rows @ pixels @ columns.T, rows @ lesion @ columns.T > 0.5
    window = _around(lesion, size, rng)
    return Stack(_bytes(pixels[window])[None], lesion[window].astype(np.uint8)[None], (1.0, 1.0, 1.0), "RGB", "derm")


def _read(path: Path) -> np.ndarray:
    import SimpleITK

    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))


@lru_cache(maxsize=200)
def _grey(path: Path) -> np.ndarray:
    """(H, W) float32 luminance from 0 to 1."""
    pixels = _read(path).astype(np.float32) / 255
    return pixels if pixels.ndim == 2 else pixels[..., :3] @ np.array([0.299, 0.587, 0.114], np.float32)


def _bytes(pixels: np.ndarray) -> np.ndarray:
    """uint8, stretched where the picture uses a small part of its range, as a user would."""
    low, high = np.percentile(pixels, [0.5, 99.5])
    if high - low < 0.4:
        pixels = (pixels - low) / max(high - low, 0.05)
    return np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)


def _around(mask: np.ndarray, size: int, rng: np.random.Generator) -> tuple[slice, slice]:
    """A window of at most ``size`` that holds a random voxel of the mask."""
    places = np.argwhere(mask)
    spot = places[rng.integers(len(places))] if len(places) else np.array(mask.shape) // 2
    window = []
    for place, length in zip(spot, mask.shape, strict=True):
        first = int(np.clip(place - rng.integers(size), 0, max(0, length - size)))
        window.append(slice(first, first + size))
    return tuple(window)


def write_shards(
    name: str, draw: Callable[[np.random.Generator], Stack], count: int, output: Path, seed: int, per_shard: int = 40
) -> None:
    """Write ``count`` stacks as ``<name>_<seed>_<n>.npz``; shards that exist are kept."""
    output.mkdir(parents=True, exist_ok=True)
    for shard in range(-(-count // per_shard)):
        path = output / f"{name}_{seed}_{shard:05d}.npz"
        if not path.exists():
            rng = np.random.default_rng([seed, shard])
            save_stacks(path, [draw(rng) for _ in range(min(per_shard, count - shard * per_shard))])
            log.info("%s", path)


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    from SegmentAnythingMedLib.finetune.brain_stacks import BrainStacks
    from SegmentAnythingMedLib.finetune.superpixels import SuperpixelStacks

    counts = {"sts": 1200, "nuclei": 400, "derm": 200, "brain": 800, "superpixel": 600}
    parser = argparse.ArgumentParser(prog="python -m SegmentAnythingMedLib.finetune.real_stacks", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder for the shards")
    parser.add_argument("--data", type=Path, help=f"folder of the training data (default: {DATA_VARIABLE})")
    parser.add_argument("--split", choices=SPLITS, default="train")
    parser.add_argument("--sources", nargs="+", choices=list(counts), default=list(counts))
    parser.add_argument("--scale", type=float, default=1.0, help=f"times these counts: {counts}")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for source in chosen.sources:
        if source == "brain":
            reader = BrainStacks(chosen.data, chosen.split)
        elif source == "superpixel":
            reader = SuperpixelStacks(chosen.data, chosen.split)
        else:
            reader = RealStacks(chosen.data, chosen.split, (source,))
        write_shards(source, reader.draw, max(1, round(counts[source] * chosen.scale)), chosen.output, chosen.seed)


if __name__ == "__main__":
    main()
