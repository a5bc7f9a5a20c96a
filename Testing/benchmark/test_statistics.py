from __future__ import annotations

import pytest

from SegmentAnythingMedLib.benchmark.statistics import dataset_means, estimate


def row(dataset: str, patient: str, **scores: float) -> dict:
    return {"dataset": dataset, "patient": patient, "scores": scores}


def test_the_mean_is_taken_over_datasets_not_structures() -> None:
    rows = [row("a", "1", s=1.0), row("a", "2", s=1.0), row("a", "3", s=1.0), row("b", "4", s=0.0)]
    assert dataset_means(rows, "s") == {"a": 1.0, "b": 0.0}
    assert estimate(rows, "s").mean == 0.5


def test_rows_without_the_score_do_not_count() -> None:
    assert estimate([row("a", "1", s=0.5), row("b", "2", other=1.0), {"dataset": "c", "patient": "3"}], "s").mean == 0.5


def test_the_interval_is_a_point_where_nothing_varies_and_repeats() -> None:
    rows = [row("a", str(n), s=0.25) for n in range(4)]
    found = estimate(rows, "s")
    assert (found.low, found.high) == pytest.approx((0.25, 0.25))
    varied = [row("a", str(n), s=n / 10) for n in range(10)]
    assert estimate(varied, "s") == estimate(varied, "s")


def test_the_interval_of_ten_patients_has_the_width_of_the_standard_error() -> None:
    varied = [row("a", str(n), s=n / 9) for n in range(10)]
    found = estimate(varied, "s")
    assert found.mean == pytest.approx(0.5)
    assert found.high - found.low == pytest.approx(2 * 1.96 * 0.319 / 10**0.5, rel=0.1)


def test_a_paired_difference_is_narrower_than_its_parts() -> None:
    rows = [row("a", str(n), s=n / 10, t=n / 10 - 0.1) for n in range(10)]
    difference = estimate(rows, "s", "t")
    assert difference.mean == pytest.approx(0.1)
    assert difference.high - difference.low < 1e-9


def test_a_person_in_two_datasets_is_drawn_once() -> None:
    # Both datasets hold the same people with opposite scores: the mean of means is then always 0.5.
    rows = [row(d, str(n), s=float((n + (d == "b")) % 2)) for n in range(6) for d in "ab"]
    found = estimate(rows, "s")
    assert (found.low, found.high) == pytest.approx((0.5, 0.5))
