"""The command line's ``prompts`` verb: its options, and what it does with them. Importing it loads nothing heavy."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from SegmentAnythingMedLib.errors import OutputError, PromptError

LIST = "list"


def add_prompts(commands: Any, common: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add the verb to a parser's commands, and return its parser."""
    prompts = commands.add_parser(
        "prompts",
        parents=[common],
        help="make prompts from a mask, a ruler, vessels or what stands out, for 'segment --prompts'",
        description="Writes a prompts file that 'segment --prompts' takes and that can be edited. See "
        "docs/prompt-sources.md.",
    )
    add = prompts.add_argument
    add("source", metavar="SOURCE[:SETTING=VALUE,...]", help=f"a source, or '{LIST}' for all sources and settings")
    add("--volume", metavar="FILE", help="NIfTI, NRRD, MHA, image or DICOM folder")
    add("--series", help="which series of a DICOM folder")
    add("--component", type=int, help="which value of a volume with many values per voxel, from 0")
    add("--time", type=int, default=0, help="time point of a 4D volume (default: %(default)s)")
    add("--plane", default="axial", help="axial, coronal, sagittal, I, J or K (default: %(default)s)")
    add("--slice", type=int, help="slice to prompt; without it the source chooses")
    add("--mask", metavar="FILE", help="rough masks or an automatic segmentation: a label map or segmentation file")
    add("--segment", default="", help="which segment of the mask (default: each, as an object of its own)")
    add(
        "--line", action="append", default=[], metavar="X,Y,Z,X,Y,Z", help="a ruler's two ends; twice for a RECIST pair"
    )
    add("--line-file", metavar="FILE.mrk.json", help="the same, as Slicer saves it")
    add("--frame", default="ijk", choices=("ijk", "lps", "ras"), help="of --line: voxels, or mm (default: %(default)s)")
    add("--learned", metavar="FILE.npz", help="for prototypes and patch_head: what 'learn' wrote")
    add("--structure", default="", help="which of the learned structures (default: the only one)")
    add("--window", default="auto", help="as for 'segment' (default: %(default)s)")
    add("--model", help="where a source asks a model (default: embedded where onnxruntime is installed, else classic)")
    add("--device", default="auto", help="auto, cpu, cuda or mps (default: %(default)s)")
    add("--segment-name", default="", help="name of the object, where no mask names it")
    add("--output", metavar="FILE.json", help="the prompts file")
    return prompts


def run_prompts(options: argparse.Namespace) -> list[str]:
    """Do what the options say; lines for the user.

    Raises
    ------
    PromptError
        If something is missing or there is nothing to prompt.
    OutputError
        If the file cannot be written, or would be written over an input.
    """
    from SegmentAnythingMedLib.sources.command import list_lines, make_prompts

    if options.source == LIST:
        return list(list_lines())
    for name in ("volume", "output"):
        if not getattr(options, name):
            raise PromptError(f"prompts {options.source} needs --{name}.")
    _check_output(options)
    from SegmentAnythingMedLib.io import read_volume
    from SegmentAnythingMedLib.prompts_file import save_prompts

    volume = read_volume(options.volume, series=options.series, component=options.component)
    content = make_prompts(volume, _wish(options, volume))
    save_prompts(options.output, content, volume)
    lines = [f"{item.name or 'Object ' + str(item.object_id)}: {_counted(item.prompts)}" for item in content.objects]
    return [
        *lines,
        f"saved {options.output}: segment {options.volume} --prompts {options.output} --output OUT.seg.nrrd",
    ]


def _wish(options: argparse.Namespace, volume: Any) -> Any:
    from SegmentAnythingMedLib.io import read_labels
    from SegmentAnythingMedLib.io.line_markups import line_ijk, read_lines
    from SegmentAnythingMedLib.models.registry import default_model
    from SegmentAnythingMedLib.sources.command import Wish

    lines = [line_ijk(_ends(text), options.frame, volume.geometry) for text in options.line]
    if options.line_file:
        lines += read_lines(options.line_file, volume.geometry)
    return Wish(
        options.source,
        options.plane,
        options.slice,
        options.time,
        options.window,
        read_labels(options.mask, volume) if options.mask else None,
        options.segment,
        tuple(lines),
        options.model or default_model(),
        options.device,
        options.segment_name,
        options.learned,
        options.structure,
    )


def _ends(text: str) -> list[list[float]]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != 6:
        raise PromptError(f"--line {text}: write six numbers with commas, x,y,z of one end and x,y,z of the other.")
    return [numbers[:3], numbers[3:]]


def _check_output(options: argparse.Namespace) -> None:
    path = Path(options.output).resolve()
    inputs = [name for name in (options.volume, options.mask, options.line_file, options.learned) if name]
    if path in [Path(name).resolve() for name in inputs] or path.is_dir():
        raise OutputError(f"--output {options.output} is an input or a folder: choose another name.")


def _counted(prompts: tuple[Any, ...]) -> str:
    kinds = [f"negative {one.kind}" if getattr(one, "positive", True) is False else one.kind for one in prompts]
    return ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
