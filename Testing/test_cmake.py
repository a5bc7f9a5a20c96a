"""The extension is configured, built and installed with macros that stand in for Slicer's (Testing/cmake)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
STAND_INS = Path(__file__).resolve().parent / "cmake"
MODULES = Path("lib", "Slicer-5.10", "qt-scripted-modules")
PARTS = ("CMakeLists.txt", "LICENSE", "README.md", "Resources", "SegmentAnythingMed", "SegmentAnythingMedLib")


def program(name: str) -> str:
    """Path of a program beside this interpreter or on PATH, or the test is skipped."""
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    found = shutil.which(name, path=places)
    if found is None:
        pytest.skip(f"{name} is not installed: pip install cmake ninja")
    return found


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=120)


def configure(source: Path, build: Path) -> subprocess.CompletedProcess[str]:
    options = (f"-DSlicer_DIR={STAND_INS}", f"-DCMAKE_TOOLCHAIN_FILE={STAND_INS / 'no_compiler.cmake'}")
    make = f"-DCMAKE_MAKE_PROGRAM={program('ninja')}"
    return run(program("cmake"), "-G", "Ninja", "-S", source, "-B", build, make, *options)


def install(source: Path, folder: Path) -> Path:
    """Install into ``folder / "installed"``; return the folder of scripted modules in it."""
    build, prefix = folder / "build", folder / "installed"
    for result in (
        configure(source, build),
        run(program("cmake"), "--build", build),
        run(program("cmake"), "--install", build, "--prefix", prefix),
    ):
        assert result.returncode == 0, result.stdout + result.stderr
    return prefix / MODULES


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("extension")


@pytest.fixture(scope="module")
def modules(workspace: Path) -> Path:
    """The installed folder of scripted modules."""
    return install(ROOT, workspace)


@pytest.fixture
def a_copy(tmp_path: Path) -> Path:
    """A copy of what the extension is made of, to break."""
    folder = tmp_path / "source"
    folder.mkdir()
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / part, folder / part)
    return folder


def test_every_file_of_the_library_and_the_module_is_installed(modules: Path) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("the list of files comes from git, and this is no git checkout")
    paths = ("SegmentAnythingMedLib", "SegmentAnythingMed", "Resources")
    listed = run("git", "-C", ROOT, "ls-files", "--cached", "--others", "--exclude-standard", "--", *paths)
    assert listed.returncode == 0, listed.stderr
    names = [name for name in listed.stdout.splitlines() if (ROOT / name).exists()]
    # The module's own folder is unpacked beside the library; screenshots are for the home page alone.
    expected = {
        name.removeprefix("SegmentAnythingMed/")
        for name in names
        if not name.startswith("Resources/Screenshots/") and Path(name).name != "CMakeLists.txt"
    }
    installed = {path.relative_to(modules).as_posix() for path in modules.rglob("*") if path.is_file()}
    assert len([name for name in expected if name.startswith("SegmentAnythingMedLib/")]) > 100
    assert expected - installed == set()
    assert installed - expected == set()


def test_the_installed_library_finds_a_model_card_and_the_panel(modules: Path, tmp_path: Path) -> None:
    code = (
        "import SegmentAnythingMedLib\n"
        "from SegmentAnythingMedLib.models.registry import ModelRegistry\n"
        "from SegmentAnythingMedLib.resources import resource_path\n"
        "print(SegmentAnythingMedLib.__file__)\n"
        "print(ModelRegistry(weights=None).card('classic').name)\n"
        "print(resource_path('UI', 'SegmentAnythingMed.ui'))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(modules), "PYTHONDONTWRITEBYTECODE": "1"}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr
    library, card, panel = result.stdout.splitlines()
    assert Path(library) == modules / "SegmentAnythingMedLib" / "__init__.py"
    assert card == "classic"
    assert Path(panel) == modules / "Resources" / "UI" / "SegmentAnythingMed.ui"


def test_the_modules_own_test_is_registered(modules: Path, workspace: Path) -> None:
    listed = run(program("ctest"), "--test-dir", workspace / "build", "--show-only").stdout
    assert ": py_SegmentAnythingMed\n" in listed
    assert "qSlicerSegmentAnythingMedModuleGenericTest" in listed


def test_the_index_gets_a_home_page_an_icon_and_the_dependency(modules: Path, workspace: Path) -> None:
    text = (workspace / "build" / "SegmentAnythingMed.description").read_text()
    described = dict(line.split(" ", 1) for line in text.splitlines())
    assert described["DEPENDS"] == "PyTorch"
    assert described["HOMEPAGE"].startswith("https://github.com/")
    for name in ("ICONURL", "SCREENSHOTURLS"):
        for url in described[name].split():
            assert (ROOT / url.partition("/main/")[2]).is_file(), url


@pytest.mark.parametrize(
    "name",
    [
        "Resources/UI/SegmentAnythingMed.ui",
        "Resources/Icons/SegmentAnythingMed.png",
        "Resources/requirements.txt",
        "SegmentAnythingMed/SegmentAnythingMed.py",
    ],
)
def test_a_needed_file_that_is_missing_stops_the_configuration(name: str, a_copy: Path, tmp_path: Path) -> None:
    (a_copy / name).unlink()
    result = configure(a_copy, tmp_path / "build")
    assert result.returncode != 0
    assert "nonexistent" in result.stderr
    assert Path(name).name in result.stderr


def test_a_new_file_is_installed_by_the_next_build_and_no_list_names_it(a_copy: Path, tmp_path: Path) -> None:
    install(a_copy, tmp_path)
    new = Path("SegmentAnythingMedLib", "memory", "policies", "brand_new.py")
    (a_copy / new).write_text("")
    for command in (("--build", tmp_path / "build"), ("--install", tmp_path / "build", "--prefix", tmp_path / "next")):
        assert run(program("cmake"), *command).returncode == 0
    assert (tmp_path / "next" / MODULES / new).exists()


def test_caches_hidden_files_and_checkpoints_of_others_stay_out(a_copy: Path, tmp_path: Path) -> None:
    for name in (
        "SegmentAnythingMedLib/__pycache__/cli.cpython-311.pyc",
        "SegmentAnythingMedLib/.cache/thing.json",
        "SegmentAnythingMedLib/worker/.DS_Store",
        "Resources/Weights/sam2.1_hiera_tiny.pt",
    ):
        (a_copy / name).parent.mkdir(exist_ok=True)
        (a_copy / name).write_text("x")
    (a_copy / "Resources" / "Weights" / "ours.onnx").write_text("x")
    modules = install(a_copy, tmp_path)
    unwanted = ("*.pyc", "thing.json", ".DS_Store", "*.pt")
    assert [path for pattern in unwanted for path in modules.rglob(pattern)] == []
    assert (modules / "Resources" / "Weights" / "ours.onnx").exists()
