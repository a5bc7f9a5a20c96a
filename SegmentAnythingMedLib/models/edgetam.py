"""EdgeTAM (Zhou et al. 2025, arXiv 2501.07256): SAM 2 with a light trunk and memories of 512 tokens.

What a slice goes through (prompts, candidates, memories) is SAM 2's, so `load` answers with a `Sam2Model`; only the
network differs.

Options of a card: ``precision`` (fp32, bf16, fp16), ``memory_slots``, ``max_pointers``; ``random_seed`` builds random
weights in place of a file, for tests and benchmarks of speed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from SegmentAnythingMedLib.models.card import ModelCard
from SegmentAnythingMedLib.models.device import choose_device, choose_precision
from SegmentAnythingMedLib.models.networks.checkpoint import load_strictly, read_checkpoint
from SegmentAnythingMedLib.models.networks.edgetam_network import EdgeTamConfig, EdgeTamNetwork
from SegmentAnythingMedLib.models.sam2 import Sam2Model, check_numbers, random_weights


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
    precision = choose_precision(str(settings.get("precision", "fp32")))
    network = _network(card, weights, settings)
    return Sam2Model(replace(card, options=settings), network.to(where).eval(), precision)


def _network(card: ModelCard, weights: Path | None, settings: Mapping[str, object]) -> EdgeTamNetwork:
    config = EdgeTamConfig(image_size=card.input_size)
    if weights is None:
        with random_weights(card, settings):
            return EdgeTamNetwork(config)
    state = read_checkpoint(weights, card.sha256 or None)
    with torch.device("meta"):
        network = EdgeTamNetwork(config)
    load_strictly(network, state, weights.name)
    return network
