"""SAM 3's tracker (Meta 2025, arXiv 2511.16719), for those who have been given its weights: the network is that of
the package transformers (extra ``sam3``), prompts, session and memory bank are ours.

What a slice goes through is SAM 2's, so `load` answers with a `Sam2Model`; only the network differs. SAM 3 attends to
at most four key slices and leaves out tracked slices of low quality: the memory policies ``closest`` and
``quality_filter``. SAM 3.1's network for many objects at once is another one.

Options of a card: ``precision`` (fp32, bf16, fp16), ``memory_slots``, ``max_pointers``; ``random_seed`` builds random
weights in place of a file, for tests and benchmarks of speed (466 million of them).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from SegmentAnythingMedLib.errors import ModelFileError, ModelUnavailableError
from SegmentAnythingMedLib.models.card import ModelCard
from SegmentAnythingMedLib.models.device import choose_device, choose_precision
from SegmentAnythingMedLib.models.loading import check_numbers, random_weights
from SegmentAnythingMedLib.models.networks.checkpoint import load_strictly, read_checkpoint, without_weights
from SegmentAnythingMedLib.models.networks.sam3_keys import tracker_state
from SegmentAnythingMedLib.models.sam2 import Sam2Model

try:
    from SegmentAnythingMedLib.models.networks.sam3_network import Sam3Network, published_config
except RuntimeError as error:  # transformers imports torchvision where there is one, and that one must fit torch
    raise ModelUnavailableError(
        f"SAM 3 needs the package transformers, which cannot be imported here ({error}): install the torchvision that "
        "belongs to your torch, or remove it."
    ) from error

PATCH = 14


def load(card: ModelCard, weights: Path | None, device: str = "auto", **options: object) -> Sam2Model:
    """Build the network and load its weights.

    Parameters
    ----------
    card
        Its ``options`` may be replaced by ``options``.
    weights
        A file in one of the layouts of `sam3_keys`, or a folder of .safetensors files as transformers saves them;
        None only with the option ``random_seed``.
    device
        As for `choose_device`.

    Raises
    ------
    ModelFileError
        If the weights are damaged, hostile or not SAM 3's, or the card is no configuration of it.
    ModelUnavailableError
        If the device is not there.
    """
    where = choose_device(device)
    settings = {**card.options, **options}
    check_numbers(card, settings, PATCH)
    precision = choose_precision(str(settings.get("precision", "fp32")))
    network = _network(card, weights, settings)
    return Sam2Model(replace(card, options=settings), network.to(where).eval(), precision)


def _network(card: ModelCard, weights: Path | None, settings: Mapping[str, object]) -> Sam3Network:
    config = published_config(card.input_size)
    if weights is None:
        with random_weights(card, settings):
            return Sam3Network(config)
    state = tracker_state(_read(weights, card.sha256 or None))
    with without_weights():
        network = Sam3Network(config)
    load_strictly(network.model, state, weights.name)
    network.fill_constants()
    return network


def _read(weights: Path, sha256: str | None) -> dict[str, Tensor]:
    if not weights.is_dir():
        return read_checkpoint(weights, sha256)
    files = sorted(weights.glob("*.safetensors"))
    if not files:
        raise ModelFileError(f"The folder {weights.name} holds no .safetensors file: name the folder that does.")
    return {key: tensor for file in files for key, tensor in read_checkpoint(file).items()}
