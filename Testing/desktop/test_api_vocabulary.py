"""The module uses only names that a real Slicer has, and names younger than Slicer 5.10 only after a look.

The checker and its manifest of Slicer's names are not in this repository: ``SLICER_API_TOOLS`` says where they are.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from desktop.later_names import LaterNames, is_late
from desktop.oldest_slicer import later_in_python, later_in_ui, widgets_of

ROOT = Path(__file__).resolve().parents[2]
MODULE = sorted((ROOT / "SegmentAnythingMed").rglob("*.py"))
SCENE = sorted((ROOT / "SegmentAnythingMedLib" / "mrml").rglob("*.py"))
PANELS = sorted((ROOT / "Resources" / "UI").glob("*.ui"))


# What the manifest cannot know: Slicer's own Sample Data sets this attribute, in every version, when it is imported.
SET_IN_PYTHON = re.compile(r"no module slicer\.modules\.sampleDataSources$")
# What is wrong, the name that must be reported, and the text.
UNCHECKED = {
    "a function of a later module": ("packaging.pip_ensure", "slicer.packaging.pip_ensure(['x'])"),
    "import of the module": ("packaging", "import slicer.packaging"),
    "import from the module": ("packaging.pip_ensure", "from slicer.packaging import pip_ensure"),
    "import of the module by from": ("packaging", "from slicer import packaging"),
    "import by name": ("packaging", "importlib.import_module('slicer.packaging')"),
    "a later function of an old module": ("executePythonModule", "slicer.util.executePythonModule('pip', [])"),
    "a later argument of an old function": (
        "launchConsoleProcess.blocking",
        "slicer.util.launchConsoleProcess(['x'], blocking=False)",
    ),
    "a method of a widget": ("setLineDirectionVisibility2D", "widget.setLineDirectionVisibility2D(True)"),
    "a signal of a widget": ("nodeAddedByUserAction", "combo.connect('nodeAddedByUserAction(vtkMRMLNode*)', f)"),
    "a class": ("ctkSplitter", "ctk.ctkSplitter()"),
    "a look for something else": (
        "packaging.pip_check",
        """
if hasattr(slicer, 'util'):
    slicer.packaging.pip_check('x')
""",
    ),
    "the branch without it": (
        "packaging.pip_check",
        """
if hasattr(slicer, 'packaging'):
    pass
else:
    slicer.packaging.pip_check('x')
""",
    ),
    "a look that does not leave": (
        "packaging.pip_check",
        """
if not hasattr(slicer, 'packaging'):
    print('none')
slicer.packaging.pip_check('x')
""",
    ),
    "a try for another error": (
        "packaging.pip_check",
        """
try:
    slicer.packaging.pip_check('x')
except OSError:
    pass
""",
    ),
    "a try round a definition": (
        "packaging.pip_check",
        """
try:
    def f():
        slicer.packaging.pip_check('x')
except ImportError:
    pass
""",
    ),
}
CHECKED = {
    "if hasattr": """
if hasattr(slicer, 'packaging'):
    slicer.packaging.pip_ensure(['x'])
""",
    "hasattr and": "ok = hasattr(slicer, 'packaging') and slicer.packaging.pip_check('x')",
    "else without": "ok = None if not hasattr(slicer, 'packaging') else slicer.packaging.pip_check('x')",
    "tried import": """
try:
    from slicer.packaging import pip_ensure
except ImportError:
    pip_ensure = None
""",
    "suppressed": """
with contextlib.suppress(AttributeError):
    slicer.packaging.pip_check('x')
""",
    "from a version on": """
if (slicer.app.majorVersion, slicer.app.minorVersion) >= (5, 12):
    slicer.packaging.pip_check('x')
""",
    "not before a version": """
if slicer.app.minorVersion < 12:
    pass
else:
    slicer.packaging.pip_check('x')
""",
    "getattr with default": """
packaging = getattr(slicer, 'packaging', None)
if packaging is not None:
    packaging.pip_ensure(['x'])
""",
    "early return": """
def f():
    if not hasattr(slicer, 'packaging'):
        return
    slicer.packaging.pip_ensure(['x'])
""",
    "return when the import fails": """
def f():
    try:
        import slicer.packaging
    except ImportError:
        return None
    return slicer.packaging
""",
    "a function that looks": """
def has_packaging():
    return hasattr(slicer, 'packaging')
if has_packaging():
    slicer.packaging.pip_check('x')
""",
    "a method of a widget": """
if hasattr(widget, 'setLineDirectionVisibility2D'):
    widget.setLineDirectionVisibility2D(True)
""",
    "an old function": "slicer.util.pip_install('x')",
    "an old argument": "slicer.util.launchConsoleProcess(['x'], useStartupEnvironment=False)",
}


@pytest.fixture(scope="module")
def tools() -> Path:
    """The folder of the checker and the manifest, or the test is skipped."""
    folder = Path(os.environ.get("SLICER_API_TOOLS", ROOT.parent / "shared" / "tools" / "slicer_api"))
    if not (folder / "check_api.py").is_file():
        pytest.skip(f"no check_api.py at {folder}: set SLICER_API_TOOLS")
    return folder


@pytest.fixture(scope="module")
def later_names(tools: Path) -> LaterNames:
    return LaterNames.from_manifest(json.loads((tools / "slicer_api.json").read_text()))


def check(tools: Path, *files: Path) -> tuple[str, int, int]:
    """Run the checker: the problems it sees, how many, in how many uses."""
    pytest.importorskip("PySide6", reason="the checker reads Qt's own names: pip install PySide6-Essentials==6.11.1")
    command = [sys.executable, tools / "check_api.py", tools / "slicer_api.json", *files]
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=120)
    counts = re.search(r"^(\d+) problems in (\d+) checked uses$", result.stdout, re.MULTILINE)
    assert counts, result.stdout + result.stderr
    lines = result.stdout.splitlines()[:-1] if int(counts[1]) else []
    assert len(lines) == int(counts[1]), result.stdout
    problems = [line for line in lines if not SET_IN_PYTHON.search(line)]
    return "\n".join(problems), len(problems), int(counts[2])


def later(text: str, names: LaterNames, widgets: dict[str, str] | None = None) -> list[str]:
    return later_in_python(text, "planted.py", names, widgets or {})


@pytest.mark.parametrize(
    "files", [pytest.param([*MODULE, *PANELS], id="desktop module"), pytest.param(SCENE, id="MRML layer")]
)
def test_slicer_has_every_name_that_we_use(files: list[Path], tools: Path) -> None:
    said, problems, uses = check(tools, *files)
    assert uses > 0, "nothing was checked"
    assert problems == 0, said


def test_a_name_that_slicer_lacks_is_found(tools: Path, tmp_path: Path) -> None:
    planted = tmp_path / "planted.py"
    planted.write_text("import slicer\nslicer.util.loadEverything()\nslicer.util.loadVolume('x', 1, 2, 3)\n")
    said, problems, _ = check(tools, planted)
    assert problems == 2
    assert "has no loadEverything" in said
    assert "too many arguments" in said


def test_what_slicer_5_10_lacks_is_used_only_after_a_look(later_names: LaterNames) -> None:
    widgets = {name: kind for panel in PANELS for name, kind in widgets_of(panel).items()}
    found = [use for panel in PANELS for use in later_in_ui(panel, later_names)]
    for path in [*MODULE, *SCENE]:
        found += later_in_python(path.read_text(), str(path.relative_to(ROOT)), later_names, widgets)
    assert found == []


def test_versions_are_compared_with_the_oldest() -> None:
    assert is_late("v5.12.3")
    assert is_late("HEAD")
    assert is_late("5.13")
    assert not is_late("v5.8.1")
    assert not is_late("v5.10.0")
    assert not is_late("5.11"), "the first wheel that was read says nothing about 5.10"


@pytest.mark.parametrize(("name", "text"), UNCHECKED.values(), ids=UNCHECKED)
def test_an_unchecked_later_name_is_found(name: str, text: str, later_names: LaterNames) -> None:
    (found,) = later(text, later_names)
    assert f" {name} came with v5.12" in found


@pytest.mark.parametrize("text", CHECKED.values(), ids=CHECKED)
def test_a_checked_or_old_name_passes(text: str, later_names: LaterNames) -> None:
    assert later(text, later_names) == []


def test_a_widget_of_the_panel_is_judged_by_its_class(later_names: LaterNames) -> None:
    """setCurrentComponent is old in another widget, so that its name alone says nothing."""
    text = "class W:\n    def f(self):\n        self.ui.volume.setCurrentComponent(1)\n"
    assert later(text, later_names, {"volume": "ctkVTKVolumePropertyWidget"}) == []
    (found,) = later(text, later_names, {"volume": "qMRMLVolumePropertyNodeWidget"})
    assert "setCurrentComponent came with v5.12.3" in found


def test_a_ui_file_with_a_later_class_or_property_is_found(later_names: LaterNames, tmp_path: Path) -> None:
    ui = tmp_path / "planted.ui"
    ui.write_text(
        '<ui><widget class="ctkSplitter" name="a"/><widget class="qMRMLVolumePropertyNodeWidget" name="b">'
        '<property name="currentComponent"><number>1</number></property></widget></ui>'
    )
    assert later_in_ui(ui, later_names) == [
        "planted.ui: ctkSplitter came with v5.12.3",
        "planted.ui: qMRMLVolumePropertyNodeWidget.currentComponent came with v5.12.3",
    ]
