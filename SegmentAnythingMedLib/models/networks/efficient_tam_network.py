"""EfficientTAM: SAM 2 on a plain vision transformer (Xiong et al. 2024, arXiv:2411.18933).

The prompt encoder, mask decoder and memory are SAM 2.0's, but the trunk gives one map at stride 16, so the decoder has
no finer maps to add; in some checkpoints the slice looks at memories of merged cells. The module's keys are those of
the original checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from .plain_vit import PLAIN_VIT_SIZES, PlainImageEncoder, PlainVitConfig
from .pooled_attention import CrossAttention
from .sam2_network import ImageFeatures, Sam2Config, Sam2Network

_PATCHES, _NECK = "image_encoder.trunk.patch_embed.proj.weight", "image_encoder.neck.convs.0.conv_1x1.weight"


@dataclass(frozen=True)
class EfficientTamConfig(Sam2Config):
    """Shape and rules of an EfficientTAM network.

    Attributes
    ----------
    trunk : the plain trunk
    """

    trunk: PlainVitConfig = field(default_factory=lambda: PLAIN_VIT_SIZES["ti"])
    pointer_time_encoding: bool = False
    occlusion_embedding: bool = False
    high_resolution: bool = False

    @classmethod
    def published(cls, size: str, image_size: int = 1024, cross_attention: str = "full") -> EfficientTamConfig:
        """Configuration of a published checkpoint.

        Parameters
        ----------
        size : ti or s
        image_size : 512 for the checkpoints so named, else 1024
        cross_attention : full, pooled-1 or pooled-2; the latter for the checkpoints ``_1`` and ``_2``

        Raises
        ------
        ValueError
            The size or the attention is none of these.
        """
        if size not in PLAIN_VIT_SIZES:
            raise ValueError(f"size must be one of {', '.join(PLAIN_VIT_SIZES)}, got {size!r}.")
        return cls(PLAIN_VIT_SIZES[size], image_size, cross_attention=CrossAttention.named(cross_attention))

    @staticmethod
    def size_of(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
        """Which published size a checkpoint's tensors are of, by the shapes of its patch embedding and neck."""
        patches, neck = (shapes.get(key, ()) for key in (_PATCHES, _NECK))
        for size, trunk in PLAIN_VIT_SIZES.items():
            if patches == (trunk.dim, 3, trunk.patch, trunk.patch) and neck[1:2] == (trunk.dim,):
                return size
        return None

    def build_image_encoder(self) -> nn.Module:
        """The plain trunk with its neck."""
        return PlainImageEncoder(self.trunk, self.dim)


class EfficientTamNetwork(Sam2Network):
    """EfficientTAM's networks; a slice has no maps finer than its embedding."""

    def encode_image(self, pixels: Tensor) -> ImageFeatures:
        """Encode slices.

        Parameters
        ----------
        pixels : (B, 3, S, S) float, normalised as the model card says
        """
        self._check(pixels, "pixels", 3, self.config.image_size)
        return ImageFeatures(None, None, self.image_encoder(pixels))
