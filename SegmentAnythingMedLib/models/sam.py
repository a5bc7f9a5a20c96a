"""SAM (Kirillov et al. 2023, arXiv 2304.02643), MedSAM (Ma et al. 2024, Nature Communications 15:654) and SAM-HQ
(Ke et al. 2023, arXiv 2306.01567), carried through a volume by slice chaining.

MedSAM has SAM's network; its preprocessing and its prompts, boxes alone, are those of its card.

Options of a card: ``size`` (b, l, h, or hq_b, hq_l, hq_h for SAM-HQ), ``precision`` (fp32, bf16, fp16), ``chain_...``
(see `Chaining`); ``random_seed`` builds random weights in place of a file, for tests and benchmarks of
speed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from SegmentAnythingMedLib.errors import ModelFileError
from SegmentAnythingMedLib.models.base import Prediction, SliceImage
from SegmentAnythingMedLib.models.card import ModelCard
from SegmentAnythingMedLib.models.chaining import FAR, Chaining, ChainingModel
from SegmentAnythingMedLib.models.conversion import as_box, convert
from SegmentAnythingMedLib.models.device import choose_device, choose_precision, computing_in
from SegmentAnythingMedLib.models.loading import check_numbers, random_weights
from SegmentAnythingMedLib.models.networks.checkpoint import load_strictly, read_checkpoint, without_weights
from SegmentAnythingMedLib.models.networks.sam_mask_decoder import SamMasks
from SegmentAnythingMedLib.models.networks.sam_network import (
    NOT_WEIGHTS,
    SamFeatures,
    SamNetwork,
    infer_sam_config,
    is_hq,
)
from SegmentAnythingMedLib.models.networks.vit import VIT_SIZES, VitConfig
from SegmentAnythingMedLib.models.preprocess import Placement, Preprocessing, normalize
from SegmentAnythingMedLib.prompts import SlicePrompts


@dataclass(frozen=True, eq=False)
class SamSlice:
    """Image features of a slice (batch 1), where the slice lies in the model's square, and the size of its pixels."""

    maps: SamFeatures
    placement: Placement
    spacing_mm: tuple[float, float]

    @property
    def shape(self) -> tuple[int, int]:
        return self.placement.shape

    @property
    def nbytes(self) -> int:
        return self.maps.nbytes


@dataclass(frozen=True, eq=False)
class SamPrompts:
    """Prompts of B objects as the network takes them.

    Parameters
    ----------
    points, labels
        (B, N, 2) model pixels (x, y) and (B, N): 1, 0, last the box corners 2 and 3; None without any.
    previous
        (B, 1, S/4, S/4) logits to refine, or None.
    several
        Three candidates, or one; SAM-HQ: the best of three, or the single one.
    """

    points: Tensor | None = None
    labels: Tensor | None = None
    previous: Tensor | None = None
    several: bool = False


class SamModel(ChainingModel):
    """A SAM network as a `SliceModel`.

    Parameters
    ----------
    card
        Name, preprocessing, prompts and options.
    network
        With weights, on its device. Any with `SamNetwork`'s ``image_size``, ``mask_size``, ``device``, ``encode_image``
        and ``decode``.
    precision
        Type that matrix products run in; weights and sums stay float32.
    """

    def __init__(self, card: ModelCard, network: SamNetwork, precision: torch.dtype = torch.float32) -> None:
        self.card = card
        self.network = network
        rule = Chaining.from_options(card.options, card.name)
        self.chaining = replace(rule, point=rule.point and "point" in card.prompts)
        self._recipe = Preprocessing.named(card.preprocessing)
        self._precision = precision

    @property
    def device(self) -> torch.device:
        return self.network.device

    def encode_slices(self, images: Sequence[SliceImage]) -> list[SamSlice]:
        """Features of slices, in one batch."""
        placements = [Placement.of(image, self.network.image_size, self._recipe.stretch) for image in images]
        pixels = [normalize(image, self._recipe, where) for image, where in zip(images, placements, strict=True)]
        with torch.inference_mode(), computing_in(self._precision, self.device):
            maps = self.network.encode_image(torch.cat(pixels).to(self.network.device))
        return [
            SamSlice(maps.row(row), placement, image.spacing_mm)
            for row, (image, placement) in enumerate(zip(images, placements, strict=True))
        ]

    def outline(
        self, features: SamSlice, prompts: SlicePrompts, previous: Prediction | None, multimask: bool
    ) -> Prediction:
        """Masks from prompts on this slice alone, best predicted quality first.

        A single click is ambiguous: it is answered with the best of three, or with all three.
        """
        with torch.inference_mode(), computing_in(self._precision, self.device):
            decoded = self.track_step(features.maps, self.tensors(prompts, features.placement, previous, multimask))
        decoded = decoded.sorted()
        count = None if multimask else 1
        return Prediction(
            features.placement.slice_logits(decoded.mask_logits[0, :count]),
            decoded.iou[0, :count].clamp(0, 1).float().cpu().numpy(),
            FAR,
            decoded,
        )

    def track_step(
        self, features: SamFeatures, prompts: SamPrompts, memories: None = None, **options: object
    ) -> SamMasks:
        """One slice of B objects: differentiable, without state and without memory.

        Parameters
        ----------
        features
            Of batch B or 1.
        prompts
            Of B objects.
        """
        return self.network.decode(features, prompts.points, prompts.labels, prompts.previous, prompts.several)

    def tensors(
        self, prompts: SlicePrompts, placement: Placement, previous: Prediction | None, multimask: bool = False
    ) -> SamPrompts:
        """Prompts of one object on a slice as tensors; box corners come after clicks."""
        prompts = convert(prompts, self.card.prompts, placement.shape)
        if "point" not in self.card.prompts:
            prompts = as_box(prompts, None if previous is None else previous.masks[0])
        points, labels = [prompts.points_rc], [prompts.positive.astype(np.int64)]
        if prompts.box_rc is not None:
            points.append(np.array(prompts.box_rc).reshape(2, 2))
            labels.append(np.array([2, 3]))
        device = self.network.device
        xy = torch.from_numpy(placement.model_xy(np.concatenate(points)).astype(np.float32))[None]
        several = multimask and self.card.has("candidates") or prompts.is_single_click and previous is None
        return SamPrompts(
            xy.to(device),
            torch.from_numpy(np.concatenate(labels))[None].to(device),
            self._previous_logits(previous, placement),
            several,
        )

    def _previous_logits(self, previous: Prediction | None, placement: Placement) -> Tensor | None:
        """(1, 1, S/4, S/4): the network's own earlier logits, or those of a mask from elsewhere."""
        if previous is None or "mask" not in self.card.prompts:
            return None
        if isinstance(previous.state, SamMasks):
            return previous.state.mask_logits[:, previous.chosen : previous.chosen + 1].float()
        return placement.enlarge_logits(previous.logits[:1], self.network.mask_size, FAR).to(self.network.device)


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
        If the checkpoint is damaged, hostile, or not what the card says, or the card is no configuration of SAM.
    ModelUnavailableError
        If the device is not there.
    """
    where = choose_device(device)
    settings = {**card.options, **options}
    check_numbers(card, settings, multiple=16)
    _shape(card, settings)
    precision = choose_precision(str(settings.get("precision", "fp32")))
    network = _random_network(card, settings) if weights is None else _loaded_network(card, weights, settings)
    return SamModel(replace(card, options=settings), network.to(where).eval(), precision)


def _loaded_network(card: ModelCard, weights: Path, settings: Mapping[str, object]) -> SamNetwork:
    state = read_checkpoint(weights, card.sha256 or None)
    state = {key: tensor for key, tensor in state.items() if key not in NOT_WEIGHTS}
    config, hq = infer_sam_config(state), is_hq(state)
    if config.image_size != card.input_size:
        raise ModelFileError(
            f"{weights.name} is for slices of {config.image_size} pixels, its card {card.name!r} says "
            f"{card.input_size}: correct input_size there."
        )
    if "size" in settings:
        promised, promised_hq = _shape(card, settings)
        if (promised.dim, promised.depth, promised_hq) != (config.dim, config.depth, hq):
            raise ModelFileError(f"{weights.name} is not the {settings['size']} model its card {card.name!r} says.")
    with without_weights():
        network = SamNetwork(config, hq)
    load_strictly(network, state, weights.name)
    return network


def _random_network(card: ModelCard, settings: Mapping[str, object]) -> SamNetwork:
    with random_weights(card, settings):
        return SamNetwork(*_shape(card, settings))


def _shape(card: ModelCard, settings: Mapping[str, object]) -> tuple[VitConfig, bool]:
    """Shape of the encoder and whether the decoder is SAM-HQ's; `ModelFileError` for a size that no SAM has."""
    size = str(settings.get("size", "b"))
    if size.removeprefix("hq_") not in VIT_SIZES:
        sizes = ", ".join((*VIT_SIZES, *(f"hq_{one}" for one in VIT_SIZES)))
        raise ModelFileError(f"Model {card.name!r}: the option size must be one of {sizes}, got {size!r}.")
    return replace(VIT_SIZES[size.removeprefix("hq_")], image_size=card.input_size), size.startswith("hq_")
