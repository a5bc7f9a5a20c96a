"""What Slicer shows about the module: help, acknowledgement, icon."""

from __future__ import annotations

import qt
from slicer.i18n import tr as _

from SegmentAnythingMedLib.resources import resource_path

HOMEPAGE = "https://github.com/SegmentAnythingMed/SegmentAnythingMed"


def help_text() -> str:
    """How to work, where data is to try it on, and that this is no medical device."""
    parts = [
        _("Draw a box or click on a structure in any slice view: its outline appears at once."),
        _("Propagate carries the outline through the volume; look at the slices that are marked as weak, correct them "
          "with clicks or the brush, and accept: the result is an ordinary segment."),
        _("Sample Data has phantoms with known truth, and public cases, under Segment Anything Med."),
        _("The model embedded is used where the small package onnxruntime is in Slicer's Python, elsewhere the model "
          "classic, which needs nothing. What a model needs is installed once, after you agree; it works without "
          "internet, too. No image leaves this computer."),
        "<b>" + _("For research. Not a medical device: check every outline before you use it.") + "</b>",
    ]  # fmt: skip
    link = _("More on the {start}home page{end}.").format(start=f'<a href="{HOMEPAGE}">', end="</a>")
    return "".join(f"<p>{part}</p>" for part in [*parts, link])


def acknowledgement() -> str:
    """Whose ideas this rests on."""
    return _(
        "The idea of a promptable model whose memory follows an object comes from Segment Anything 2 (Ravi et al., "
        "2024) and MedSAM2 (Ma et al., 2025)."
    )


def icon() -> qt.QIcon:
    """The module's icon."""
    return qt.QIcon(str(resource_path("Icons", "SegmentAnythingMed.png")))
