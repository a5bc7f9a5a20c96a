"""What a prompt source is, what it is handed, and how one is found by its name."""

from __future__ import annotations

import enum
import importlib
import pkgutil
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import numpy as np

from SegmentAnythingMedLib.errors import GeometryError, PromptError, SegmentAnythingMedError
from SegmentAnythingMedLib.geometry import SliceGeometry
from SegmentAnythingMedLib.memory.settings import read_settings, settings_of, split_settings
from SegmentAnythingMedLib.models.base import Prediction, SliceImage
from SegmentAnythingMedLib.prompts import Prompt, SlicePrompts

KIND = "Prompt source"


class Need(enum.Enum):
    """What a source cannot work without; the value is the field of `Given`."""

    LABELS = "labels"
    LINES = "lines_ijk"
    IMAGE = "image"
    MODEL = "predict"


_ASK = {
    Need.LABELS: "give a rough mask or an automatic segmentation (--mask)",
    Need.LINES: "give a line: two points (--line)",
    Need.IMAGE: "give the volume whose slices it looks at",
    Need.MODEL: "choose a slice model (--model)",
}


class Predict(Protocol):
    """A model on the slices at hand: masks on slice ``index`` from prompts in slice pixels, without memories."""

    def __call__(self, index: int, prompts: SlicePrompts, multimask: bool = False) -> Prediction: ...


@dataclass(frozen=True, eq=False)
class Given:
    """What there is to make prompts from, for one object.

    Parameters
    ----------
    slices
        The stack that prompts are made for; its plane is the prompts' plane.
    index
        Slice wanted, or None: the source chooses.
    labels
        (K, J, I) bool or integers: a rough mask, or an automatic segmentation with one value per structure. Or, where
        ``index`` is given, (rows, columns) of that slice alone.
    label
        The structure wanted among ``labels``; None takes all voxels above 0.
    lines_ijk
        Lines, each two continuous IJK points: one of a ruler, or two of a RECIST pair (long and short axis).
    image
        The windowed slice of an index.
    predict
        A model's answer to prompts on a slice.
    kept
        Work that another label of the same slices needs again; shared by ``dataclasses.replace``.
    """

    slices: SliceGeometry
    index: int | None = None
    labels: np.ndarray | None = None
    label: int | None = None
    lines_ijk: tuple[tuple[tuple[float, float, float], tuple[float, float, float]], ...] = ()
    image: Callable[[int], SliceImage] | None = None
    predict: Predict | None = None
    kept: dict[Hashable, object] = field(default_factory=dict, repr=False)

    def check(self, needs: frozenset[Need], name: str) -> None:
        """Refuse to start without what a source needs, or with what does not fit the volume.

        Raises
        ------
        PromptError
            If something is missing; the message says what to give.
        GeometryError
            If ``index`` is not a slice, or ``labels`` lie on another grid.
        """
        for need in Need:
            there = getattr(self, need.value)
            if need in needs and (there is None or (need is Need.LINES and not there)):
                raise PromptError(f"The prompt source {name!r} lacks something: {_ASK[need]}.")
        if self.index is not None:
            self.slices.check_index(self.index)
        if self.labels is not None and self.labels.ndim == 2:
            self._check_drawn_slice()
        elif self.labels is not None and self.labels.shape != self.slices.volume.shape_kji:
            raise GeometryError(
                f"The mask has {self.labels.shape[::-1]} voxels, the volume {self.slices.volume.size_ijk}: "
                "give a mask on the volume's own grid."
            )

    def _check_drawn_slice(self) -> None:
        if self.index is None:
            raise PromptError("A mask of one slice says nothing of the others: say which slice it is.")
        if self.labels.shape != self.slices.shape:
            rows, columns = self.slices.shape
            raise GeometryError(
                f"The mask has {self.labels.shape[0]} x {self.labels.shape[1]} pixels, the slices {rows} x {columns}: "
                "give a mask of the slice."
            )

    def slice_to_look_at(self) -> int:
        """``index``, or the largest slice of ``labels``, or the only slice.

        Raises
        ------
        PromptError
            If nothing says which slice.
        """
        if self.index is not None:
            return self.index
        if self.labels is not None:
            return self.largest_slice()
        if self.slices.count > 1:
            raise PromptError(f"Say which of the {self.slices.count} {self.slices.plane} to look at (--slice).")
        return 0

    def mask_on(self, index: int) -> np.ndarray:
        """(rows, columns) bool: the wanted structure on a slice, from ``labels``."""
        drawn = self.labels_on(index)
        return drawn > 0 if self.label is None else drawn == self.label

    def labels_on(self, index: int) -> np.ndarray:
        """(rows, columns): ``labels`` on a slice; oblique slices take the nearest voxel and 0 beyond the volume."""
        if np.ndim(self.labels) == 2:
            return np.asarray(self.labels)
        drawn = self.slices.extract(np.asarray(self.labels), index, order=0)
        if self.slices.plane.is_oblique:
            rows, columns = np.indices(self.slices.shape)
            ijk = self.slices.ijk_from_pixels(index, np.stack([rows, columns], axis=-1))
            drawn = np.where(self.slices.volume.contains(ijk), drawn, np.zeros((), drawn.dtype))
        return drawn

    def mask_slices(self) -> tuple[int, ...]:
        """Slices that show the wanted structure: all of the stack, or ``index`` alone if it is given.

        Raises
        ------
        PromptError
            If there is none.
        """
        looked = range(self.slices.count) if self.index is None else (self.index,)
        found = tuple(index for index in looked if self.mask_on(index).any())
        if not found:
            what = "The mask" if self.label is None else f"Label {self.label}"
            where = "is empty" if self.index is None else f"is not on slice {self.index}"
            raise PromptError(f"{what} {where}: choose another one, or make prompts by hand.")
        return found

    def largest_slice(self) -> int:
        """The slice that shows most of the wanted structure: ``index`` if it is given.

        Raises
        ------
        PromptError
            If there is none.
        """
        return max(self.mask_slices(), key=lambda index: np.count_nonzero(self.mask_on(index)))


@dataclass(frozen=True)
class PromptSource:
    """Makes prompts of one object. A source is a subclass called ``Source`` in a file of its own, a frozen dataclass
    whose fields are its settings with ranges (`SegmentAnythingMedLib.memory.settings.setting`).

    Attributes
    ----------
    name
        As on the command line: the name of its file.
    sentence
        What it does, for the user.
    needs
        What must be in `Given`; ``given.check(self.needs, self.name)`` is the first line of `prompts`.
    """

    name: ClassVar[str]
    sentence: ClassVar[str]
    needs: ClassVar[frozenset[Need]]

    def __post_init__(self) -> None:
        given = {one.name: getattr(self, one.name) for one in settings_of(type(self))}
        for setting, value in read_settings(type(self), given, self.name, KIND).items():
            object.__setattr__(self, setting, value)

    def prompts(self, given: Given) -> tuple[Prompt, ...]:
        """Prompts of one object, in the order a user would give them, on planes of ``given.slices``.

        Raises
        ------
        PromptError
            If something is missing, or there is nothing to prompt; the message says what to do.
        """
        raise NotImplementedError


def source_names() -> tuple[str, ...]:
    """All sources there are: the modules of this folder that define a ``Source``."""
    return tuple(name for name in _modules() if hasattr(_module(name), "Source"))


def source_class(name: str) -> type[PromptSource]:
    """The class of the source of this name.

    Raises
    ------
    SegmentAnythingMedError
        If there is no such source; the message lists those there are.
    """
    found = getattr(_module(name), "Source", None) if name in _modules() else None
    if found is None:
        raise SegmentAnythingMedError(f"{KIND} {name!r} is not known: use one of {', '.join(source_names())}.")
    return found


def load_source(name: str, **parameters: object) -> PromptSource:
    """The source of this name with its settings, given as arguments or in the name, as ``ruler:points=5``.

    Raises
    ------
    SegmentAnythingMedError
        If there is no such source or setting, or a value is out of range; the message says what there is.
    """
    plain, written = split_settings(name, KIND)
    source = source_class(plain)
    return source(**read_settings(source, {**written, **parameters}, plain, KIND))


def _modules() -> tuple[str, ...]:
    import SegmentAnythingMedLib.sources as folder

    return tuple(sorted(one.name for one in pkgutil.iter_modules(folder.__path__)))


def _module(name: str) -> object:
    return importlib.import_module(f"SegmentAnythingMedLib.sources.{name}")
