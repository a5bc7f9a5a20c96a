"""Make a virtual environment with this project in it; the same on Linux, macOS and Windows, from Python's library only.

python .ci/environment.py                what a user needs, the browser app included (no torch)
python .ci/environment.py --develop      everything for development, with the reference packages of the tests
python .ci/environment.py --newest-core  what Testing/mrml needs, with the newest MRML wheel that we allow
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TORCH = "torch==2.13.0"
# These packages ask for more than their networks need (another torch, its image library): they come without.
WITHOUT_DEPENDENCIES = ("torchvision", "segment-anything==1.0", "timm==1.0.31")
WITHOUT_ISOLATION = ("sam2==1.1.0",)
MRML_TEST_TOOLS = ("pytest>=8", "pytest-xdist>=3.5")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--develop", action="store_true", help="torch, test tools and reference packages, too")
    kind.add_argument("--newest-core", action="store_true", help="the newest slicer-core, for its tests alone")
    parser.add_argument("--folder", type=Path, default=ROOT / ".venv", help="default: %(default)s")
    options = parser.parse_args()
    python = options.folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        print(f"making {options.folder}")
        venv.create(options.folder, with_pip=True)

    def install(*arguments: str) -> None:
        command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments]
        subprocess.run(command, check=True, cwd=ROOT)

    install("--upgrade", "pip")
    if options.develop:
        install(TORCH)
        install("--editable", ".[dev,oracle]")
        install("--no-deps", *WITHOUT_DEPENDENCIES)
        install("--no-deps", "--no-build-isolation", *WITHOUT_ISOLATION)
    elif options.newest_core:
        install("--editable", ".[slicer]", *MRML_TEST_TOOLS)
    else:
        install("--editable", ".[web,embedded,dicom]")
    (options.folder / (".developed" if options.develop else ".installed")).touch()
    print(f"ready: {python}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
