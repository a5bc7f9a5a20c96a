"""SAM with a light image encoder, TinyViT: MobileSAM (Zhang et al. 2023, arXiv 2306.14289), TinySAM (Shu et al. 2023,
arXiv 2312.13789) and LiteMedSAM (Ma et al. 2024, baseline of the challenge "MedSAM on Laptop").

What a slice goes through is SAM's, so `load` answers with a `SamModel`; only the network differs. LiteMedSAM has
MedSAM's preprocessing and prompts, but keeps the slice's shape, and was trained at 256 pixels.

ESP-MedSAM (Xu et al. 2024, arXiv 2407.14153) is not a model of this family: its image encoder is in
`networks.tinyvit`, but its decoder prompts itself, takes neither points nor boxes, and is not built here.

Options of a card: ``size`` (mobile_sam, lite_medsam), what the weights must be; ``best_of_three``, for weights whose
single mask was not trained, as TinySAM's; ``precision`` (fp32, bf16, fp16); ``chain_...`` (see `Chaining`);
``random_seed`` builds random weights in place of a file, for tests and benchmarks of speed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from SegmentAnythingMedLib.errors import ModelFileError
from SegmentAnythingMedLib.models.card import ModelCard
from SegmentAnythingMedLib.models.device import choose_device, choose_precision
from SegmentAnythingMedLib.models.loading import check_choice, check_numbers, random_weights
from SegmentAnythingMedLib.models.networks.checkpoint import load_strictly, read_checkpoint, without_weights
from SegmentAnythingMedLib.models.networks.sam_network import NOT_WEIGHTS
from SegmentAnythingMedLib.models.networks.tinyvit import TINYVIT_LAYOUTS
from SegmentAnythingMedLib.models.networks.tinyvit_sam_network import TinyVitSamNetwork, infer_tinyvit_sam_config
from SegmentAnythingMedLib.models.sam import SamModel


def load(card: ModelCard, weights: Path | None, device: str = "auto", **options: object) -> SamModel:
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
        If the checkpoint is damaged, hostile, or not what the card says, or the card is no configuration of TinyViT.
    ModelUnavailableError
        If the device is not there.
    """
    where = choose_device(device)
    settings = {**card.options, **options}
    check_numbers(card, settings, multiple=16)
    check_choice(card, settings, "size", TINYVIT_LAYOUTS)
    check_choice(card, settings, "best_of_three", (True, False))
    precision = choose_precision(str(settings.get("precision", "fp32")))
    network = _random_network(card, settings) if weights is None else _loaded_network(card, weights, settings)
    return SamModel(replace(card, options=settings), network.to(where).eval(), precision)


def _loaded_network(card: ModelCard, weights: Path, settings: Mapping[str, object]) -> TinyVitSamNetwork:
    state = read_checkpoint(weights, card.sha256 or None)
    state = {key: tensor for key, tensor in state.items() if key not in NOT_WEIGHTS}
    config = infer_tinyvit_sam_config(state)
    promised = TINYVIT_LAYOUTS.get(str(settings.get("size", "")), config)
    if promised.patch_stride != config.patch_stride:
        raise ModelFileError(f"{weights.name} is not the {settings['size']} model its card {card.name!r} says.")
    with without_weights():
        network = TinyVitSamNetwork(config, card.input_size, _best_of_three(settings))
    load_strictly(network, state, weights.name)
    return network


def _random_network(card: ModelCard, settings: Mapping[str, object]) -> TinyVitSamNetwork:
    config = TINYVIT_LAYOUTS[str(settings.get("size", "mobile_sam"))]
    with random_weights(card, settings):
        return TinyVitSamNetwork(config, card.input_size, _best_of_three(settings))


def _best_of_three(settings: Mapping[str, object]) -> bool:
    return bool(settings.get("best_of_three", False))
