"""Prompts of a segmentation as a file of the library's JSON, and back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from SegmentAnythingMedLib.mrml.new_segment import ensure_segment
from SegmentAnythingMedLib.mrml.prompt_markups import PromptMarkups
from SegmentAnythingMedLib.mrml.prompt_record import decode_records, encode_records
from SegmentAnythingMedLib.prompts import slice_index
from SegmentAnythingMedLib.prompts_file import clean_name, load_prompts
from SegmentAnythingMedLib.replacing import replacing
from SegmentAnythingMedLib.volume import Volume

if TYPE_CHECKING:
    from slicer import vtkMRMLSegmentationNode


def write_prompts(path: Path, markups: PromptMarkups, node: vtkMRMLSegmentationNode) -> None:
    """Write all prompts of a segmentation, with which of them are confirmed or painted slices.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    segmentation = node.GetSegmentation()
    names = {name: segmentation.GetSegment(name).GetName() for name in segmentation.GetSegmentIDs()}
    text = encode_records(markups.records(), names, markups.frame.local)
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")


def read_prompts(path: Path, markups: PromptMarkups, node: vtkMRMLSegmentationNode, volume: Volume) -> tuple[str, ...]:
    """Add the prompts of a file to the segments of the same name, which are made when missing.

    Parameters
    ----------
    path
        The file.
    markups, node
        Where the prompts go.
    volume
        What they must have been made on; another size or spacing is refused.

    Returns
    -------
    tuple of str
        Ids of the segments that got prompts.

    Raises
    ------
    PromptError, GeometryError
        If the file is wrong or was made on another grid; nothing is changed then.
    """
    checked = load_prompts(path).on_volume(volume)
    text = path.read_text(encoding="utf-8-sig")
    records = decode_records(text)
    prompts = [prompt for item in checked.objects for prompt in item.prompts]
    for prompt in prompts:
        slice_index(prompt, markups.slices(prompt.plane))
    names = {
        str(item.get("segment", item.get("name", ""))): clean_name(str(item.get("name") or f"Object {number + 1}"))
        for number, item in enumerate(json.loads(text)["objects"])
    }
    time, segment_ids = checked.time or 0, {}
    for record, prompt in zip(records, prompts, strict=True):
        if record.segment_id not in segment_ids:
            segment_ids[record.segment_id] = ensure_segment(node, names[record.segment_id])
        read = replace(record, prompt=prompt, time=record.time or time)
        markups.add(segment_ids[record.segment_id], read.prompt, read.role, read.time, read.candidate)
    return tuple(segment_ids.values())
