"""``make demo``: the app is opened after the figures, where there is someone to see it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from SegmentAnythingMedLib import cli, demo


@pytest.fixture
def a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demonstration without its work."""
    report = {"organ": "left kidney", "dice": 0.95, "volume_ml": 150.0, "seconds": 1.0, "model": "classic", "files": []}
    monkeypatch.setattr(demo, "run_demo", lambda folder, on_slice: report)
    monkeypatch.delenv("CI", raising=False)


class Terminal:
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("arguments", "variable", "reason"),
    [
        ([], "", "there is no terminal"),
        ([], "CI", "continuous integration"),
        (["--no-app"], "", "it was not wanted"),
    ],
)
def test_without_someone_to_see_it_the_demo_ends_after_its_figures(
    arguments: list[str],
    variable: str,
    reason: str,
    a_report: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if variable:
        monkeypatch.setenv(variable, "1")
    monkeypatch.setattr(demo, "open_app", lambda *_: pytest.fail("the app was opened"))
    assert cli.main(["demo", *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "Dice 0.950" in lines[0] and lines[-1].startswith("The app is not opened: ") and reason in lines[-1]


def test_without_trame_or_a_browser_the_reason_is_named(a_report: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert 'pip install "segment-anything-med[web]"' in demo.why_no_app()


def test_the_app_opens_with_the_phantom_and_its_box(
    a_report: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    serving = pytest.importorskip("SegmentAnythingMedLib.web.serving", reason="aiohttp is not installed")
    opened: list[tuple[str, ...]] = []
    monkeypatch.setattr(serving, "serve", lambda options, tell: opened.append(options.files))
    monkeypatch.setattr(demo, "why_no_app", lambda: "")
    assert cli.main(["demo", "--output", str(tmp_path)]) == 0
    assert opened == [(str(tmp_path / "phantom.nii.gz"), str(tmp_path / "prompts.json"))]
    assert "Both ways" in capsys.readouterr().out


def test_a_screen_is_needed_to_open_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    serving = pytest.importorskip("SegmentAnythingMedLib.web.serving", reason="aiohttp is not installed")
    monkeypatch.setattr(sys, "platform", "linux")
    for variable in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(variable, raising=False)
    assert not serving.can_show_pages()
