"""EfficientTAM (Xiong et al. 2024, arXiv 2411.18933): SAM 2 on a plain vision transformer; and Efficient MedSAM2.

What a slice goes through (prompts, candidates, memories) is SAM 2's, so `load` answers with a `Sam2Model`; only the
network differs. Efficient MedSAM2 (Ma et al. 2025, arXiv 2504.03600) is the same network with other weights.

Options of a card: ``size`` (ti, s; if left out, the file tells), ``cross_attention`` (full, pooled-1, pooled-2: which
of the published ways a slice looks at its memories; the file does not tell), and those of `sam2` but for ``version``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from SegmentAnythingMedLib.errors import ModelFileError
from SegmentAnythingMedLib.models.card import ModelCard
from SegmentAnythingMedLib.models.device import choose_device
from SegmentAnythingMedLib.models.loading import check_numbers, random_weights
from SegmentAnythingMedLib.models.networks.checkpoint import load_strictly, read_checkpoint, without_weights
from SegmentAnythingMedLib.models.networks.efficient_tam_network import EfficientTamConfig, EfficientTamNetwork
from SegmentAnythingMedLib.models.sam2 import Sam2Model, on_device, wanted_precision


def load(card: ModelCard, weights: Path | None, device: str = "auto", **options: object) -> Sam2Model:
    """Build the network and load its weights.

    Parameters
    ----------
    card
        Its ``options`` may be replaced by ``options``.
    weights
        Checkpoint file; None only with the options ``random_seed`` and ``size``.
    device
        As for `choose_device`.

    Raises
    ------
    ModelFileError
        If the checkpoint is damaged, hostile, or not what the card says, or the card is no configuration of
        EfficientTAM.
    ModelUnavailableError
        If the device is not there.
    """
    where = choose_device(device)
    settings = {**card.options, **options}
    check_numbers(card, settings)
    precision = wanted_precision(settings, weights, where)
    network = _network(card, weights, settings)
    on_device(network, where, precision, settings, weights)
    return Sam2Model(replace(card, options=settings), network, precision)


def _network(card: ModelCard, weights: Path | None, settings: Mapping[str, object]) -> EfficientTamNetwork:
    promised = settings.get("size")
    if weights is None:
        with random_weights(card, settings):
            return EfficientTamNetwork(_config(card, settings, str(promised)))
    if promised is not None:
        _config(card, settings, str(promised))
    state = read_checkpoint(weights, card.sha256 or None)
    size = EfficientTamConfig.size_of({key: tuple(tensor.shape) for key, tensor in state.items()})
    if size is None:
        raise ModelFileError(f"{weights.name} is not an EfficientTAM checkpoint in its original layout.")
    if promised not in (None, size):
        raise ModelFileError(f"{weights.name} is not the {promised} model its card {card.name!r} says, but {size}.")
    with without_weights():
        network = EfficientTamNetwork(_config(card, settings, size))
    load_strictly(network, state, weights.name)
    return network


def _config(card: ModelCard, settings: Mapping[str, object], size: str) -> EfficientTamConfig:
    try:
        return EfficientTamConfig.published(size, card.input_size, str(settings.get("cross_attention", "full")))
    except ValueError as error:
        raise ModelFileError(f"Model {card.name!r}: the option {error}") from error
