"""Synthetic stacks and their shards."""

from __future__ import annotations

import numpy as np
import pytest

from SegmentAnythingMedLib.errors import SegmentAnythingMedError
from SegmentAnythingMedLib.finetune.stack import KINDS, Stack, compact_labels, load_stacks, save_stacks
from SegmentAnythingMedLib.finetune.synthetic import SHARES, make_stack, write_shards
from SegmentAnythingMedLib.finetune.synthetic_canvas import Canvas
from SegmentAnythingMedLib.finetune.synthetic_fields import make_grid, smooth_noise
from SegmentAnythingMedLib.finetune.synthetic_layouts import LAYOUTS
from SegmentAnythingMedLib.finetune.synthetic_shapes import superquadric, tube
from SegmentAnythingMedLib.finetune.synthetic_visibility import visible_regions

SMALL = {"depth": 4, "size": 64}


@pytest.fixture
def a_nested_stack() -> Stack:
    labels = np.zeros((1, 4, 6), np.uint8)
    labels[0, 1:4, 1:6] = 1
    labels[0, 2, 2:5] = 2
    labels[0, 2, 3] = 3
    return Stack(labels * np.uint8(50), labels, (3.0, 1.0, 1.0), "MR", "synthetic", {2: 1, 3: 2})


def test_the_same_seed_gives_the_same_stack():
    first, again, other = make_stack(7, **SMALL), make_stack(7, **SMALL), make_stack(8, **SMALL)
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.labels, again.labels)
    assert first.parents == again.parents
    assert not np.array_equal(first.image, other.image)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_stacks_with_structures_that_can_be_seen(kind):
    for seed in range(3):
        stack = make_stack(seed, kind=kind, **SMALL)
        assert stack.image.shape == stack.labels.shape == (4, 64, 64)
        assert stack.image.dtype == stack.labels.dtype == np.uint8
        assert np.ptp(stack.image) > 20
        assert stack.structures()
        assert all(np.bincount(stack.labels[k].ravel(), minlength=256).max() for k in range(4))
        assert stack.kind == kind
        assert 1.0 <= stack.spacing_mm[0] / stack.spacing_mm[1] <= 8.0 or kind in ("RGB", "XR")


def test_structures_differ_in_size_and_are_absent_from_some_slices():
    shares, absent, structures = [], 0, 0
    for seed in range(12):
        stack = make_stack(seed, kind="CT", depth=6, size=64)
        for label in stack.structures():
            areas = stack.mask(label).sum(axis=(1, 2))
            shares.append(areas.max() / 64**2)
            absent += bool((areas == 0).any())
            structures += 1
    assert min(shares) < 0.01 < 0.2 < max(shares)
    assert 0.1 * structures < absent < 0.95 * structures


def test_easy_stacks_have_more_contrast_than_hard_ones():
    def edges(difficulty):
        found = []
        for seed in range(12):
            stack = make_stack(seed, kind="MR", difficulty=difficulty, depth=2, size=64)
            pixels = stack.pixels()
            for label in stack.structures():
                inside = stack.labels == label
                noise = np.std(np.diff(pixels, axis=2)) + 1e-3
                found.append(abs(pixels[inside].mean() - pixels[~inside].mean()) / noise)
        return np.median(found)

    assert edges(0.0) > edges(1.0)


def test_parents_are_structures_that_surround_their_children():
    nested = 0
    for seed in range(12):
        stack = make_stack(seed, kind="CT", depth=3, size=64)
        for child, parent in stack.parents.items():
            assert child != parent
            assert child not in stack.descendants(child)
            nested += 1
    assert nested > 3


def test_a_mask_is_taken_with_or_without_what_is_nested_in_it(a_nested_stack):
    assert a_nested_stack.descendants(1) == {2, 3}
    assert a_nested_stack.mask(1).sum() == 15
    assert a_nested_stack.mask(1, nested=False).sum() == 12
    assert a_nested_stack.mask(3).sum() == 1


def test_shards_keep_stacks_of_any_shape(tmp_path, a_nested_stack):
    stacks = [a_nested_stack, make_stack(1, **SMALL)]
    save_stacks(tmp_path / "some.npz", stacks)
    for before, after in zip(stacks, load_stacks(tmp_path / "some.npz"), strict=True):
        assert np.array_equal(before.image, after.image)
        assert np.array_equal(before.labels, after.labels)
        assert (before.kind, before.source, before.parents) == (after.kind, after.source, after.parents)
        assert after.spacing_mm == pytest.approx(before.spacing_mm)
    assert [path.name for path in tmp_path.iterdir()] == ["some.npz"]


def test_float_images_are_stored_as_bytes(tmp_path, a_nested_stack):
    pixels = a_nested_stack.pixels()
    stack = Stack(pixels, a_nested_stack.labels, (1, 1, 1), "CT", "sts")
    save_stacks(tmp_path / "float.npz", [stack])
    assert np.array_equal(load_stacks(tmp_path / "float.npz")[0].image, a_nested_stack.image)


def test_labels_beyond_8_bits_become_the_largest_structures():
    labels = np.zeros((1, 20, 20), np.uint16)
    labels[0, 0, :] = np.arange(400, 420)
    labels[0, 1:, 0] = 700
    stack = compact_labels(Stack(labels.astype(np.uint8), labels, (1, 1, 1), "RGB", "nuclei", {400: 700}))
    assert stack.labels.dtype == np.uint8
    assert (stack.labels == 21).sum() == 19
    assert stack.parents == {1: 21}


def test_writing_goes_on_where_it_stopped(tmp_path, monkeypatch):
    module = "SegmentAnythingMedLib.finetune.synthetic"
    monkeypatch.setattr(f"{module}.STACKS_PER_SHARD", 2)
    monkeypatch.setattr(f"{module}.make_stack", lambda seed, difficulty: make_stack(seed, depth=2, size=48))
    write_shards(3, 5, tmp_path)
    first, second = sorted(tmp_path.iterdir())
    written = first.stat().st_mtime_ns
    second.unlink()
    write_shards(3, 5, tmp_path)
    assert first.stat().st_mtime_ns == written
    assert len(load_stacks(second)) == 1


def test_a_wrong_kind_or_difficulty_is_named():
    with pytest.raises(SegmentAnythingMedError, match="XYZ"):
        make_stack(0, kind="XYZ")
    with pytest.raises(SegmentAnythingMedError, match="difficulty is 2"):
        make_stack(0, difficulty=2)


def test_shares_and_layouts_are_complete():
    assert sum(SHARES.values()) == pytest.approx(1)
    assert set(LAYOUTS) == set(SHARES) == set(KINDS)
    assert all(sum(layouts.values()) == pytest.approx(1) for layouts in LAYOUTS.values())


def test_smooth_noise_has_variance_one():
    noise = smooth_noise(np.random.default_rng(0), (10, 90, 90), (8, 30, 30))
    assert noise.std() == pytest.approx(1, abs=0.1)


def test_crops_of_a_bent_grid_miss_nothing_of_a_shape():
    grid = make_grid(np.random.default_rng(3), 6, 64, 3.0, warp=1.5, jitter=0.02)
    canvas = Canvas(grid)
    for shape in (
        superquadric((0, 0.2, -0.1), (0.3, 0.4, 0.2), np.eye(3, dtype=np.float32)),
        tube([(-1, 0, 0), (0, 0.3, 0.1), (1, -0.2, 0.4)], [0.1, 0.2, 0.1]),
    ):
        whole = grid.crop(np.full(3, -99.0), np.full(3, 99.0))
        expected = shape.field(whole) < 1
        region = canvas.paint(shape, "organ")
        assert expected.any()
        assert np.array_equal(canvas.regions == region, expected)


def test_a_wall_and_its_lumen_are_nested():
    canvas = Canvas(make_grid(np.random.default_rng(0), 3, 48, 1.0, warp=0))
    outer, inner = canvas.shell(superquadric((0, 0, 0), (1, 0.5, 0.5), np.eye(3)), "wall", "fluid", 0.5)
    assert canvas.table[inner].parent == canvas.table[inner].under == outer
    assert (canvas.regions == inner).sum() > 0 < (canvas.regions == outer).sum()


def test_only_regions_that_differ_from_their_neighbours_are_visible():
    regions = np.zeros((1, 40, 40), np.uint8)
    regions[0, 5:15, 5:15] = 1
    regions[0, 20:35, 20:35] = 2
    image = np.where(regions == 1, 0.5, 0.3).astype(np.float32)
    shading = np.linspace(0, 0.5, 40, dtype=np.float32)
    visible = visible_regions(image + shading, regions)
    assert visible[1]
    assert not visible[2]
