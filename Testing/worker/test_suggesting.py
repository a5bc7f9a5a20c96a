"""Prompt sources asked of the worker: what travels, what comes back, and what is refused."""

from __future__ import annotations

import dataclasses
import io
import json

import numpy as np
import pytest

from SegmentAnythingMedLib.errors import WorkerError
from SegmentAnythingMedLib.geometry import Plane
from SegmentAnythingMedLib.volume import Volume
from SegmentAnythingMedLib.worker import messages as m
from SegmentAnythingMedLib.worker.transport import receive
from Testing.worker.conftest import AXIAL, Host, box, point

LINE = (16.0, 20.0, 12.0, 32.0, 20.0, 12.0)


def there_and_back(message: m.Message) -> m.Message:
    return receive(io.BytesIO(m.encode(message)), m.COMMANDS | m.EVENTS)


@pytest.mark.parametrize(
    "message",
    [
        m.SuggestPrompts(3, "saliency", Plane(None, (0.1, 0.2, 0.9)), 4, settings={"rank": 2}),
        m.SuggestPrompts(3, "ruler", AXIAL, lines_ijk=LINE),
        m.SuggestedPrompts(3, (box(), point(3.5, 4.0, positive=False))),
    ],
)
def test_question_and_answer_survive_the_way(message: m.Message) -> None:
    got = there_and_back(message)
    assert type(got) is type(message)
    for item in dataclasses.fields(message):
        assert getattr(got, item.name) == getattr(message, item.name)


def test_a_mask_arrives_as_sent() -> None:
    mask = np.eye(5, 7, dtype=bool)
    np.testing.assert_array_equal(there_and_back(m.SuggestPrompts(1, "rough_mask", AXIAL, 2, mask)).mask, mask)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"source": "prototypes"}, "source needs one of rough_mask, ruler, vessel, saliency"),
        (
            {"source": "saliency", "settings": {"rank": {"a": None}, "b": [1]}, "index": -1},
            "index needs a whole number",
        ),
        ({"source": "ruler", "lines_ijk": [1, "2"]}, "finite numbers"),
        ({"source": "ruler", "path": "/etc"}, "unknown fields"),
        ({"source": "vessel", "mask": [[1]]}, "mask"),
    ],
)
def test_what_is_not_as_it_has_to_be_is_refused(fields: dict[str, object], sentence: str) -> None:
    content = {"job": 1, "plane": {"axis": 2}, **fields}
    raw = json.dumps({"version": m.VERSION, "kind": "SuggestPrompts", "parts": [], "fields": content}).encode()
    with pytest.raises(WorkerError, match=sentence):
        receive(io.BytesIO(m.PREFIX.pack(len(raw), 0) + raw), m.COMMANDS)


def ask(host: Host, *what: object, **more: object) -> tuple[m.Event, list[m.SuggestedPrompts]]:
    """How the job ended, and its answers."""
    job = host.client.suggest_prompts(m.SuggestPrompts(0, *what, **more))
    return host.end_of(job), host.of(job, m.SuggestedPrompts)


def test_each_source_answers_with_prompts_on_the_slice_and_no_object_gets_them(a_host: Host, a_volume: Volume) -> None:
    a_host.open(a_volume)
    mask = np.zeros((40, 48), bool)
    mask[12:28, 16:32] = True
    asked = {
        "rough_mask": {"index": 12, "mask": mask},
        "vessel": {"index": 12, "mask": mask},
        "ruler": {"lines_ijk": LINE},
        "saliency": {"index": 12, "settings": {"rank": 1}},
    }
    for source, given in asked.items():
        end, answers = ask(a_host, source, AXIAL, **given)
        assert isinstance(end, m.JobDone) and len(answers) == 1, (source, end)
        for prompt in answers[0].prompts:
            assert prompt.plane == AXIAL
            np.testing.assert_allclose(prompt.points_ijk[:, 2], 12)
            assert np.abs(prompt.points_ijk[:, :2] - (24, 20)).max() < 16
    assert a_host.client.revision(1) == 0


@pytest.mark.parametrize(
    ("what", "given", "sentence"),
    [
        ("ruler", {"lines_ijk": LINE[:5]}, "needs 6 numbers"),
        ("ruler", {"lines_ijk": (16.0, 20.0, 3.0, 32.0, 20.0, 12.0)}, "not on one slice"),
        ("ruler", {}, "lacks something: give a line"),
        ("rough_mask", {"index": 12, "mask": np.zeros((40, 48), bool)}, "not on slice 12"),
        ("rough_mask", {"index": 12, "mask": np.ones((48, 40), bool)}, "48 x 40 pixels, the slices 40 x 48"),
        ("rough_mask", {"mask": np.ones((40, 48), bool)}, "say which slice it is"),
        ("saliency", {"index": 99}, "does not exist"),
        ("saliency", {"index": 12, "settings": {"rank": 21}}, "rank must be a whole number from 1 to 20"),
        ("saliency", {"index": 12, "settings": {"learned": "/tmp/a"}}, "learned"),
    ],
)
def test_what_cannot_be_suggested_is_a_sentence_and_the_worker_lives(
    a_host: Host, a_volume: Volume, what: str, given: dict[str, object], sentence: str
) -> None:
    a_host.open(a_volume)
    end, answers = ask(a_host, what, AXIAL, **given)
    assert isinstance(end, m.JobFailed) and sentence in end.sentence and not answers
    assert a_host.outline().mask.any()
