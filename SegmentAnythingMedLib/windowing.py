"""Windows: which voxel values become black and white for the model. The user's voxels are never changed."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from SegmentAnythingMedLib.errors import SegmentAnythingMedError
from SegmentAnythingMedLib.volume import Modality, Volume

CT_PRESETS: dict[str, tuple[float, float]] = {
    "soft-tissue": (400.0, 40.0),
    "lung": (1500.0, -600.0),
    "bone": (1800.0, 400.0),
    "brain": (80.0, 40.0),
    "mediastinum": (350.0, 50.0),
    "liver": (150.0, 90.0),
}
"""Width and level in Hounsfield units; abdomen, lung, brain and mediastinum as in common reading protocols."""

WINDOW_NAMES = ("auto", *CT_PRESETS, "percentile", "identity")
_PERCENTILES = (0.5, 99.5)
_SAMPLES = 2_000_000


@dataclass(frozen=True)
class Window:
    """A linear window per channel: ``low`` becomes 0, ``high`` becomes 1, values beyond are clipped.

    Parameters
    ----------
    low, high
        One value per channel, in the volume's units, ``low < high``.
    name
        Shown to the user.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    name: str = "custom"

    def __post_init__(self) -> None:
        limits = np.array([self.low, self.high], dtype=np.float64)
        if limits.ndim != 2 or not np.isfinite(limits).all() or (limits[0] >= limits[1]).any():
            raise SegmentAnythingMedError(
                f"A window needs finite limits with low < high, got {self.low} to {self.high}."
            )

    @classmethod
    def from_level(cls, width: float, level: float, name: str = "custom") -> Window:
        """Window of a width and level (centre), as displays give them."""
        return cls((level - width / 2,), (level + width / 2,), name)

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """(C, ...) pixels to float32 from 0 to 1; NaN and -inf become 0, +inf becomes 1. Never in place."""
        low = np.resize(np.asarray(self.low, dtype=np.float32), pixels.shape[0])
        scale = 1.0 / (np.resize(np.asarray(self.high, dtype=np.float64), pixels.shape[0]) - low)
        column = (slice(None),) + (np.newaxis,) * (pixels.ndim - 1)
        scaled = (pixels.astype(np.float32) - low[column]) * scale.astype(np.float32)[column]
        # fmax and fmin pass over NaN: a third of the time of nan_to_num and clip.
        return np.fmin(np.fmax(scaled, 0.0, out=scaled), 1.0, out=scaled)


def choose_window(volume: Volume, name: str = "auto", time: int = 0) -> Window:
    """The window of a preset's name for this volume; names for each channel may be given, as ``brain,percentile``.

    ``auto`` takes the modality, or where it is unknown the values: identity for 8-bit and colour, soft tissue for
    what looks like Hounsfield units, else percentiles. ``percentile`` is the 0.5th to 99.5th of the foreground
    (values that are finite and above the background's), measured on the whole time point.

    Fused channels each have their own window: a preset or width and level is the first one's, and channels without a
    name are ``auto`` by their values.

    Raises
    ------
    SegmentAnythingMedError
        If a name is not one of `WINDOW_NAMES` or ``WIDTH/LEVEL``, or there are more names than channels.
    """
    if "," in name or (volume.channel_count > 1 and volume.modality is not Modality.COLOR):
        return _window_of_each(volume, name, time)
    if name == "auto":
        name = _automatic_name(volume, time)
    if name in CT_PRESETS:
        return Window.from_level(*CT_PRESETS[name], name=name)
    if name == "identity":
        return _identity(volume)
    if name == "percentile":
        limits = [_percentile_limits(volume.array(time, channel)) for channel in range(volume.channel_count)]
        return Window(tuple(low for low, _ in limits), tuple(high for _, high in limits), name)
    width, separator, level = name.partition("/")
    try:
        if separator and float(width) > 0:
            return Window.from_level(float(width), float(level), name)
    except ValueError:
        pass
    known = ", ".join(WINDOW_NAMES)
    raise SegmentAnythingMedError(f"Window {name!r} is not known: use one of {known}, or WIDTH/LEVEL such as 400/40.")


def _window_of_each(volume: Volume, names: str, time: int) -> Window:
    """One window for each channel, from names with commas between them."""
    given = [name.strip() for name in names.split(",")]
    if len(given) > volume.channel_count:
        raise SegmentAnythingMedError(
            f"The window {names!r} is for {len(given)} channels, the volume has {volume.channel_count}: leave some out."
        )
    others = given[0] if len(given) == 1 and given[0] in ("percentile", "identity") else "auto"
    windows = []
    for channel in range(volume.channel_count):
        voxels = volume.array(time, channel)[np.newaxis, np.newaxis]
        modality = volume.modality if channel == 0 else Modality.UNKNOWN
        alone = replace(volume, voxels=voxels, modality=modality, times_s=())
        windows.append(choose_window(alone, (given[channel] if channel < len(given) else "") or others))
    low, high = (tuple(limit for one in windows for limit in getattr(one, side)) for side in ("low", "high"))
    return Window(low, high, ",".join(one.name for one in windows))


def _automatic_name(volume: Volume, time: int) -> str:
    if volume.modality is Modality.COLOR or volume.voxels.dtype in (np.uint8, np.bool_):
        return "identity"
    if volume.modality is Modality.CT:
        return "soft-tissue"
    if volume.modality is Modality.UNKNOWN and volume.channel_count == 1 and looks_like_hounsfield(volume.array(time)):
        return "soft-tissue"
    return "percentile"


def looks_like_hounsfield(array: np.ndarray) -> bool:
    """Whether values look like CT: reach down to air (-1000 +- 50, or a padding below), up to bone, and none beyond.

    A crop without air round the body still counts if it holds both fat/air (below -50) and soft tissue (0 to 100).
    """
    values = _sample(array)
    if not len(values):
        return False
    low, middle, high = np.percentile(values, (0.5, 50.0, 99.5))
    soft = np.mean((values > -150) & (values < 250))
    return bool(-3100 <= low <= -50 and -1050 <= middle <= 200 and 60 <= high <= 4000 and soft > 0.05)


def _identity(volume: Volume) -> Window:
    if volume.voxels.dtype == np.bool_:
        return Window((0.0,), (1.0,), "identity")
    if volume.voxels.dtype == np.uint8 or volume.modality is Modality.COLOR:
        return Window((0.0,), (255.0,) if _max(volume) > 1.0 else (1.0,), "identity")
    limits = [_finite_range(volume.array(0, channel)) for channel in range(volume.channel_count)]
    return Window(tuple(low for low, _ in limits), tuple(high for _, high in limits), "identity")


def _max(volume: Volume) -> float:
    if volume.voxels.dtype == np.uint8:
        return 255.0
    return max(_finite_range(volume.array(0, channel))[1] for channel in range(volume.channel_count))


def _percentile_limits(array: np.ndarray) -> tuple[float, float]:
    values = _sample(array)
    if not len(values):
        return 0.0, 1.0
    background = float(values.min())
    foreground = values[values > background] if np.mean(values == background) > 0.01 else values
    if not len(foreground):
        return _spread(background, background)
    low, high = np.percentile(foreground, _PERCENTILES)
    return _spread(float(low), float(high))


def _finite_range(array: np.ndarray) -> tuple[float, float]:
    values = _sample(array)
    return _spread(float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)


def _spread(low: float, high: float) -> tuple[float, float]:
    """The limits, or for a constant volume limits that make its value mid-grey."""
    if high - low > 1e-6 * max(abs(low), abs(high), 1e-6):
        return low, high
    margin = max(abs(low), 1.0) * 0.5
    return low - margin, high + margin


def _sample(array: np.ndarray) -> np.ndarray:
    """At most `_SAMPLES` finite values, evenly spread, as float64."""
    flat = array.reshape(-1) if array.flags.c_contiguous else array.ravel()
    values = flat[:: max(1, flat.size // _SAMPLES)].astype(np.float64)
    return values[np.isfinite(values)]
