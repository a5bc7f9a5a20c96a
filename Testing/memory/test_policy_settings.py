from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from SegmentAnythingMedLib.errors import SegmentAnythingMedError
from SegmentAnythingMedLib.memory.policies import policy_choices
from SegmentAnythingMedLib.memory.policy import load_policy, policy_class, policy_names

ROOT = Path(__file__).resolve().parents[2]
NAMES = {
    "anatomical", "closest", "distractor_aware", "diverse", "efficient_frame_pruning", "memory_splitting", "motion",
    "multi_path", "occlusion_aware", "quality_filter", "recent", "self_sorting", "short_long",
}  # fmt: skip


def test_every_policy_of_the_field_is_there() -> None:
    assert set(policy_names()) == NAMES


def test_settings_can_be_written_behind_the_name() -> None:
    assert load_policy("closest:keys=3") == load_policy("closest", keys=3) != load_policy("closest")
    assert load_policy("efficient_frame_pruning: parity=yes, remove=1").parity is True


def test_a_setting_given_twice_takes_the_argument_over_the_text() -> None:
    assert load_policy("closest:keys=3", keys=5).keys == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("closest:keys=0", "keys must be a whole number from 1 to 32, got '0'"),
        ("closest:keys=2.5", "whole number"),
        ("closest:keys=nan", "whole number"),
        ("closest:keys=inf", "whole number"),
        ("closest:keys=many", "whole number"),
        ("anatomical:reach_mm=inf", "reach_mm must be a number from 0.1 to 1000"),
        ("efficient_frame_pruning:parity=2", "parity must be true or false"),
        ("recent:keys=2", "recent has no setting 'keys': it has none"),
        ("closest:speed=2", "no setting 'speed': use keys"),
        ("closest:keys", "name:setting=value"),
        ("closest:keys=1,keys=2", "each setting once"),
        ("fifo:keys=1", "use one of anatomical"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_range(text: str, message: str) -> None:
    with pytest.raises(SegmentAnythingMedError, match=message):
        load_policy(text)


@pytest.mark.parametrize("value", [True, None, "x", [1], 33, 1 << 2000])
def test_arguments_are_checked_like_text(value: object) -> None:
    with pytest.raises(SegmentAnythingMedError, match="keys must be"):
        load_policy("closest", keys=value)


def test_a_policy_made_without_the_door_is_checked_too() -> None:
    with pytest.raises(SegmentAnythingMedError, match="threshold must be a number from 0 to 1, got -1"):
        policy_class("quality_filter")(threshold=-1)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_defaults_lie_in_their_ranges_and_every_setting_says_what_it_means(name: str) -> None:
    policy = load_policy(name)
    for one in next(choice for choice in policy_choices() if choice.name == name).settings:
        assert one.read(getattr(policy, one.name), name) == one.default
        assert len(one.meaning) > 10


def test_panels_get_every_policy_in_one_sentence_and_what_is_not_measured() -> None:
    choices = policy_choices()
    assert [choice.name for choice in choices][0] == "recent" and {choice.name for choice in choices} == NAMES
    assert all(choice.sentence.endswith(".") and choice.sentence.count(". ") == 0 for choice in choices)
    assert all(len(choice.sentence) <= 100 for choice in choices)
    assert {choice.note for choice in choices if choice.name != "recent"} == {"not measured"}
    assert choices[0].note == "default"


@pytest.mark.parametrize("name", sorted(NAMES))
def test_the_rule_takes_at_most_ten_lines(name: str) -> None:
    document = sys.modules[policy_class(name).__module__].__doc__
    title, _, rule = document.strip().partition("\n\n")
    assert len(rule.splitlines()) <= 10 and title.count("\n") == 0


@pytest.mark.parametrize("name", sorted(NAMES - {"anatomical"}))
def test_every_rule_names_its_paper(name: str) -> None:
    assert "arXiv" in sys.modules[policy_class(name).__module__].__doc__


def test_listing_the_policies_loads_neither_torch_nor_a_model() -> None:
    script = (
        "import sys\nfrom SegmentAnythingMedLib.memory.policies import policy_choices\npolicy_choices()\n"
        "print({n.partition('.')[0] for n in sys.modules} & {'torch', 'scipy', 'vtk', 'SimpleITK', 'onnxruntime'},"
        " 'SegmentAnythingMedLib.models.registry' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set() False"


def test_the_page_on_policies_names_every_policy_and_setting() -> None:
    page = (ROOT / "docs" / "policies.md").read_text(encoding="utf-8")
    for choice in policy_choices():
        assert f"`{choice.name}`" in page and choice.sentence in page
        for one in choice.settings:
            assert f"`{one.name}={one.default}`" in page, (choice.name, one.name)
