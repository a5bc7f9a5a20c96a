"""Slice chaining: what is remembered, what it prompts, when the object has ended, and propagation with a double."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest

from SegmentAnythingMedLib.errors import ModelFileError, PromptError
from SegmentAnythingMedLib.geometry import Plane, VolumeGeometry
from SegmentAnythingMedLib.memory.policy import policy_names
from SegmentAnythingMedLib.models.base import Prediction, Recall, Recalled, SliceImage, SliceModel
from SegmentAnythingMedLib.models.card import ModelCard
from SegmentAnythingMedLib.models.chaining import Chaining, ChainingModel, Link, MaskMemory, mask_similarity
from SegmentAnythingMedLib.prompts import BoxPrompt, SlicePrompts
from SegmentAnythingMedLib.session import VolumeSession
from SegmentAnythingMedLib.volume import Volume

K = Plane(2)
NOTHING = SlicePrompts()
SHAPE = (30, 40)


def disc(row: float, column: float, radius: float = 5, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    rows, columns = np.indices(shape)
    return (rows - row) ** 2 + (columns - column) ** 2 <= radius**2


def recall_of(*memories: tuple[MaskMemory, int, int]) -> Recall:
    """A recall of (memory, slot, distance)."""
    return Recall(tuple(Recalled(*one) for one in memories))


@dataclass(frozen=True, eq=False)
class Seen:
    """A slice for `BoxModel`."""

    bright: np.ndarray
    spacing_mm: tuple[float, float]

    @property
    def shape(self) -> tuple[int, int]:
        return self.bright.shape

    @property
    def nbytes(self) -> int:
        return self.bright.nbytes


class BoxModel(ChainingModel):
    """An image-only model: what is bright inside the box, else the box's upper half with little confidence."""

    def __init__(self, chaining: Chaining | None = None) -> None:
        self.card = ModelCard("box", "Box", "box", "none", ("slice",), ("box",))
        self.chaining = chaining or Chaining(margin=0.3)
        self.asked: list[SlicePrompts] = []
        self.refined: list[Prediction | None] = []

    def encode_slices(self, images: Sequence[SliceImage]) -> list[Seen]:
        return [Seen(image.pixels[0] > 0.5, image.spacing_mm) for image in images]

    def outline(
        self, features: Seen, prompts: SlicePrompts, previous: Prediction | None, multimask: bool
    ) -> Prediction:
        self.asked.append(prompts)
        self.refined.append(previous)
        row0, column0, row1, column1 = (round(edge) for edge in prompts.box_rc)
        box = np.zeros(features.shape, dtype=bool)
        box[row0 : row1 + 1, column0 : column1 + 1] = True
        mask, quality = box & features.bright, 0.9
        if not mask.any():
            box[(row0 + row1) // 2 :] = False
            mask, quality = box, 0.2
        return Prediction(np.where(mask, 5.0, -5.0).astype(np.float32)[None], np.array([quality]))

    def track_step(self, features: object, prompts: object, memories: object, **options: object) -> object:
        raise NotImplementedError


def a_drifting_disc(hidden: tuple[int, ...] = ()) -> tuple[Volume, np.ndarray]:
    """(20, 30, 40): a disc that drifts and shrinks over slices 2 to 13, not seen on some of them, and its truth."""
    truth = np.zeros((20, *SHAPE), dtype=bool)
    for index in range(2, 14):
        truth[index] = disc(10 + 0.8 * (index - 2), 12 + index - 2, 6 - 0.2 * (index - 2))
    seen = truth.copy()
    seen[list(hidden)] = False
    geometry = VolumeGeometry(np.diag([-0.7, 1.1, 4.0, 1.0]), (40, 30, 20))
    return Volume.from_array(np.where(seen, 220, 30).astype(np.uint8), geometry), truth


def propagated(volume: Volume, model: BoxModel, policy: str = "recent", **course: object) -> tuple[np.ndarray, list]:
    session = VolumeSession(volume, model, policy=policy)
    session.segment_slice(1, session.add_prompt(1, BoxPrompt.on_slice((7, 5, 21, 19), 4, K)))
    results = list(session.propagate(plane=K, **course))
    return session.labelmap(1), results


# -- what is remembered --------------------------------------------------------------------------------------------


def test_a_memory_gives_its_mask_back_and_is_small() -> None:
    mask = np.random.default_rng(0).random((512, 512)) > 0.5
    memory = MaskMemory.of(mask)
    np.testing.assert_array_equal(memory.mask, mask)
    assert memory.area == mask.sum() and memory.nbytes <= 512 * 512 / 8 + 64


def test_an_empty_memory_has_no_box_and_no_point() -> None:
    memory = MaskMemory.of(np.zeros(SHAPE, dtype=bool))
    assert memory.is_empty and memory.box_rc is None and memory.deepest_rc is None and not memory.mask.any()
    with pytest.raises(PromptError, match="empty mask has no box"):
        memory.grown_box(0.1)


def test_the_deepest_point_is_deepest_in_millimetres() -> None:
    mask = np.zeros(SHAPE, dtype=bool)
    mask[2:5, 2:17] = True  # 3 x 15 pixels
    mask[5:20, 2:7] = True  # 15 x 5 pixels, 5 mm wide where columns are 1 mm
    assert MaskMemory.of(mask, (1.0, 1.0)).deepest_rc[1] == 4
    row, column = MaskMemory.of(mask, (1.0, 0.1)).deepest_rc
    assert row <= 4 and 8 <= column <= 10


def test_a_box_grows_by_the_same_millimetres_both_ways_and_stays_in_the_slice() -> None:
    mask = np.zeros(SHAPE, dtype=bool)
    mask[10:20, 15:25] = True
    memory = MaskMemory.of(mask, (2.0, 1.0))
    assert memory.grown_box(0.1) == (9.0, 13.0, 20.0, 26.0)  # 10 rows of 2 mm: 2 mm more on each side
    assert memory.grown_box(0.1, 2.0) == (8.0, 11.0, 21.0, 28.0)
    assert memory.grown_box(1.0, 50.0) == (0.0, 0.0, 29.0, 39.0)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (disc(10, 10), disc(10, 10), 1.0),
        (disc(10, 10), disc(10, 30), -1.0),
        (disc(10, 10), np.zeros(SHAPE, bool), -1.0),
        (np.zeros(SHAPE, bool), np.zeros(SHAPE, bool), 1.0),
    ],
)
def test_similarity_is_dice_from_minus_one_to_one(a: np.ndarray, b: np.ndarray, expected: float) -> None:
    assert mask_similarity(MaskMemory.of(a), MaskMemory.of(b)) == pytest.approx(expected)


def test_similarity_of_half_overlapping_masks_is_zero_and_has_no_order() -> None:
    left, right = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    left[5, 0:10], right[5, 5:15] = True, True
    a, b = MaskMemory.of(left), MaskMemory.of(right)
    assert mask_similarity(a, b) == mask_similarity(b, a) == pytest.approx(0.0)


# -- what it prompts -----------------------------------------------------------------------------------------------


def test_the_nearest_slice_prompts_and_of_two_equally_near_the_users_own() -> None:
    key, old, new = (MaskMemory.of(disc(10, column)) for column in (10, 15, 20))
    rule = Chaining()
    assert rule.link(recall_of((key, 0, 5), (old, 2, 2), (new, 1, 1))).memory is new
    assert rule.link(recall_of((key, 0, 1), (old, 1, 2))).memory is key
    assert rule.link(recall_of((new, 1, 1), (key, 0, -1))).memory is key
    assert rule.link(Recall()) is None


def test_slices_where_the_object_was_gone_or_empty_prompt_nothing() -> None:
    key = MaskMemory.of(disc(10, 10))
    gone, empty = MaskMemory.of(disc(10, 20), present=False), MaskMemory.of(np.zeros(SHAPE, bool))
    link = Chaining().link(recall_of((key, 0, 3), (gone, 2, 2), (empty, 1, 1)))
    assert link.memory is key and link.distance == 3
    assert Chaining().link(recall_of((gone, 1, 1))) is None


def test_prompts_are_a_larger_box_and_the_deepest_point() -> None:
    memory = MaskMemory.of(disc(12, 20))
    prompts = Link(memory, 1, Chaining(margin=0.1)).prompts
    assert prompts.box_rc == pytest.approx((5.9, 13.9, 18.1, 26.1))
    np.testing.assert_array_equal(prompts.points_rc, [[12, 20]])
    assert prompts.positive.tolist() == [True]
    assert Link(memory, 2, Chaining(margin=0.1)).prompts.box_rc == pytest.approx((4.8, 12.8, 19.2, 27.2))
    assert Link(memory, 9, Chaining(margin=0.1)).prompts.box_rc == Link(memory, 3, Chaining(margin=0.1)).prompts.box_rc
    assert not len(Link(memory, 1, Chaining(point=False)).prompts.points_rc)


def test_the_mask_is_given_to_refine_only_where_the_rule_says_so() -> None:
    volume, _ = a_drifting_disc()
    for wanted in (False, True):
        model = BoxModel(Chaining(margin=0.3, mask=wanted))
        propagated(volume, model, first=5, last=6)
        assert [one is not None for one in model.refined] == [False, wanted, wanted]


# -- when the object has ended -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mask", "quality", "there"),
    [
        (disc(12, 20), 0.9, True),
        (disc(12, 22), 0.9, True),
        (disc(12, 20), 0.3, False),
        (disc(12, 34), 0.9, False),
        (disc(12, 20, 11), 0.9, False),
        (disc(12, 20, 2), 0.9, False),
        (np.zeros(SHAPE, bool), 0.9, False),
    ],
    ids=["the same", "moved", "doubtful", "elsewhere", "much larger", "much smaller", "empty"],
)
def test_presence_is_the_weakest_of_quality_overlap_and_area(mask: np.ndarray, quality: float, there: bool) -> None:
    presence = Link(MaskMemory.of(disc(12, 20)), 1, Chaining()).presence(mask, quality)
    assert (presence >= 0) is there and -10 <= presence <= 10


def test_over_more_slices_more_change_is_normal() -> None:
    memory, larger = MaskMemory.of(disc(12, 20)), disc(12, 20, 11)
    presences = [Link(memory, distance, Chaining()).presence(larger, 0.95) for distance in (1, 2, 3)]
    assert presences[0] < 0 < presences[1] < presences[2]


def test_parts_apart_from_the_remembered_mask_are_dropped_from_an_answer() -> None:
    here, apart = disc(12, 12), disc(20, 33, 3)
    found = Prediction(np.where(here | apart, 4.0, -4.0).astype(np.float32)[None], np.array([0.9]))
    link = Link(MaskMemory.of(disc(12, 13)), 1, Chaining())
    np.testing.assert_array_equal(link.settle(found).masks[0], here)
    elsewhere = Link(MaskMemory.of(disc(5, 35, 2)), 1, Chaining()).settle(found)
    np.testing.assert_array_equal(elsewhere.masks[0], here | apart)
    assert elsewhere.presence < 0


# -- whole propagations --------------------------------------------------------------------------------------------


def test_an_outline_follows_a_moving_object_and_stops_where_it_ends() -> None:
    volume, truth = a_drifting_disc()
    labels, results = propagated(volume, BoxModel())
    np.testing.assert_array_equal(labels, truth)
    assert max(result.key.index for result in results) == 15  # two slices without it end a pass
    assert min(result.key.index for result in results) == 0
    absent = {result.key.index for result in results if result.presence < 0}
    assert absent == {0, 1, 14, 15}


def test_a_slice_that_hides_the_object_is_bridged() -> None:
    volume, truth = a_drifting_disc(hidden=(8,))
    labels, _ = propagated(volume, BoxModel())
    np.testing.assert_array_equal(labels[9:], truth[9:])


def test_a_small_margin_cannot_follow_a_fast_object() -> None:
    """So the margin does what it is for."""
    volume, truth = a_drifting_disc()
    labels, _ = propagated(volume, BoxModel(Chaining(margin=0.0)))
    assert (labels[13] & truth[13]).sum() < 0.8 * truth[13].sum()


@pytest.mark.parametrize("policy", policy_names())
def test_every_policy_that_chooses_memories_works(policy: str) -> None:
    volume, truth = a_drifting_disc()
    labels, _ = propagated(volume, BoxModel(), policy)
    assert 2 * (labels & truth).sum() / (labels.sum() + truth.sum()) > 0.9


def test_a_painted_key_slice_prompts_its_neighbours() -> None:
    volume, truth = a_drifting_disc()
    session = VolumeSession(volume, BoxModel())
    session.confirm_slice(1, session.slice_key(K, 6), truth[6])
    list(session.propagate(plane=K))
    np.testing.assert_array_equal(session.labelmap(1), truth)


def test_prompts_on_a_slice_are_answered_without_memories() -> None:
    model, shape = BoxModel(), (30, 40)
    features = Seen(disc(12, 20), (1.0, 1.0))
    box = SlicePrompts(box_rc=(5, 12, 20, 30))
    memory = MaskMemory.of(disc(20, 10))
    answer = model.predict(features, box, recall_of((memory, 0, 1)))
    np.testing.assert_array_equal(answer.masks[0], disc(12, 20))
    assert model.asked == [box]
    painted = model.predict(features, SlicePrompts(mask=disc(9, 9)), Recall())
    np.testing.assert_array_equal(painted.masks[0], disc(9, 9))
    nobody = model.predict(features, NOTHING, Recall())
    assert nobody.presence < 0 and not nobody.masks.any() and nobody.logits.shape == (1, *shape)
    with pytest.raises(PromptError, match="mask prompt has shape"):
        model.predict(features, SlicePrompts(mask=np.ones((3, 3), bool)), Recall())


def test_a_tracked_answer_below_presence_is_remembered_as_gone_and_a_prompted_one_never() -> None:
    model, features = BoxModel(), Seen(disc(12, 20), (1.0, 1.0))
    answer = Prediction(np.ones((1, *SHAPE), np.float32), np.ones(1), presence=-1.0)
    assert not model.encode_memory(features, answer, prompted=False).present
    assert model.encode_memory(features, answer, prompted=True).present
    assert model.encode_memory(features, replace(answer, presence=0.0), prompted=False).present
    assert isinstance(model, SliceModel)


# -- settings ------------------------------------------------------------------------------------------------------


def test_settings_come_from_a_cards_options() -> None:
    options = {"chain_margin": 0.1, "chain_point": False, "chain_min_quality": 0, "size": "b"}
    assert Chaining.from_options(options) == Chaining(margin=0.1, point=False, min_quality=0)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"chain_marign": 0.1}, "chain_marign = 0.1: use chain_margin"),
        ({"chain_margin": "wide"}, "chain_margin = 'wide'"),
        ({"chain_point": 1}, "chain_point = 1"),
        ({"chain_margin": True}, "chain_margin = True"),
        ({"chain_margin": 3.0}, "chain_margin must be from 0.0 to 1.0, got 3.0"),
        ({"chain_max_change": float("nan")}, "chain_max_change must be"),
    ],
)
def test_wrong_settings_are_refused_by_name(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(ModelFileError, match=sentence):
        Chaining.from_options(options, "m")


def test_chaining_needs_no_torch() -> None:
    script = "import sys, SegmentAnythingMedLib.models.chaining; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
