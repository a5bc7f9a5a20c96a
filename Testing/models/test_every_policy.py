"""Every memory policy with the families that their own files do not try it with."""

from __future__ import annotations

import numpy as np
import pytest

from SegmentAnythingMedLib.geometry import Plane, VolumeGeometry
from SegmentAnythingMedLib.memory.policy import policy_names
from SegmentAnythingMedLib.models import embedded
from SegmentAnythingMedLib.models.base import SliceModel
from SegmentAnythingMedLib.models.card import ModelCard
from SegmentAnythingMedLib.models.registry import ModelRegistry
from SegmentAnythingMedLib.prompts import BoxPrompt
from SegmentAnythingMedLib.session import VolumeSession
from SegmentAnythingMedLib.volume import Volume
from Testing.models.test_embedded import BrightRun

K = Plane(2)


def a_small_sam2() -> SliceModel:
    torch = pytest.importorskip("torch")
    pytest.importorskip("safetensors")
    from SegmentAnythingMedLib.models.networks.sam2_network import Sam2Network
    from SegmentAnythingMedLib.models.sam2 import Sam2Model
    from Testing.models.test_sam2 import CARD, SMALL

    torch.manual_seed(0)
    network = Sam2Network(SMALL)
    with torch.no_grad():
        network.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(5.0)
        network.maskmem_tpos_enc.normal_()
    return Sam2Model(CARD, network.eval())


def an_embedded_model() -> SliceModel:
    card = ModelCard("embedded", "Embedded", "embedded", "none", ("slice", "memory", "candidates"))
    return embedded.EmbeddedModel(card, BrightRun())


MODELS = {"sam2": a_small_sam2, "embedded": an_embedded_model, "classic": lambda: ModelRegistry().load("classic")}


@pytest.fixture(scope="module", params=list(MODELS))
def model(request: pytest.FixtureRequest) -> SliceModel:
    return MODELS[request.param]()


@pytest.fixture(scope="module")
def a_drifting_column() -> Volume:
    """(14, 28, 34) on a flipped, anisotropic grid: a column that drifts over slices 1 to 12 and is hidden on 9."""
    voxels = np.full((14, 28, 34), 30, dtype=np.uint8)
    for index in range(1, 13):
        if index != 9:
            voxels[index, 8:20, 4 + index // 3 : 16 + index // 3] = 220
    return Volume.from_array(voxels, VolumeGeometry(np.diag([-0.7, 1.1, 4.0, 1.0]), (34, 28, 14)))


@pytest.mark.parametrize("policy", policy_names())
def test_every_policy_runs_both_ways_and_gives_the_same_twice(
    model: SliceModel, a_drifting_column: Volume, policy: str
) -> None:
    def tracked() -> tuple[VolumeSession, list]:
        session = VolumeSession(a_drifting_column, model, policy=policy)
        session.segment_slice(1, session.add_prompt(1, BoxPrompt.on_slice((5, 8, 16, 19), 4, K)))
        return session, list(session.propagate(plane=K, first=0, last=13))

    (first, results), (again, _) = tracked(), tracked()
    np.testing.assert_array_equal(first.labelmap(1), again.labelmap(1))
    assert {result.key.index for result in results} == set(range(14)) - {4}
    assert all(np.isfinite(result.quality) for result in results)
