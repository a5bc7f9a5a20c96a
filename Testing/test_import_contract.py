"""Who may import whom (the architecture), read from the sources, and what importing the library costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = "SegmentAnythingMedLib"
ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / PACKAGE).rglob("*.py"))

FOUNDATION = {
    "errors", "geometry", "volume", "windowing", "prompts", "rasterize", "resources", "replacing", "resampling",
    "free_memory", "voxel_block", "fusion",
}  # fmt: skip
MODEL_PARTS = {
    "models.accelerate",
    "models.base",
    "models.card",
    "models.preprocess",
    "models.chaining",
    "models.conversion",
    "models.device",
    "models.loading",
    "models.mapped_conversion",
    "models.networks",
}
SESSION = {
    "features",
    "tracked_object",
    "tracking",
    "path_tracking",
    "propagation",
    "propagator",
    "slice_result",
    "session",
    "through_time",
    "region_propagator",
    "volume_model_session",
}
PREVIEW = {"preview", "preview_panels", "preview_surface"}
PHANTOM = {"phantom", "phantom_anatomy", "phantom_imaging", "phantom_shapes"}

ALLOWED = {
    "errors": set(),
    "free_memory": set(),
    "geometry": {"errors"},
    "volume": {"errors", "geometry"},
    "windowing": {"errors", "volume"},
    "prompts": {"errors", "geometry"},
    "rasterize": set(),
    "resampling": set(),
    "replacing": {"errors"},
    "voxel_block": set(),
    "fusion": {"errors", "geometry", "volume", "free_memory"},
    "resources": {"errors"},
    "prompts_file": FOUNDATION,
    "io": FOUNDATION | {"io"},
    "models.base": FOUNDATION | {"models.card"},
    "models.card": {"errors"},
    "models.conversion": FOUNDATION,
    "models.device": {"errors"},
    "models.preprocess": {"errors", "models.base"},
    "models.registry": FOUNDATION | {"models.base", "models.card"},
    "models.networks": {"errors", "models.networks"},
    "models.weights": FOUNDATION | {"models.card", "models.registry", "models.networks", "models.weights"},
    "models.edgetam": FOUNDATION | MODEL_PARTS | {"models.sam2"},
    "models.efficient_tam": FOUNDATION | MODEL_PARTS | {"models.sam2"},
    "models.sam3_tracker": FOUNDATION | MODEL_PARTS | {"models.sam2"},
    "models.tinyvit_sam": FOUNDATION | MODEL_PARTS | {"models.sam"},
    "models": FOUNDATION | MODEL_PARTS,
    "memory.policies": {"memory"},
    "memory": {"errors", "memory", "models.base"},
    "sources": FOUNDATION | {"models.base", "memory.settings", "sources"},
    "sources.command": FOUNDATION
    | {"models.base", "models.registry", "memory.settings", "features", "io", "prompts_file", "sources"},
    "sources.options": FOUNDATION | {"models.registry", "io", "prompts_file", "sources"},
    "sources.learn_options": FOUNDATION | {"io", "sources"},
    "features": FOUNDATION | {"models.base"},
    "mrml": FOUNDATION | {"prompts_file", "slice_result", "models.registry", "models.card", "worker", "mrml"},
    "panel": FOUNDATION | {"mrml", "panel", "models.registry", "models.card", "models.weights", "worker.environment"},
    "web": FOUNDATION
    | {"mrml", "panel", "worker.client", "worker.environment", "io", "models.registry", "models.card", "web"}
    | {"prompts_file", "memory.policies", "models.weights"},
    "finetune": FOUNDATION | {"finetune", "benchmark", "io", "models"},
    "worker.messages": FOUNDATION | {"prompts_file", "worker"},
    "worker.client": FOUNDATION | {"prompts_file", "worker"},
    "worker.time_command": FOUNDATION | {"prompts_file", "worker"},
    "worker.suggest_work": FOUNDATION | {"session", "sources.source", "worker"},
    "worker": FOUNDATION | SESSION | {"prompts_file", "memory", "models.base", "models.registry", "worker"},
}
ALLOWED |= dict.fromkeys(PREVIEW, FOUNDATION | PREVIEW)
ALLOWED |= dict.fromkeys(PHANTOM, FOUNDATION | PHANTOM)
ALLOWED |= {module: FOUNDATION | SESSION | {"memory", "models.base"} for module in SESSION}
ALSO = {"models.embedded": {"models.classic"}}
"""Beside what their package may: the embedded network is joined with the solver."""
TOP = {"segmenting", "cli", "demo", "benchmark", "__main__", "__init__"}


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT / PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__") or "__init__"


def imports_of(path: Path) -> set[str]:
    """Absolute names of all modules a file imports at run time, ours without the package's name."""
    here = [PACKAGE, *module_of(path).split(".")][: None if path.name == "__init__.py" else -1]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else []
            found.add(".".join([*base, *([node.module] if node.module else [])]))
    return found


def rule_for(module: str, rules: dict[str, set[str]]) -> set[str] | None:
    """The rule of the module, or of the nearest package or name it belongs to."""
    while module:
        if module in rules:
            return rules[module]
        module = module.rpartition(".")[0]
    return None


def may(module: str, allowed: set[str]) -> bool:
    parts = module.split(".")
    return any(".".join(parts[:count]) in allowed for count in range(1, len(parts) + 1))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: module_of(path))
def test_modules_import_only_what_the_architecture_allows(path: Path) -> None:
    module = module_of(path)
    if module.partition(".")[0] in TOP:
        return
    allowed = rule_for(module, ALLOWED)
    assert allowed is not None, f"{module} has no rule yet: say in ALLOWED what it may import"
    family = module.removeprefix("models.").partition("_")[0]
    if module.startswith("models.") and f"models.{family}" not in ALLOWED:
        allowed = allowed | {f"models.{path.stem}" for path in SOURCES if path.stem.partition("_")[0] == family}
    allowed = allowed | ALSO.get(module, set())
    ours = {name.removeprefix(PACKAGE + ".") for name in imports_of(path) if name.startswith(PACKAGE + ".")}
    wrong = sorted(name for name in ours if not may(name, allowed))
    assert not wrong, f"{module} must not import {wrong}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: module_of(path))
def test_heavy_and_foreign_packages_stay_in_their_places(path: Path) -> None:
    module = module_of(path)
    packages = {name.partition(".")[0] for name in imports_of(path)}
    assert not packages & {"qt", "ctk", "PySide6", "pickle" if module != "models.networks.checkpoint" else "qt"}
    if not module.startswith(("mrml", "panel", "web", "benchmark.mrml")):
        assert not packages & {"vtk", "slicer"}
    if not module.startswith(("models", "finetune", "benchmark")):
        assert "torch" not in packages


LIGHT = """
import sys
import {module}
print(",".join(sorted({{name.partition(".")[0] for name in sys.modules}} & {heavy!r})))
"""


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        (PACKAGE, {"numpy", "scipy", "torch", "SimpleITK", "skimage", "vtk", "matplotlib", "pydicom"}),
        (f"{PACKAGE}.session", {"scipy", "torch", "SimpleITK", "skimage", "vtk", "matplotlib", "pydicom"}),
        (f"{PACKAGE}.io", {"scipy", "torch", "SimpleITK", "skimage", "vtk", "matplotlib", "pydicom", "highdicom"}),
        (f"{PACKAGE}.cli", {"numpy", "scipy", "torch", "SimpleITK", "skimage", "vtk", "matplotlib", "pydicom"}),
        (f"{PACKAGE}.worker.client", {"scipy", "torch", "SimpleITK", "skimage", "vtk", "matplotlib", "pydicom"}),
        (f"{PACKAGE}.models.registry", {"scipy", "torch", "SimpleITK", "skimage", "vtk", "matplotlib", "pydicom"}),
    ],
)
def test_importing_loads_nothing_heavy(module: str, heavy: set[str]) -> None:
    script = LIGHT.format(module=module, heavy=heavy)
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""
