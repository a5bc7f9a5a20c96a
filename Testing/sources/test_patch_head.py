"""A patch head trained on one patient prompts itself in another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sources.organ_cases import KIDNEY, LIVER, NAMES, SPLEEN, case, outlined, patient, unlabelled

from SegmentAnythingMedLib import cli
from SegmentAnythingMedLib.errors import ModelFileError, PromptError
from SegmentAnythingMedLib.geometry import Plane
from SegmentAnythingMedLib.io import read_labels, read_volume, write_volume
from SegmentAnythingMedLib.prompts import BoxPrompt
from SegmentAnythingMedLib.prompts_file import load_prompts
from SegmentAnythingMedLib.sources.cases import labelled_case
from SegmentAnythingMedLib.sources.patch_head import PatchHead, Source, learn_patch_head
from SegmentAnythingMedLib.sources.prototypes import learn_prototypes
from SegmentAnythingMedLib.sources.source import Given, load_source, source_names


@pytest.fixture(scope="module")
def learned() -> PatchHead:
    return learn_patch_head([case(0)], NAMES)


@pytest.mark.parametrize(("value", "least"), [(SPLEEN, 0.9), (KIDNEY, 0.85), (LIVER, 0.7)])
@pytest.mark.parametrize("seed", [1, 4])
def test_an_organ_of_one_patient_is_found_in_another(learned: PatchHead, seed: int, value: int, least: float) -> None:
    prompts = Source(learned=learned, wanted=NAMES[value]).prompts(unlabelled(seed))
    assert isinstance(prompts[0], BoxPrompt)
    i, j, k = (round(x) for x in prompts[1].point_ijk)
    assert patient(seed)[1][k, j, i] == value
    assert outlined(seed, prompts, value) > least


def test_the_patch_map_is_the_probability_of_the_organ(learned: PatchHead) -> None:
    index = int(np.argmax([np.count_nonzero(plane == LIVER) for plane in patient(4)[1]]))
    probability = Source(learned=learned).score_map(case(4).image(index), learned.number("liver"))
    liver = case(4).labels_on(index) == LIVER
    assert probability.shape == liver.shape and probability.min() >= 0 and probability.max() <= 1
    found = probability > 0.5
    assert 2 * np.count_nonzero(found & liver) / (np.count_nonzero(found) + np.count_nonzero(liver)) > 0.75


def test_every_region_of_an_object_can_be_prompted_at_once(learned: PatchHead) -> None:
    index = int(np.argmax([np.count_nonzero(plane == KIDNEY) for plane in patient(4)[1]]))
    prompts = Source(learned=learned, wanted="kidney", regions=2).prompts(replace(unlabelled(4), index=index))
    labels = patient(4)[1][index]
    sides = {p.point_ijk[0] > labels.shape[1] / 2 for p in prompts[1:]}
    assert len(prompts) == 3 and sides == {True, False}
    assert all(labels[round(p.point_ijk[1]), round(p.point_ijk[0])] == KIDNEY for p in prompts[1:])


def test_learning_twice_gives_the_same_numbers(learned: PatchHead) -> None:
    again = learn_patch_head([case(0)], NAMES)
    np.testing.assert_array_equal(again.weights, learned.weights)


def test_a_file_gives_back_what_was_learned_and_is_no_file_of_prototypes(learned: PatchHead, tmp_path: Path) -> None:
    learned.save(tmp_path / "head.npz")
    again = PatchHead.load(tmp_path / "head.npz")
    rows = np.random.default_rng(0).random((5, 19))
    assert again.origin == learned.origin
    np.testing.assert_array_equal(again.score(rows), learned.score(rows))
    learn_prototypes([case(0)], {SPLEEN: "spleen"}).save(tmp_path / "other.npz")
    with pytest.raises(ModelFileError, match="other.npz is no file of patch heads"):
        PatchHead.load(tmp_path / "other.npz")


def test_both_learned_sources_are_found_by_name_and_ask_for_knowledge() -> None:
    assert {"patch_head", "prototypes", "part_whole"} <= set(source_names())
    with pytest.raises(PromptError, match="learn it from your own cases"):
        load_source("patch_head:regions=2").prompts(unlabelled(1))


def test_real_patients_teach_where_the_hippocampus_is(dev_data: Path) -> None:
    folder = dev_data / "msd_hippocampus"

    def patient_case(path: Path) -> Given:
        volume = read_volume(path)
        labels = np.logical_or.reduce([s.mask for s in read_labels(folder / "labels" / path.name).segments])
        return labelled_case(volume, labels.astype(np.uint8), Plane(2))

    cases = [patient_case(path) for path in sorted((folder / "images").glob("*.nii.gz"))]
    source = Source(learned=learn_patch_head(cases[:5], {1: "hippocampus"}))
    hits, by_chance = [], []
    for one in cases[5:]:
        index = one.largest_slice()
        try:
            i, j, _ = (round(x) for x in source.prompts(replace(one, labels=None, index=index))[1].point_ijk)
        except PromptError:
            hits.append(False)
        else:
            hits.append(bool(one.labels[index, j, i]))
        by_chance.append(one.labels[index].mean())
    assert np.mean(hits) > 0.6 > 3 * np.mean(by_chance), (np.mean(hits), np.mean(by_chance))


# -- the command line ------------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with two patients, each a volume and a label map."""
    for seed in (0, 1):
        volume, labels = patient(seed)
        write_volume(tmp_path / f"ct{seed}.nii.gz", volume)
        write_volume(tmp_path / f"organs{seed}.nii.gz", replace(volume, voxels=labels[None, None]))
    return tmp_path


@pytest.mark.parametrize("source", ["patch_head", "prototypes"])
def test_what_is_learned_from_files_prompts_the_next_patient(
    files: Path, source: str, capsys: pytest.CaptureFixture[str]
) -> None:
    learn = ["learn", source, "--case", f"{files}/ct0.nii.gz", f"{files}/organs0.nii.gz"]
    assert cli.main([*learn, "--structure", "1=spleen", "--structure", "2=kidney", "--output", f"{files}/l.npz"]) == 0
    assert "learned spleen, kidney from" in capsys.readouterr().out
    prompts = ["prompts", source, "--volume", f"{files}/ct1.nii.gz", "--learned", f"{files}/l.npz"]
    assert cli.main([*prompts, "--structure", "spleen", "--output", f"{files}/p.json"]) == 0
    (item,) = load_prompts(files / "p.json").objects
    i, j, k = (round(x) for x in item.prompts[1].point_ijk)
    assert item.name == "spleen" and patient(1)[1][k, j, i] == SPLEEN
    capsys.readouterr()
    assert cli.main([*prompts, "--output", f"{files}/p.json"]) == 2
    assert "know several structures: choose one of spleen, kidney" in capsys.readouterr().err


def test_wrong_ways_to_learn_end_with_one_sentence(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case_files = ["--case", f"{files}/ct0.nii.gz", f"{files}/organs0.nii.gz"]
    output = ["--output", f"{files}/l.npz"]
    for arguments, sentence in (
        (output, "--case VOLUME MASK"),
        ([*case_files, "--output", f"{files}/l.json"], "must end in .npz"),
        ([*case_files, *output, "--structure", "heart"], "nothing to learn from"),
        ([*case_files, *output, "--cell", "1000"], "no size of a patch"),
        (["--case", f"{files}/ct1.nii.gz", f"{files}/organs0.nii.gz", *output], "another grid"),
    ):
        assert cli.main(["learn", "patch_head", *arguments]) == 2
        message = capsys.readouterr().err
        assert sentence in message and message.count("\n") == 1
    rough = ["prompts", "saliency", "--volume", f"{files}/ct0.nii.gz", "--output", f"{files}/p.json"]
    assert cli.main([*rough, "--learned", f"{files}/l.npz"]) == 2
    assert "learns nothing: leave --learned out" in capsys.readouterr().err
