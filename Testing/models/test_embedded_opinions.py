"""A network and the solver side by side: one answer from two."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from SegmentAnythingMedLib.errors import ModelFileError
from SegmentAnythingMedLib.models.base import Prediction, Recall, Recalled, SliceImage
from SegmentAnythingMedLib.models.card import ModelCard
from SegmentAnythingMedLib.models.classic import ClassicModel
from SegmentAnythingMedLib.models.embedded_opinions import (
    MOST_CANDIDATES,
    PRESENCE_SHARE,
    TRACKED_SHARE,
    Pair,
    TwoOpinions,
    Weighing,
    candidate_clues,
)
from SegmentAnythingMedLib.prompts import SlicePrompts

CARD = ModelCard("two", "Two", "embedded", "none", ("slice", "memory", "candidates"))
SHAPE = (40, 50)
BOX = SlicePrompts(box_rc=(10.0, 10.0, 29.0, 29.0))
CLICK = SlicePrompts(np.array([[20.0, 20.0]]), np.array([True]))


def square(low=10, high=30):
    mask = np.zeros(SHAPE, bool)
    mask[low:high, low:high] = True
    return mask


def logits_of(*masks, sure=4.0):
    return np.stack([np.where(mask, sure, -sure) for mask in masks]).astype(np.float32)


class Memory:
    nbytes = 7


class Says:
    """A model that says what it is told to, and remembers what it was shown."""

    def __init__(self, prediction):
        self.prediction, self.card, self.seen = prediction, CARD, []

    def encode_slices(self, images):
        return [Memory() for _ in images]

    def predict(self, features, prompts, recall=Recall(), previous=None, multimask=False):  # noqa: B008
        self.seen.append((prompts, recall, previous, multimask))
        return self.prediction

    def encode_memory(self, features, prediction, prompted):
        return Memory()

    def similarity(self, a, b):
        return 0.5


def a_pair(first, second, weighing=Weighing()):  # noqa: B008
    model = TwoOpinions(Says(first), Says(second), weighing)
    return model, model.encode_slices([SliceImage(np.zeros((1, *SHAPE), np.float32), (1.0, 1.0))])[0]


def one(mask, quality=0.8, presence=10.0, sure=4.0):
    return Prediction(logits_of(mask, sure=sure), np.array([quality]), presence)


def test_a_joined_answer_follows_who_is_more_certain():
    wide, narrow = square(8, 32), square(12, 28)
    model, features = a_pair(one(wide, sure=6.0), one(narrow, sure=2.0))
    assert (model.predict(features, BOX).masks[0] == wide).all()
    model, features = a_pair(one(wide, sure=2.0), one(narrow, sure=6.0))
    assert (model.predict(features, BOX).masks[0] == narrow).all()


def test_an_empty_answer_does_not_count_where_the_user_said_something():
    model, features = a_pair(one(square() & False), one(square(), sure=2.0))
    answer = model.predict(features, BOX)
    assert (answer.masks[0] == square()).all() and answer.presence > 0
    model, features = a_pair(one(square() & False), one(square() & False))
    answer = model.predict(features, BOX)
    assert not answer.masks.any() and answer.presence < 0 and answer.quality[0] == 0


def test_presence_of_a_tracked_slice_is_the_weighted_mean_less_the_offset():
    memory = Recall((Recalled(Pair(Memory(), Memory()), 0, 1),))
    for offset, there in ((0.0, True), (2.0, False)):
        weighing = Weighing(presence_offset=offset, presence_share=0.5)
        model, features = a_pair(one(square(), presence=3.0), one(square(), presence=-1.0), weighing)
        answer = model.predict(features, SlicePrompts(), memory)
        assert answer.presence == pytest.approx(1.0 - offset) and (answer.presence > 0) == there
    model, features = a_pair(one(square(), presence=3.0), one(square(), presence=-1.0), Weighing(presence_offset=2.0))
    assert model.predict(features, BOX).presence > 0, "a prompted object is there"


@pytest.mark.parametrize(("share", "place"), [(0.0, square(20, 36)), (1.0, square())])
def test_the_share_on_tracked_slices_says_who_draws_the_outline(share, place):
    memory = Recall((Recalled(Pair(Memory(), Memory()), 0, 1),))
    model, features = a_pair(
        one(square(), presence=3.0), one(square(20, 36), presence=3.0), Weighing(tracked_share=share)
    )
    assert (model.predict(features, SlicePrompts(), memory).masks[0] == place).all()


def test_agreement_raises_predicted_quality():
    weighing = Weighing(joined=(0.0, 0.0, 0.0, 2.0, 0.0))
    qualities = []
    for other in (square(), square(14, 30), square(20, 36)):
        model, features = a_pair(one(square()), one(other), weighing)
        qualities.append(float(model.predict(features, BOX).quality[0]))
    assert qualities[0] > qualities[1] > qualities[2]


def test_a_carried_outline_is_trusted_less_far_from_a_key_slice_and_where_it_may_have_ended():
    near, far = (Recall((Recalled(Pair(Memory(), Memory()), 0, gap),)) for gap in (1, -30))
    model, features = a_pair(one(square()), one(square()))
    surely = [float(model.predict(features, SlicePrompts(), memory).quality[0]) for memory in (near, far)]
    assert surely[1] < 0.8 * surely[0]
    model, features = a_pair(one(square(), presence=0.3), one(square(), presence=0.3))
    assert model.predict(features, SlicePrompts(), near).quality[0] < 0.7 * surely[0]
    prompted = [float(model.predict(features, BOX, memory).quality[0]) for memory in (near, far)]
    assert prompted[0] == prompted[1], "the user said where it is"


def test_a_click_chooses_among_the_candidates_of_both():
    small, middle, large = square(17, 23), square(12, 28), square(5, 38)
    network = Prediction(logits_of(small, middle), np.array([0.4, 0.3]))
    solver = Prediction(logits_of(large, middle), np.array([0.5, 0.9]))
    weighing = Weighing(network=(-5.0, 0.0, 0.0, 0.0, 0.0, 0.0), solver=(0.0, 0.0, 1.0, 0.0, 0.0, 0.0))
    model, features = a_pair(network, solver, weighing)
    answer = model.predict(features, CLICK, multimask=True)
    assert len(answer.masks) == MOST_CANDIDATES, "the same mask is shown once"
    assert [int(mask.sum()) for mask in answer.masks] == [16**2, 33**2, 6**2]
    assert (np.diff(answer.quality) <= 0).all()
    assert len(model.predict(features, CLICK).masks) == 1


def test_clues_of_candidates_name_the_one_of_the_other_that_agrees():
    network = Prediction(logits_of(square(17, 23), square(12, 28)), np.array([0.5, 0.5]))
    solver = Prediction(logits_of(square(12, 28)), np.array([0.5]))
    of_network, of_solver = candidate_clues(network, solver)
    assert of_network.shape == (2, 6) and of_solver.shape == (1, 6)
    assert of_network[1, 3] == of_solver[0, 3] == 1.0 and of_network[0, 3] < 0.5


def test_each_remembers_and_is_reminded_of_its_own():
    model, features = a_pair(one(square()), one(square()))
    memory = model.encode_memory(features, one(square()), True)
    assert memory.nbytes == 14
    model.predict(features, SlicePrompts(), Recall((Recalled(memory, 0, 3),)))
    network, solver = model._network.seen[-1][1], model._solver.seen[-1][1]
    assert network.memories[0].memory is memory.network and solver.memories[0].memory is memory.solver
    assert network.memories[0].distance == 3


def test_a_refined_answer_is_shown_to_both():
    solver = ClassicModel(CARD)
    model = TwoOpinions(solver, solver)
    pixels = (0.2 + 0.5 * square()).astype(np.float32)[None]
    features = model.encode_slices([SliceImage(pixels, (1.0, 1.0))])[0]
    first = model.predict(features, BOX)
    more = SlicePrompts(np.array([[11.0, 11.0]]), np.array([False]), BOX.box_rc)
    second = model.predict(features, more, previous=first)
    assert first.masks[0][11, 11] and not second.masks[0][11, 11]
    assert second.masks[0][20, 20]


def test_a_first_answer_that_was_too_small_is_left_behind():
    small, large = square(19, 23), square(8, 34)

    class HoldsOn(Says):
        def predict(self, features, prompts, recall=Recall(), previous=None, multimask=False):  # noqa: B008
            return one(small if previous is not None else large, sure=2.0 if previous is not None else 9.0)

    model = TwoOpinions(HoldsOn(None), HoldsOn(None))
    features = model.encode_slices([SliceImage(np.zeros((1, *SHAPE), np.float32), (1.0, 1.0))])[0]
    clicks = SlicePrompts(np.array([[20.0, 20.0], [10.0, 10.0]]), np.array([True, True]))
    first = replace(one(small), state=CLICK)
    assert (model.predict(features, clicks, previous=first).masks[0] == large).all()
    painted = model.predict(features, clicks, previous=one(small))
    assert (painted.masks[0] == small).all(), "clicks do not describe what was painted"
    memory = Recall((Recalled(Pair(Memory(), Memory()), 0, 1),))
    tracked = model.predict(features, clicks, memory, one(small))
    assert (tracked.masks[0] == small).all(), "clicks on a tracked slice correct; they do not describe the object"
    boxed = SlicePrompts(clicks.points_rc, clicks.positive, (5.0, 5.0, 35.0, 35.0))
    assert (model.predict(features, boxed, previous=one(small)).masks[0] == small).all()


def test_the_same_click_again_gives_the_same_answer():
    class Knows(Says):
        """Is worse where it knows an earlier answer."""

        def predict(self, features, prompts, recall=Recall(), previous=None, multimask=False):  # noqa: B008
            return one(square() if previous is None and len(prompts.points_rc) == 1 else square(19, 23))

    model = TwoOpinions(Knows(None), Knows(None))
    features = model.encode_slices([SliceImage(np.zeros((1, *SHAPE), np.float32), (1.0, 1.0))])[0]
    first = model.predict(features, CLICK)
    twice = SlicePrompts(np.repeat(CLICK.points_rc, 2, 0), np.array([True, True]))
    for prompts in (CLICK, twice):
        again = model.predict(features, prompts, previous=first)
        assert (again.masks[0] == square()).all() and again.state is prompts


def test_weights_that_say_nothing_of_shares_have_those_that_were_chosen():
    text = (
        '{"joined": [1, 2, 3, 4, 5], "network": [0, 0, 0, 0, 0, 0], "solver": [0, 0, 0, 0, 0, 0], "presence_offset": 1}'
    )
    found = Weighing.from_json(text)
    assert (found.tracked_share, found.presence_share) == (TRACKED_SHARE, PRESENCE_SHARE)


def test_a_weighing_survives_its_text_and_a_damaged_one_is_named():
    weighing = Weighing((1.0, 2.0, 3.0, 4.0, 5.0), presence_offset=0.5, presence_share=0.15, tracked_share=0.25)
    assert Weighing.from_json(weighing.to_json()) == weighing
    assert Weighing.from_json("") == Weighing()
    written = weighing.to_json()
    numbers = "[1.0, 2.0, 3.0, 4.0, 5.0]"
    damaged = [written.replace(": 0.5", end) for end in (": NaN", ": Infinity", ": 1" + 400 * "0")]
    damaged += [written.replace("0.15}", end) for end in ("NaN}", "1.5}", "-0.1}", "null}")]
    damaged += [written.replace(numbers, '"12345"'), written.replace("5.0", "NaN"), written.replace(", 5.0", "")]
    for text in (*damaged, "[" * 100_000, "{", "[]", "{}"):
        assert text != written
        with pytest.raises(ModelFileError, match="get them again"):
            Weighing.from_json(text)
