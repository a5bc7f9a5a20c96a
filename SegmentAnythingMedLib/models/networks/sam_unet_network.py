"""SAM-UNet (Yang et al. 2024, arXiv:2408.09886): SAM's frozen image encoder with a ResNet beside it.

Each stage of the ResNet is added to the tokens before a block with global attention; what comes out of the first three
of these blocks skips to the mask decoder, which has one mask. Key names are those of its authors' code, of which no
weights are published.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .expected_overlap import expected_iou
from .layers import MLP, LayerNorm2d, TwoLayerMLP
from .prompt_encoder import PromptEmbedding
from .resnet import RESNETS, ResNet, ResNetConfig
from .sam_mask_decoder import SamMasks
from .sam_network import SamFeatures, SamPromptEncoder, infer_sam_config
from .two_way import TwoWayTransformer
from .vit import ImageEncoder, VitConfig

_ENCODER = "image_encoder.sam_img_encoder."
_ONLY_IN_50 = "resnet.stage1.0.conv3.weight"


@dataclass(frozen=True)
class SamUnetConfig:
    """Of the two image encoders; the ViT needs as many blocks with global attention as the ResNet has stages."""

    vit: VitConfig
    resnet: ResNetConfig


class _Reshaper(nn.Module):
    """A stage's map to the size and channels of the tokens: halved or doubled ``halvings`` times, then widened."""

    def __init__(self, channels: int, halvings: int, dim: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(abs(halvings)):
            if halvings > 0:
                layers.append(nn.Conv2d(channels, 2 * channels, kernel_size=3, stride=2, padding=1))
            else:
                layers.append(nn.ConvTranspose2d(channels, channels // 2, kernel_size=2, stride=2))
            channels = layers[-1].out_channels
            layers += [LayerNorm2d(channels), nn.GELU()]
        self.reshaper = nn.Sequential(*layers, nn.Conv2d(channels, dim, kernel_size=1))

    def forward(self, x: Tensor) -> Tensor:
        return self.reshaper(x)


class _Wrapped(nn.Module):
    """A part of SAM under the name that SAM-UNet's code gives it."""

    def __init__(self, name: str, part: nn.Module) -> None:
        super().__init__()
        self.add_module(name, part)


class _SamTrunk(nn.Module):
    """What SAM-UNet keeps of SAM's mask decoder."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.transformer = TwoWayTransformer(dim, 8, lambda: TwoLayerMLP(dim, 2048))
        self.output_upscaling = nn.Sequential(*_upscaling(dim, dim // 4, dim // 8), nn.GELU())


class _MaskDecoder(nn.Module):
    """One learned token and its kernel, applied to the upscaled image plus what skipped the bottom."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.sam_mask_decoder = _SamTrunk(dim)
        self.med_token = nn.Embedding(1, dim)
        self.hf_mlp = MLP(dim, dim, dim, dim // 8)
        self.embedding_maskfeature = nn.Sequential(
            nn.Conv2d(dim // 8, dim // 4, kernel_size=3, padding=1),
            LayerNorm2d(dim // 4),
            nn.GELU(),
            nn.Conv2d(dim // 4, dim // 8, kernel_size=3, padding=1),
        )

    def forward(self, features: SamFeatures, position: Tensor, prompts: PromptEmbedding) -> Tensor:
        """(B, 1, S/4, S/4) logits."""
        image = features.embedding + prompts.dense
        tokens = torch.cat([self.med_token.weight.expand(len(image), 1, -1), prompts.sparse], dim=1)
        size = image.shape[2:]
        tokens, image = self.sam_mask_decoder.transformer(
            tokens, image.flatten(2).transpose(1, 2), position.flatten(2).transpose(1, 2)
        )
        image = self.sam_mask_decoder.output_upscaling(image.transpose(1, 2).unflatten(2, size))
        image = self.embedding_maskfeature(image) + features.fine
        return torch.einsum("bc,bchw->bhw", self.hf_mlp(tokens[:, 0]), image)[:, None]


class SamUnetNetwork(nn.Module):
    """SAM-UNet with the methods of `SamNetwork`. Everything is pure and differentiable."""

    def __init__(self, config: SamUnetConfig) -> None:
        super().__init__()
        self.config, vit = config, config.vit
        self.image_encoder = _Wrapped("sam_img_encoder", ImageEncoder(vit)).requires_grad_(False)
        self.prompt_encoder = _Wrapped("sam_prompt_encoder", SamPromptEncoder(vit.channels, vit.image_size))
        self.mask_decoder = _MaskDecoder(vit.channels)
        self.resnet = ResNet(config.resnet)
        channels = enumerate(config.resnet.channels)
        self.adapters_in = nn.ModuleList(_Reshaper(count, 2 - stage, vit.dim) for stage, count in channels)
        skips = [_upscaling(vit.dim, vit.channels, vit.channels // 8) for _ in vit.global_blocks[:-1]]
        self.adapters_bridge = nn.ModuleList(nn.Sequential(*layers) for layers in skips)
        self.embedding_encoder = nn.Sequential(*_upscaling(vit.channels, vit.channels // 4, vit.channels // 8))

    @property
    def image_size(self) -> int:
        """Pixels along the side of the input."""
        return self.config.vit.image_size

    @property
    def device(self) -> torch.device:
        return self.mask_decoder.med_token.weight.device

    def encode_image(self, pixels: Tensor) -> SamFeatures:
        """Features of (B, 3, S, S) normalised pixels; ``fine`` is the sum of all that skips to the decoder."""
        encoder, stages = self.image_encoder.sam_img_encoder, self.resnet(pixels)
        x, skipped = encoder.embed(pixels), []
        for index, block in enumerate(encoder.blocks):
            if index not in self.config.vit.global_blocks:
                x = block(x)
                continue
            stage = len(skipped)
            x = block(x + self.adapters_in[stage](stages[stage]).permute(0, 2, 3, 1))
            skipped.append(x.permute(0, 3, 1, 2))
        embedding = encoder.neck(x.permute(0, 3, 1, 2))
        fine = self.embedding_encoder(embedding)
        for bridge, skip in zip(self.adapters_bridge, reversed(skipped[:-1]), strict=True):
            fine = fine + bridge(skip)
        return SamFeatures(embedding, fine)

    def decode(
        self,
        features: SamFeatures,
        points: Tensor | None,
        labels: Tensor | None,
        mask_logits: Tensor | None = None,
        multimask: bool = False,
    ) -> SamMasks:
        """The one mask of each prompt, see `SamNetwork.decode`; its quality is `expected_iou`, no head predicts it."""
        encoder = self.prompt_encoder.sam_prompt_encoder
        prompts = encoder(points, labels, mask_logits)
        logits = self.mask_decoder(features, encoder.grid_encoding(*features.embedding.shape[2:]), prompts)
        return SamMasks(logits, expected_iou(logits))


def infer_sam_unet_config(state: Mapping[str, Tensor]) -> SamUnetConfig:
    """Shape of a checkpoint of SAM-UNet.

    Raises
    ------
    ModelFileError
        The keys are not SAM-UNet's.
    """
    inside = {f"image_encoder.{key.removeprefix(_ENCODER)}": state[key] for key in state if key.startswith(_ENCODER)}
    return SamUnetConfig(infer_sam_config(inside), RESNETS[50 if _ONLY_IN_50 in state else 34])


def _upscaling(dim: int, dim_between: int, dim_out: int) -> list[nn.Module]:
    """Two transposed convolutions, each doubling the resolution."""
    return [
        nn.ConvTranspose2d(dim, dim_between, kernel_size=2, stride=2),
        LayerNorm2d(dim_between),
        nn.GELU(),
        nn.ConvTranspose2d(dim_between, dim_out, kernel_size=2, stride=2),
    ]
