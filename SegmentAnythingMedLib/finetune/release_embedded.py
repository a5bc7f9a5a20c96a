"""Puts a training run's network in the place of the released one: weights, card and the page that describes them.

``python -m SegmentAnythingMedLib.finetune.release_embedded RUN`` copies RUN/embedded.onnx to Resources/Weights and
writes Resources/ModelCards/embedded.json (its hash) and Resources/Weights/embedded.md (data, licences, limits).
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

from SegmentAnythingMedLib.errors import ModelFileError
from SegmentAnythingMedLib.replacing import replacing
from SegmentAnythingMedLib.resources import resource_path

MOST_BYTES = 12_000_000
"""A weights file in the repository is never larger."""
GROUPS = {
    "synthetic": "made-up stacks, seeds not trained on",
    "sts": "sarcoma, patients not trained on",
    "brain": "made from brain label maps not trained on",
    "superpixel": "superpixels of patients not trained on",
    "derm": "skin lesions not trained on",
    "nuclei": "nuclei images not trained on",
}
ROWS = {
    "box": "box dice", "ellipse in the box": "box dice (ellipse)", "box + 5 clicks": "box + clicks dice",
    "1 click, first": "click (first) dice", "1 click, best of 3": "click (best of 3) dice",
    "3D from a true mask": "3D from mask dice", "copy of the mask": "3D from mask dice (copy)",
    "3D from a box": "3D from box dice",
}  # fmt: skip
PAGE = """# Embedded model: weights

Trained by this project from nothing on the data below, {examples:,} examples, {date}, recipe at commit {commit}
(`SegmentAnythingMedLib/finetune`, docs/embedded-model.md). {size:.1f} MB, sha256 `{sha256}`.

**Licence**: Apache-2.0, the project's. **For research; not a medical device: check every outline.**

## Data
| data | licence | share of the examples |
|---|---|---|
| made-up stacks (`finetune.synthetic`) | the project's | 57 % |
| soft-tissue sarcomas, CT, MR and PET with outlines (IBSI validation data, after STS of TCIA) | CC BY 3.0 | 17 % |
| images made from brain label maps (SynthSeg's) | Apache-2.0 | 11 % |
| superpixels of slices of these | as the images | 9 % |
| nuclei (Data Science Bowl 2018) | CC0 | 3 % |
| skin lesions (ISIC) | CC0 | 3 % |

No patient of the project's development data was trained on.

## Figures on held-out structures (Dice, mean; the extent is given for 3D)
Of the model as it is used: the network joined with the solver `classic`; their weighing is fitted on the same
structures.

{table}

Rank correlation of predicted quality with Dice, at most 4 slices from the first: {correlation:.2f}. Presence is right
on {inside:.0%} of the slices with the structure and on {beyond:.0%} of the two slices beyond its ends. Figures on real
data that no one trained on: docs/benchmarks/embedded.md.

## Limits
Thin organs that run obliquely, rings (a box means the filled disc), structures of very low contrast, and single clicks
in large even regions. It knows no anatomy and has no names for organs. It was never tried on children, and hardly on
ultrasound and PET.
"""


def release(run: Path, folder: Path | None = None) -> Path:
    """Release a run.

    Parameters
    ----------
    run
        With ``embedded.onnx`` and ``figures.json`` of `train_embedded`.
    folder
        Resources; by default the project's.

    Returns
    -------
    Path
        The weights.

    Raises
    ------
    ModelFileError
        If the run holds no network with its figures, or the file is too large to be released.
    """
    folder = folder or resource_path()
    try:
        content = (run / "embedded.onnx").read_bytes()
        figures = json.loads((run / "figures.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelFileError(f"{run} holds no finished run: train first ({error}).") from error
    if len(content) > MOST_BYTES:
        raise ModelFileError(
            f"{len(content) / 1e6:.1f} MB are too large to be released: {MOST_BYTES / 1e6:.0f} at most."
        )
    digest = hashlib.sha256(content).hexdigest()
    with replacing(folder / "Weights" / "embedded.onnx") as partial:
        partial.write_bytes(content)
    _write(folder / "ModelCards" / "embedded.json", json.dumps(card(content, digest), indent=2) + "\n")
    _write(folder / "Weights" / "embedded.md", page(figures, content, digest))
    return folder / "Weights" / "embedded.onnx"


def card(content: bytes, digest: str) -> dict[str, Any]:
    """Fields of the model card."""
    return {
        "name": "embedded",
        "title": "Embedded: small network that outlines at once, offline, on any processor",
        "family": "embedded",
        "licence": "Apache-2.0",
        "capabilities": ["slice", "memory", "candidates", "color"],
        "prompts": ["point", "box", "scribble", "lasso", "mask"],
        "file": "embedded.onnx",
        "sha256": digest,
        "size_mb": round(len(content) / 1e6, 1),
        "citation": "Trained by Segment Anything Med; see Resources/Weights/embedded.md",
    }


def page(figures: dict[str, Any], content: bytes, digest: str) -> str:
    """What the weights are, for people."""
    groups = [group for group in GROUPS if f"{group} box dice" in figures]
    lines = ["| | " + " | ".join(f"{GROUPS[one]} ({figures[f'{one} structures']})" for one in groups) + " |"]
    lines += ["|---" * (len(groups) + 1) + "|"]
    for title, name in ROWS.items():
        cells = [f"{figures[key]:.3f}" if (key := f"{one} {name}") in figures else "-" for one in groups]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return PAGE.format(
        examples=figures["examples"],
        date=datetime.date.today().isoformat(),
        commit=_commit(),
        size=len(content) / 1e6,
        sha256=digest,
        table="\n".join(lines),
        correlation=figures["quality rank correlation"],
        inside=figures["presence right inside"],
        beyond=figures["presence right beyond"],
    )


def _commit() -> str:
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m SegmentAnythingMedLib.finetune.release_embedded", description=__doc__.splitlines()[0]
    )
    parser.add_argument("run", type=Path, help="folder of a training run")
    release(parser.parse_args(arguments).run)


if __name__ == "__main__":
    main()
