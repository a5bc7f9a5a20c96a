"""Examples, simulated users and unrolls of the embedded model's training."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from SegmentAnythingMedLib.finetune import embedded_prompting as prompting  # noqa: E402
from SegmentAnythingMedLib.finetune import embedded_unroll  # noqa: E402
from SegmentAnythingMedLib.finetune.embedded_examples import SLICES, Example, Start, draw_example  # noqa: E402
from SegmentAnythingMedLib.finetune.embedded_likelihood import LikelihoodMaps  # noqa: E402
from SegmentAnythingMedLib.finetune.embedded_loss import LossWeights, embedded_loss  # noqa: E402
from SegmentAnythingMedLib.finetune.embedded_network import EmbeddedOutput  # noqa: E402
from SegmentAnythingMedLib.finetune.embedded_unroll import Batch, Unroll, _deepest  # noqa: E402
from SegmentAnythingMedLib.finetune.stack import Stack  # noqa: E402
from SegmentAnythingMedLib.models.embedded_channels import CHANNELS, click_map  # noqa: E402


def a_stack(depth=6, last=6):
    """A bright cylinder with a dark core that ends after slice ``last``."""
    rows, columns = np.mgrid[:64, :64]
    away = (rows - 30) ** 2 + (columns - 34) ** 2
    labels = np.zeros((depth, 64, 64), np.uint8)
    labels[:last] = np.where(away < 36, 2, np.where(away < 200, 1, 0))
    image = np.choose(labels, [40, 200, 90]).astype(np.uint8)
    return Stack(image, labels, (3.0, 1.0, 1.0), "CT", "synthetic", {2: 1})


def square(size=64, low=20, high=44):
    mask = np.zeros((size, size), bool)
    mask[low:high, low:high] = True
    return mask


def an_example(start=Start.BOX, count=SLICES, single=False, gap=1):
    masks = np.repeat(square()[None], SLICES, 0).astype(np.uint8)
    prompt = np.zeros((3, 64, 64), np.float32)
    if start is Start.BOX:
        prompt[0] = square()
    if start is Start.CLICK:
        prompt[1] = click_map(np.array([[32, 32]]), 64)
    given = square().astype(np.float32) if start in (Start.MEMORY, Start.REFINE) else np.zeros((64, 64), np.float32)
    return Example(masks * 200, masks, prompt, given, start, single, count, 1, gap)


def perfect(unroll):
    return (unroll.target - 0.5) * 20


def test_the_same_numbers_give_the_same_example():
    first, second = (draw_example(a_stack(), np.random.default_rng(3), 64) for _ in range(2))
    assert (first.images == second.images).all() and (first.prompt == second.prompt).all()


def test_a_structure_is_followed_until_it_ends():
    ended = 0
    for seed in range(30):
        example = draw_example(a_stack(last=3), np.random.default_rng(seed), 64)
        areas = example.masks.sum((1, 2))
        assert areas[0] > 0
        ended += areas[-1] == 0
    assert ended > 5


def test_rings_and_filled_objects_both_occur():
    middle = [draw_example(a_stack(), np.random.default_rng(seed), 64) for seed in range(60)]
    filled = [bool(one.masks[0][one.masks[0].any(1)][:, 20:44].all(1).any()) for one in middle]
    assert any(filled) and not all(filled)


def test_a_single_slice_is_never_propagated():
    for seed in range(20):
        example = draw_example(a_stack(depth=1, last=1), np.random.default_rng(seed), 64)
        assert example.count == 1 and example.start is not Start.MEMORY


@pytest.mark.parametrize("seed", range(6))
def test_simulated_prompts_fit_the_mask(seed):
    random, mask = np.random.default_rng(seed), square()
    enclosing = prompting.enclosing_prompt(mask, random)
    assert (enclosing[0] * mask).sum() > 0.6 * mask.sum() and (enclosing[0] * ~mask).sum() < 1.5 * mask.sum()
    clicks, single = prompting.clicking_prompt(mask, random)
    assert mask[np.unravel_index(clicks[1].argmax(), mask.shape)]
    assert clicks[0].max() == 0 and (not single or clicks[2].max() == 0)
    assert prompting.wrong_mask(mask, random).any()


def test_a_wrong_answer_gets_a_click_in_the_middle_of_its_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(embedded_unroll, "ANSWER_HIDDEN", 0.0)
    unroll = Unroll(Batch.of([an_example(count=1)]))
    missing = perfect(unroll)
    missing[0, 28:36, 28:36] = -10
    unroll.advance(missing)
    maps = dict(zip(CHANNELS, unroll.maps()[0].numpy(), strict=True))
    row, column = np.unravel_index(maps["positive"].argmax(), (64, 64))
    assert 30 <= row <= 33 and 30 <= column <= 33 and maps["negative"].max() == 0
    assert maps["previous"][22, 22] > 0.9 and maps["previous"][32, 32] < 0.1
    unroll.advance(torch.full((1, 64, 64), 10.0))
    assert unroll.maps()[0, CHANNELS.index("negative")].max() > 0.9


def test_inside_a_box_the_answer_is_not_shown_as_at_use(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(embedded_unroll, "ANSWER_HIDDEN", 1.0)
    unroll = Unroll(Batch.of([an_example(count=1)]))
    missing = perfect(unroll)
    missing[0, 28:36, 28:36] = -10
    unroll.advance(missing)
    maps = dict(zip(CHANNELS, unroll.maps()[0].numpy(), strict=True))
    assert maps["positive"].max() > 0.9 and maps["previous"].max() == 0


def test_a_key_slice_may_lie_far_off():
    seen = set()
    for seed in range(80):
        example = draw_example(a_stack(depth=12, last=9), np.random.default_rng(seed), 64)
        if example.start is Start.MEMORY and example.gap > example.stride:
            assert example.masks[0].any() and example.masks[1].any()
            seen.add((example.gap, bool(example.masks[-1].any())))
    assert len({gap for gap, _ in seen}) > 3 and len({there for _, there in seen}) == 2

    unroll = Unroll(Batch.of([an_example(Start.MEMORY, gap=4)]))
    maps = dict(zip(CHANNELS, unroll.maps()[0].numpy(), strict=True))
    assert maps["key_gap"].max() == 5 / 8 and maps["last_gap"].max() == 1 / 8
    unroll.advance(perfect(unroll))
    maps = dict(zip(CHANNELS, unroll.maps()[0].numpy(), strict=True))
    assert maps["key_gap"].max() == 6 / 8 and maps["last_gap"].max() == 1 / 8


def test_a_right_answer_is_remembered_on_the_next_slice():
    unroll = Unroll(Batch.of([an_example()]))
    for passed in (1, 2, 3):
        unroll.advance(perfect(unroll))
        maps = dict(zip(CHANNELS, unroll.maps()[0].numpy(), strict=True))
        assert maps["region"].max() == 0 and maps["previous"].max() == 0
        assert (maps["key_mask"] == square()).all() and maps["key_gap"].max() == passed / 8
        assert (maps["last_mask"] == square()).all() and maps["last_gap"].max() > 0
        assert unroll.kind[0] == 2


def test_an_empty_answer_is_not_remembered():
    torch.manual_seed(0)
    unroll = Unroll(Batch.of([an_example(Start.MEMORY)] * 8))
    unroll.advance(torch.full((8, 64, 64), -10.0))
    gaps = unroll.maps()[:, CHANNELS.index("last_gap"), 0, 0]
    masks = unroll.maps()[:, CHANNELS.index("last_mask")]
    assert (masks.flatten(1).sum(1) > 100).all() and (gaps > 0).all()


def test_the_deepest_pixel_of_an_error_is_wrong():
    wrong = torch.zeros(2, 64, 64, dtype=torch.bool)
    wrong[0, 10:30, 12:28], wrong[0, 50, 50:60], wrong[1, 5, 7] = True, True, True
    row, column = _deepest(wrong)
    assert 14 <= row[0] <= 25 and 18 <= column[0] <= 22
    assert (row[1], column[1]) == (5, 7)


def test_likelihood_maps_tell_object_from_background():
    maps = torch.zeros(1, len(CHANNELS), 64, 64)
    mask = torch.from_numpy(square()).float()
    maps[0, 0] = 0.2 + 0.6 * mask
    maps[0, CHANNELS.index("region")] = mask
    here, remembered = LikelihoodMaps()(maps)[0]
    assert here[32, 32] > 0.9 and here[5, 5] < -0.9 and (remembered == 0).all()
    maps[0, CHANNELS.index("region")] = 0
    maps[0, CHANNELS.index("key_image")], maps[0, CHANNELS.index("key_mask")] = maps[0, 0], mask
    here, remembered = LikelihoodMaps()(maps)[0]
    assert (here == 0).all() and remembered[32, 32] > 0.5 and remembered[5, 5] < -0.4


def test_one_click_is_judged_by_its_best_candidate_and_a_box_by_the_first():
    target = torch.from_numpy(square()).float()[None].repeat(2, 1, 1)
    logits = torch.full((2, 3, 64, 64), -5.0)
    logits[:, 2] = (target - 0.5) * 20
    output = EmbeddedOutput(logits, torch.zeros(2, 3), torch.zeros(2))
    parts = embedded_loss(output, target, torch.tensor([True, False]), LossWeights())
    assert parts.chosen.tolist() == [2, 0]
    assert parts.dice.tolist() == pytest.approx([1.0, 0.0])


def test_absent_objects_count_as_right_when_nothing_is_found():
    output = EmbeddedOutput(torch.full((1, 3, 64, 64), -15.0), torch.full((1, 3), 9.0), torch.tensor([-9.0]))
    parts = embedded_loss(output, torch.zeros(1, 64, 64), torch.tensor([False]), LossWeights())
    assert parts.overlap[0] == 1 and float(parts.total) < 0.01
