"""The demonstration: a made-up abdomen, one box on a kidney, a 3D segment, a picture, and how right it is."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from SegmentAnythingMedLib.geometry import Plane
from SegmentAnythingMedLib.io import Labels, Segment, write_labels, write_volume
from SegmentAnythingMedLib.models.registry import default_model
from SegmentAnythingMedLib.phantom import largest_slice_box, make_phantom
from SegmentAnythingMedLib.prompts import BoxPrompt
from SegmentAnythingMedLib.prompts_file import ObjectPrompts, PromptsFile, save_prompts
from SegmentAnythingMedLib.propagation import dice
from SegmentAnythingMedLib.replacing import make_folder
from SegmentAnythingMedLib.segmenting import Job, run_job, write_result
from SegmentAnythingMedLib.slice_result import SliceResult

ORGAN = "left kidney"


def run_demo(
    folder: Path,
    *,
    organ: str = ORGAN,
    model: str = "",
    on_slice: Callable[[SliceResult], None] = lambda result: None,
) -> dict[str, Any]:
    """Make the phantom CT, segment an organ from one box on its largest axial slice, write everything.

    Parameters
    ----------
    folder
        Made if it is not there; gets the volume, the truth, the prompts, the segment and the picture.
    organ
        Name of one of the phantom's structures.
    model
        Name of a model; by default `default_model`.
    on_slice
        Called with every slice as it arrives.

    Returns
    -------
    dict
        ``organ``, ``model``, ``dice`` against the truth, ``volume_ml``, ``seconds``, ``slices`` and ``files``.

    Raises
    ------
    OutputError
        If the folder cannot be written to.
    """
    model = model or default_model()
    make_folder(folder)
    phantom = make_phantom("CT")
    truth = phantom.structure(organ)
    truth_mask = truth.mask()
    plane = Plane.named("axial", phantom.volume.geometry)
    index, box = largest_slice_box(truth_mask, plane.axis)
    prompts = ObjectPrompts(1, (BoxPrompt.on_slice(box, index, plane),), organ)
    files = {
        name: folder / name
        for name in ("phantom.nii.gz", "truth.seg.nrrd", "prompts.json", "segment.seg.nrrd", "preview.png")
    }
    write_volume(files["phantom.nii.gz"], phantom.volume)
    layer = truth_mask.view("uint8")
    write_labels(files["truth.seg.nrrd"], Labels(phantom.volume.geometry, (Segment(organ, layer, 1, truth.color),)))
    save_prompts(files["prompts.json"], PromptsFile((prompts,), 0, model), phantom.volume)
    result = run_job(phantom.volume, Job((prompts,), model=model), on_slice=on_slice)
    write_result(result, files["segment.seg.nrrd"], files["preview.png"])
    summary = result.summary()
    return {
        "organ": organ,
        "model": model,
        "dice": round(dice(result.objects[0].mask, truth_mask), 4),
        "volume_ml": summary["objects"][0]["volume_ml"],
        "slices": len(summary["objects"][0]["slices"]),
        "seconds": round(summary["seconds"]["total"], 2),
        "files": [str(path) for path in files.values()],
    }


def why_no_app() -> str:
    """Why the browser app cannot be opened after the demonstration, in a sentence; empty if it can."""
    if os.environ.get("CI"):
        return "this is continuous integration."
    if not sys.stdin.isatty():
        return "there is no terminal."
    missing = missing_web_package()
    if missing:
        return missing
    from SegmentAnythingMedLib.web.serving import can_show_pages

    return "" if can_show_pages() else "there is no browser here; 'segment-anything-med web' serves one elsewhere."


def missing_web_package() -> str:
    """What to install before the browser app can run, in a sentence; empty if nothing is missing."""
    if all(importlib.util.find_spec(name) is not None for name in ("slicer", "trame", "trame_slicer", "aiohttp")):
        return ""
    return 'The browser app needs trame-slicer: pip install "segment-anything-med[web]".'


def open_app(folder: Path, tell: Callable[[str], None]) -> None:
    """Serve the browser app with the phantom and the organ's box in it until Ctrl-C.

    Parameters
    ----------
    folder
        That `run_demo` wrote to.
    tell
        Called with sentences for the user.
    """
    from SegmentAnythingMedLib.web.serving import WebOptions, serve

    serve(WebOptions((str(folder / "phantom.nii.gz"), str(folder / "prompts.json"))), tell)
