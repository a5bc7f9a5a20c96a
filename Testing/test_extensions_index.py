"""The entry for Slicer's Extensions Index, and the pictures that the Index and Slicer show."""

from __future__ import annotations

import json
import re
import runpy
import tomllib
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from matplotlib import image

ROOT = Path(__file__).resolve().parent.parent
ICONS = sorted((ROOT / "Resources" / "Icons").glob("*.png"))
SCHEMA_URL = (
    "https://raw.githubusercontent.com/Slicer/Slicer/main/Schemas/slicer-extension-catalog-entry-schema-v1.0.1.json#"
)
# What version 1.0.1 of the schema demands.
SCHEMA = {
    "type": "object",
    "required": ["$schema", "category", "scm_url"],
    "additionalProperties": False,
    "properties": {
        "$schema": {"const": SCHEMA_URL},
        "category": {"type": "string"},
        "scm_url": {"type": "string"},
        "scm_revision": {"type": "string"},
        "scm_type": {"enum": ["git", "local"]},
        "build_dependencies": {"type": "array", "items": {"type": "string"}},
        "build_subdirectory": {"type": "string"},
        "enabled": {"type": "boolean"},
        "tier": {"type": "integer", "minimum": 1, "maximum": 5},
    },
}


@pytest.fixture
def entry() -> dict:
    return json.loads((ROOT / "docs" / "SegmentAnythingMed.json").read_text())


@pytest.fixture
def settings() -> dict[str, str]:
    """The values that CMakeLists.txt sets, read as the Index reads them: one quoted string on one line."""
    return dict(re.findall(r'set\s*\((EXTENSION_\w+)\s*"([^"]+)"\)', (ROOT / "CMakeLists.txt").read_text()))


def luminance(colour: np.ndarray) -> np.ndarray:
    """Relative luminance of sRGB colours (..., 3) in 0 to 1, as WCAG 2 defines it."""
    linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
    return linear @ (0.2126, 0.7152, 0.0722)


def test_the_entry_obeys_the_schema(entry: dict) -> None:
    jsonschema.validate(entry, SCHEMA)


@pytest.mark.parametrize("change", [{"tier": 6}, {"homepage": "x"}, {"build_dependencies": "PyTorch"}])
def test_a_wrong_entry_is_refused(entry: dict, change: dict) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**entry, **change}, SCHEMA)


def test_the_entry_says_the_same_as_the_build_files(entry: dict, settings: dict[str, str]) -> None:
    assert settings["EXTENSION_DEPENDS"].split() == entry["build_dependencies"]
    assert entry["scm_url"] == settings["EXTENSION_HOMEPAGE"] + ".git"
    raw = settings["EXTENSION_HOMEPAGE"].replace("https://github.com/", "https://raw.githubusercontent.com/")
    for name in ("EXTENSION_ICONURL", "EXTENSION_SCREENSHOTURLS"):
        assert settings[name].startswith(f"{raw}/{entry['scm_revision']}/"), name


def test_names_are_those_that_the_index_demands(entry: dict) -> None:
    """A file, a project and a repository: the first two alike and without Slicer in front, the third with it."""
    project = re.findall(r"project\s*\(\s*([^\s)]+)", (ROOT / "CMakeLists.txt").read_text())[0]
    assert project == "SegmentAnythingMed"
    assert Path(entry["scm_url"]).stem == f"Slicer{project}"


def test_slicer_installs_what_the_embedded_model_needs_and_no_more() -> None:
    """torch comes through the PyTorch extension, which picks the build that fits the computer."""
    lines = (ROOT / "Resources" / "requirements.txt").read_text().splitlines()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert [line for line in lines if not line.startswith("#")] == extras["embedded"]


def test_the_extensions_icon_is_128_pixels_square_with_a_transparent_ground() -> None:
    icon = image.imread(ROOT / "Resources" / "Icons" / "SegmentAnythingMed.png")
    assert icon.shape == (128, 128, 4)
    assert icon[0, 0, 3] == 0
    assert 0.3 < (icon[..., 3] > 0.5).mean() < 0.9


@pytest.mark.parametrize("path", [path for path in ICONS if path.name[0].islower()], ids=lambda path: path.stem)
def test_a_buttons_icon_stands_out_of_a_light_and_of_a_dark_ground(path: Path) -> None:
    """By the ratio of at least 3 that WCAG 2 asks of graphics; white strokes inside a disc have the disc as ground."""
    icon = image.imread(path)
    assert icon.shape == (48, 48, 4)
    opaque = icon[icon[..., 3] > 0.95][:, :3]
    drawn = luminance(opaque[opaque.min(axis=1) < 0.9])
    assert len(drawn) > 150
    light, dark = luminance(np.array([1.0, 1.0, 1.0])), luminance(np.array([50, 50, 50]) / 255)
    assert np.median((light + 0.05) / (drawn + 0.05)) >= 3
    assert np.median((drawn + 0.05) / (dark + 0.05)) >= 2.5


def test_the_icons_are_those_that_the_script_draws(tmp_path: Path) -> None:
    runpy.run_path(str(ROOT / "docs" / "draw_icons.py"))["main"](tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [path.name for path in ICONS]
    for path in ICONS:
        difference = np.abs(image.imread(path) - image.imread(tmp_path / path.name))
        assert difference.mean() < 0.01, path.name  # another matplotlib may smooth an edge differently
