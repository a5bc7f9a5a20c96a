"""The work a clinician does, through the panel's widgets alone."""

from __future__ import annotations

import numpy as np
import slicer
from desktop.desk import Desk
from mrml.conftest import an_image
from mrml.controlling import box


def test_a_box_becomes_a_segment_by_buttons_alone(desk: Desk, a_volume: slicer.vtkMRMLScalarVolumeNode) -> None:
    desk.open()
    desk.add_view(a_volume)
    desk.widget.enter()
    desk.ui.volumeSelector.setCurrentNode(a_volume)
    assert not desk.ui.propagateBothButton.enabled
    desk.ui.placeBoxButton.click()
    assert desk.ui.placeBoxButton.checked
    desk.controller.add_prompt(box())
    desk.settle()
    assert desk.ui.qualityLabel.text.startswith("quality 0.")
    assert desk.ui.propagateBothButton.enabled
    desk.ui.propagateBothButton.click()
    desk.settle()
    assert desk.ui.segmentBox.count == 1
    assert len(desk.panel.strip._slices) > 5, desk.controller.messages
    desk.ui.acceptButton.click()
    desk.settle()
    truth = an_image() > 50
    found = desk.labels()
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.85
    assert desk.status.startswith("Accepted into")
    desk.ui.undoButton.click()
    desk.settle()
    assert not desk.labels().any()
    desk.ui.redoButton.click()
    desk.settle()
    assert np.array_equal(desk.labels(), found)
