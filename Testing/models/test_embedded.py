"""The embedded family behind the seam: its window, its maps, and a tiny random network behind a session."""

from __future__ import annotations

import numpy as np
import pytest

from SegmentAnythingMedLib.errors import ModelFileError, ModelUnavailableError, PromptError
from SegmentAnythingMedLib.geometry import VolumeGeometry
from SegmentAnythingMedLib.models import embedded
from SegmentAnythingMedLib.models.base import Prediction, Recall, Recalled, SliceImage
from SegmentAnythingMedLib.models.card import ModelCard
from SegmentAnythingMedLib.models.embedded_candidates import Candidate, click_frames, distinct
from SegmentAnythingMedLib.models.embedded_channels import CHANNELS, EmbeddedMemory, gap_value, luminance, network_input
from SegmentAnythingMedLib.models.embedded_context import chosen_memories, refined
from SegmentAnythingMedLib.models.embedded_crop import OUTSIDE, Frame
from SegmentAnythingMedLib.models.embedded_opinions import Weighing
from SegmentAnythingMedLib.models.embedded_runtime import MOST_THREADS, Answer, thread_count
from SegmentAnythingMedLib.prompts import BoxPrompt, PointPrompt, SlicePrompts
from SegmentAnythingMedLib.session import VolumeSession
from SegmentAnythingMedLib.volume import Volume

CARD = ModelCard("embedded", "Embedded", "embedded", "none", ("slice", "memory", "candidates", "color"))
SHAPE, SPACING = (60, 90), (1.3, 0.8)


def ramp(shape=SHAPE):
    rows, columns = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    return 2 * rows - columns


def disc(center=(30, 45), radius=12.0, shape=SHAPE):
    """A disc in millimetres on pixels of `SPACING`."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return ((rows - center[0]) * SPACING[0]) ** 2 + ((columns - center[1]) * SPACING[1]) ** 2 < radius**2


def box_of(mask):
    rows, columns = np.nonzero(mask)
    return float(rows.min()), float(columns.min()), float(rows.max()), float(columns.max())


class BrightRun:
    """In the place of the network: what is bright and near a prompt or a remembered mask."""

    def __init__(self):
        self.maps = []

    def __call__(self, maps):
        self.maps.append(maps)
        named = dict(zip(CHANNELS, np.moveaxis(maps, 1, 0), strict=True))
        said = named["region"] + named["positive"] + named["previous"] + named["last_mask"]
        wanted = said.reshape(len(maps), -1).max(1) > 0
        logits = np.where((named["image"] > 0.5) & wanted[:, None, None], 4.0, -4.0).astype(np.float32)
        logits[named["negative"] > 0.5] = -4.0
        presence = np.where((logits > 0).any((1, 2)), 3.0, -3.0).astype(np.float32)
        three = np.repeat(logits[:, None], 3, 1)
        three[:, 2] = -4.0
        return Answer(three, np.tile(np.array([2.0, 1.0, 0.0], np.float32), (len(maps), 1)), presence)


@pytest.fixture
def run():
    return BrightRun()


@pytest.fixture
def model(run):
    return embedded.EmbeddedModel(CARD, run)


def features_of(model, mask, noise=0.0):
    pixels = 0.2 + 0.6 * mask + noise * np.random.default_rng(0).standard_normal(mask.shape)
    return model.encode_slices([SliceImage(np.clip(pixels, 0, 1)[None].astype(np.float32), SPACING)])[0]


def remembered(model, mask, distance=1, slot=0):
    sure = Prediction(np.where(mask, 10.0, -10.0)[None].astype(np.float32), np.ones(1))
    return Recalled(model.encode_memory(features_of(model, mask), sure, True), slot, distance)


def test_beyond_its_reach_an_answer_is_certain_that_the_object_is_not_there(model):
    features = features_of(model, disc())
    click = {"points_rc": np.array([[30.0, 45], [4, 85]]), "positive": np.array([True, False])}
    scribble = ((np.array([[30.0, 40], [30, 50]]), True), (np.array([[2.0, 3], [9, 6]]), False))
    for prompts in (SlicePrompts(box_rc=(19, 30, 41, 60)), SlicePrompts(**click), SlicePrompts(scribbles=scribble)):
        found = model.predict(features, prompts)
        beyond = np.ones(SHAPE, bool)
        beyond[found.reach] = False
        assert beyond.any() or prompts.box_rc is None
        assert (found.logits[:, beyond] == OUTSIDE).all() and (found.masks == (found.logits > 0)).all()


# The window


def test_a_window_on_an_anisotropic_slice_has_square_pixels_in_millimetres():
    frame = Frame((20.3, 31.7), 37.0, SPACING)
    row_step, column_step = frame.pixels_per_cell
    assert row_step * SPACING[0] == pytest.approx(column_step * SPACING[1]) == pytest.approx(37.0 / 128)


@pytest.mark.parametrize("side_mm", [9.0, 37.0, 64.0])
def test_taking_and_giving_a_linear_image_loses_nothing(side_mm):
    frame = Frame((30.3, 44.7), side_mm, SPACING)
    given = frame.give(frame.take(ramp()), SHAPE, np.nan)
    inside = ~np.isnan(given)
    assert inside.sum() > 50
    step = max(frame.pixels_per_cell)
    inside &= np.abs(np.mgrid[: SHAPE[0], : SHAPE[1]][0] - 30.3) * SPACING[0] < side_mm / 2 - 2 * step
    inside &= np.abs(np.mgrid[: SHAPE[0], : SHAPE[1]][1] - 44.7) * SPACING[1] < side_mm / 2 - 2 * step
    assert np.abs(given - ramp())[inside].max() < 1e-3


def test_a_coarse_window_averages_what_it_cannot_show():
    stripes = (np.arange(SHAPE[1]) % 2).astype(np.float32) * np.ones((SHAPE[0], 1))
    seen = Frame((30.0, 45.0), 60.0, (1.0, 1.0), 16).take(stripes)
    assert np.abs(seen[2:14, 2:14] - 0.5).max() < 0.1


def test_beyond_the_slice_a_window_sees_zero_and_beyond_the_window_logits_are_low():
    frame = Frame((2.0, 2.0), 30.0, (1.0, 1.0), 32)
    assert frame.take(np.ones(SHAPE, np.float32))[:5].max() == 0
    assert frame.give(np.ones((32, 32), np.float32), SHAPE)[40, 40] == OUTSIDE


def test_points_go_to_the_window_and_back():
    frame = Frame((20.3, 31.7), 37.0, SPACING)
    points = np.array([[3.0, 4.5], [20.3, 31.7]])
    assert frame.to_slice(frame.to_crop(points)) == pytest.approx(points)
    assert frame.to_crop(points[1]) == pytest.approx([63.5, 63.5])


# The maps


def test_each_map_holds_what_its_name_says():
    mask = disc()
    pixels = (mask * 200).astype(np.uint8)
    frame = Frame.round_box(box_of(mask), SPACING)
    prompts = SlicePrompts(np.array([[30.0, 45.0], [5.0, 45.0]]), np.array([True, False]), box_of(mask))
    previous = np.where(mask, 5.0, -5.0)
    memory = EmbeddedMemory(pixels, mask, (0, 0))
    maps = dict(
        zip(CHANNELS, network_input(pixels, frame, prompts, previous, ((memory, 3), (memory, -20))), strict=True)
    )
    assert maps["image"][64, 64] == pytest.approx(200 / 255)
    assert maps["region"][64, 64] == 1 and maps["region"][64, 20] == 0
    side = 2 * np.sqrt(maps["region"].sum()) / 128
    assert side == pytest.approx(1.0, abs=0.05)  # the box fills half the window
    row, column = np.rint(frame.to_crop(np.array([30.0, 45.0]))).astype(int)
    assert maps["positive"][row, column] == pytest.approx(1.0, abs=0.05)
    assert maps["negative"][row, column] < 0.01 and maps["positive"].sum() == pytest.approx(
        2 * np.pi * 2.5**2, rel=0.01
    )
    assert maps["previous"][64, 64] > 0.99 and maps["previous"][2, 2] < 0.01
    assert (maps["key_mask"] == maps["last_mask"]).all() and maps["key_mask"][64, 64] == 1
    assert np.unique(maps["key_gap"]) == gap_value(3) == 3 / 8 and np.unique(maps["last_gap"]) == 1.0


def test_a_memory_keeps_its_place_and_its_surroundings(model):
    mask = disc((20, 60), 8)
    memory = remembered(model, mask).memory
    frame = Frame.round_box(box_of(mask), SPACING)
    seen, outline = memory.seen_through(frame)
    assert outline == pytest.approx(frame.take(mask.astype(np.float32)), abs=1e-6)
    assert seen == pytest.approx(frame.take(features_of(model, mask).pixels) / 255, abs=1e-6)
    assert memory.box_rc == box_of(mask) and memory.nbytes < 2 * mask.size


def test_color_becomes_luminance():
    red = np.zeros((3, 4, 5), np.float32)
    red[0] = 1
    assert np.unique(luminance(red)) == 76


# Answers


def test_a_box_gives_the_bright_object_inside(model):
    mask = disc()
    prediction = model.predict(features_of(model, mask), SlicePrompts(box_rc=box_of(mask)))
    assert (prediction.masks[0] == mask).mean() > 0.99
    assert prediction.presence > 0 and prediction.quality[0] == pytest.approx(1 / (1 + np.exp(-2.0)))


def test_one_click_tries_windows_of_several_sizes_and_returns_distinct_candidates(model, run):
    click = SlicePrompts(np.array([[30.0, 45.0]]), np.array([True]))
    prediction = model.predict(features_of(model, disc()), click, multimask=True)
    assert len(run.maps[0]) == 3
    assert 1 <= len(prediction.logits) <= 3 and (np.diff(prediction.quality) <= 0).all()
    assert prediction.masks[0][30, 45]


def test_click_windows_grow_and_hold_all_points():
    frames = click_frames(np.array([[5.0, 5.0], [50.0, 80.0]]), SHAPE, SPACING)
    assert all(a.side_mm < b.side_mm for a, b in zip(frames, frames[1:], strict=False))
    assert (frames[0].to_crop(np.array([[5.0, 5.0], [50.0, 80.0]])) > 0).all()


def test_candidates_that_are_the_same_are_shown_once():
    small, large = Frame((30.0, 45.0), 40.0, (1.0, 1.0), 64), Frame((30.0, 45.0), 80.0, (1.0, 1.0), 64)
    mask = (np.add.outer((np.arange(60) - 30.0) ** 2, (np.arange(90) - 45.0) ** 2) < 100).astype(np.float32)
    both = [Candidate(frame, frame.take(mask) - 0.5, quality, 1.0) for frame, quality in ((small, 1.0), (large, 0.5))]
    assert distinct(both, 3) == [both[0]]


def test_a_window_that_cuts_the_object_off_is_enlarged(model):
    far = disc((30, 45), 24)
    memory = remembered(model, disc((30, 45), 6))
    mask = model.predict(features_of(model, far), SlicePrompts(), Recall((memory,))).masks[0]
    assert (mask == far).mean() > 0.98


def test_every_clicked_pixel_gets_its_label(model):
    points = np.array([[30.0, 45.0], [31.0, 46.0], [2.0, 2.0]])
    prompts = SlicePrompts(points, np.array([True, False, True]), box_of(disc()))
    mask = model.predict(features_of(model, disc()), prompts).masks[0]
    assert mask[30, 45] and not mask[31, 46] and mask[2, 2]


def test_clicks_refine_the_earlier_answer_and_other_prompts_do_not(model, run):
    features, box = features_of(model, disc()), SlicePrompts(box_rc=box_of(disc()))
    first = model.predict(features, SlicePrompts(np.array([[30.0, 45.0]]), np.array([True])))
    more = SlicePrompts(np.array([[30.0, 45.0], [30.0, 40.0]]), np.array([True, False]))
    model.predict(features, more, previous=first)
    assert run.maps[-1][0, CHANNELS.index("previous")].max() > 0.9
    first = model.predict(features, box)
    assert refined(SlicePrompts(box_rc=(0.0, 0.0, 9.0, 9.0)), first) is None
    assert refined(box, first) is None  # asked again, nothing new


def test_inside_a_box_the_earlier_answer_places_the_window_and_is_not_shown(model, run):
    features = features_of(model, disc())
    first = model.predict(features, SlicePrompts(box_rc=(26.0, 40.0, 34.0, 50.0)))  # a box that is far too small
    more = SlicePrompts(np.array([[30.0, 33.0]]), np.array([True]), (26.0, 40.0, 34.0, 50.0))
    model.predict(features, more, previous=first)
    region, previous = (run.maps[-1][0, CHANNELS.index(name)] for name in ("region", "previous"))
    assert previous.max() == 0 and region.max() == 1
    assert np.count_nonzero(region) < 0.1 * region.size  # the window is twice as wide as the disc, not as the box


def test_after_a_few_clicks_the_earlier_answers_box_is_shown_as_a_region(model, run):
    features, points = features_of(model, disc()), np.array([[30.0, 45.0], [30.0, 40.0], [26.0, 45.0], [33.0, 51.0]])
    prediction = None
    for count in range(1, 5):
        prompts = SlicePrompts(points[:count], np.ones(count, dtype=bool))
        prediction = model.predict(features, prompts, previous=prediction)
        region, previous = (run.maps[-1][0, CHANNELS.index(name)] for name in ("region", "previous"))
        assert region.any() == (count > 2) and (previous.max() > 0.9) == (count > 1)
    assert (region[previous > 0.9] > 0.5).all()


def test_threads_are_those_the_worker_was_given(monkeypatch):
    for given, cores, count in (("1", 8, 1), ("2", 1, 2), ("64", 8, MOST_THREADS), ("", 3, 2), ("junk", 1, 1)):
        monkeypatch.setenv("OMP_NUM_THREADS", given)
        monkeypatch.setattr("os.cpu_count", lambda cores=cores: cores)
        assert thread_count() == count


def test_a_mask_prompt_is_the_answer(model):
    prediction = model.predict(features_of(model, disc()), SlicePrompts(mask=disc((10, 10), 5)))
    assert (prediction.masks[0] == disc((10, 10), 5)).all()
    with pytest.raises(PromptError, match="mask prompt has shape"):
        model.predict(features_of(model, disc()), SlicePrompts(mask=np.ones((3, 3), bool)))


def test_lassos_and_scribbles_are_seen(model):
    mask = disc()
    row0, column0, row1, column1 = box_of(mask)
    lasso = SlicePrompts(lasso_rc=np.array([[row0, column0], [row0, column1], [row1, column1], [row1, column0]]))
    assert (model.predict(features_of(model, mask), lasso).masks[0] == mask).mean() > 0.99
    scribble = SlicePrompts(scribbles=((np.array([[28.0, 40.0], [32.0, 50.0]]), True),))
    assert model.predict(features_of(model, mask), scribble).masks[0][28:32, 42:48].any()


def test_the_nearest_key_slice_and_the_newest_tracked_slice_are_seen(model):
    far_key, key = remembered(model, disc(), 9), remembered(model, disc(), -2)
    old, new = remembered(model, disc(), 3, 3), remembered(model, disc(), 1, 1)
    gone = remembered(model, np.zeros(SHAPE, bool), 1, 1)
    assert [distance for _, distance in chosen_memories(Recall((far_key, key, old, new)))] == [-2, 1]
    assert [distance for _, distance in chosen_memories(Recall((far_key, key)))] == [-2]
    assert [distance for _, distance in chosen_memories(Recall((key, old, gone)))] == [-2, 3]
    assert chosen_memories(Recall((gone,))) == ()


def test_an_outline_that_is_corrected_is_shown_without_memories(model, run):
    features, memory = features_of(model, disc()), remembered(model, disc((20, 30)), 7)
    earlier = Prediction(np.where(disc(), 10.0, -10.0).astype(np.float32)[None], np.ones(1))
    click = SlicePrompts(np.array([[30.0, 45.0]]), np.array([True]))
    model.predict(features, click, Recall((memory,)), earlier)
    named = dict(zip(CHANNELS, run.maps[-1][0], strict=True))
    assert named["previous"].any() and not named["key_mask"].any() and not named["last_mask"].any()
    model.predict(features, click, Recall((memory,)))
    assert dict(zip(CHANNELS, run.maps[-1][0], strict=True))["key_mask"].any()


def test_where_nothing_is_bright_the_object_is_absent(model):
    prediction = model.predict(features_of(model, disc() & False), SlicePrompts(), Recall((remembered(model, disc()),)))
    assert not prediction.masks.any() and prediction.presence < 0 and prediction.quality[0] == 0


def test_memories_of_alike_objects_are_alike(model):
    a, empty = remembered(model, disc()).memory, remembered(model, disc() & False).memory
    assert model.similarity(a, a) == pytest.approx(1.0)
    assert model.similarity(a, empty) == -1 and model.similarity(empty, empty) == 1


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (2, 3), (64, 48)])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_slice_and_prompt_gives_a_well_formed_answer(model, shape, channels):
    for pixels in (np.full((channels, *shape), 0.7, np.float32), np.zeros((channels, *shape), np.float32)):
        features = model.encode_slices([SliceImage(pixels, (5.0, 0.3))])[0]
        last = (shape[0] - 1.0, shape[1] - 1.0)
        sure = Prediction(np.full((1, *shape), 10.0, np.float32), np.ones(1))
        recall = Recall((Recalled(model.encode_memory(features, sure, True), 0, 1),))
        corner = np.array([[0.0, 0.0], [0.0, last[1]], list(last)])
        for prompts in (
            SlicePrompts(box_rc=(0.0, 0.0, *last)),
            SlicePrompts(box_rc=(0.0, 0.0, 0.0, 0.0)),
            SlicePrompts(np.array([list(last)]), np.array([True])),
            SlicePrompts(np.array([[-0.5, -0.5]]), np.array([False])),
            SlicePrompts(scribbles=((corner, True),)),
            SlicePrompts(lasso_rc=corner),
            SlicePrompts(),
        ):
            for memories in (Recall(), recall):
                prediction = model.predict(features, prompts, memories, multimask=True)
                assert prediction.logits.shape[1:] == shape and prediction.logits.dtype == np.float32
                assert np.isfinite(prediction.logits).all() and len(prediction.quality) == len(prediction.logits)
                assert ((prediction.quality >= 0) & (prediction.quality <= 1)).all()


# Files and sessions


@pytest.fixture(scope="session")
def a_network_file(tmp_path_factory):
    """A tiny network with random weights, as ONNX."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from SegmentAnythingMedLib.finetune.embedded_network import EmbeddedConfig, EmbeddedNetwork
    from SegmentAnythingMedLib.finetune.export_embedded import export

    torch.manual_seed(0)
    network = EmbeddedNetwork(EmbeddedConfig((8, 8, 8, 8, 8), (0, 1, 1, 1, 1), (1, 1, 1, 1)))
    notes = {"weighing": Weighing((0.0, 0.0, 0.0, 0.0, 0.0)).to_json()}
    return export(network, tmp_path_factory.mktemp("weights") / "tiny.onnx", notes=notes)


def test_a_session_outlines_and_propagates_with_a_network_file(a_network_file):
    model = embedded.load(CARD, a_network_file, threads=1)
    voxels = (np.random.default_rng(0).random((5, 40, 50)) * 255).astype(np.uint8)
    volume = Volume.from_array(voxels, VolumeGeometry.from_spacing((50, 40, 5), (0.8, 1.2, 3.0)))
    session = VolumeSession(volume, model)
    axial = session.plane("K")
    key = session.add_prompt(1, BoxPrompt.on_slice((10, 10, 30, 25), 2, axial))
    session.segment_slice(1, key)
    key = session.add_prompt(1, PointPrompt((20.0, 18.0, 2.0), True, axial))
    assert session.segment_slice(1, key).mask[18, 20]
    results = list(session.propagate(plane=axial, first=0, last=4))
    assert sorted(result.key.index for result in results) == [0, 1, 3, 4]
    assert session.labelmap(1).shape == (5, 40, 50)


def test_predicted_quality_is_weighed_as_the_file_says(a_network_file):
    model = embedded.load(CARD, a_network_file, threads=1)
    features, prompts = features_of(model, disc(), 0.3), SlicePrompts(box_rc=box_of(disc()))
    assert model.predict(features, prompts).quality[0] == 0.5
    alone = embedded.load(CARD, a_network_file, threads=1, alone=True)
    assert alone.predict(features_of(alone, disc(), 0.3), prompts).quality[0] != 0.5


def test_wrong_files_and_options_are_named(a_network_file, tmp_path):
    with pytest.raises(ModelUnavailableError, match="no option speed"):
        embedded.load(CARD, a_network_file, speed=3)
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(a_network_file.read_bytes()[:1000])
    with pytest.raises(ModelFileError, match="broken.onnx"):
        embedded.load(CARD, broken)
    with pytest.raises(ModelFileError, match="SHA-256"):
        embedded.load(ModelCard("e", "E", "embedded", "none", sha256="0" * 64), a_network_file)
