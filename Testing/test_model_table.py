"""The table of model families in docs/models.md says what cards and tests say, and nothing else."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("model_table", ROOT / "docs" / "model_table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_claim_has_its_test(generator: ModuleType) -> None:
    missing = [
        (family, claim)
        for family, claims in generator.EVIDENCE.items()
        for claim in claims
        if not generator.is_shown(family, claim)
    ]
    assert not missing


def test_every_family_with_a_card_has_a_row(generator: ModuleType) -> None:
    from SegmentAnythingMedLib.models.registry import ModelRegistry

    families = {card.family for card in ModelRegistry([ROOT / "Resources" / "ModelCards"]).cards}
    assert families <= set(generator.EVIDENCE)


def test_the_page_is_up_to_date(generator: ModuleType) -> None:
    written = generator.PAGE.read_text(encoding="utf-8")
    assert generator.page(written) == written, "run python docs/model_table.py"
