"""What ``prompts SOURCE`` does, apart from reading options: a source's prompts on a volume, as a prompts file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from SegmentAnythingMedLib.errors import ModelUnavailableError, PromptError
from SegmentAnythingMedLib.features import FeatureCache
from SegmentAnythingMedLib.geometry import Plane, SliceGeometry
from SegmentAnythingMedLib.memory.settings import settings_of
from SegmentAnythingMedLib.models.base import Prediction, Recall, SliceModel
from SegmentAnythingMedLib.models.registry import FALLBACK_MODEL, ModelRegistry, default_model
from SegmentAnythingMedLib.prompts import SlicePrompts
from SegmentAnythingMedLib.prompts_file import ObjectPrompts, PromptsFile, clean_name
from SegmentAnythingMedLib.sources.learned import LearnedSource
from SegmentAnythingMedLib.sources.source import Given, Need, PromptSource, load_source, source_class, source_names
from SegmentAnythingMedLib.volume import Volume
from SegmentAnythingMedLib.windowing import choose_window

if TYPE_CHECKING:
    from SegmentAnythingMedLib.io import Labels
    from SegmentAnythingMedLib.io.line_markups import Line


@dataclass(frozen=True, eq=False)
class Wish:
    """What the user asked for.

    Parameters
    ----------
    source
        Name of a source, with settings behind a colon.
    plane, index, time, window
        Slices to make prompts for; ``index`` None lets the source choose.
    labels
        Rough masks or an automatic segmentation on the volume's grid, or None.
    segment
        Which of its segments; "" takes each, as an object of its own.
    lines_ijk
        One ruler, or two lines of a pair.
    model, device
        A slice model, loaded only if the source needs one.
    name
        Of the object, where no segment names it.
    learned, structure
        File of what was learned from the user's cases, and which structure of it; None for other sources.
    """

    source: str
    plane: str = "axial"
    index: int | None = None
    time: int = 0
    window: str = "auto"
    labels: Labels | None = None
    segment: str = ""
    lines_ijk: tuple[Line, ...] = ()
    model: str = field(default_factory=default_model)
    device: str = "auto"
    name: str = ""
    learned: str | None = None
    structure: str = ""


def make_prompts(volume: Volume, wish: Wish) -> PromptsFile:
    """Prompts of every object that the source finds something for.

    Raises
    ------
    PromptError
        If the source lacks something or finds nothing; the message says what to do.
    """
    source = load_source(wish.source)
    if wish.learned is not None:
        source = _knowing(source, wish.learned, wish.structure)
    given = _given(volume, wish, source)
    if wish.labels is None:
        objects = (ObjectPrompts(1, source.prompts(given), clean_name(wish.name or wish.structure)),)
    else:
        objects = tuple(_objects(source, given, wish.labels, wish))
    model = wish.model if Need.MODEL in source.needs else ""
    return PromptsFile(objects, wish.time, model, "" if wish.window == "auto" else wish.window)


def list_lines() -> Iterator[str]:
    """All sources, what they do, and their settings."""
    for name in source_names():
        kind = source_class(name)
        yield f"{name}: {kind.sentence}"
        for one in settings_of(kind):
            limits = "" if one.low is None else f", {one.low:g} to {one.high:g}"
            yield f"    {one.name}={_shown(one.default)}{limits}: {one.meaning}"


def _knowing(source: PromptSource, path: str, structure: str) -> PromptSource:
    """The source with what was learned from the user's cases."""
    if not isinstance(source, LearnedSource):
        raise PromptError(f"The prompt source {source.name!r} learns nothing: leave --learned out.")
    return source.knowing(path, structure)


def _shown(value: bool | int | float) -> str:
    return ("no", "yes")[value] if isinstance(value, bool) else f"{value:g}"


def _given(volume: Volume, wish: Wish, source: PromptSource) -> Given:
    slices = SliceGeometry(volume.geometry, Plane.named(wish.plane, volume.geometry))
    model = _model(wish) if Need.MODEL in source.needs else None
    window = choose_window(volume, wish.window, volume.check_time(wish.time))
    cache = FeatureCache(volume, window, model, time_index=wish.time)
    image = partial(cache.image, slices)

    def predict(index: int, prompts: SlicePrompts, multimask: bool = False) -> Prediction:
        return model.predict(cache.get(slices, index), prompts, Recall(), None, multimask)

    return Given(slices, wish.index, lines_ijk=wish.lines_ijk, image=image, predict=predict if model else None)


def _model(wish: Wish) -> SliceModel:
    model = ModelRegistry().load(wish.model, device=wish.device)
    if not isinstance(model, SliceModel):
        raise ModelUnavailableError(
            f"Model {wish.model!r} sees no slices: choose a slice model such as {FALLBACK_MODEL}."
        )
    return model


def _objects(source: PromptSource, given: Given, labels: Labels, wish: Wish) -> Iterator[ObjectPrompts]:
    """Prompts of each segment wanted; a segment that gives none is an error only if it is the only one."""
    numbers = range(1, len(labels.segments) + 1)
    if wish.segment:
        labels.mask(wish.segment)
        numbers = [n for n in numbers if labels.segments[n - 1].name == wish.segment][:1]
    whole = np.zeros(given.slices.volume.shape_kji, np.uint16)
    for number, segment in enumerate(labels.segments, start=1):
        whole[segment.mask] = number
    reasons: list[str] = []
    made = 0
    for number in numbers:
        segment = labels.segments[number - 1]
        try:
            found = source.prompts(replace(given, labels=whole, label=number))
        except PromptError as error:
            reasons.append(f"{segment.name}: {error}" if len(numbers) > 1 else str(error))
            continue
        made += 1
        yield ObjectPrompts(number, found, clean_name(segment.name))
    if not made:
        raise PromptError(reasons[0] if reasons else "The mask holds no segment: choose another file.")
