"""The answer that the user chose among a click's candidates is part of the prompt, wherever it is replayed."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import slicer
from mrml.controlling import Driver, point
from mrml.host import MrmlHost

from SegmentAnythingMedLib.errors import PromptError
from SegmentAnythingMedLib.mrml.prompt_record import decode_records
from SegmentAnythingMedLib.prompts_file import load_prompts, save_prompts


@pytest.fixture
def driver(drive: Callable[..., Driver], a_volume: slicer.vtkMRMLScalarVolumeNode) -> Driver:
    """The second answer to a click is chosen."""
    return chosen(drive(), a_volume)


def chosen(made: Driver, volume: slicer.vtkMRMLScalarVolumeNode) -> Driver:
    made.controller.set_volume(volume)
    made.controller.add_prompt(point(12, 10))
    made.settle()
    made.first = made.proposal()
    made.controller.cycle_candidate(1)
    made.settle()
    assert made.controller.candidate[0] == 1 and not np.array_equal(made.proposal(), made.first)
    return made


@pytest.mark.parametrize("model", ["fake", "classic"])
def test_a_saved_scene_replays_the_answer_that_was_chosen(
    drive: Callable[..., Driver], host: MrmlHost, a_volume: slicer.vtkMRMLScalarVolumeNode, tmp_path: Path, model: str
) -> None:
    driver = chosen(drive(model=model), a_volume)
    driver.controller.add_prompt(point(5, 5, positive=False))
    driver.settle()
    driver.controller.propagate()
    driver.settle()
    expected = driver.proposal()
    driver.accept()
    host.save(tmp_path / "scene.mrb")
    host.load(tmp_path / "scene.mrb")
    driver.controller.poll()
    again = drive(model=model)
    again.controller.set_volume(host.scene.GetFirstNodeByName("tilted"))
    again.controller.set_segmentation(host.scene.GetFirstNodeByClass("vtkMRMLSegmentationNode"))
    again.controller.set_segment("")
    again.controller.replay()
    again.settle()
    assert [record.candidate for record in again.controller.markups.records()] == [1, 0]
    again.controller.propagate()
    again.settle()
    np.testing.assert_array_equal(again.proposal(), expected)
    np.testing.assert_array_equal(again.labelmap(), expected)


def test_it_is_kept_when_the_worker_dies_or_the_session_is_opened_anew(driver: Driver) -> None:
    controller, expected = driver.controller, driver.proposal()
    os.kill(controller.link.started.pid, getattr(signal, "SIGKILL", signal.SIGTERM))
    driver.until(lambda: "started again" in controller.status)
    driver.settle()
    np.testing.assert_array_equal(driver.proposal(), expected)
    controller.set_window("110/50")
    driver.settle()
    np.testing.assert_array_equal(driver.proposal(), expected)
    assert controller.candidate == (1, 2)


def test_undo_brings_the_answer_back_and_a_moved_click_is_answered_afresh(driver: Driver) -> None:
    controller, expected = driver.controller, driver.proposal()
    (record,) = controller.markups.records()
    controller.remove_prompts([record.uid])
    driver.settle()
    assert not driver.proposal().any()
    controller.undo_prompt()
    driver.settle()
    np.testing.assert_array_equal(driver.proposal(), expected)
    controller.markups.replace(record.uid, point(11, 10))
    driver.settle()
    assert controller.candidate == (0, 2) and controller.markups.records()[0].candidate == 0
    controller.undo_prompt()
    driver.settle()
    assert controller.candidate == (1, 2)
    np.testing.assert_array_equal(driver.proposal(), expected)
    controller.cycle_candidate(1)
    driver.settle()
    np.testing.assert_array_equal(driver.proposal(), driver.first)
    assert controller.can_undo_prompt and controller.can_redo_prompt


def test_the_prompts_file_holds_it_and_old_files_still_load(
    driver: Driver, drive: Callable[..., Driver], a_volume: slicer.vtkMRMLScalarVolumeNode, tmp_path: Path
) -> None:
    path, old, expected = tmp_path / "prompts.json", tmp_path / "old.json", driver.proposal()
    driver.controller.export_prompts(path)
    other = drive()
    other.controller.set_volume(a_volume)
    other.controller.import_prompts(path)
    other.settle()
    np.testing.assert_array_equal(other.proposal(), expected)
    content = load_prompts(path)
    assert content.objects[0].candidates == (1,)
    save_prompts(tmp_path / "again.json", content)
    assert load_prompts(tmp_path / "again.json").objects[0].candidates == (1,)
    document = json.loads(path.read_text())
    for bad in (-1, True, "second"):
        document["objects"][0]["prompts"][0]["candidate"] = bad
        with pytest.raises(PromptError, match="candidate"):
            decode_records(json.dumps(document))
    del document["objects"][0]["prompts"][0]["candidate"]
    old.write_text(json.dumps(document))
    assert load_prompts(old).objects[0].candidates == () and decode_records(old.read_text())[0].candidate == 0


def test_a_model_with_fewer_answers_gives_its_own_choice(driver: Driver) -> None:
    controller = driver.controller
    controller.markups.store.note_candidate(controller.markups.records()[0].uid, 7)
    controller.replay()
    driver.settle()
    assert controller.candidate == (0, 2)
    np.testing.assert_array_equal(driver.proposal(), driver.first)
