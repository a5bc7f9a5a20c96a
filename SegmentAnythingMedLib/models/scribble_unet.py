"""ScribblePrompt-UNet (Wong et al. 2024, arXiv 2312.07381): clicks, boxes and scribbles on biomedical images.

A small network that sees image and prompts at once, so that features of a slice are the slice itself, at the network's
resolution, and every answer is a full pass. Scribbles are native: they are drawn into the network's input. Carried
through a volume by slice chaining; it was trained with boxes up to 20 of its 128 pixels too large on each side, so its
card lets the chained box grow more than others do (not measured).

The network predicts no quality: ours is the intersection over union to be expected from its own probabilities, an
approximation. Published tools scale slices without smoothing and cut the last row and column off a box; here slices
are smoothed before they are made smaller, and a box keeps the cells whose centre it holds.

Options of a card: ``precision`` (fp32, bf16, fp16) and ``chain_...`` (see `Chaining`); ``random_seed`` builds random
weights in place of a file, for tests and benchmarks of speed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from SegmentAnythingMedLib.models.base import Prediction, SliceImage
from SegmentAnythingMedLib.models.card import ModelCard
from SegmentAnythingMedLib.models.chaining import FAR, Chaining, ChainingModel
from SegmentAnythingMedLib.models.conversion import convert
from SegmentAnythingMedLib.models.device import choose_device, choose_precision, computing_in
from SegmentAnythingMedLib.models.loading import check_numbers, random_weights
from SegmentAnythingMedLib.models.networks.checkpoint import load_strictly, read_checkpoint, without_weights
from SegmentAnythingMedLib.models.networks.early_fusion_unet import EarlyFusionUnet, UnetConfig
from SegmentAnythingMedLib.models.networks.expected_overlap import expected_iou
from SegmentAnythingMedLib.models.preprocess import Placement, Preprocessing, normalize
from SegmentAnythingMedLib.models.scribble_unet_prompts import prompt_maps
from SegmentAnythingMedLib.prompts import SlicePrompts


@dataclass(frozen=True, eq=False)
class ScribbleFeatures:
    """A slice as the network takes it: (1, 1, S, S) from 0 to 1, and where the slice lies in it."""

    image: Tensor
    placement: Placement
    spacing_mm: tuple[float, float]

    @property
    def shape(self) -> tuple[int, int]:
        return self.placement.shape

    @property
    def nbytes(self) -> int:
        return self.image.nbytes


class ScribbleUnetModel(ChainingModel):
    """ScribblePrompt-UNet as a `SliceModel`.

    Parameters
    ----------
    card
        Name, preprocessing, input size and options.
    network
        With weights, on its device.
    precision
        Type that convolutions run in; weights stay float32.
    """

    def __init__(self, card: ModelCard, network: EarlyFusionUnet, precision: torch.dtype = torch.float32) -> None:
        self.card = card
        self.network = network
        self.chaining = Chaining.from_options(card.options, card.name)
        self._recipe = Preprocessing.named(card.preprocessing)
        self._precision = precision

    @property
    def device(self) -> torch.device:
        return self.network.final_conv.conv[0].weight.device

    def encode_slices(self, images: Sequence[SliceImage]) -> list[ScribbleFeatures]:
        """The slices at the network's resolution, in grey."""
        return [self._features(image) for image in images]

    def outline(
        self, features: ScribbleFeatures, prompts: SlicePrompts, previous: Prediction | None, multimask: bool
    ) -> Prediction:
        """The network's one answer; its state is the (1, 1, S, S) logits that it takes back to refine."""
        prompts = convert(prompts, self.card.prompts, features.shape)
        channels = [prompt_maps(prompts, features.placement), self._previous_logits(previous, features.placement)]
        with torch.inference_mode(), computing_in(self._precision, self.device):
            logits = self.track_step(features.image, torch.cat(channels, dim=1).to(self.device)).float()
        quality = expected_iou(logits)[0].cpu().numpy()
        return Prediction(features.placement.slice_logits(logits[0]), quality, FAR, logits)

    def track_step(self, features: Tensor, prompts: Tensor, memories: None = None, **options: object) -> Tensor:
        """One slice of B objects: differentiable, without state and without memory.

        Parameters
        ----------
        features
            (B or 1, 1, S, S) images.
        prompts
            (B, 4, S, S): box, positive and negative marks, logits to refine.

        Returns
        -------
        Tensor
            (B, 1, S, S) logits.
        """
        return self.network(torch.cat([features.expand(len(prompts), -1, -1, -1), prompts], dim=1))

    def _features(self, image: SliceImage) -> ScribbleFeatures:
        grey = replace(image, pixels=image.pixels.mean(axis=0, keepdims=True))
        placement = Placement.of(grey, self.card.input_size, self._recipe.stretch)
        return ScribbleFeatures(
            normalize(grey, self._recipe, placement)[:, :1].to(self.device), placement, image.spacing_mm
        )

    def _previous_logits(self, previous: Prediction | None, placement: Placement) -> Tensor:
        """(1, 1, S, S): the network's own earlier logits, or those of a mask from elsewhere, or 0."""
        if previous is None:
            return torch.zeros(1, 1, placement.side, placement.side)
        if isinstance(previous.state, Tensor):
            return previous.state.cpu()
        return placement.enlarge_logits(previous.logits[:1], limit=FAR)


def load(card: ModelCard, weights: Path | None, device: str = "auto", **options: object) -> ScribbleUnetModel:
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
        If the checkpoint is damaged, hostile or not ScribblePrompt-UNet's, or the card is no configuration of it.
    ModelUnavailableError
        If the device is not there.
    """
    where = choose_device(device)
    settings = {**card.options, **options}
    check_numbers(card, settings, UnetConfig().pixel_multiple)
    precision = choose_precision(str(settings.get("precision", "fp32")))
    network = _random_network(card, settings) if weights is None else _loaded_network(card, weights)
    return ScribbleUnetModel(replace(card, options=settings), network.to(where).eval(), precision)


def _loaded_network(card: ModelCard, weights: Path) -> EarlyFusionUnet:
    state = read_checkpoint(weights, card.sha256 or None)
    with without_weights():
        network = EarlyFusionUnet()
    load_strictly(network, state, weights.name)
    return network


def _random_network(card: ModelCard, settings: Mapping[str, object]) -> EarlyFusionUnet:
    with random_weights(card, settings):
        return EarlyFusionUnet()
