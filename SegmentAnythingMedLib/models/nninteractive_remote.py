"""Family ``nninteractive_remote``: nnInteractive on a server that the user runs; nothing of it is bundled.

Isensee et al. 2025, arXiv 2503.08373. The raw voxels and the prompts go to the server, which answers with the
object's whole mask; nothing else is sent, no name, no position in the patient. There is no default address.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from SegmentAnythingMedLib.errors import ModelUnavailableError
from SegmentAnythingMedLib.models.base import Region
from SegmentAnythingMedLib.models.card import ModelCard
from SegmentAnythingMedLib.models.nninteractive_address import chosen_address
from SegmentAnythingMedLib.models.nninteractive_client import ANSWER_S, NnInteractiveClient
from SegmentAnythingMedLib.models.nninteractive_interactions import interaction_of
from SegmentAnythingMedLib.models.nninteractive_refusals import VolumeLostError
from SegmentAnythingMedLib.models.nninteractive_wire import sent_voxels
from SegmentAnythingMedLib.prompts import Prompt
from SegmentAnythingMedLib.volume import Volume
from SegmentAnythingMedLib.voxel_block import VoxelBlock

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class _Question:
    """What a region answers to: prompts in the order they were sent, after a first mask or nothing."""

    start: Region | None
    prompts: tuple[Prompt, ...]


@dataclass(frozen=True, eq=False)
class _Held:
    """What the server holds: a volume, and the answer whose interactions it knows; None if it knows too many."""

    volume: str
    answer: Region | None


_NOTHING = Region(np.zeros((0, 0, 0), dtype=bool), state=_Question(None, ()))


class NnInteractiveModel:
    """A server as a `VolumeModel`.

    The server keeps the interactions of one object. As long as prompts are only added, each costs one prediction; where
    one was taken back, or another object is asked for, all of the object's are sent again in their order, which gives
    the same answer. If the server was started anew it gets the volume once more, unasked. It predicts no quality: that
    of every region is 0, so that each slice counts as one to look at.

    Parameters
    ----------
    card
        Name and licence.
    client
        The server.
    """

    def __init__(self, card: ModelCard, client: NnInteractiveClient) -> None:
        self.card = card
        self._client = client
        self._held: _Held | None = None

    @property
    def device(self) -> str:
        """Where the volume is sent: ``host:port``."""
        return self._client.address.label

    def prepare(self, volume: Volume) -> Iterator[tuple[int, int]]:
        """Send the volume's first time point and channel unless the server has it; yields bytes sent and in all.

        Closing the iterator breaks the upload off.

        Raises
        ------
        VolumeError
            If all voxels are equal.
        ModelUnavailableError
            If the server does not take it.
        """
        if self._held is not None and self._held.volume == volume.fingerprint:
            return
        self._held = None
        voxels = sent_voxels(volume)
        level, megabytes = logging.INFO if self._client.address.is_loopback else logging.WARNING, voxels.nbytes / 1e6
        logger.log(level, "The volume (%.0f MB) is sent to the nnInteractive server %s.", megabytes, self.device)
        yield from self._client.upload_image(voxels)
        self._held = _Held(volume.fingerprint, _NOTHING)

    def predict(self, volume: Volume, prompts: Sequence[Prompt], previous: Region | None) -> Region:
        """The object's region from all of its prompts, in the order they were given.

        Parameters
        ----------
        volume
            Its first time point and channel are looked at.
        prompts
            Earlier ones as the same objects as before.
        previous
            The region of this object that `predict` gave last; or one from elsewhere, which is then taken as the
            object so far; or None.

        Raises
        ------
        ModelUnavailableError
            If the server is gone or does not answer as it should; the sentence says which.
        """
        try:
            return self._asked(volume, tuple(prompts), previous)
        except VolumeLostError:
            self._held = None
            return self._asked(volume, tuple(prompts), previous)

    def _asked(self, volume: Volume, prompts: tuple[Prompt, ...], previous: Region | None) -> Region:
        for _ in self.prepare(volume):
            pass
        start = previous
        if previous is not None and isinstance(previous.state, _Question):
            start = previous.state.start
        known = self._known(prompts, previous)
        shape = volume.geometry.shape_kji
        self._held = _Held(volume.fingerprint, None)  # until every interaction is answered
        if known is None:
            self._client.upload_segment(_whole(start, shape))
        mask = _whole(start if known is None else known, shape)
        for prompt in prompts[len(known.state.prompts) if known is not None else 0 :]:
            interaction = interaction_of(prompt, volume.geometry)
            if interaction is not None:
                mask = self._client.interact(interaction, shape)
        block = VoxelBlock.of(mask)
        answer = Region(np.array(block.voxels), block.low_kji, state=_Question(start, prompts))
        self._held = _Held(volume.fingerprint, answer)
        return answer

    def _known(self, prompts: tuple[Prompt, ...], previous: Region | None) -> Region | None:
        """The answer the server stands at, if it is this object's and only prompts were added since."""
        answer = self._held.answer
        if answer is None or answer is not (_NOTHING if previous is None else previous):
            return None
        before = answer.state.prompts
        is_continued = len(before) <= len(prompts) and all(a is b for a, b in zip(before, prompts, strict=False))
        return answer if is_continued else None


def load(card: ModelCard, weights: Path | None, device: str = "auto", **options: object) -> NnInteractiveModel:
    """A model that asks the user's server; opens no connection yet.

    Parameters
    ----------
    card, weights, device
        The server has weights and device of its own: only the card is looked at.
    **options
        ``address`` of the server and ``timeout_s``, the longest time for an answer (default 300 s); they replace the
        card's. See `nninteractive_address.chosen_address`.

    Raises
    ------
    ModelUnavailableError
        If no address was given, or it is refused.
    """
    timeout = options.get("timeout_s", card.options.get("timeout_s", ANSWER_S))
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout <= 86400:
        raise ModelUnavailableError(f"The option timeout_s must be seconds from 1 to 86400, got {timeout!r}.")
    return NnInteractiveModel(card, NnInteractiveClient(chosen_address(options, card.options), float(timeout)))


def _whole(region: Region | None, shape_kji: tuple[int, int, int]) -> np.ndarray:
    """(K, J, I) bool mask of a region in the volume."""
    block = VoxelBlock.nothing() if region is None else VoxelBlock(region.mask, region.start_kji)
    return block.whole(shape_kji)
