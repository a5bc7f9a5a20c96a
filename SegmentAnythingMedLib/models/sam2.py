"""SAM 2 and 2.1 (Ravi et al. 2024, arXiv 2408.00714) and models fine-tuned from them, behind the engine's seam.

Options of a card: ``size`` (tiny, small, base_plus, large), ``version`` ("2.0" or "2.1"), ``precision`` (auto, fp32,
bf16, fp16; fp32 with random weights), ``memory_slots``, ``max_pointers``, ``cross_attention`` (full; pooled-1,
pooled-2 merge 2 x 2 cells of each memory, as EfficientTAM does: a quarter of that work, and slightly other masks).
``random_seed`` builds random weights in place of a file, for tests and benchmarks of speed. ``encoder_batch`` (slices
encoded at once) and ``object_batch`` (objects tracked at once) are 8 on a GPU, else 1. Only a CPU looks at ``engine``
(auto, torch, openvino). Only a GPU looks at ``compile`` (none, encoder, all) and ``graphs`` (whether calls are recorded
as CUDA graphs, false).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from SegmentAnythingMedLib.errors import ModelFileError
from SegmentAnythingMedLib.models.base import Prediction, Recall, SliceImage
from SegmentAnythingMedLib.models.card import ModelCard
from SegmentAnythingMedLib.models.conversion import convert
from SegmentAnythingMedLib.models.device import choose_device, choose_precision
from SegmentAnythingMedLib.models.loading import check_numbers, random_weights
from SegmentAnythingMedLib.models.networks.checkpoint import (
    infer_sam2_config,
    load_strictly,
    read_checkpoint,
    without_weights,
)
from SegmentAnythingMedLib.models.networks.on_gpu import Compile, keep_weights_in, make_faster
from SegmentAnythingMedLib.models.networks.pooled_attention import CrossAttention
from SegmentAnythingMedLib.models.networks.sam2_network import DecodedMasks, ImageFeatures, Sam2Config, Sam2Network
from SegmentAnythingMedLib.models.networks.short_long_network import ShortLongNetwork, is_short_long
from SegmentAnythingMedLib.models.preprocess import Placement, Preprocessing, normalize
from SegmentAnythingMedLib.models.sam2_engine import ENGINE_VARIABLE, make_ready
from SegmentAnythingMedLib.prompts import SlicePrompts

_MOST_LOGIT = 32.0  # SAM 2 clamps the logits it is given back to this


@dataclass(frozen=True, eq=False)
class Sam2Features:
    """Image features of a slice (batch 1) and where the slice lies in the model's square."""

    maps: ImageFeatures
    placement: Placement

    @property
    def nbytes(self) -> int:
        return self.maps.nbytes


@dataclass(frozen=True, eq=False)
class Sam2Memory:
    """What is remembered of a slice: (1, 64, S/16, S/16) map, for EdgeTAM (1, 64, 512), and (1, 256) object pointer."""

    map: Tensor
    pointer: Tensor

    @property
    def nbytes(self) -> int:
        return self.map.nbytes + self.pointer.nbytes


@dataclass(frozen=True, eq=False)
class Sam2Prompts:
    """Prompts of B objects as the network takes them.

    Parameters
    ----------
    points, labels
        (B, N, 2) model pixels (x, y) and (B, N): 1, 0, box corners 2 and 3; None without clicks and box.
    previous
        (B, 1, S/4, S/4) logits to refine, or None.
    mask
        (B, 1, S, S) bool: the answer itself, or None.
    """

    points: Tensor | None = None
    labels: Tensor | None = None
    previous: Tensor | None = None
    mask: Tensor | None = None

    @property
    def clicks(self) -> int:
        return 0 if self.labels is None else self.labels.shape[1]


@dataclass(frozen=True, eq=False)
class Sam2Recall:
    """Memories and pointers of B objects: (map, slot) and (pointer, distance) pairs; ``short`` as in `Recall`."""

    maps: tuple[tuple[Tensor, int], ...] = ()
    pointers: tuple[tuple[Tensor, float], ...] = ()
    pointer_span: int = 15
    short: Sam2Recall | None = None


class Sam2Model:
    """A SAM 2 network as a `SliceModel`.

    Parameters
    ----------
    card
        Name, preprocessing and options.
    network
        With weights, on its device.
    precision
        Type that matrix products run in; weights and sums stay float32.
    """

    def __init__(self, card: ModelCard, network: Sam2Network, precision: torch.dtype = torch.float32) -> None:
        self.card = card
        self.network = network
        self._recipe = Preprocessing.named(card.preprocessing)
        self._precision = precision

    @property
    def device(self) -> torch.device:
        return self.network.no_mem_embed.device

    @property
    def encoder_batch(self) -> int:
        """Slices that are encoded at once where it is known ahead which come."""
        return int(self.card.options.get("encoder_batch", 8 if self.device.type == "cuda" else 1))

    @property
    def object_batch(self) -> int:
        """Objects of a slice that are tracked at once."""
        return int(self.card.options.get("object_batch", 8 if self.device.type == "cuda" else 1))

    def encode_slices(self, images: Sequence[SliceImage]) -> list[Sam2Features]:
        """Features of slices, in one batch."""
        side = self.network.config.image_size
        placements = [Placement.of(image, side, self._recipe.stretch) for image in images]
        pairs = zip(images, placements, strict=True)
        pixels = [normalize(image, self._recipe, where, self.device) for image, where in pairs]
        with torch.inference_mode(), self._autocast():
            maps = self.network.encode_image(torch.cat(pixels))
        rows = range(len(images))
        return [Sam2Features(maps.row(row), placement) for row, placement in zip(rows, placements, strict=True)]

    def predict(
        self,
        features: Sam2Features,
        prompts: SlicePrompts,
        recall: Recall,
        previous: Prediction | None = None,
        multimask: bool = False,
    ) -> Prediction:
        """Masks from prompts and memories; without prompts the object is tracked, and may be absent."""
        with torch.inference_mode(), self._autocast():
            decoded = self.track_step(
                features.maps, self.tensors(prompts, features.placement, previous), _tensors_of(recall)
            )
        if prompts.is_empty:
            decoded = decoded.suppress_absent()
        return _prediction(decoded, features.placement, multimask)

    def predict_together(self, features: Sam2Features, recalls: Sequence[Recall]) -> list[Prediction]:
        """Tracked objects of a slice; those that look back on as many slices in the same places make one batch."""
        groups: dict[object, list[int]] = {}
        for place, recall in enumerate(recalls):
            alone = recall.short is not None or recall.is_empty or not hasattr(self.network, "track")
            groups.setdefault(place if alone else _layout(recall), []).append(place)
        most = self.object_batch
        batches = [group[start : start + most] for group in groups.values() for start in range(0, len(group), most)]
        found: dict[int, Prediction] = {}
        for places in batches:
            with torch.inference_mode(), self._autocast():
                memories = _joined([_tensors_of(recalls[place]) for place in places])
                together = self.track_step(features.maps, Sam2Prompts(), memories).suppress_absent()
            for row, place in enumerate(places):
                found[place] = _prediction(together.row(row), features.placement, multimask=False)
        return [found[place] for place in range(len(recalls))]

    def track_step(self, features: ImageFeatures, prompts: Sam2Prompts, memories: Sam2Recall) -> DecodedMasks:
        """One slice of B objects: differentiable, without state.

        Parameters
        ----------
        features
            Of batch B or 1.
        prompts
            No clicks, no mask: the object is tracked.
        memories
            Not looked at where ``prompts`` holds a mask.

        Returns
        -------
        DecodedMasks
            All candidates (1 or 3), best not yet chosen, absent objects not yet suppressed.
        """
        network = self.network
        if prompts.mask is not None:
            return network.use_mask_as_output(features, prompts.mask)
        unprompted = prompts.points is None and prompts.previous is None
        if unprompted and memories.maps and memories.short is None and hasattr(network, "track"):
            lookback = network.lookback(memories.maps, memories.pointers, memories.pointer_span)
            return network.track(features, lookback)
        embedding = self._conditioned(features.embedding, memories)
        if prompts.points is None:
            encoded = network.encode_no_clicks(len(embedding), prompts.previous)
        else:
            encoded = network.encode_prompts(prompts.points, prompts.labels, prompts.previous)
        multimask = network.config.wants_multimask(prompts.clicks)
        return network.decode_masks(embedding, features.high_resolution, encoded, multimask)

    def encode_memory(self, features: Sam2Features, prediction: Prediction, prompted: bool) -> Sam2Memory:
        """Remember a slice with the prediction's first mask."""
        state, row = prediction.state, prediction.chosen
        with torch.inference_mode(), self._autocast():
            state = state.to(self.device)  # the slice may have been outlined before the model moved
            logits = state.mask_logits[:, row : row + 1]
            remembered = self.network.encode_memory(features.maps.embedding, logits, state.object_logits, prompted)
        return Sam2Memory(remembered, state.pointers[:, row])

    def similarity(self, a: Sam2Memory, b: Sam2Memory) -> float:
        """Mean cosine of two memory maps over their cells, in float32."""
        return float(functional.cosine_similarity(a.map.float(), b.map.float(), dim=1).mean())

    def compare(self, a: Sam2Memory, b: Sam2Memory, likeness: str) -> float:
        """See `ComparingModel`; ``stored`` sums in the memories' own precision and over their cells in their order,
        the others are means in float32."""
        x, y = a.map.flatten(2), b.map.flatten(2)
        if likeness == "stored":
            x, y = x.permute(2, 0, 1), y.permute(2, 0, 1)
            return float(torch.sum(torch.cosine_similarity(x, y, dim=-1)))
        if likeness == "channels":
            return float(functional.cosine_similarity(x.float(), y.float(), dim=2).mean())
        if likeness == "whole":
            return float(functional.cosine_similarity(x.float().flatten(1), y.float().flatten(1), dim=1).mean())
        return self.similarity(a, b)

    def look(self, features: Sam2Features) -> np.ndarray:
        """(C * S/16 * S/16,) the image embedding, not conditioned, scaled to length 1."""
        return functional.normalize(features.maps.embedding.float().flatten(), dim=0).cpu().numpy()

    def dense(self, features: Sam2Features) -> np.ndarray:
        """(C, h, w) float32: the image embedding, not conditioned, on cells that cover the slice and no padding."""
        where, cells = features.placement, features.maps.embedding.shape[-1]
        size = tuple(max(1, round(length * cells / where.side)) for length in (where.height, where.width))
        return replace(where, shape=size).slice_logits(features.maps.embedding[0])

    def tensors(self, prompts: SlicePrompts, placement: Placement, previous: Prediction | None) -> Sam2Prompts:
        """Prompts of one object on a slice as tensors; box corners come before clicks."""
        prompts = convert(prompts, self.card.prompts, placement.shape)
        if prompts.mask is not None:
            mask = torch.from_numpy(np.ascontiguousarray(prompts.mask, dtype=np.float32))[None, None]
            return Sam2Prompts(mask=(placement.enlarge(mask) >= 0.5).to(self.device))
        points, labels = [prompts.points_rc], [prompts.positive.astype(np.int64)]
        if prompts.box_rc is not None:
            points.insert(0, np.array(prompts.box_rc).reshape(2, 2))
            labels.insert(0, np.array([2, 3]))
        given = self._previous_logits(previous, placement)
        if not sum(map(len, points)):
            return Sam2Prompts(previous=given)
        xy = torch.from_numpy(placement.model_xy(np.concatenate(points)).astype(np.float32))[None]
        return Sam2Prompts(xy.to(self.device), torch.from_numpy(np.concatenate(labels))[None].to(self.device), given)

    def _conditioned(self, embedding: Tensor, memories: Sam2Recall) -> Tensor:
        """The embedding after memory attention; where there is a second look back, fused as trained or their mean."""
        long = self.network.condition(embedding, memories.maps, memories.pointers, memories.pointer_span)
        short = memories.short
        if short is None:
            return long
        if isinstance(self.network, ShortLongNetwork):
            return self.network.condition_twice(long, embedding, short.maps, short.pointers, short.pointer_span)
        return (long + self._conditioned(embedding, short)) / 2

    def _previous_logits(self, previous: Prediction | None, placement: Placement) -> Tensor | None:
        if previous is None:
            return None
        if isinstance(previous.state, DecodedMasks):
            logits = previous.state.mask_logits[:, previous.chosen : previous.chosen + 1]
        else:
            # Beyond the slice lies what enlarge() fills with 0: lift the logits so that 0 means outside there, too.
            lifted = torch.from_numpy(np.clip(previous.logits[:1], -10, 10) + 10.0)[None]
            logits = placement.enlarge(lifted, self.network.config.mask_size) - 10.0
        return logits.clamp(-_MOST_LOGIT, _MOST_LOGIT).to(self.device)

    def _autocast(self) -> AbstractContextManager:
        if self._precision is torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self._precision)


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
        If the checkpoint is damaged, hostile, or not what the card says, or the card is no configuration of SAM 2.
    ModelUnavailableError
        If the device is not there.
    """
    where = choose_device(device)
    settings = {**card.options, **options}
    _check(card, settings)
    precision = wanted_precision(settings, weights, where)
    network = _random_network(card, settings) if weights is None else _loaded_network(card, weights, settings)
    on_device(network, where, precision, settings, weights)
    return Sam2Model(replace(card, options=settings), network, precision)


def wanted_precision(settings: Mapping[str, object], weights: Path | None, device: torch.device) -> torch.dtype:
    """What the options say, by default `choose_precision`'s ``auto``; random weights stay in fp32."""
    return choose_precision(str(settings.get("precision", "fp32" if weights is None else "auto")), device)


def on_device(
    network: Sam2Network,
    device: torch.device,
    precision: torch.dtype,
    settings: Mapping[str, object],
    weights: Path | None = None,
) -> None:
    """Bring the network to where it runs and make it fast there, as the options say."""
    network.to(device).eval()
    if device.type == "cuda":
        keep_weights_in(network, precision)
        make_faster(network, Compile(settings.get("compile", "none")), bool(settings.get("graphs", False)))
    elif device.type == "cpu":
        make_ready(network, precision, _engine(settings, weights), weights and weights.parent / "openvino")


def _engine(settings: Mapping[str, object], weights: Path | None) -> str:
    """What the options or the environment say; random weights, which are used once, are not worth converting."""
    return str(settings.get("engine", "torch" if weights is None else os.environ.get(ENGINE_VARIABLE, "auto")))


def _loaded_network(card: ModelCard, weights: Path, settings: Mapping[str, object]) -> Sam2Network:
    state = read_checkpoint(weights, card.sha256 or None)
    config = replace(infer_sam2_config(state, card.input_size), cross_attention=_cross_attention(settings))
    promised = _config(card, settings)
    if promised is not None and promised != config:
        raise ModelFileError(f"{weights.name} is not the {settings['size']} model its card {card.name!r} says.")
    with without_weights():
        network = ShortLongNetwork(config) if is_short_long(state) else Sam2Network(config)
    load_strictly(network, state, weights.name)
    return network


def _random_network(card: ModelCard, settings: Mapping[str, object]) -> Sam2Network:
    config = _config(card, settings)
    with random_weights(card, settings if config else {}):
        return Sam2Network(config)


def _check(card: ModelCard, settings: Mapping[str, object]) -> None:
    """Raise `ModelFileError` for an input size or options that no SAM 2 has."""
    check_numbers(card, settings)
    try:
        Compile(settings.get("compile", "none"))
        _cross_attention(settings)
        _config(card, settings)
    except ValueError as error:
        raise ModelFileError(f"Model {card.name!r}: the option {error}") from error


def _config(card: ModelCard, settings: Mapping[str, object]) -> Sam2Config | None:
    if "size" not in settings:
        return None
    config = Sam2Config.released(str(settings["size"]), str(settings.get("version", "2.1")), card.input_size)
    return replace(config, cross_attention=_cross_attention(settings))


def _cross_attention(settings: Mapping[str, object]) -> CrossAttention:
    return CrossAttention.named(str(settings.get("cross_attention", "full")))


def _prediction(decoded: DecodedMasks, placement: Placement, multimask: bool) -> Prediction:
    """One object's masks on its slice, best first; only that one without ``multimask``."""
    order = decoded.iou[0].argsort(descending=True, stable=True)[: None if multimask else 1]
    decoded = DecodedMasks(
        decoded.mask_logits[:, order], decoded.iou[:, order], decoded.object_logits, decoded.pointers[:, order]
    )
    return Prediction(
        placement.slice_logits(decoded.mask_logits[0]),
        decoded.iou[0].clamp(0, 1).float().cpu().numpy(),
        float(decoded.object_logits[0, 0]),
        decoded,
    )


def _layout(recall: Recall) -> object:
    """What two objects' recalls must have in common to be looked at in one batch."""
    slots = tuple(one.slot for one in recall.memories)
    return slots, tuple(one.distance for one in recall.pointers), recall.pointer_span


def _joined(several: Sequence[Sam2Recall]) -> Sam2Recall:
    """Recalls of one layout as that of a batch of objects."""
    if len(several) == 1:
        return several[0]

    def joined(kind: str) -> tuple[tuple[Tensor, float], ...]:
        columns = zip(*(getattr(one, kind) for one in several), strict=True)
        return tuple((torch.cat([tensor for tensor, _ in column]), column[0][1]) for column in columns)

    return Sam2Recall(joined("maps"), joined("pointers"), several[0].pointer_span)


def _tensors_of(recall: Recall) -> Sam2Recall:
    return Sam2Recall(
        tuple((recalled.memory.map, recalled.slot) for recalled in recall.memories),
        tuple((recalled.memory.pointer, float(recalled.distance)) for recalled in recall.pointers),
        recall.pointer_span,
        None if recall.short is None else _tensors_of(recall.short),
    )
