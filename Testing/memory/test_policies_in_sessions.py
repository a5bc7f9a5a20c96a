"""Every policy behind a session: with the classic model, the embedded one, sam2 of random weights, and doubles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from doubles import ThresholdModel

from SegmentAnythingMedLib.geometry import Plane, VolumeGeometry
from SegmentAnythingMedLib.memory.bank import MemoryEntry
from SegmentAnythingMedLib.memory.policy import Notes, PolicyContext, load_policy, policy_names
from SegmentAnythingMedLib.models import classic, embedded
from SegmentAnythingMedLib.models.base import Prediction, Recall, SliceImage, SliceModel
from SegmentAnythingMedLib.models.card import ModelCard
from SegmentAnythingMedLib.models.embedded_channels import CHANNELS
from SegmentAnythingMedLib.models.embedded_runtime import Answer
from SegmentAnythingMedLib.prompts import BoxPrompt, SlicePrompts
from SegmentAnythingMedLib.propagation import dice
from SegmentAnythingMedLib.session import VolumeSession
from SegmentAnythingMedLib.through_time import TimePropagation, TimeResult
from SegmentAnythingMedLib.volume import Volume
from SegmentAnythingMedLib.windowing import Window

K = Plane(2)
CARD = ModelCard("m", "m", "m", "none", ("slice", "memory"))
BOX = (5, 8, 16, 19)


def bright_run(maps: np.ndarray) -> Answer:
    """In the place of the embedded network: what is bright near a prompt or a remembered mask."""
    named = dict(zip(CHANNELS, np.moveaxis(maps, 1, 0), strict=True))
    said = (named["region"] + named["last_mask"] + named["key_mask"]).reshape(len(maps), -1).max(1) > 0
    logits = np.where((named["image"] > 0.5) & said[:, None, None], 4.0, -4.0).astype(np.float32)
    presence = np.where((logits > 0).any((1, 2)), 3.0, -3.0).astype(np.float32)
    return Answer(np.repeat(logits[:, None], 3, 1), np.tile(np.float32([2, 1, 0]), (len(maps), 1)), presence)


def sam2_model() -> SliceModel:
    torch = pytest.importorskip("torch")
    from SegmentAnythingMedLib.models.networks.hiera import HieraConfig
    from SegmentAnythingMedLib.models.networks.sam2_network import Sam2Config, Sam2Network
    from SegmentAnythingMedLib.models.sam2 import Sam2Model

    trunk = HieraConfig(dim=8, heads=1, blocks=(1, 1, 2, 1), global_blocks=(3,))
    torch.manual_seed(0)
    network = Sam2Network(Sam2Config(trunk, image_size=64, dim=32, memory_dim=8, memory_layers=1, mlp_dim=32))
    with torch.no_grad():
        network.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(5.0)
        network.maskmem_tpos_enc.normal_()
    card = ModelCard("s", "s", "sam2", "none", ("slice", "memory"), ("point", "box", "mask"), preprocessing="imagenet")
    return Sam2Model(card, network.eval())


@pytest.fixture
def a_drifting_column() -> Volume:
    """(14, 28, 34) on a flipped, anisotropic grid: a column that drifts over slices 1 to 12 and is hidden on 9."""
    voxels = np.full((14, 28, 34), 30, dtype=np.uint8)
    for index in range(1, 13):
        if index != 9:
            voxels[index, 8:20, 4 + index // 3 : 16 + index // 3] = 220
    matrix = np.diag([-0.7, 1.1, 4.0, 1.0])
    return Volume.from_array(voxels, VolumeGeometry(matrix, (34, 28, 14)))


def tracked(volume: Volume, model: SliceModel, policy: str, **options: object) -> tuple[VolumeSession, list]:
    session = VolumeSession(volume, model, policy=policy)
    session.segment_slice(1, session.add_prompt(1, BoxPrompt.on_slice(BOX, 4, K)))
    return session, list(session.propagate(plane=K, **options))


@pytest.mark.parametrize("policy", policy_names())
@pytest.mark.parametrize(
    "make", [lambda: ThresholdModel(), lambda: classic.ClassicModel(CARD)], ids=["double", "classic"]
)
def test_every_policy_carries_the_column_past_where_it_is_hidden(
    make: Callable[[], SliceModel], policy: str, a_drifting_column: Volume
) -> None:
    session, results = tracked(a_drifting_column, make(), policy, first=1, last=8)
    truth = a_drifting_column.voxels[0, 0, 1:9] > 100
    assert dice(session.labelmap(1)[1:9], truth) > 0.9
    assert sorted({result.key.index for result in results}) == [1, 2, 3, 5, 6, 7, 8]
    assert results[-1].done == results[-1].total == 7


@pytest.mark.parametrize("policy", policy_names())
def test_every_policy_carries_the_embedded_model(policy: str, a_drifting_column: Volume) -> None:
    model = embedded.EmbeddedModel(replace(CARD, capabilities=("slice", "memory", "candidates")), bright_run)
    session, _ = tracked(a_drifting_column, model, policy, first=1, last=8)
    truth = a_drifting_column.voxels[0, 0, 1:9] > 100
    assert dice(session.labelmap(1)[1:9], truth) > 0.8


@pytest.mark.parametrize("policy", policy_names())
def test_every_policy_runs_sam2_both_ways_and_gives_the_same_twice(policy: str, a_drifting_column: Volume) -> None:
    model = sam2_model()
    first, results = tracked(a_drifting_column, model, policy, first=0, last=13)
    again, _ = tracked(a_drifting_column, model, policy, first=0, last=13)
    np.testing.assert_array_equal(first.labelmap(1), again.labelmap(1))
    assert {result.key.index for result in results} == set(range(14)) - {4}
    assert all(np.isfinite(result.quality) for result in results)


def test_a_policy_written_with_settings_reaches_the_model(a_drifting_column: Volume) -> None:
    model = ThresholdModel()
    session = VolumeSession(a_drifting_column, model, policy="closest:keys=1")
    for index in (2, 11):
        session.segment_slice(1, session.add_prompt(1, BoxPrompt.on_slice((5, 8, 12, 19), index, K)))
    model.recalls.clear()
    list(session.propagate(plane=K, direction="forward", first=2, last=5))
    assert [sum(one.slot == 0 for one in recall.memories) for recall in model.recalls] == [1, 1, 1]


@pytest.mark.parametrize("policy", policy_names())
def test_a_correction_is_kept_and_carried_by_every_policy(policy: str, a_drifting_column: Volume) -> None:
    session, _ = tracked(a_drifting_column, classic.ClassicModel(CARD), policy, first=1, last=8)
    key = session.slice_key(K, 6)
    painted = np.roll(session.mask_on(1, key), 3, axis=0)
    session.confirm_slice(1, key, painted)
    results = list(session.repropagate(1, key))
    np.testing.assert_array_equal(session.mask_on(1, key), painted)
    assert {5, 7, 8} <= {result.key.index for result in results}


@pytest.mark.parametrize("policy", policy_names())
def test_every_policy_carries_an_object_along_time(policy: str) -> None:
    voxels = np.zeros((8, 1, 4, 12, 16), dtype=np.uint8)
    for time in range(8):
        voxels[time, 0, 1:3, 3:9, 2 + time // 2 : 9 + time // 2] = 200
    volume = Volume(voxels, VolumeGeometry(np.diag([-0.7, 1.1, 4.0, 1.0]), (16, 12, 4)))
    run = TimePropagation(ThresholdModel(), volume, Window((0.0,), (200.0,)), load_policy(policy), K)
    found = [one for one in run.run({1: {0: voxels[0, 0] > 0}}, 0) if isinstance(one, TimeResult)]
    assert [one.time for one in found] == list(range(1, 8))
    for one in found:
        np.testing.assert_array_equal(one.mask, voxels[one.time, 0] > 0)


@dataclass(frozen=True, eq=False)
class Side:
    """Features (the slice's number) and memories (which side was taken) of `TwoSided`."""

    number: int
    side: str = ""
    nbytes: int = 1


class TwoSided:
    """On slice ``fork`` left looks a little better than right; from then on the way taken decides how good it is."""

    def __init__(self, fork: int = 3, later: dict[str, float] | None = None) -> None:
        self.card = CARD
        self.fork, self.later = fork, later or {"left": 0.3, "right": 0.9}

    def encode_slices(self, images: list[SliceImage]) -> list[Side]:
        return [Side(int(round(float(image.pixels[0, 0, 0]) * 20))) for image in images]

    def predict(
        self,
        features: Side,
        prompts: SlicePrompts,
        recall: Recall,
        previous: Prediction | None = None,
        multimask: bool = False,
    ) -> Prediction:
        side = recall.memories[-1].memory.side if recall.memories else "both"
        if features.number == self.fork and prompts.is_empty:
            sides, quality = ["left", "right"], [0.6, 0.5]
        else:
            sides, quality = [side], [self.later.get(side, 0.9)]
        logits = np.stack([self.mask(one) for one in sides])[: None if multimask else 1]
        return Prediction(logits, np.float32(quality)[: len(logits)], 5.0, sides)

    def mask(self, side: str) -> np.ndarray:
        logits = np.full((4, 8), -5.0, dtype=np.float32)
        logits[:, {"left": slice(0, 4), "right": slice(4, 8), "both": slice(2, 6)}[side]] = 5.0
        return logits

    def encode_memory(self, features: Side, prediction: Prediction, prompted: bool) -> Side:
        states = prediction.state if isinstance(prediction.state, list) else ["both"]
        return Side(features.number, states[prediction.chosen])

    def track_step(self, *arguments: object, **options: object) -> object:
        return self.predict(*arguments, **options)

    def similarity(self, a: Side, b: Side) -> float:
        return 1.0 if a.side == b.side else 0.0


@pytest.fixture
def numbered() -> Volume:
    """(9, 4, 8): the value of a slice tells its number."""
    return Volume.from_array(np.repeat(np.arange(9, dtype=np.float32) / 20, 32).reshape(9, 4, 8))


def sides(numbered: Volume, policy: str, keys: tuple[int, ...] = (0,), **options: object) -> tuple[str, list]:
    session = VolumeSession(numbered, TwoSided(), window=Window((0.0,), (1.0,)), policy=policy)
    for index in keys:
        session.segment_slice(1, session.add_prompt(1, BoxPrompt.on_slice((2, 0, 5, 3), index, K)))
    results = list(session.propagate(plane=K, **{"direction": "forward", "first": 0, "last": 8, **options}))
    columns = session.labelmap(1)[:, 0]
    names = {(1, 0): "l", (0, 1): "r", (1, 1): "b", (0, 0): "-"}
    return "".join(names[int(row[2]), int(row[5])] for row in columns), results


def test_one_path_stays_where_it_went_wrong(numbered: Volume) -> None:
    assert sides(numbered, "recent")[0] == "bbbllllll"


def test_several_paths_find_the_better_way_and_revise_what_was_shown(numbered: Volume) -> None:
    found, results = sides(numbered, "multi_path")
    assert found == "bbbrrrrrr"
    shown = [(result.key.index, bool(result.mask[0, 5])) for result in results]
    assert shown == [(1, True), (2, True), (3, False), *((i, True) for i in range(4, 9)), (3, True)]
    assert [result.done for result in results] == [1, 2, 3, 4, 5, 6, 7, 8, 8]


def test_one_path_of_the_search_is_the_plain_way(numbered: Volume) -> None:
    assert sides(numbered, "multi_path:paths=1")[0] == "bbbllllll"


def test_between_two_key_slices_paths_are_fused_and_not_revised(numbered: Volume) -> None:
    _, results = sides(numbered, "multi_path", keys=(0, 8), direction="both")
    indices = [result.key.index for result in results]
    assert sorted(indices) == sorted([*range(1, 8), *range(1, 8)])


def test_a_path_may_choose_the_mask(numbered: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = load_policy("motion")
    monkeypatch.setattr(type(policy), "choose", lambda self, candidates, context: len(candidates) - 1)
    assert sides(numbered, "motion")[0] == "bbbrrrrrr"


def test_rivals_reach_the_policy(numbered: Volume) -> None:
    policy = load_policy("distractor_aware:quality=0.5,area=1")
    seen: list[tuple[float, ...]] = []
    observe = type(policy).observe

    class Watching(type(policy)):
        def observe(self, entry: MemoryEntry, entries: dict[int, MemoryEntry], context: PolicyContext) -> Notes:
            seen.append(entry.rivals)
            return observe(self, entry, entries, context)

    sides(numbered, Watching())
    assert seen[2] == (pytest.approx(0.5),) and seen[0] == seen[4] == ()


def test_the_short_look_back_is_averaged_with_the_long_one() -> None:
    torch = pytest.importorskip("torch")
    model = sam2_model()
    (features,) = model.encode_slices([SliceImage(np.random.default_rng(0).random((1, 24, 40), dtype=np.float32))])
    answer = model.predict(features, SlicePrompts(box_rc=(2, 3, 20, 30)), Recall())
    memory = model.encode_memory(features, answer, True)
    from SegmentAnythingMedLib.models.base import Recalled

    pointers = (Recalled(memory, 0, 1),)
    short = Recall((Recalled(memory, 1, 1),), pointers)
    long = Recall((Recalled(memory, 0, 3), Recalled(memory, 2, 2)), pointers)
    embedding = features.maps.embedding
    with torch.inference_mode():
        tensors = [
            model.network.condition(
                embedding, [(memory.map, one.slot) for one in recall.memories], [(memory.pointer, 1)], 15
            )
            for recall in (long, short)
        ]
        wanted = (tensors[0] + tensors[1]) / 2
        seen: list[object] = []
        decode = model.network.decode_masks
        model.network.decode_masks = lambda embedding, *rest: (seen.append(embedding), decode(embedding, *rest))[1]
        model.predict(features, SlicePrompts(), replace(long, short=short))
    torch.testing.assert_close(seen[0], wanted)
    assert not torch.allclose(tensors[0], tensors[1])


def test_what_a_slice_looks_like_is_a_unit_vector_that_tells_slices_apart() -> None:
    pytest.importorskip("torch")
    model = sam2_model()
    random = np.random.default_rng(1)
    images = [SliceImage(random.random((1, 24, 40), dtype=np.float32)) for _ in range(2)]
    first, second = (model.look(features) for features in model.encode_slices(images))
    assert first.dtype == np.float32 and first @ first == pytest.approx(1, abs=1e-5)
    assert first @ second < 1 - 1e-4
