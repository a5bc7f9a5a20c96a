"""Work on the scene in short steps, so that nobody waits for a picture: surfaces, and segments for a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from browser.conftest import ellipsoid, tilted_geometry

from SegmentAnythingMedLib.errors import OutputError
from SegmentAnythingMedLib.volume import Volume

slicer = pytest.importorskip("slicer", reason="slicer-core is not installed")

SIZE_IJK = (40, 36, 20)


@pytest.fixture
def segmented(tmp_path: Path) -> tuple[object, object, object]:
    """A host, a tilted volume node, and its segmentation of an ellipsoid and an empty segment, without surfaces."""
    from mrml.host import MrmlHost, set_labels

    from SegmentAnythingMedLib.mrml.new_segment import ensure_segment, make_segmentation
    from SegmentAnythingMedLib.web.volume_nodes import LPS_TO_RAS, add_volume

    host, geometry = MrmlHost(tmp_path), tilted_geometry(SIZE_IJK)
    node = add_volume(host.scene, Volume.from_array(np.zeros(SIZE_IJK[::-1], np.int16), geometry))
    segmentation = make_segmentation(host.scene, node)
    ensure_segment(segmentation, "Empty")
    full = ensure_segment(segmentation, "Full")
    set_labels(segmentation, full, ellipsoid(SIZE_IJK), LPS_TO_RAS @ geometry.ijk_to_world)
    return host, node, segmentation


def test_surfaces_are_built_in_steps_by_a_thread(segmented: tuple[object, object, object]) -> None:
    from SegmentAnythingMedLib.web.surface_steps import build_surfaces

    _, node, segmentation = segmented
    steps = list(build_surfaces(segmentation))
    assert None in steps, "there was a thread to wait for"
    empty, full = (
        segmentation.GetSegmentation().GetNthSegment(n).GetRepresentation("Closed surface") for n in range(2)
    )
    assert empty is not None and empty.GetNumberOfPoints() == 0
    bounds, ours = np.zeros(6), np.array(full.GetBounds())
    node.GetRASBounds(bounds)
    assert (ours[::2] > bounds[::2]).all() and (ours[1::2] < bounds[1::2]).all()
    assert (ours[1::2] - ours[::2] > 0.4 * (bounds[1::2] - bounds[::2])).all()
    assert list(build_surfaces(segmentation)) == [], "nothing is missing any more"


def test_a_surface_that_cannot_be_made_is_not_tried_for_ever(segmented: tuple[object, object, object]) -> None:
    from SegmentAnythingMedLib.mrml.controller import Controller
    from SegmentAnythingMedLib.web.surface_steps import SurfaceSteps

    host, node, segmentation = segmented
    controller = Controller(host.scene)
    controller.set_volume(node)
    controller.set_segmentation(segmentation)
    surfaces = SurfaceSteps(controller)
    surfaces.look()
    assert controller.proposals.is_writing
    while controller.proposals.is_writing:
        controller.poll()
    surfaces.look()
    assert not controller.proposals.is_writing
    segmentation.GetSegmentation().GetNthSegment(1).RemoveRepresentation("Closed surface")
    surfaces.look()
    assert controller.proposals.is_writing, "one that was taken away is made again"
    segmentation.GetSegmentation().GetNthSegment(1).RemoveRepresentation("Binary labelmap")
    while controller.proposals.is_writing:
        controller.poll()
        segmentation.GetSegmentation().GetNthSegment(1).RemoveRepresentation("Closed surface")
    for _ in range(3):
        surfaces.look()
    assert not controller.proposals.is_writing
    controller.close()


def test_segments_are_read_in_steps_and_a_change_between_two_is_noticed(
    segmented: tuple[object, object, object],
) -> None:
    from SegmentAnythingMedLib.mrml.label_grid import labelmap_of
    from SegmentAnythingMedLib.web.volume_nodes import geometry_lps, labels_of, segments_of

    _, node, segmentation = segmented
    found = list(segments_of(segmentation, node))
    assert found[0] is None, "the caller may do something else"
    labels = labels_of([one for one in found if one is not None], geometry_lps(node))
    assert labels.geometry.matches(tilted_geometry(SIZE_IJK))
    np.testing.assert_array_equal(labels.segments[0].mask, ellipsoid(SIZE_IJK))
    with pytest.raises(OutputError, match="press Accept first"):
        labels_of([], geometry_lps(node))

    reading = segments_of(segmentation, node)
    next(reading)
    labelmap_of(segmentation, segmentation.GetSegmentation().GetNthSegmentID(1)).Modified()
    with pytest.raises(OutputError, match="save again"):
        next(reading)
