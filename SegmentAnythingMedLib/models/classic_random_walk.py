"""Random walker with priors: a per-pixel belief, smoothed everywhere but across edges of the image.

Grady, "Multilabel random walker image segmentation using prior models", CVPR 2005. Minimises over x in 0..1

    sum_edges w_ij (x_i - x_j)^2 + sum_pixels u_i (x_i - p_i)^2

with p the belief and u its weight. The matrix is a five-point stencil with a positive diagonal, solved by conjugate
gradients without forming it: about 0.1 ms per iteration for 10,000 pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_TOLERANCE = 2e-3
_MAX_ITERATIONS = 60
_SEED_WEIGHT = 1e3
"""Weight of a hard constraint; edges weigh at most 1."""
_WEAKEST_EDGE = 1e-3


@dataclass(frozen=True, eq=False)
class EdgeWeights:
    """Conductance between neighbours: ``down`` (h - 1, w) and ``right`` (h, w - 1), up to 1 for square pixels."""

    down: np.ndarray
    right: np.ndarray

    @classmethod
    def of_image(cls, channels: np.ndarray, step_mm: tuple[float, float], sharpness: float) -> EdgeWeights:
        """Gaussian weights of the differences between neighbours in (F, h, w) channels.

        ``sharpness`` multiplies the squared difference in units of its own mean, so that the scale of the grey
        values does not matter. Long sides of anisotropic pixels conduct more (finite volumes).
        """
        down = (np.diff(channels, axis=1) ** 2).sum(axis=0)
        right = (np.diff(channels, axis=2) ** 2).sum(axis=0)
        mean = (down.sum() + right.sum()) / max(down.size + right.size, 1)
        scale = sharpness / max(float(mean), 1e-8)
        ratio = min(max(step_mm[1] / step_mm[0], 0.05), 20.0)
        weights = [np.maximum(np.exp(-scale * squared), _WEAKEST_EDGE) for squared in (down, right)]
        return cls(weights[0] * min(ratio, 1.0), weights[1] * min(1.0 / ratio, 1.0))


def random_walk(
    belief: np.ndarray, weight: np.ndarray, edges: EdgeWeights, seeds: np.ndarray | None = None
) -> np.ndarray:
    """Probability of the object at every pixel.

    Parameters
    ----------
    belief
        (h, w) probability from statistics and shape alone.
    weight
        (h, w) positive trust in the belief, relative to edge weights of 1.
    edges
        Conductance between neighbours.
    seeds
        (h, w) int8: 1 object, -1 background, 0 free.

    Returns
    -------
    np.ndarray
        (h, w) float64, 0 to 1.
    """
    target = np.asarray(belief, dtype=np.float64)
    trust = np.asarray(weight, dtype=np.float64)
    if seeds is not None:
        target = np.where(seeds == 0, target, seeds > 0)
        trust = np.where(seeds == 0, trust, _SEED_WEIGHT)
    return np.clip(_conjugate_gradients(target, trust, edges), 0.0, 1.0)


def _conjugate_gradients(target: np.ndarray, trust: np.ndarray, edges: EdgeWeights) -> np.ndarray:
    """Solves (L + diag(trust)) x = trust * target, preconditioned by the diagonal, starting at the target."""
    shape, stencil = target.shape, _Stencil.of(trust, edges)
    target, trust = target.ravel(), trust.ravel()
    solution, scratch, image = target.copy(), np.empty_like(target), np.empty_like(target)
    weighted = trust * target
    residual = weighted - stencil.times(solution, image, scratch)
    direction = residual / stencil.diagonal
    energy = float(np.multiply(residual, direction, out=scratch).sum())
    goal = max(_TOLERANCE**2 * float(np.multiply(weighted, target, out=scratch).sum()), 1e-20)
    for _ in range(_MAX_ITERATIONS):
        if energy <= goal:
            break
        stencil.times(direction, image, scratch)
        length = energy / float(np.multiply(direction, image, out=scratch).sum())
        solution += np.multiply(length, direction, out=scratch)
        residual -= np.multiply(length, image, out=scratch)
        scaled = np.divide(residual, stencil.diagonal, out=image)
        previous, energy = energy, float(np.multiply(residual, scaled, out=scratch).sum())
        direction *= energy / previous
        direction += scaled
    return solution.reshape(shape)


@dataclass(frozen=True, eq=False)
class _Stencil:
    """The matrix on (h * w) pixels, row after row: half the time of slices of (h, w) arrays.

    Parameters
    ----------
    diagonal
        Trust and the weights of all edges of each pixel.
    down, right
        Weights of the edges to the pixel ``width`` and 1 further on; 0 from the end of a row to the next one.
    width
        Pixels of a row.
    """

    diagonal: np.ndarray
    down: np.ndarray
    right: np.ndarray
    width: int

    @classmethod
    def of(cls, trust: np.ndarray, edges: EdgeWeights) -> _Stencil:
        diagonal = trust + _degree(edges, trust.shape)
        right = np.zeros(trust.shape)
        right[:, :-1] = edges.right
        down = edges.down.astype(np.float64, copy=False).ravel()
        return cls(diagonal.ravel(), down, right.ravel()[:-1], trust.shape[1])

    def times(self, x: np.ndarray, product: np.ndarray, scratch: np.ndarray) -> np.ndarray:
        """The matrix times ``x``, in ``product``."""
        np.multiply(self.diagonal, x, out=product)
        for weights, away in ((self.down, self.width), (self.right, 1)):
            part = scratch[: len(weights)]
            product[away:] -= np.multiply(weights, x[:-away], out=part)
            product[:-away] -= np.multiply(weights, x[away:], out=part)
        return product


def _degree(edges: EdgeWeights, shape: tuple[int, int]) -> np.ndarray:
    degree = np.zeros(shape)
    degree[1:] += edges.down
    degree[:-1] += edges.down
    degree[:, 1:] += edges.right
    degree[:, :-1] += edges.right
    return degree
