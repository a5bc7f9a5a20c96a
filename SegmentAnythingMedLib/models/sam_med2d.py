"""SAM-Med2D (Cheng et al. 2023, arXiv 2308.16184): SAM ViT-B at 256 pixels with adapters, trained on medical images.

As it was trained, the best of three candidates is the answer to any prompt, and what is refined enters as
probabilities, not as logits. Without adapters (its authors drop them to test on what it was not trained for) the
network is SAM with SAM-Med2D's prompt encoder and mask decoder. Carried through a volume by slice chaining.

Its authors pad images smaller than the network's input in training and stretch all others; here all are stretched, as
their predictor does.

Options of a card: ``adapter``: true, what the weights must have; false, adapters in the file are left out; without it
the file decides. ``size``, ``precision``, ``chain_...`` and ``random_seed`` as in `SegmentAnythingMedLib.models.sam`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from SegmentAnythingMedLib.errors import ModelFileError
from SegmentAnythingMedLib.models.base import Prediction
from SegmentAnythingMedLib.models.card import ModelCard
from SegmentAnythingMedLib.models.device import choose_device, choose_precision
from SegmentAnythingMedLib.models.loading import check_choice, check_numbers, random_weights
from SegmentAnythingMedLib.models.networks.checkpoint import load_strictly, read_checkpoint, without_weights
from SegmentAnythingMedLib.models.networks.sam_med2d_network import SamMed2dNetwork, has_adapters, without_adapters
from SegmentAnythingMedLib.models.networks.sam_network import NOT_WEIGHTS, SamNetwork, infer_sam_config
from SegmentAnythingMedLib.models.networks.vit import VIT_SIZES
from SegmentAnythingMedLib.models.preprocess import Placement
from SegmentAnythingMedLib.models.sam import SamModel, SamPrompts
from SegmentAnythingMedLib.prompts import SlicePrompts

_PIXEL_MULTIPLE = 32  # adapters halve the map of 16-pixel patches


class SamMed2dModel(SamModel):
    """A SAM-Med2D network as a `SliceModel`, with or without adapters."""

    def tensors(
        self, prompts: SlicePrompts, placement: Placement, previous: Prediction | None, multimask: bool = False
    ) -> SamPrompts:
        """See `SamModel.tensors`; always several candidates, and ``previous`` are probabilities."""
        given = super().tensors(prompts, placement, previous, multimask)
        return replace(given, several=True, previous=None if given.previous is None else given.previous.sigmoid())


def load(card: ModelCard, weights: Path | None, device: str = "auto", **options: object) -> SamMed2dModel:
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
        If the checkpoint is damaged, hostile, or not what the card says, or the card is no configuration of SAM-Med2D.
    ModelUnavailableError
        If the device is not there.
    """
    where = choose_device(device)
    settings = {**card.options, **options}
    check_numbers(card, settings, _PIXEL_MULTIPLE)
    check_choice(card, settings, "size", VIT_SIZES)
    check_choice(card, settings, "adapter", (True, False))
    precision = choose_precision(str(settings.get("precision", "fp32")))
    network = _random_network(card, settings) if weights is None else _loaded_network(card, weights, settings)
    return SamMed2dModel(replace(card, options=settings), network.to(where).eval(), precision)


def _loaded_network(card: ModelCard, weights: Path, settings: Mapping[str, object]) -> SamNetwork:
    state = read_checkpoint(weights, card.sha256 or None)
    state = {key: tensor for key, tensor in state.items() if key not in NOT_WEIGHTS}
    adapted = bool(settings.get("adapter", has_adapters(state)))
    if adapted and not has_adapters(state):
        raise ModelFileError(
            f"{weights.name} has no adapters, its card {card.name!r} says it has: correct adapter there."
        )
    state = state if adapted else without_adapters(state)
    config = infer_sam_config(state)
    if config.image_size != card.input_size or config.dim != VIT_SIZES[str(settings.get("size", "b"))].dim:
        raise ModelFileError(
            f"{weights.name} is for slices of {config.image_size} pixels and {config.dim} channels wide, which its "
            f"card {card.name!r} does not say: correct input_size ({card.input_size}) or the option size there."
        )
    with without_weights():
        network = SamMed2dNetwork(config) if adapted else SamNetwork(config)
    load_strictly(network, state, weights.name)
    return network


def _random_network(card: ModelCard, settings: Mapping[str, object]) -> SamNetwork:
    config = replace(VIT_SIZES[str(settings.get("size", "b"))], image_size=card.input_size)
    with random_weights(card, settings):
        return SamMed2dNetwork(config) if settings.get("adapter", True) else SamNetwork(config)
