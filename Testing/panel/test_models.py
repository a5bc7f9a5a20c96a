"""The list of models: what is ready, and in words what is missing."""

from __future__ import annotations

import importlib.util
import json
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from SegmentAnythingMedLib.models.registry import ModelRegistry, default_model
from SegmentAnythingMedLib.panel.models import default_choice, missing_packages, model_choices
from SegmentAnythingMedLib.resources import resource_path


def test_a_fresh_machine_begins_with_the_model_that_needs_nothing_and_says_what_others_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    choices = model_choices(ModelRegistry([resource_path("ModelCards")], tmp_path))
    assert [one.card.name for one in choices[:2]] == ["embedded", "classic"]
    assert [one.is_ready for one in choices[:2]] == [False, True]
    assert default_choice(choices).card.name == default_model() == "classic"
    medsam = next(one for one in choices if one.card.name == "medsam2")
    assert not medsam.is_ready
    assert "no weights" in medsam.label
    assert "For research only." in medsam.detail
    assert "choose it to download them, or import the file MedSAM2_latest.pt" in medsam.detail
    assert "extension PyTorch" in medsam.detail


def test_weights_that_lie_there_still_need_their_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = {"name": "mine", "title": "Mine", "family": "embedded", "licence": "CC0-1.0", "file": "mine.onnx"}
    (tmp_path / "mine.json").write_text(json.dumps(card), encoding="utf-8")
    (tmp_path / "mine.onnx").write_bytes(b"-")
    registry = ModelRegistry([tmp_path], tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (choice,) = model_choices(registry)
    assert choice.has_weights
    assert choice.label == "mine (needs onnxruntime)"
    assert [package.requirement for package in missing_packages(choice.card)] == ["onnxruntime>=1.18"]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: ModuleSpec(name, None, origin="here"))
    assert model_choices(registry)[0].is_ready
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: ModuleSpec(name, None))
    assert not model_choices(registry)[0].is_ready, "an empty folder that an uninstallation left is no package"


@pytest.mark.parametrize(("is_there", "name"), [(True, "embedded"), (False, "classic")])
def test_the_list_begins_with_what_the_command_line_begins_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_there: bool, name: str
) -> None:
    found = ModuleSpec("onnxruntime", None, origin="here") if is_there else None
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: found)
    choices = model_choices(ModelRegistry([resource_path("ModelCards")], tmp_path))
    assert default_choice(choices).card.name == default_model() == name
    assert default_choice(choices).is_ready
