"""Does the answer depend on how the grid lies? The same objects on flipped, permuted and turned grids."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from SegmentAnythingMedLib.benchmark.datasets import CaseOpener, Structure, extent, slices_of
from SegmentAnythingMedLib.benchmark.metrics import dice
from SegmentAnythingMedLib.benchmark.reorienting import (
    on_grid,
    reoriented_array,
    reoriented_geometry,
    resampled,
    turned_geometry,
)
from SegmentAnythingMedLib.benchmark.report import Line
from SegmentAnythingMedLib.benchmark.simulated_user import tight_box
from SegmentAnythingMedLib.geometry import VolumeGeometry
from SegmentAnythingMedLib.models.base import SliceModel
from SegmentAnythingMedLib.phantom import make_phantom
from SegmentAnythingMedLib.prompts import BoxPrompt
from SegmentAnythingMedLib.session import VolumeSession
from SegmentAnythingMedLib.volume import Volume

LIMIT = 0.02
TURN_DEGREES = 15.0
TURNED = f"turned {TURN_DEGREES:g} degrees"
WAYS = ("slice", "extent", "stops itself", "true mask")
SAME_PROMPT = "true mask"
"""On a turned grid a tight box is another prompt (it holds more or less of what surrounds a slanting object); a mask
is the same one, so what changes with it is the grid's doing."""
EXACT = {
    "flip I": ((0, 1, 2), (True, False, False)),
    "flip J, K": ((0, 1, 2), (False, True, True)),
    "permute KIJ": ((2, 0, 1), (False, False, False)),
    "permute JKI, flip": ((1, 2, 0), (True, False, True)),
}
PHANTOM_ORGANS = ("liver", "spleen", "left kidney", "liver lesion")
REAL = (
    "sts_ct/STS_001/tumour", "sts_mr/STS_019/tumour", "totalseg_ct/example_ct/kidney_right",
    "totalseg_ct/example_ct/spleen", "totalseg_mr/example_mr_sm/liver", "msd_hippocampus/hippocampus_003/anterior",
    "sct_spine/t2/cord", "pyradiomics/brain1/lesion",
)  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """One object on two grids.

    Parameters
    ----------
    way
        From a box: ``slice`` (that slice only), ``extent`` (carried over the true extent), ``stops itself``; from
        the true mask of the key slice, carried over the true extent: ``true mask``.
    dice, dice_changed
        Against the truth, on the first grid and on the changed one (each on its own voxels).
    agreement
        Dice of both answers on the first grid (nearest neighbour).
    """

    structure: str
    change: str
    way: str
    dice: float
    dice_changed: float
    agreement: float

    @property
    def difference(self) -> float:
        return self.dice_changed - self.dice

    @property
    def is_exact(self) -> bool:
        return self.change in EXACT


@dataclass(frozen=True, eq=False)
class Scene:
    """A volume, an object's mask, and the slices' depth axis."""

    volume: Volume
    truth: np.ndarray
    axis: int

    def ends_world(self) -> np.ndarray:
        """Centres of the first, largest and last slice of the object, (3, 3)."""
        slices = slices_of(self.volume.geometry, self.axis)
        counts = extent(self.truth, slices)
        filled = np.flatnonzero(counts)
        center = (np.asarray(slices.shape) - 1) / 2
        chosen = (filled[0], int(np.argmax(counts)), filled[-1])
        return np.stack([self.volume.geometry.world_from_ijk(slices.ijk_from_pixels(i, center)) for i in chosen])


def answers(scene: Scene, model: SliceModel, ends_world: np.ndarray) -> dict[str, np.ndarray]:
    """(K, J, I) bool by way: from the tight box on the key slice of ``ends_world`` (first, key, last slice)."""
    slices = slices_of(scene.volume.geometry, scene.axis)
    depths, _ = slices.pixels_from_ijk(scene.volume.geometry.ijk_from_world(ends_world))
    first, key_index, last = (int(np.clip(np.rint(depth), 0, slices.count - 1)) for depth in depths)
    row0, column0, row1, column1 = tight_box(slices.extract(scene.truth, key_index))
    corners = slices.ijk_from_pixels(key_index, np.array([[row0, column0], [row1, column1]]))
    session = VolumeSession(scene.volume, model)
    key = session.add_prompt(1, BoxPrompt((tuple(corners[0]), tuple(corners[1])), slices.plane))
    outline = session.segment_slice(1, key).mask
    found = {"slice": session.labelmap(1).copy()}
    for way, limits in (("extent", {"first": min(first, last), "last": max(first, last)}), ("stops itself", {})):
        if outline.any():
            session.remove_object(1)
            key = session.add_prompt(1, BoxPrompt((tuple(corners[0]), tuple(corners[1])), slices.plane))
            session.segment_slice(1, key)
            for _ in session.propagate([1], plane=slices.plane, **limits):
                pass
        found[way] = session.labelmap(1).copy()
    session.remove_object(1)
    session.confirm_slice(1, session.slice_key(slices.plane, key_index), slices.extract(scene.truth, key_index))
    for _ in session.propagate([1], plane=slices.plane, first=min(first, last), last=max(first, last)):
        pass
    return found | {SAME_PROMPT: session.labelmap(1).copy()}


def compare(
    name: str, scene: Scene, model: SliceModel, rescan: Callable[[VolumeGeometry], Scene]
) -> Iterator[Comparison]:
    """All changes of the grid; ``rescan`` makes the scene on a turned grid. The key slice is the same everywhere."""
    ends_world, geometry = scene.ends_world(), scene.volume.geometry
    before = answers(scene, model, ends_world)
    scores = {way: _score(mask, scene, ends_world, way) for way, mask in before.items()}
    for change, (axes, flip) in EXACT.items():
        moved = Volume.from_array(
            reoriented_array(scene.volume.array(), axes, flip),
            reoriented_geometry(geometry, axes, flip),
            modality=scene.volume.modality,
        )
        changed = Scene(moved, reoriented_array(scene.truth, axes, flip), axes.index(scene.axis))
        for way, mask in answers(changed, model, ends_world).items():
            agreement = dice(mask, reoriented_array(before[way], axes, flip))
            score = _score(mask, changed, ends_world, way)
            yield Comparison(name, change, way, scores[way], score, agreement)
    turned = rescan(turned_geometry(geometry, scene.axis, TURN_DEGREES))
    for way, mask in answers(turned, model, ends_world).items():
        back = resampled(mask.astype(np.uint8), turned.volume.geometry, geometry, 0).astype(bool)
        score = _score(mask, turned, ends_world, way)
        yield Comparison(name, TURNED, way, scores[way], score, dice(back, before[way]))


def _score(mask: np.ndarray, scene: Scene, ends_world: np.ndarray, way: str) -> float:
    """Dice against the truth, on the key slice alone for ``slice``."""
    if way != "slice":
        return dice(mask, scene.truth)
    slices = slices_of(scene.volume.geometry, scene.axis)
    depth, _ = slices.pixels_from_ijk(scene.volume.geometry.ijk_from_world(ends_world[1]))
    index = int(np.rint(depth))
    return dice(slices.extract(mask, index), slices.extract(scene.truth, index))


def phantom_comparisons(model: SliceModel) -> Iterator[Comparison]:
    """The synthetic patient, scanned anew on the turned grid, so that truth is exact there."""
    phantom = make_phantom("CT", (128, 112, 40), (2.4, 2.4, 5.0))
    for name in (s.name for s in phantom.structures if s.name in PHANTOM_ORGANS):
        scene = Scene(phantom.volume, phantom.structure(name).mask(), 2)

        def rescan(geometry: VolumeGeometry, name: str = name) -> Scene:
            other = make_phantom("CT", geometry=geometry)
            return Scene(other.volume, other.structure(name).mask(), 2)

        yield from compare(f"phantom/{name}", scene, model, rescan)


def real_comparisons(model: SliceModel, structures: list[Structure], data: Path) -> Iterator[Comparison]:
    """Real structures, resampled onto the turned grid."""
    opener = CaseOpener(data)
    for structure in structures:
        if structure.id not in REAL:
            continue
        case = opener.open(structure)
        scene = Scene(case.volume, case.truth, case.slices.plane.axis)

        def rescan(geometry: VolumeGeometry, scene: Scene = scene) -> Scene:
            truth = resampled(scene.truth.astype(np.float32), scene.volume.geometry, geometry, 1) >= 0.5
            return Scene(on_grid(scene.volume, geometry), truth, scene.axis)

        yield from compare(structure.id, scene, model, rescan)


def run_invariance(model: SliceModel, structures: list[Structure], data: Path | None) -> list[Comparison]:
    """Phantom, and real structures where there is data; progress to stderr."""
    found = []
    sources = [phantom_comparisons(model)] + ([real_comparisons(model, structures, data)] if data else [])
    for source in sources:
        for comparison in source:
            found.append(comparison)
            where = f"{comparison.structure}, {comparison.change}, {comparison.way}"
            sys.stderr.write(f"{where}: {comparison.difference:+.3f}\n")
    return found


def acceptance(found: list[Comparison]) -> list[Line]:
    """Flips and permutations change no object by `LIMIT` or more; a turned grid, given the same prompt, no mean."""
    lines = []
    for way in WAYS:
        worst = min((c for c in found if c.is_exact and c.way == way), key=lambda c: c.agreement)
        lines.append(Line(
            f"flipped and permuted, {way}: both answers agree within {LIMIT} Dice on every object",
            worst.agreement > 1 - LIMIT,
            f"least {worst.agreement:.4f}, {worst.structure}, {worst.change}",
        ))  # fmt: skip
    mean, figures = _turned(found, SAME_PROMPT)
    return [*lines, Line(f"{TURNED}, {SAME_PROMPT}: mean within {LIMIT} Dice", abs(mean) < LIMIT, figures)]


def _turned(found: list[Comparison], way: str) -> tuple[float, str]:
    """Mean change of Dice on turned grids, and a line about it."""
    turned = [c for c in found if not c.is_exact and c.way == way]
    mean = float(np.mean([c.difference for c in turned]))
    far = max(turned, key=lambda c: abs(c.difference))
    return mean, f"mean {mean:+.4f}, worst {far.difference:+.4f}, {far.structure}"


def markdown(found: list[Comparison], facts: dict[str, object]) -> str:
    """The table and the lines that must hold."""
    lines = [f"# Invariance of `{facts.get('model', '')}` to the grid", ""]
    lines += [f"- {name}: {value}" for name, value in facts.items() if name != "model"]
    lines += ["", "From a tight box on the largest slice: that slice alone, carried over the true extent, and until it"]
    lines += ["stops itself; and from that slice's true mask over the true extent. Dice against the truth on each"]
    lines += ["grid; agreement is the Dice of both answers on the first grid.", ""]
    lines += [f"- {line}" for line in acceptance(found)]
    others = [way for way in WAYS if way != SAME_PROMPT]
    lines += [f"- {TURNED}, {way} (another prompt, not asserted): {_turned(found, way)[1]}" for way in others]
    lines += ["", "| structure | change | way | Dice | Dice changed | difference | agreement |", "|---" * 7 + "|"]
    for c in found:
        figures = f"{c.dice:.3f} | {c.dice_changed:.3f} | {c.difference:+.3f} | {c.agreement:.3f}"
        lines.append(f"| {c.structure} | {c.change} | {c.way} | {figures} |")
    return "\n".join(lines) + "\n"
