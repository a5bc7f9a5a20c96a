"""SAM-UNet (Yang et al. 2024, arXiv 2408.09886): SAM's image encoder and a ResNet side by side, asked by a box.

Its authors published their code and no weights, so no card comes with this program: train it and bring your own. A card
in the weights folder, beside the file, reads

```json
{
  "name": "our-sam-unet", "title": "SAM-UNet, trained here", "family": "sam_unet", "licence": "ours",
  "capabilities": ["slice", "color"], "prompts": ["box"], "preprocessing": "imagenet", "input_size": 256,
  "file": "our-sam-unet.pth", "options": {"resnet": 34}
}
```

The network is that of the code (keys, and answers with random weights). It was trained with boxes; that it takes points
as well, if ``prompts`` says so, is not measured. It predicts no quality: ours is expected from its own probabilities,
an approximation, as is the slice chaining that carries it through a volume.

Options of a card: ``resnet`` (34 or 50), what the weights must be; ``precision``, ``chain_...`` and ``random_seed`` as
in `SegmentAnythingMedLib.models.sam`.
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
from SegmentAnythingMedLib.models.networks.resnet import RESNETS
from SegmentAnythingMedLib.models.networks.sam_unet_network import SamUnetConfig, SamUnetNetwork, infer_sam_unet_config
from SegmentAnythingMedLib.models.networks.vit import VIT_SIZES
from SegmentAnythingMedLib.models.sam import SamModel

_PIXEL_MULTIPLE = 32  # the last stage of the ResNet


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
        If the checkpoint is damaged, hostile, or not what the card says, or the card is no configuration of SAM-UNet.
    ModelUnavailableError
        If the device is not there.
    """
    where = choose_device(device)
    settings = {**card.options, **options}
    check_numbers(card, settings, _PIXEL_MULTIPLE)
    check_choice(card, settings, "resnet", RESNETS)
    precision = choose_precision(str(settings.get("precision", "fp32")))
    network = _random_network(card, settings) if weights is None else _loaded_network(card, weights, settings)
    return SamModel(replace(card, options=settings), network.to(where).eval(), precision)


def _loaded_network(card: ModelCard, weights: Path, settings: Mapping[str, object]) -> SamUnetNetwork:
    state = read_checkpoint(weights, card.sha256 or None)
    config = infer_sam_unet_config(state)
    found = next(depth for depth, resnet in RESNETS.items() if resnet == config.resnet)
    if config.vit.image_size != card.input_size or settings.get("resnet", found) != found:
        raise ModelFileError(
            f"{weights.name} has a ResNet-{found} for slices of {config.vit.image_size} pixels, which its card "
            f"{card.name!r} does not say: correct input_size ({card.input_size}) or the option resnet there."
        )
    with without_weights():
        network = SamUnetNetwork(config)
    load_strictly(network, state, weights.name)
    return network


def _random_network(card: ModelCard, settings: Mapping[str, object]) -> SamUnetNetwork:
    vit = replace(VIT_SIZES["b"], image_size=card.input_size)
    with random_weights(card, settings):
        return SamUnetNetwork(SamUnetConfig(vit, RESNETS[int(settings.get("resnet", 34))]))
