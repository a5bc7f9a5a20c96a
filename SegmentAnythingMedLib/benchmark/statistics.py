"""Means of dataset means, and their confidence intervals by resampling patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

RESAMPLES = 2000


@dataclass(frozen=True)
class Estimate:
    """A mean and its 95 % interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def dataset_means(rows: Sequence[dict[str, Any]], score: str) -> dict[str, float]:
    """Mean of a score per dataset, in the order of the rows; rows without the score are left out."""
    values: dict[str, list[float]] = {}
    for row in rows:
        if score in row.get("scores", {}):
            values.setdefault(row["dataset"], []).append(row["scores"][score])
    return {dataset: float(np.mean(found)) for dataset, found in values.items()}


def estimate(rows: Sequence[dict[str, Any]], score: str, minus: str | None = None, seed: int = 0) -> Estimate:
    """Mean of dataset means of a score (or of the paired difference to ``minus``) with its interval.

    The bootstrap draws patients with replacement among those with the same datasets (so that a person's CT, MR and
    PET stay together and no dataset vanishes), and then structures within each patient drawn. Datasets of a single
    patient therefore vary only by their structures: there the interval is too narrow.
    """
    blocks = _blocks(rows, score, minus)
    if not blocks:
        return Estimate(float("nan"), float("nan"), float("nan"))
    random = np.random.default_rng(seed)
    sums: dict[str, np.ndarray] = {}
    counts: dict[str, np.ndarray] = {}
    for members in _strata(blocks):
        chosen = random.multinomial(len(members), np.full(len(members), 1 / len(members)), size=RESAMPLES)
        for block, times in zip(members, chosen.T, strict=True):
            for dataset, values in block.items():
                drawn = random.multinomial(times * len(values), np.full(len(values), 1 / len(values)))
                sums[dataset] = sums.get(dataset, 0.0) + drawn @ values
                counts[dataset] = counts.get(dataset, 0) + drawn.sum(axis=1)
    means = np.mean([sums[dataset] / np.maximum(counts[dataset], 1) for dataset in sums], axis=0)
    low, high = np.percentile(means, (2.5, 97.5))
    return Estimate(_mean(blocks), float(low), float(high))


Block = dict[str, np.ndarray]


def _blocks(rows: Sequence[dict[str, Any]], score: str, minus: str | None) -> list[Block]:
    """Values of each patient by dataset."""
    patients: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        scores = row.get("scores", {})
        if score in scores:
            value = scores[score] - (scores[minus] if minus else 0.0)
            patients.setdefault(row["patient"], {}).setdefault(row["dataset"], []).append(value)
    return [{dataset: np.array(found) for dataset, found in block.items()} for block in patients.values()]


def _strata(blocks: list[Block]) -> list[list[Block]]:
    """Patients who are in the same datasets."""
    strata: dict[tuple[str, ...], list[Block]] = {}
    for block in blocks:
        strata.setdefault(tuple(sorted(block)), []).append(block)
    return list(strata.values())


def _mean(blocks: list[Block]) -> float:
    datasets = {dataset for block in blocks for dataset in block}
    means = [np.concatenate([block[d] for block in blocks if d in block]).mean() for d in sorted(datasets)]
    return float(np.mean(means))
