"""Prototypes learned from one patient find organs in another; their files; the features they are made of."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sources.organ_cases import KIDNEY, LIVER, NAMES, SPLEEN, case, outlined, patient, unlabelled

from SegmentAnythingMedLib.errors import ModelFileError, PromptError, SegmentAnythingMedError
from SegmentAnythingMedLib.geometry import Plane
from SegmentAnythingMedLib.io import read_labels, read_volume
from SegmentAnythingMedLib.models.base import SliceImage
from SegmentAnythingMedLib.prompts import BoxPrompt, PointPrompt
from SegmentAnythingMedLib.sources import learned_file
from SegmentAnythingMedLib.sources.cases import labelled_case
from SegmentAnythingMedLib.sources.descriptor import FeatureMap, HandMade
from SegmentAnythingMedLib.sources.learned import best_level
from SegmentAnythingMedLib.sources.prototypes import Prototypes, Source, learn_prototypes
from SegmentAnythingMedLib.sources.source import Given, load_source
from SegmentAnythingMedLib.volume import Volume


@pytest.fixture(scope="module")
def learned() -> Prototypes:
    return learn_prototypes([case(0)], NAMES)


@pytest.mark.parametrize(("value", "least"), [(SPLEEN, 0.9), (KIDNEY, 0.85), (LIVER, 0.65)])
@pytest.mark.parametrize("seed", [1, 4])
def test_an_organ_of_one_patient_is_found_in_another(learned: Prototypes, seed: int, value: int, least: float) -> None:
    prompts = Source(learned=learned, wanted=NAMES[value]).prompts(unlabelled(seed))
    assert isinstance(prompts[0], BoxPrompt) and isinstance(prompts[1], PointPrompt) and prompts[1].positive
    i, j, k = (round(x) for x in prompts[1].point_ijk)
    assert patient(seed)[1][k, j, i] == value
    assert outlined(seed, prompts, value) > least


def test_another_kind_of_image_looks_like_nothing_that_was_learned(learned: Prototypes) -> None:
    prompts_of = Source(learned=learned, wanted="spleen").prompts
    strange = replace(unlabelled(1), image=lambda index: SliceImage(np.zeros((1, 116, 144), np.float32), (2.2, 2.2)))
    with pytest.raises(PromptError, match="Nothing in the volume looks like 'spleen'"):
        prompts_of(strange)
    with pytest.raises(PromptError, match="Nothing on slice 3 looks like 'spleen': choose another slice"):
        prompts_of(replace(strange, index=3))


def test_a_wanted_slice_is_kept_and_ranks_go_to_other_regions(learned: Prototypes) -> None:
    labels = patient(1)[1]
    shows_both = int(np.argmax([np.count_nonzero(plane == KIDNEY) for plane in labels]))
    given = replace(unlabelled(1), index=shows_both)
    first = Source(learned=learned, wanted="kidney").prompts(given)
    second = Source(learned=learned, wanted="kidney", rank=2).prompts(given)
    places = [prompts[1].point_ijk for prompts in (first, second)]
    assert {round(place[2]) for place in places} == {shows_both}
    assert abs(places[0][0] - places[1][0]) > 20
    with pytest.raises(PromptError, match="choose a lower rank than 20"):
        Source(learned=learned, wanted="kidney", rank=20).prompts(given)


def test_two_regions_of_one_object_get_one_box_and_two_clicks(learned: Prototypes) -> None:
    labels = patient(1)[1]
    shows_both = int(np.argmax([np.count_nonzero(plane == KIDNEY) for plane in labels]))
    given = replace(unlabelled(1), index=shows_both)
    box, *points = Source(learned=learned, wanted="kidney", regions=2, negatives=0).prompts(given)
    low, high = np.sort(np.array(box.corners_ijk)[:, :2], axis=0)
    assert len(points) == 2 and all((low <= p.point_ijk[:2]).all() and (p.point_ijk[:2] <= high).all() for p in points)


def test_a_confusion_beside_the_object_gets_a_negative_click() -> None:
    pixels, wanted = np.zeros((80, 80), np.float32), np.zeros((80, 80), bool)
    wanted[30:42, 20:32] = True
    beside, far_away = (slice(32, 40), slice(38, 46)), (slice(66, 74), slice(66, 74))
    pixels[wanted] = pixels[beside] = pixels[far_away] = 0.8
    one = labelled_case(Volume.from_array(pixels[None]), wanted[None].astype(np.uint8), Plane(2), "identity")
    learned = learn_prototypes([one], {1: "square"}, HandMade(2.0))
    box, *points = Source(learned=learned, shift=-0.25, negatives=3).prompts(replace(one, labels=None))
    yes, no = ([p.point_ijk for p in points if p.positive is side] for side in (True, False))
    assert len(yes) == 1 and wanted[round(yes[0][1]), round(yes[0][0])]
    assert len(no) == 1 and 37 <= no[0][0] <= 46 and 31 <= no[0][1] <= 40  # a model with the box never sees the far one
    assert len(Source(learned=learned, shift=-0.25, negatives=0).prompts(replace(one, labels=None))) == 2


def test_cells_that_another_structure_fits_better_are_not_the_wanted_ones(learned: Prototypes) -> None:
    given = unlabelled(4)
    index = int(np.argmax([np.count_nonzero(plane == LIVER) for plane in patient(4)[1]]))
    both = Source(learned=learned, wanted="spleen").score_map(given.image(index), learned.number("spleen"))
    alone = learn_prototypes([case(0)], {SPLEEN: "spleen"}, HandMade(learned.origin.cell_mm))
    only = Source(learned=alone).score_map(given.image(index))
    liver = case(4).labels_on(index) == LIVER
    assert both[liver].mean() < only[liver].mean() - 0.3


# -- what is learned from --------------------------------------------------------------------------------------------


def test_there_must_be_something_to_learn_from() -> None:
    with pytest.raises(PromptError, match="at least one volume"):
        learn_prototypes([], NAMES)
    with pytest.raises(PromptError, match="No case shows 'heart'"):
        learn_prototypes([case(0)], {77: "heart"})
    with pytest.raises(PromptError, match="--mask"):
        learn_prototypes([unlabelled(0)], NAMES)
    with pytest.raises(PromptError, match="'spleen' fills no cell"):
        learn_prototypes([case(0)], NAMES, HandMade(400.0))


def test_nothing_is_found_without_knowledge_or_by_a_wrong_name(learned: Prototypes) -> None:
    with pytest.raises(PromptError, match="learn it from your own cases"):
        load_source("prototypes").prompts(unlabelled(1))
    with pytest.raises(PromptError, match="do not know 'heart': choose one of spleen, kidney, liver"):
        Source(learned=learned, wanted="heart").prompts(unlabelled(1))
    with pytest.raises(SegmentAnythingMedError, match="rank must be a whole number from 1 to 20"):
        Source(learned=learned, rank=0)


def test_features_of_another_kind_are_refused(learned: Prototypes) -> None:
    with pytest.raises(PromptError, match="not from hand-made, cells of 9 mm"):
        Source(learned=learned, wanted="spleen", describer=HandMade(9.0)).prompts(unlabelled(1))
    fused = replace(unlabelled(1), image=lambda index: SliceImage(np.zeros((3, 40, 40), np.float32), (5.0, 5.0)))
    with pytest.raises(PromptError, match="another number of channels"):
        Source(learned=learned, wanted="spleen").prompts(fused)


def test_the_best_level_splits_inside_from_outside_and_leaves_doubtful_cells_out() -> None:
    score = np.array([0.9, 0.8, 0.7, 0.2, 0.1])
    inside = np.array([True, True, False, False, False])
    assert best_level(score, inside, ~inside) == pytest.approx(0.75)
    assert best_level(score, inside, np.array([False, False, False, True, True])) == pytest.approx(0.5)


# -- features --------------------------------------------------------------------------------------------------------


def test_features_turn_and_flip_with_the_slice() -> None:
    pixels = np.random.default_rng(0).random((1, 48, 64)).astype(np.float32)
    straight = HandMade(4.0).describe(SliceImage(pixels)).values
    flipped = HandMade(4.0).describe(SliceImage(pixels[:, ::-1])).values
    turned = HandMade(4.0).describe(SliceImage(np.rot90(pixels, axes=(1, 2)).copy())).values
    assert straight.shape == (19, 12, 16)
    np.testing.assert_allclose(flipped[:, ::-1], straight, atol=1e-5)
    np.testing.assert_allclose(np.rot90(turned, -1, axes=(1, 2)), straight, atol=1e-5)


def test_cells_are_as_large_in_millimetres_whatever_the_pixels() -> None:
    smooth = np.linspace(0, 1, 60)[:, None] * np.ones(60)
    fine = HandMade(6.0).describe(SliceImage(smooth[None].astype(np.float32), (1.0, 1.0))).values
    stretched = HandMade(6.0).describe(SliceImage(smooth[None, :, ::3].astype(np.float32), (1.0, 3.0))).values
    assert fine.shape == stretched.shape == (19, 10, 10)
    np.testing.assert_allclose(fine, stretched, atol=1e-3)


def test_a_mask_is_shared_out_among_cells_and_comes_back() -> None:
    features = FeatureMap(np.zeros((1, 3, 5), np.float32), (7, 11))
    mask = np.zeros((7, 11), bool)
    mask[:4, 2:9] = True
    share = features.share(mask)
    assert share.sum() * (7 / 3) * (11 / 5) == pytest.approx(mask.sum())
    np.testing.assert_allclose(features.on_slice(np.full((3, 5), 0.25)), 0.25, atol=1e-6)


def test_a_network_embedding_can_stand_in_for_the_descriptor() -> None:
    pytest.importorskip("torch")
    from SegmentAnythingMedLib.models import sam2
    from SegmentAnythingMedLib.models.card import ModelCard
    from SegmentAnythingMedLib.sources.descriptor import DenseModel, OfModel

    card = ModelCard("tiny", "Tiny", "sam2", "none", ("slice", "memory"), input_size=128, preprocessing="imagenet",
                     options={"size": "tiny"})  # fmt: skip
    model = sam2.load(card, None, "cpu", random_seed=0)
    assert isinstance(model, DenseModel)
    wide = SliceImage(np.random.default_rng(0).random((1, 32, 64)).astype(np.float32), (1.0, 1.0))
    found = OfModel(model).describe(wide)
    assert found.values.shape == (256, 4, 8)  # half of the square of 8 x 8 is padding
    whole = model.encode_slices([wide])[0].maps.embedding[0, :, :4].float().numpy()
    np.testing.assert_allclose(found.values, whole, atol=1e-5)
    few = replace(case(0), labels=np.where(np.arange(26)[:, None, None] == 18, case(0).labels, 0))
    learned = learn_prototypes([few], {LIVER: "liver"}, OfModel(model), slices=2)
    assert learned.origin.features == "embedding of tiny" and learned.vectors.shape == (1, 256)


# -- files -----------------------------------------------------------------------------------------------------------


def test_a_file_gives_back_what_was_learned(learned: Prototypes, tmp_path: Path) -> None:
    learned.save(tmp_path / "organs.npz")
    again = Prototypes.load(tmp_path / "organs.npz")
    assert again.origin == learned.origin and again.origin.spacings_mm == ((2.5, 2.5),)
    rows = np.random.default_rng(0).random((7, 19))
    np.testing.assert_array_equal(again.score(rows), learned.score(rows))


def tampered(path: Path, name: str, array: np.ndarray | None) -> Path:
    """A copy of an npz file with one array replaced or left out."""
    bad = path.with_name("bad.npz")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(bad, "w") as target:
        for item in source.namelist():
            if item != f"{name}.npy":
                target.writestr(item, source.read(item))
        if array is not None:
            stream = io.BytesIO()
            np.save(stream, array, allow_pickle=True)
            target.writestr(f"{name}.npy", stream.getvalue())
    return bad


def about(learned: Prototypes, **changes: object) -> np.ndarray:
    content = {"format": "segment-anything-med prototypes", "version": 1, **vars(learned.origin), **changes}
    return np.frombuffer(json.dumps(content).encode(), np.uint8)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("vectors", None),
        ("vectors", np.array([{"__reduce__": "anything"}], dtype=object)),
        ("vectors", np.zeros((3, 18))),
        ("vectors", np.full((3, 19), np.nan)),
        ("vectors", np.zeros((2, 19))),
        ("scale", np.zeros(19)),
        ("levels", np.zeros(3, np.float32)),
        ("about", np.frombuffer(b"{}", np.uint8)),
        ("about", np.frombuffer(b"no json", np.uint8)),
        ("about", {"names": ["one"]}),
        ("about", {"version": 9}),
        ("about", {"areas_mm2": [1, 2, -3]}),
        ("about", {"format": "segment-anything-med patch heads"}),
    ],
)
def test_a_file_that_is_wrong_is_refused_with_a_sentence(
    learned: Prototypes, tmp_path: Path, name: str, array: object
) -> None:
    learned.save(tmp_path / "organs.npz")
    changed = about(learned, **array) if isinstance(array, dict) else array
    with pytest.raises(ModelFileError, match=r"^bad\.npz"):
        Prototypes.load(tampered(tmp_path / "organs.npz", name, changed))


def test_what_is_no_such_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, learned: Prototypes) -> None:
    (tmp_path / "text.npz").write_text("hello")
    for name in ("text.npz", "missing.npz"):
        with pytest.raises(ModelFileError, match=name):
            Prototypes.load(tmp_path / name)
    learned.save(tmp_path / "organs.npz")
    monkeypatch.setattr(learned_file, "_MOST_BYTES", 1000)
    with pytest.raises(ModelFileError, match="do not trust it"):
        Prototypes.load(tmp_path / "organs.npz")


# -- real patients ---------------------------------------------------------------------------------------------------


def test_the_liver_of_a_real_ct_is_found_on_slices_that_were_not_learned(dev_data: Path) -> None:
    volume = read_volume(dev_data / "totalseg" / "example_ct.nii.gz")
    liver = next(s for s in read_labels(dev_data / "totalseg" / "example_ct_seg.nii.gz").segments if s.value == 5).mask

    def every_second(first: int) -> Given:
        volume_part = Volume.from_array(volume.array()[first::2], name="part")
        return labelled_case(volume_part, liver[first::2].astype(np.uint8), Plane(2), "soft-tissue")

    source = Source(learned=learn_prototypes([every_second(0)], {1: "liver"}))
    given = every_second(1)
    areas = np.count_nonzero(given.labels, axis=(1, 2))
    tried = np.flatnonzero(areas > areas.max() / 4)
    hits = 0
    for index in tried[::3]:
        i, j, k = (round(x) for x in source.prompts(replace(given, labels=None, index=int(index)))[1].point_ijk)
        hits += given.labels[k, j, i]
    assert len(tried) > 10 and hits >= 0.8 * len(tried[::3]), (hits, len(tried[::3]))
