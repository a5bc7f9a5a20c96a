"""What prototypes and patch heads share: names, features, a score for every cell, a file, and prompts from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from SegmentAnythingMedLib.errors import ModelFileError, PromptError
from SegmentAnythingMedLib.memory.settings import setting
from SegmentAnythingMedLib.models.base import SliceImage
from SegmentAnythingMedLib.prompts import Prompt
from SegmentAnythingMedLib.sources import spotting
from SegmentAnythingMedLib.sources.cases import Cells, cells_of, check_cases, fitting_descriptor, largest_areas
from SegmentAnythingMedLib.sources.descriptor import Describer, HandMade
from SegmentAnythingMedLib.sources.learned_file import read_learned, write_learned
from SegmentAnythingMedLib.sources.source import Given, Need, PromptSource

SLICES = 12
"""Slices of a case that are learned from for each structure, by default."""
_MOST_MM = 10_000.0


@dataclass(frozen=True)
class Origin:
    """Of what and from what was learned.

    Parameters
    ----------
    names
        The structures.
    features
        `Describer.name` of what made the features; features of another kind are refused.
    cell_mm
        Side of a cell of the hand-made descriptor; 0 for a model's embedding.
    spacings_mm
        Pixels (row, column) of the cases, for the user to see.
    areas_mm2
        The largest connected area of each structure on a slice: regions of about this size are preferred.
    slices
        How many slices were learned from.
    """

    names: tuple[str, ...]
    features: str
    cell_mm: float = 0.0
    spacings_mm: tuple[tuple[float, float], ...] = ()
    areas_mm2: tuple[float, ...] = ()
    slices: int = 0

    @classmethod
    def read(cls, about: Mapping[str, Any]) -> Origin:
        """From a file's description; raises KeyError, TypeError or ValueError if it is none."""
        names = tuple(str(name) for name in about["names"])
        spacings = tuple((float(row), float(column)) for row, column in about["spacings_mm"])
        cell_mm, areas = float(about["cell_mm"]), tuple(float(area) for area in about["areas_mm2"])
        if not 0 <= cell_mm < _MOST_MM or len(areas) != len(names) or not all(0 < area < _MOST_MM**2 for area in areas):
            raise ValueError("a size that nothing has")
        return cls(names, str(about["features"]), cell_mm, spacings, areas, int(about["slices"]))


@dataclass(frozen=True, eq=False)
class Learned:
    """Something that scores cells; the fields after the origin are float64 arrays with the sides of `shapes`.

    Attributes
    ----------
    kind
        What it is, in its file and in messages.
    shapes
        Names of the sides of each array: ``D`` features, ``L`` structures.
    """

    kind: ClassVar[str]
    shapes: ClassVar[Mapping[str, tuple[str, ...]]]

    origin: Origin
    mean: np.ndarray
    scale: np.ndarray
    levels: np.ndarray

    def score(self, rows: np.ndarray) -> np.ndarray:
        """(N, D) features to (L, N) scores; a cell above the structure's level is the structure's."""
        raise NotImplementedError

    def number(self, name: str) -> int:
        """Which structure is called so; the only one may be called nothing.

        Raises
        ------
        PromptError
            If there is none of this name; the message lists those there are.
        """
        names = self.origin.names
        if not name and len(names) == 1:
            return 0
        if name not in names:
            asked = f"do not know {name!r}" if name else "know several structures"
            raise PromptError(f"These {self.kind} {asked}: choose one of {', '.join(names)}.")
        return names.index(name)

    def save(self, path: str | Path) -> None:
        """Write an npz file without pickle.

        Raises
        ------
        OutputError
            If the file cannot be written; the one that was there before stays.
        """
        write_learned(path, self.kind, vars(self.origin), {name: getattr(self, name) for name in self.shapes})

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote.

        Raises
        ------
        ModelFileError
            If it is missing, damaged, or a file of something else.
        """
        about, arrays = read_learned(path, cls.kind, cls.shapes)
        try:
            origin = Origin.read(about)
        except (KeyError, TypeError, ValueError) as error:
            raise ModelFileError(f"{Path(path).name} is damaged: its description is not whole; learn again.") from error
        if len(origin.names) != len(arrays["levels"]) or (arrays["scale"] <= 0).any():
            raise ModelFileError(f"{Path(path).name} is damaged: its names and numbers do not fit; learn again.")
        return cls(origin, **arrays)


def cells_to_learn(
    cases: Sequence[Given], names: Mapping[int, str], describer: Describer | None, slices: int
) -> tuple[Cells, Origin]:
    """Features of the user's own cases.

    Parameters
    ----------
    cases
        Each a volume's slices with `Given.image` and `Given.labels`, a label map on the volume's grid.
    names
        Name of each value of the label maps that is learned.
    describer
        Makes the features; None is `HandMade` with cells that fit the smallest structure.
    slices
        Most slices of a case for each structure.

    Raises
    ------
    PromptError
        If there is nothing to learn from, or a structure fills no cell.
    """
    check_cases(cases, names)
    areas = largest_areas(cases, tuple(names))
    describer = describer or fitting_descriptor(float(areas.min()))
    cells = cells_of(cases, tuple(names), describer, slices)
    for name, inside in zip(names.values(), cells.inside.T, strict=True):
        if not inside.any():
            raise PromptError(f"{name!r} fills no cell of the features: learn it with smaller cells.")
    spacings = tuple(dict.fromkeys(case.slices.spacing_mm for case in cases))
    cell_mm = describer.cell_mm if isinstance(describer, HandMade) else 0.0
    known = tuple(map(float, areas))
    return cells, Origin(tuple(names.values()), describer.name, cell_mm, spacings, known, cells.slices)


def best_level(score: np.ndarray, inside: np.ndarray, outside: np.ndarray) -> float:
    """The level of a (N,) score above which cells agree best (Dice) with those ``inside``, (N,) bool.

    Cells neither ``inside`` nor ``outside`` are not counted.
    """
    used = inside | outside
    order = np.argsort(-score[used], kind="stable")
    ranked, hits = score[used][order], np.cumsum(inside[used][order])
    best = int(np.argmax(2 * hits / (np.arange(1, len(order) + 1) + hits[-1])))
    return float((ranked[best] + ranked[min(best + 1, len(ranked) - 1)]) / 2)


@dataclass(frozen=True)
class LearnedSource(PromptSource):
    """Finds a learned structure.

    Parameters
    ----------
    learned
        What was learned.
    wanted
        Name of the structure; may be left out where only one was learned.
    describer
        The model's features if they were learned from; None is the hand-made descriptor.

    Attributes
    ----------
    knowledge, learn
        Class of what is learned, and the function that learns it.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({Need.IMAGE})
    knowledge: ClassVar[type[Learned]]
    learn: ClassVar[Callable[..., Learned]]

    rank: int = setting(1, "which of the regions found: 1 is the strongest", 1, 20)
    regions: int = setting(1, "most regions that get a click, from this one on; the box goes round them all", 1, 20)
    negatives: int = setting(0, "most negative clicks on what looks alike beside it", 0, 9)
    margin: float = setting(0.05, "how far the box goes beyond what was found, as a share of its side", -0.4, 1)
    shift: float = setting(0.0, "added to the learned level: below 0 more is found", -1, 1)
    learned: Learned | None = field(default=None, repr=False)
    wanted: str = ""
    describer: Describer | None = field(default=None, repr=False)

    def prompts(self, given: Given) -> tuple[Prompt, ...]:
        """See `PromptSource.prompts`; without an index on the slice where the structure shows best."""
        given.check(self.needs, self.name)
        learned = self._knowledge()
        number = learned.number(self.wanted)
        level, area = float(learned.levels[number]) + self.shift, learned.origin.areas_mm2[number]

        def look(index: int) -> list[spotting.Spot]:
            image = given.image(index)
            return spotting.spots(self.score_map(image, number), level, image.spacing_mm, area)

        index, found = spotting.best_slice(given, look, repr(learned.origin.names[number]))
        chosen = found[self.rank - 1 : self.rank - 1 + self.regions]
        if not chosen:
            raise PromptError(f"Slice {index} has {len(found)} such regions: choose a lower rank than {self.rank}.")
        others = [spot for spot in found if spot not in chosen]
        return (
            *spotting.box_and_clicks(given, index, chosen, self.margin),
            *spotting.confusions(given, index, chosen, others, self.negatives),
        )

    def score_map(self, image: SliceImage, number: int = 0) -> np.ndarray:
        """(rows, columns) float32: the score of a structure at each pixel of a windowed slice.

        Raises
        ------
        PromptError
            If the features are not those that were learned from.
        """
        learned = self._knowledge()
        describer = self.describer or HandMade(learned.origin.cell_mm or HandMade.cell_mm)
        if describer.name != learned.origin.features:
            raise PromptError(
                f"These {learned.kind} were learned from {learned.origin.features}, not from {describer.name}: load "
                "that model, or learn again."
            )
        found = describer.describe(image)
        if len(found.values) != len(learned.mean):
            raise PromptError(f"These {learned.kind} were learned from volumes with another number of channels.")
        return found.on_slice(learned.score(found.rows)[number].reshape(found.cells))

    def knowing(self, path: str | Path, wanted: str = "") -> Self:
        """The same source with what a file holds; ``wanted`` as above.

        Raises
        ------
        ModelFileError
            If the file is missing, damaged, or of another source.
        PromptError
            If the structure is not in it.
        """
        learned = self.knowledge.load(path)
        learned.number(wanted)
        return replace(self, learned=learned, wanted=wanted)

    def _knowledge(self) -> Learned:
        if self.learned is None:
            raise PromptError(
                f"The prompt source {self.name!r} lacks something: learn it from your own cases first (--learned)."
            )
        return self.learned
