"""A network and the solver without a network (`classic`) asked side by side, and their answers joined.

They err in different places: one knows shapes, the other measures grey values. The mean of their log-odds is at least
as good as the better of the two on nearly every kind of held-out structure and prompt, and how far they agree says
how good an answer is (docs/embedded-model.md has the figures).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from scipy.special import expit

from SegmentAnythingMedLib.errors import ModelFileError
from SegmentAnythingMedLib.models.base import (
    Prediction,
    Recall,
    Recalled,
    Sized,
    SliceImage,
    SliceModel,
    stacked,
    united_reach,
)
from SegmentAnythingMedLib.models.card import ModelCard
from SegmentAnythingMedLib.prompts import SlicePrompts

FAR = 10.0
"""Log-odds of what is certain."""
MOST_CANDIDATES = 3
TRACKED_SHARE = 0.3
"""Share of the network in the log-odds of a slice that only memories tell about; elsewhere both count alike.

Chosen on whole volumes with `SegmentAnythingMedLib.benchmark.embedded_shares`, as is `PRESENCE_SHARE`: Dice from a box
and from a true mask that stops itself .69 and .77; with the solver alone .66 and .78, with shares of 0.5 and 0.3 .68
and .75, with the network alone .64 and .69."""
PRESENCE_SHARE = 0.15
"""Share of the network in the presence logit."""
AGEING = 0.01
"""By how much a carried outline's predicted quality falls with every slice from the nearest key slice; it is also less
where the object may have ended. On whole volumes no one trained on (405 slices) the rank correlation with the true Dice
was .43 without both, .61 with presence, .69 with both."""
AFRESH = 1 / 3
"""Weight of an answer that does not know the earlier one: one click and 5 corrections on held-out structures .877
without it, .896 with it."""
_ALIKE = 0.89
"""Dice from which on two candidates are the same (0.8 in intersection over union)."""


@dataclass(frozen=True)
class Weighing:
    """How good an answer is, from what both say: coefficients of logistic regressions of the intersection over union.

    Fitted on held-out structures by `SegmentAnythingMedLib.finetune.embedded_weighing` and stored with the weights, as
    is how much each of them counts where an outline is carried.

    Parameters
    ----------
    joined
        (5,) of `joined_clues`.
    network, solver
        (6,) of `candidate_clues`, for a candidate of one of them.
    presence_offset
        What `joined_presence` is lowered by.
    tracked_share, presence_share
        Share of the network, 0 to 1, see `TRACKED_SHARE` and `PRESENCE_SHARE`; weights without them have these.
    """

    joined: tuple[float, ...] = (-1.5, 0.35, 0.35, 1.0, 0.35)
    network: tuple[float, ...] = (-0.5, 0.5, 0.0, 0.5, 0.0, 0.3)
    solver: tuple[float, ...] = (-0.5, 0.0, 0.5, 0.5, 0.3, 0.0)
    presence_offset: float = 0.0
    tracked_share: float = TRACKED_SHARE
    presence_share: float = PRESENCE_SHARE

    @classmethod
    def from_json(cls, text: str) -> Weighing:
        """As written by `to_json`; the defaults for an empty text. A `ModelFileError` if it is something else."""
        if not text:
            return cls()
        try:
            stored = json.loads(text)
            rows = {name: tuple(map(float, stored[name])) for name in ("joined", "network", "solver")}
            shares = {name: float(stored.get(name, getattr(cls, name))) for name in ("tracked_share", "presence_share")}
            found = cls(**rows, presence_offset=float(stored["presence_offset"]), **shares)
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            raise ModelFileError(f"The weights' notes on quality cannot be read ({error}): get them again.") from error
        fits = all(isinstance(stored[name], list) and len(row) == len(getattr(cls, name)) for name, row in rows.items())
        fits &= all(0 <= share <= 1 for share in shares.values())
        if not fits or not np.isfinite([*sum(rows.values(), ()), found.presence_offset]).all():
            raise ModelFileError("The weights' notes on quality do not fit this version: get them again.")
        return found

    def to_json(self) -> str:
        return json.dumps(asdict(self))


@dataclass(frozen=True, eq=False)
class Pair:
    """What both keep of a slice."""

    network: Sized
    solver: Sized

    @property
    def nbytes(self) -> int:
        return self.network.nbytes + self.solver.nbytes


class TwoOpinions:
    """Implements `SliceModel`.

    Parameters
    ----------
    network, solver
        The two.
    weighing
        How good answers are.
    """

    def __init__(self, network: SliceModel, solver: SliceModel, weighing: Weighing = Weighing()) -> None:
        self._network, self._solver, self._weighing = network, solver, weighing

    @property
    def card(self) -> ModelCard:
        return self._network.card

    def encode_slices(self, images: Sequence[SliceImage]) -> list[Pair]:
        """What both see of each slice."""
        both = (one.encode_slices(images) for one in (self._network, self._solver))
        return [Pair(*pair) for pair in zip(*both, strict=True)]

    def predict(
        self,
        features: Pair,
        prompts: SlicePrompts,
        recall: Recall = Recall(),  # noqa: B008 (a frozen value)
        previous: Prediction | None = None,
        multimask: bool = False,
    ) -> Prediction:
        """See `SliceModel.predict`. Without prompts and memories the answer is empty and absent."""
        return self.track_step(features, prompts, recall, previous=previous, multimask=multimask)

    def track_step(
        self,
        features: Pair,
        prompts: SlicePrompts,
        memories: Recall,
        previous: Prediction | None = None,
        multimask: bool = False,
    ) -> Prediction:
        """The pure function under `predict`.

        A mask prompt is the answer. For a single click the best candidates of both, else both joined. Where clicks and
        scribbles alone say where the object is, a corrected answer is blended with one that does not know the earlier
        answer: a first answer that was far too small is left behind.
        """
        if prompts.mask is not None:
            return self._network.predict(features.network, prompts)
        said, prompts = prompts, _distinct(prompts)
        by_marks = prompts.box_rc is None and prompts.lasso_rc is None and memories.is_empty
        grown = previous is not None and _is_of_fewer(previous, prompts)
        if by_marks and not prompts.is_empty and (previous is None or (_is_of_prompts(previous) and not grown)):
            single = prompts.is_single_click
            opinions = self.opinions(features, prompts, multimask=multimask and single)
            answer = self.choose(opinions, MOST_CANDIDATES if multimask and single else 1)
        else:
            answer = self.join(self.opinions(features, prompts, memories, previous), prompts, _gap(memories))
            if by_marks and grown:
                answer = _blended(answer, self.join(self.opinions(features, prompts), prompts))
        return answer if answer.state is said else replace(answer, state=said)

    def opinions(
        self,
        features: Pair,
        prompts: SlicePrompts,
        memories: Recall = Recall(),  # noqa: B008 (a frozen value)
        previous: Prediction | None = None,
        multimask: bool = False,
    ) -> tuple[Prediction, Prediction]:
        """What the network and the solver say, see `track_step`."""
        network = self._network.predict(features.network, prompts, _part(memories, "network"), previous, multimask)
        solver = self._solver.predict(features.solver, prompts, _part(memories, "solver"), previous, multimask)
        return network, solver

    def choose(self, opinions: tuple[Prediction, Prediction], count: int) -> Prediction:
        """The best ``count`` candidates of both that differ, best first."""
        network, solver = opinions
        clues = candidate_clues(network, solver)
        quality = np.concatenate([clues[0] @ self._weighing.network, clues[1] @ self._weighing.solver])
        logits, masks = [*network.logits, *solver.logits], np.concatenate([network.masks, solver.masks])
        quality = np.where(masks.any((1, 2)), expit(quality), 0.0)
        kept: list[int] = []
        for row in np.argsort(-quality, kind="stable"):
            if len(kept) == count or (kept and not masks[row].any()):
                break
            if all(dice(masks[row], masks[other]) < _ALIKE for other in kept):
                kept.append(int(row))
        presence = FAR if masks[kept[0]].any() else -FAR
        reach = united_reach(one.reach for one in opinions)
        shown = stacked([logits[row] for row in kept])
        return Prediction(shown, quality[kept].astype(np.float32), presence, network.state, reach=reach)

    def join(self, opinions: tuple[Prediction, Prediction], prompts: SlicePrompts, gap: int = 0) -> Prediction:
        """The mean of both first answers; where the user said something, an empty answer does not count.

        ``gap`` is how many slices the nearest key slice is away, for an outline that is carried.
        """
        network, solver = opinions
        seen = [bool(one.masks[0].any()) for one in opinions]
        if not prompts.is_empty and sum(seen) == 1:
            found = opinions[seen.index(True)]
            return replace(found, logits=found.logits[:1], quality=found.quality[:1], order=())
        share = self._weighing.tracked_share if prompts.is_empty else 0.5
        reach = united_reach(one.reach for one in opinions)
        part = (slice(0, 1), *(reach or ()))
        logits = np.full((1, *network.logits.shape[1:]), -FAR, dtype=np.float32)
        logits[part] = share * network.logits[part] + (1 - share) * solver.logits[part]
        there = bool((logits[part] > 0).any())
        presence = FAR
        if prompts.is_empty:
            presence = joined_presence(network, solver, self._weighing.presence_share) - self._weighing.presence_offset
        presence = presence if there else min(presence, -1.0)
        quality = expit(joined_clues(network, solver, logits[part][0]) @ self._weighing.joined) if there else 0.0
        if prompts.is_empty:
            quality *= expit(presence) * np.exp(-AGEING * gap)
        return Prediction(logits, np.array([quality], np.float32), presence, prompts, reach=reach)

    def encode_memory(self, features: Pair, prediction: Prediction, prompted: bool) -> Pair:
        """What both remember of a slice."""
        return Pair(
            self._network.encode_memory(features.network, prediction, prompted),
            self._solver.encode_memory(features.solver, prediction, prompted),
        )

    def similarity(self, a: Pair, b: Pair) -> float:
        """The network's, -1 to 1."""
        return self._network.similarity(a.network, b.network)


def _blended(answer: Prediction, afresh: Prediction) -> Prediction:
    """The first, drawn towards the second where that is not empty."""
    if not afresh.masks[0].any():
        return answer
    logits = (1 - AFRESH) * answer.logits[:1] + AFRESH * afresh.logits[:1]
    reach = united_reach((answer.reach, afresh.reach))
    return replace(answer, logits=logits.astype(np.float32), quality=answer.quality[:1], order=(), reach=reach)


def _distinct(prompts: SlicePrompts) -> SlicePrompts:
    """Without clicks that repeat others."""
    marks = np.column_stack([prompts.points_rc, prompts.positive])
    rows = np.sort(np.unique(marks, axis=0, return_index=True)[1]) if len(marks) else []
    if len(rows) == len(marks):
        return prompts
    return replace(prompts, points_rc=prompts.points_rc[rows], positive=prompts.positive[rows])


def _is_of_prompts(prediction: Prediction) -> bool:
    """Whether clicks, boxes and the like gave it, and not a painted mask."""
    return isinstance(prediction.state, SlicePrompts) and prediction.state.mask is None


def _is_of_fewer(prediction: Prediction, prompts: SlicePrompts) -> bool:
    """Whether it answers some clicks and scribbles, to which the prompts add others."""
    before = prediction.state
    if not _is_of_prompts(prediction) or before.is_empty or before.box_rc is not None or before.lasso_rc is not None:
        return False
    return before.marks < prompts.marks


def joined_clues(network: Prediction, solver: Prediction, logits: np.ndarray) -> np.ndarray:
    """(5,) one, logits of both predicted qualities, Dice of both masks, and the sharpness of the joined mask's border.

    ``logits`` are the joined (rows, columns); sharpness is the logit of the mask's overlap with its own probability.
    """
    mine, other = network.masks[0], solver.masks[0]
    inside = logits[logits > -FAR / 2]
    mask, probability = inside > 0, expit(inside)
    kept = np.where(mask, probability, 0.0).sum()
    sharpness = kept / max(mask.sum() + probability.sum() - kept, 1e-6)
    return np.array([1.0, _odds(network.quality[0]), _odds(solver.quality[0]), dice(mine, other), _odds(sharpness)])


def joined_presence(network: Prediction, solver: Prediction, share: float = PRESENCE_SHARE) -> float:
    """The mean of both presence logits, the network's with the weight ``share``."""
    mine, other = (float(np.clip(one.presence, -FAR, FAR)) for one in (network, solver))
    return share * mine + (1 - share) * other


def candidate_clues(network: Prediction, solver: Prediction) -> tuple[np.ndarray, np.ndarray]:
    """(M, 6) and (N, 6) clues of M candidates of the network and N of the solver.

    One, the logits of its own quality and of the quality of that candidate of the other that speaks for it most
    (network first), their Dice, and both qualities times the Dice.
    """
    mine, other = _odds(network.quality), _odds(solver.quality)
    overlaps = np.array([[dice(one, two) for two in solver.masks] for one in network.masks])
    friends = (overlaps * solver.quality).argmax(1)
    fans = (overlaps * network.quality[:, None]).argmax(0)
    of_network = _clues(mine, other[friends], overlaps[np.arange(len(mine)), friends])
    return of_network, _clues(mine[fans], other, overlaps[fans, np.arange(len(other))])


def _clues(mine: np.ndarray, other: np.ndarray, overlap: np.ndarray) -> np.ndarray:
    return np.stack([np.ones(len(mine)), mine, other, overlap, mine * overlap, other * overlap], 1)


def _gap(recall: Recall) -> int:
    """Slices to the nearest key slice; 0 if there is none."""
    return min((abs(one.distance) for one in recall.memories if one.slot == 0), default=0)


def _part(recall: Recall, name: str) -> Recall:
    """What one of both remembers; neither looks at pointers."""
    return Recall(tuple(Recalled(getattr(one.memory, name), one.slot, one.distance) for one in recall.memories))


def _odds(quality: float | np.ndarray) -> np.ndarray:
    quality = np.clip(np.asarray(quality, dtype=np.float64), 0.01, 0.99)
    return np.log(quality / (1 - quality))


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Of two bool arrays; 1 if both are empty."""
    total = np.count_nonzero(a) + np.count_nonzero(b)
    return 2.0 * np.count_nonzero(a & b) / total if total else 1.0
