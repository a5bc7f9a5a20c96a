"""From a map of tissues to an image of a kind: grey values, textures, blur, noise, and the window."""

from __future__ import annotations

import numpy as np

from SegmentAnythingMedLib.finetune.synthetic_canvas import Canvas
from SegmentAnythingMedLib.finetune.synthetic_fields import (
    blur,
    blur_matrix,
    chance,
    in_plane,
    log_uniform,
    resize_matrix,
    smooth_noise,
)

# Mean of each tissue and spread of the means of its regions. CT: Hounsfield units / 400. Others: 0..1 of full scale.
_CT = {
    "air": (-2.5, 0.01), "gas": (-2.2, 0.2), "lung": (-2.0, 0.2), "fat": (-0.25, 0.03), "muscle": (0.13, 0.03),
    "soft": (0.1, 0.06), "organ": (0.2, 0.1), "gland": (0.12, 0.06), "wall": (0.14, 0.08), "lesion": (0.1, 0.12),
    "vessel": (0.3, 0.2), "fluid": (0.02, 0.03), "content": (0.08, 0.2), "bone": (1.5, 0.6), "marrow": (0.5, 0.25),
    "csf": (0.02, 0.02), "grey": (0.1, 0.01), "white": (0.07, 0.01), "fascia": (0.1, 0.05),
}  # fmt: skip
_T1 = {
    "air": (0, 0), "gas": (0.02, 0.02), "lung": (0.05, 0.03), "fat": (0.9, 0.05), "muscle": (0.4, 0.05),
    "soft": (0.4, 0.1), "organ": (0.5, 0.1), "gland": (0.45, 0.08), "wall": (0.4, 0.1), "lesion": (0.35, 0.15),
    "vessel": (0.3, 0.3), "fluid": (0.18, 0.05), "content": (0.4, 0.25), "bone": (0.08, 0.05), "marrow": (0.7, 0.12),
    "csf": (0.15, 0.05), "grey": (0.45, 0.05), "white": (0.62, 0.05), "fascia": (0.2, 0.1),
}  # fmt: skip
_T2 = {
    **_T1, "fat": (0.7, 0.1), "muscle": (0.2, 0.04), "soft": (0.35, 0.1), "organ": (0.38, 0.1), "gland": (0.5, 0.12),
    "lesion": (0.55, 0.2), "vessel": (0.3, 0.3), "fluid": (0.95, 0.05), "content": (0.6, 0.25), "marrow": (0.5, 0.1),
    "csf": (0.95, 0.05), "grey": (0.5, 0.04), "white": (0.36, 0.04), "wall": (0.3, 0.1),
}  # fmt: skip
_CINE = {**_T2, "vessel": (0.85, 0.08), "wall": (0.3, 0.05), "lung": (0.08, 0.04)}
_FAT_DARK = {**_T2, "fat": (0.15, 0.05), "marrow": (0.15, 0.06)}
_PET = {
    "air": (0.005, 0.003), "gas": (0.05, 0.02), "lung": (0.05, 0.02), "fat": (0.05, 0.02), "muscle": (0.1, 0.03),
    "soft": (0.1, 0.04), "organ": (0.22, 0.1), "gland": (0.2, 0.1), "wall": (0.2, 0.15), "lesion": (0.6, 0.4),
    "vessel": (0.18, 0.04), "fluid": (0.3, 0.5), "content": (0.2, 0.15), "bone": (0.1, 0.03), "marrow": (0.18, 0.08),
    "csf": (0.1, 0.03), "grey": (0.8, 0.1), "white": (0.35, 0.05), "fascia": (0.1, 0.03),
}  # fmt: skip
_US = {
    "air": (0.02, 0.01), "gas": (0.9, 0.1), "lung": (0.8, 0.1), "fat": (0.3, 0.1), "muscle": (0.35, 0.1),
    "soft": (0.45, 0.1), "organ": (0.5, 0.1), "gland": (0.5, 0.12), "wall": (0.6, 0.15), "lesion": (0.35, 0.2),
    "vessel": (0.06, 0.04), "fluid": (0.04, 0.03), "content": (0.4, 0.2), "bone": (0.95, 0.05), "marrow": (0.3, 0.1),
    "csf": (0.1, 0.05), "grey": (0.45, 0.1), "white": (0.55, 0.1), "fascia": (0.8, 0.15),
}  # fmt: skip
_XR = {
    "air": (0.02, 0.01), "soft": (0.55, 0.05), "lung": (0.22, 0.06), "organ": (0.75, 0.06), "muscle": (0.78, 0.05),
    "lesion": (0.45, 0.1),
}  # fmt: skip
_MR = (_T1, _T2, _CINE, _FAT_DARK)
_SHADED = ("organ", "lesion", "gland", "content", "soft", "wall")
_SCALES = ((60, 95), (22, 45), (6, 16), (2, 4))  # cells of the textures across the view
_DARK_TISSUES = ("air", "gas", "fluid", "csf")


def image_of(
    rng: np.random.Generator, canvas: Canvas, kind: str, difficulty: float, slice_weights: tuple[float, ...]
) -> tuple[np.ndarray, np.ndarray | None]:
    """The canvas as a scanner of this kind would show it, windowed; and the part of the plane that is imaged.

    The image is (D, H, W) float32 from 0 to 1; the part is (H, W) float32 of 0 and 1, or None for all of it.

    ``slice_weights`` average neighbouring planes of the canvas to a thick slice (partial volume); with one weight each
    plane is a slice.
    """
    values = _values(rng, canvas, kind, difficulty)
    image = values[canvas.regions]
    if canvas.shade is not None:
        image = image + canvas.shade
    image = _textured(rng, thick_slices(image, slice_weights), canvas, slice_weights, kind, difficulty)
    if kind == "US":
        return _ultrasound(rng, image, middle_planes(canvas.regions, slice_weights), canvas, difficulty)
    if kind in ("RGB", "XR"):
        return _photograph(rng, image, difficulty), None
    return windowed(rng, scanned(rng, image, kind, difficulty), kind), None


def thick_slices(planes: np.ndarray, weights: tuple[float, ...]) -> np.ndarray:
    """Weighted means of planes: each slice's first plane is the last one of the slice before."""
    if len(weights) == 1:
        return planes
    stride = len(weights) - 1
    last = len(planes) - stride
    return sum(np.float32(weight) * planes[n : n + last : stride] for n, weight in enumerate(weights))


def middle_planes(planes: np.ndarray, weights: tuple[float, ...]) -> np.ndarray:
    """The middle plane of each slice of `thick_slices`."""
    return planes if len(weights) == 1 else planes[len(weights) // 2 :: len(weights) - 1]


def _values(rng: np.random.Generator, canvas: Canvas, kind: str, difficulty: float) -> np.ndarray:
    """Grey value of each region: its tissue's, moved so that the contrast to what lies under it is as wished."""
    if kind == "MR":
        table = _MR[rng.integers(len(_MR))]
    else:
        table = {"CT": _CT, "PET": _PET, "US": _US, "XR": _XR}.get(kind, _T1)
    if kind == "RGB" or (kind == "MR" and chance(rng, 0.35)):
        table = {tissue: (rng.uniform(0, 1), rng.uniform(0, 0.15)) for tissue in _T1}
        table["air"] = (rng.choice([0.0, 0.0, 1.0]) if kind == "RGB" else 0.0, 0.0)
    if kind == "CT" and chance(rng, 0.3):  # contrast medium
        table = {**table, "vessel": (rng.uniform(0.3, 0.7), 0.05), "organ": (rng.uniform(0.2, 0.4), 0.1)}
    shift = {tissue: rng.normal(0, 0.5) * spread for tissue, (_, spread) in table.items()}
    least = 0.3 * 0.08**difficulty  # of the window: 0.3 when easy, 0.024 when hard
    values = np.zeros(256, np.float32)
    for n, region in enumerate(canvas.table):
        mean, spread = table.get(region.tissue, (0.5, 0.2))
        value = mean + shift.get(region.tissue, 0.0) + rng.normal(0, 0.8) * spread
        if n and region.tissue in _SHADED:
            below = values[region.under]
            same = n > 1 and chance(rng, 0.15 * difficulty)
            if same:
                value = values[rng.integers(1, n)]
            if chance(rng, 0.5) or abs(value - below) < least:
                contrast = log_uniform(rng, least, max(0.5, 1.5 * least))
                sign = np.sign(value - below) or 1.0
                if chance(rng, 0.25) or (kind != "CT" and not 0 <= below + sign * contrast <= 1.1):
                    sign = -sign
                if not same:
                    value = below + sign * contrast
        values[n] = max(value, 0.0) if kind not in ("CT", "XR") else value
    return values


def _textured(
    rng: np.random.Generator,
    image: np.ndarray,
    canvas: Canvas,
    slice_weights: tuple[float, ...],
    kind: str,
    difficulty: float,
) -> np.ndarray:
    """Add mottles of several sizes and stripes, each region with its own amounts."""
    regions = middle_planes(canvas.regions, slice_weights)
    level = log_uniform(rng, 0.004, 0.02 + 0.06 * difficulty) * (0.5 if kind == "CT" else 1.0)
    dark = [n for n, region in enumerate(canvas.table) if region.tissue in _DARK_TISSUES]
    depth_cells = image.shape[0] * 0.4
    for low, high in _SCALES:
        if chance(rng, 0.45):
            continue
        amounts = (level * rng.random(256) ** 2 * rng.uniform(0.3, 1.5)).astype(np.float32)
        amounts[dark] *= 0.1
        cells = rng.uniform(low, high)
        stretch = log_uniform(rng, 0.5, 2)
        noise = smooth_noise(rng, image.shape, (min(depth_cells, cells / 6), cells * stretch, cells / stretch))
        image = image + amounts[regions] * noise
    if chance(rng, 0.25):
        angle, pitch = rng.uniform(0, np.pi), rng.uniform(20, 120)
        x, y = (middle_planes(axis, slice_weights) for axis in (canvas.grid.x, canvas.grid.y))
        along = x * np.float32(np.cos(angle) * pitch) + y * np.float32(np.sin(angle) * pitch)
        amounts = np.where(rng.random(256) < 0.4, level * rng.random(256) * 2, 0).astype(np.float32)
        amounts[dark] = 0
        image = image + amounts[regions] * np.sin(along)
    return image


def scanned(rng: np.random.Generator, image: np.ndarray, kind: str, difficulty: float) -> np.ndarray:
    """Bias, blur, noise at the resolution of the acquisition, then interpolation to the grid."""
    depth, height, width = image.shape
    if kind == "MR" and chance(rng, 0.75):
        field = smooth_noise(rng, image.shape, (1, rng.integers(1, 4), rng.integers(1, 4)))
        image = image * np.exp(np.float32(rng.uniform(0, 0.35)) * np.clip(field, -2, 2))
    if chance(rng, 0.12):
        image = image * (1 + rng.uniform(0, 0.12) * rng.standard_normal((depth, 1, 1), dtype=np.float32))
    sharp = chance(rng, 0.55) if kind != "PET" else False
    low, high = (0.22, 0.5) if kind == "PET" else (0.35, 0.8)
    scale = 1.0 if sharp else rng.uniform(low, high)
    rows = max(24, round(height * scale / 4) * 4)
    columns = max(24, round(width * scale / 4) * 4)
    sigma = round(log_uniform(rng, 0.8, 2.2) if kind == "PET" else log_uniform(rng, 0.3, 1.1), 2)
    down_rows = blur_matrix(rows, sigma) @ resize_matrix(height, rows)
    down_columns = blur_matrix(columns, sigma) @ resize_matrix(width, columns)
    image = in_plane(image, down_rows, down_columns)
    strength = log_uniform(rng, 0.004, 0.02 + 0.07 * difficulty)
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    if kind == "PET":
        grain = blur(noise, rng.uniform(0.6, 1.3))
        image = np.maximum(image + 2.5 * strength * np.sqrt(np.abs(image) + 0.01) * grain / grain.std(), 0)
    elif kind == "CT":
        grain = blur(noise, rng.uniform(0.3, 1.0))
        image = image + np.float32(strength / grain.std()) * grain
        if chance(rng, 0.1):
            image = image + _streaks(rng, image.shape, strength)
    else:
        if chance(rng, 0.4):
            noise = blur(noise, rng.uniform(0.3, 0.9))
            noise /= noise.std()
        other = rng.standard_normal(image.shape, dtype=np.float32)
        image = np.hypot(image + strength * noise, strength * other)
        if chance(rng, 0.1):
            image = image + _ghost(rng, image)
    if (rows, columns) != (height, width):
        image = in_plane(image, resize_matrix(rows, height), resize_matrix(columns, width))
        if kind == "PET" or chance(rng, 0.5):
            image = blur(image, 0.4 * height / rows)
    return image


def _streaks(rng: np.random.Generator, shape: tuple[int, ...], strength: float) -> np.ndarray:
    """Fine rays from a point, as metal or photon starvation makes."""
    y, x = np.mgrid[0 : shape[1], 0 : shape[2]].astype(np.float32)
    angle = np.arctan2(y - rng.uniform(0, shape[1]), x - rng.uniform(0, shape[2]))
    rays = rng.standard_normal(181, dtype=np.float32)
    return 1.5 * np.float32(strength) * np.interp(angle, np.linspace(-np.pi, np.pi, 181), rays).astype(np.float32)


def _ghost(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """A faint copy, shifted along the phase direction."""
    shift = int(rng.integers(10, max(11, image.shape[1] // 2)))
    return np.float32(rng.uniform(0.02, 0.08)) * np.roll(image, shift, axis=int(rng.integers(1, 3)))


def windowed(rng: np.random.Generator, image: np.ndarray, kind: str) -> np.ndarray:
    """The part of the grey scale that is shown, chosen as `windowing.choose_window` would, or at random."""
    if kind == "CT":
        choice = rng.random()
        if choice < 0.6:  # soft tissue 400/40, with the user's variations
            level, width = (0.1, 1.0) if choice < 0.35 else (rng.normal(0.12, 0.06), log_uniform(rng, 0.5, 1.6))
        elif choice < 0.75:
            level, width = (-1.5, 3.75) if choice < 0.68 else (1.0, 4.5)  # lung, bone
        elif choice < 0.85:
            level, width = rng.uniform(0.05, 0.25), rng.uniform(0.35, 0.6)
        else:
            level, width = rng.uniform(-0.3, 0.3), log_uniform(rng, 0.8, 5)
        low, high = level - width / 2, level + width / 2
    else:
        samples = image.reshape(-1)[::41]
        ground = samples[samples > samples.min() + 0.02 * np.ptp(samples)]
        low, high = np.percentile(ground if len(ground) > 50 else samples, [0.5, 99.5])
        if kind == "PET":
            low, high = 0.0, high * (1.0 if chance(rng, 0.5) else log_uniform(rng, 0.3, 1.3))
        elif chance(rng, 0.4):
            span = high - low
            low, high = low + rng.uniform(-0.1, 0.2) * span, high - rng.uniform(-0.2, 0.25) * span
    span = max(high - low, 1e-3)
    image = np.clip((image - np.float32(low)) * np.float32(1 / span), 0, 1)
    if kind != "CT" and chance(rng, 0.2):
        image = image ** np.float32(log_uniform(rng, 0.6, 1.6))
    return image


def _photograph(rng: np.random.Generator, image: np.ndarray, difficulty: float) -> np.ndarray:
    """Projections and colour pictures: uneven light, blur, grain."""
    image = blur(image, log_uniform(rng, 0.3, 1.5))
    light = smooth_noise(rng, image.shape, (0, 2, 2))
    image = image * (1 + np.float32(rng.uniform(0, 0.15)) * np.clip(light, -2, 2))
    strength = np.float32(log_uniform(rng, 0.003, 0.01 + 0.04 * difficulty))
    image = image + strength * blur(rng.standard_normal(image.shape, dtype=np.float32), rng.uniform(0, 0.8))
    low, high = np.percentile(image.reshape(-1)[::41], [0.5, 99.5])
    low, high = low - rng.uniform(0, 0.3) * (high - low), high + rng.uniform(0, 0.3) * (high - low)
    image = np.clip((image - low) / max(high - low, 1e-3), 0, 1)
    return 1 - image if chance(rng, 0.25) else image


def _ultrasound(
    rng: np.random.Generator, image: np.ndarray, regions: np.ndarray, canvas: Canvas, difficulty: float
) -> tuple[np.ndarray, np.ndarray | None]:
    """Echoes of a linear or sector probe: speckle finer along the beam than across, edges, shadows, fan."""
    depth, height, width = image.shape
    fan = chance(rng, 0.6)
    if fan:
        to_beam, from_beam, inside = _fan(height, width, rng.uniform(0.35, 0.75), rng.uniform(0.02, 0.35))
        image, regions = image[:, to_beam[0], to_beam[1]], regions[:, to_beam[0], to_beam[1]]
    blocking = np.zeros(256, np.float32)
    for n, region in enumerate(canvas.table):
        if region.tissue in ("bone", "gas"):
            blocking[n] = rng.uniform(0.03, 0.15)
        elif region.tissue in ("fluid", "vessel"):
            blocking[n] = -rng.uniform(0, 0.006)  # enhancement behind
        else:
            blocking[n] = rng.uniform(-0.002, 0.004)
    passed = np.exp(-np.clip(np.cumsum(blocking[regions], axis=1), -0.5, 4))
    edges = np.abs(np.diff(image, axis=1, prepend=image[:, :1])) * np.float32(rng.uniform(0, 0.8))
    axial, lateral = rng.uniform(0.4, 1.0), rng.uniform(1.0, 2.6)
    rows, columns = blur_matrix(height, round(axial, 1)), blur_matrix(width, round(lateral, 1))
    waves = [in_plane(rng.standard_normal(image.shape, dtype=np.float32), rows, columns) for _ in range(2)]
    speckle = np.hypot(*waves)
    speckle /= speckle.mean()
    amount = np.float32(rng.uniform(0.15, 0.35 + 0.3 * difficulty))
    image = blur(image + edges, 0.6)
    image = image * passed * (1 - amount + amount * speckle) + np.float32(0.01) * speckle
    if chance(rng, 0.4):  # attenuation with depth
        image = image * np.linspace(1.1, rng.uniform(0.4, 1), height, dtype=np.float32)[:, None]
    image = image / np.percentile(image.reshape(-1)[::41], 99) * rng.uniform(0.7, 1.0)
    image = np.clip(image, 0, 1.3) ** np.float32(rng.uniform(0.5, 1.0))
    if fan:
        image = image[:, from_beam[0], from_beam[1]] * inside
    return np.clip(blur(image, 0.5), 0, 1), inside if fan else None


def _fan(height: int, width: int, half_angle: float, apex: float):
    """Index maps picture -> beams and beams -> picture of a sector probe, and the sector's mask."""
    far = 1 + apex
    radius = np.linspace(apex, far, height)[:, None]
    angle = np.linspace(-half_angle, half_angle, width)[None, :]
    top = apex * np.cos(half_angle)
    spread = 2 * max(far * np.sin(half_angle), 0.4)
    tall = far - top
    scale = max(spread, tall)
    rows = ((radius * np.cos(angle) - top) / scale * (height - 1)).round().astype(int)
    columns = ((radius * np.sin(angle) / scale + 0.5) * (width - 1)).round().astype(int)
    to_beam = np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)
    y = np.arange(height)[:, None] / (height - 1) * scale + top
    x = (np.arange(width)[None, :] / (width - 1) - 0.5) * scale
    r, a = np.hypot(y, x), np.arctan2(x, y)
    beam_rows = (r - apex) / (far - apex) * (height - 1)
    beam_columns = (a + half_angle) / (2 * half_angle) * (width - 1)
    inside = (beam_rows >= 0) & (beam_rows <= height - 1) & (beam_columns >= 0) & (beam_columns <= width - 1)
    from_beam = (
        np.clip(beam_rows.round(), 0, height - 1).astype(int),
        np.clip(beam_columns.round(), 0, width - 1).astype(int),
    )
    return to_beam, from_beam, inside.astype(np.float32)
