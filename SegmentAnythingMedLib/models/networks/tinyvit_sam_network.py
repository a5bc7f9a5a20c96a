"""MobileSAM, TinySAM and LiteMedSAM as one module whose keys are those of the original checkpoints: SAM with TinyViT
as image encoder. Sources: see `tinyvit`."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from SegmentAnythingMedLib.errors import ModelFileError

from .sam_mask_decoder import SamMaskDecoder, SamMasks
from .sam_network import SamFeatures, SamNetwork, SamPromptEncoder
from .tinyvit import NECK_CHANNELS, TinyVit, TinyVitConfig, infer_tinyvit_config


class TinyVitSamNetwork(SamNetwork):
    """SAM with another image encoder.

    Parameters
    ----------
    config : of the image encoder
    image_size : pixels along the side of the input, a multiple of the encoder's stride
    best_of_three : True as in TinySAM: where one mask is wanted it is the best of the three candidates, since the
        token of the single one was not trained
    """

    def __init__(self, config: TinyVitConfig, image_size: int = 1024, best_of_three: bool = False) -> None:
        if image_size <= 0 or image_size % config.stride:
            raise ValueError(f"image_size must be a positive multiple of {config.stride}, got {image_size}")
        nn.Module.__init__(self)  # SamNetwork's own would build a ViT
        self.config = config
        self.best_of_three = best_of_three
        self.image_encoder = TinyVit(config)
        self.prompt_encoder = SamPromptEncoder(NECK_CHANNELS, image_size)
        self.mask_decoder = SamMaskDecoder(NECK_CHANNELS)

    @property
    def image_size(self) -> int:
        """Pixels along the side of the input."""
        return self.prompt_encoder.image_size

    @property
    def mask_size(self) -> int:
        """Cells along the side of mask logits, given and received: for LiteMedSAM as many as pixels."""
        return 4 * self.image_size // self.config.stride

    def encode_image(self, pixels: Tensor) -> SamFeatures:
        """Features of (B, 3, S, S) normalised pixels."""
        return SamFeatures(self.image_encoder(pixels))

    def decode(
        self,
        features: SamFeatures,
        points: Tensor | None,
        labels: Tensor | None,
        mask_logits: Tensor | None = None,
        multimask: bool = False,
    ) -> SamMasks:
        """See `SamNetwork.decode`; mask logits have `mask_size` cells along a side."""
        if multimask or not self.best_of_three:
            return super().decode(features, points, labels, mask_logits, multimask)
        masks = super().decode(features, points, labels, mask_logits, multimask=True).sorted()
        return SamMasks(masks.mask_logits[:, :1], masks.iou[:, :1])


def infer_tinyvit_sam_config(state: Mapping[str, Tensor]) -> TinyVitConfig:
    """Shape of the image encoder of a checkpoint of MobileSAM, TinySAM, LiteMedSAM or a model fine-tuned from them.

    Raises
    ------
    ModelFileError
        The keys are of none of them.
    """
    config = infer_tinyvit_config({key: tuple(tensor.shape) for key, tensor in state.items()})
    if config is None:
        raise ModelFileError(
            "The file has no TinyViT: it is no checkpoint of MobileSAM, TinySAM or LiteMedSAM. 'models import' tells "
            "what a file is."
        )
    return config
