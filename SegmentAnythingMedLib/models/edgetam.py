"""EdgeTAM (Zhou et al. 2025, arXiv 2501.07256): SAM 2 with a light trunk and memories of 512 tokens.

What a slice goes through (prompts, candidates, memories) is SAM 2's, so `load` answers with a `Sam2Model`; only the
network differs.

Options of a card are those of `sam2`, but for ``size`` and ``version``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from SegmentAnythingMedLib.models.card import ModelCard
from SegmentAnythingMedLib.models.device import choose_device
from SegmentAnythingMedLib.models.loading import check_numbers, random_weights
from SegmentAnythingMedLib.models.networks.checkpoint import load_strictly, read_checkpoint, without_weights
from SegmentAnythingMedLib.models.networks.edgetam_network import EdgeTamConfig, EdgeTamNetwork
from SegmentAnythingMedLib.models.sam2 import Sam2Model, on_device, wanted_precision


def load(card: ModelCard, weights: Path | None, device: str = "auto", **options: object) -> Sam2Model:
    """Build the network and load its weights.

    Parameters
    ----------
    card
        Its ``options`` may be replaced by ``options``.
    weights
        Checkpoint file; None only with the option ``random_seed``.
    device
        As for `choose_device`.

    Raises
    ------
    ModelFileError
        If the checkpoint is damaged, hostile or not EdgeTAM's, or the card is no configuration of it.
    ModelUnavailableError
        If the device is not there.
    """
    where = choose_device(device)
    settings = {**card.options, **options}
    check_numbers(card, settings, EdgeTamConfig().pixel_multiple)
    precision = wanted_precision(settings, weights, where)
    network = _network(card, weights, settings)
    on_device(network, where, precision, settings, weights)
    return Sam2Model(replace(card, options=settings), network, precision)


def _network(card: ModelCard, weights: Path | None, settings: Mapping[str, object]) -> EdgeTamNetwork:
    config = EdgeTamConfig(image_size=card.input_size)
    if weights is None:
        with random_weights(card, settings):
            return EdgeTamNetwork(config)
    state = read_checkpoint(weights, card.sha256 or None)
    with without_weights():
        network = EdgeTamNetwork(config)
    load_strictly(network, state, weights.name)
    return network
