"""TinyViT (Wu et al. 2022, arXiv:2207.10666) as image encoder of SAM's light descendants.

MobileSAM (Zhang et al. 2023, arXiv:2306.14289) and TinySAM (Shu et al. 2023, arXiv:2312.13789) keep the third step
between stages from halving the map, so that its stride is 16, and put SAM's neck on top; the classifier stays in their
files, unused. LiteMedSAM has no classifier and patches of one pixel: 256 pixels give a map of 64 x 64, at stride 4.

The image encoder of ESP-MedSAM (Xu et al. 2024, arXiv:2407.14153) is MobileSAM's with a `medical_branch` in every
transformer block. It is described by its published source alone: no file of its weights has been seen.

The module's keys are those of the original checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional

from .layers import ConvNorm, LayerNorm2d
from .window_block import from_windows, to_windows

NECK_CHANNELS = 256
_PATCHES, _CLASSIFIER = "patch_embed.seq.0.c.weight", "head.weight"


@dataclass(frozen=True)
class TinyVitConfig:
    """Shape of an encoder with one convolutional stage and three of windowed attention.

    Attributes
    ----------
    dims, blocks, heads, windows : channels, blocks, attention heads and side of the attention windows of each stage;
        the first stage has no attention
    patch_stride : 4, or 1 as in LiteMedSAM: pixels per cell of the first stage; the last has 4 times as many
    classes : outputs of the classifier that the file holds and nothing uses; 0: it holds none
    medical_branch : ESP-MedSAM's extra token and second MLP in each transformer block
    """

    dims: tuple[int, int, int, int] = (64, 128, 160, 320)
    blocks: tuple[int, int, int, int] = (2, 2, 6, 2)
    heads: tuple[int, int, int, int] = (2, 4, 5, 10)
    windows: tuple[int, int, int, int] = (7, 7, 14, 7)
    patch_stride: int = 4
    classes: int = 1000
    medical_branch: bool = False

    def __post_init__(self) -> None:
        if self.patch_stride not in (1, 4):
            raise ValueError(f"patch_stride must be 1 or 4, got {self.patch_stride}")

    @property
    def stride(self) -> int:
        """Pixels per cell of the encoder's output."""
        return 4 * self.patch_stride


TINYVIT_LAYOUTS: Mapping[str, TinyVitConfig] = MappingProxyType(
    {"mobile_sam": TinyVitConfig(), "lite_medsam": TinyVitConfig(patch_stride=1, classes=0)}
)
"""TinySAM's is MobileSAM's."""


class _PatchEmbed(nn.Module):
    """Pixels to the first map, through two convolutions."""

    def __init__(self, dim: int, stride: int) -> None:
        super().__init__()
        shape = {"kernel": 3, "stride": 2} if stride == 4 else {}
        self.seq = nn.Sequential(ConvNorm(3, dim // 2, **shape), nn.GELU(), ConvNorm(dim // 2, dim, **shape))

    def forward(self, pixels: Tensor) -> Tensor:
        return self.seq(pixels)


class _ConvBlock(nn.Module):
    """Inverted bottleneck (MobileNetV2, Sandler et al. 2018): wide, depthwise, narrow, with a skip."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(dim, 4 * dim)
        self.conv2 = ConvNorm(4 * dim, 4 * dim, kernel=3, groups=4 * dim)
        self.conv3 = ConvNorm(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        wide = functional.gelu(self.conv2(functional.gelu(self.conv1(x))))
        return functional.gelu(x + self.conv3(wide))


class _Merge(nn.Module):
    """To the channels of the next stage, and to half the resolution with stride 2."""

    def __init__(self, dim: int, dim_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(dim, dim_out)
        self.conv2 = ConvNorm(dim_out, dim_out, kernel=3, stride=stride, groups=dim_out)
        self.conv3 = ConvNorm(dim_out, dim_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3(functional.gelu(self.conv2(functional.gelu(self.conv1(x)))))


class _Attention(nn.Module):
    """Attention within a window; a bias for each distance in rows and columns stands for position."""

    def __init__(self, dim: int, heads: int, window: int, medical_branch: bool) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.attention_biases = nn.Parameter(torch.zeros(heads, window * window))
        if medical_branch:
            self.med_attention_biases = nn.Parameter(torch.zeros(1))
            self.deep_QKV_embeddings_med = nn.Parameter(0.05 * torch.randn(heads, 1, dim // heads))
        self.medical_branch = medical_branch

    def _biases(self) -> Tensor:
        """(heads, N, N) with N = window**2, cells row by row; the table holds distance (r, c) at r * window + c."""
        at = torch.arange(self.window, device=self.attention_biases.device)
        apart = (at[:, None] - at).abs()
        index = apart[:, None, :, None] * self.window + apart[None, :, None, :]
        return self.attention_biases[:, index.flatten(2).flatten(0, 1)]

    def forward(self, x: Tensor) -> Tensor:
        """(windows, N, C) to the same."""
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (self.heads, -1)).transpose(1, 2).chunk(3, dim=-1)
        biases = self._biases()
        if self.medical_branch:  # one learned token, key and value alike, that every cell may look at
            token = self.deep_QKV_embeddings_med.to(k.dtype).expand(len(k), -1, -1, -1)
            k, v = torch.cat([k, token], dim=2), torch.cat([v, token], dim=2)
            biases = torch.cat([biases, self.med_attention_biases.expand(*biases.shape[:2], 1)], dim=2)
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=biases.to(q.dtype))
        return self.proj(mixed.transpose(1, 2).flatten(2))


class _Mlp(nn.Module):
    """Two linear layers after a norm."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(functional.gelu(self.fc1(self.norm(x))))


class _Block(nn.Module):
    """Attention in windows, a depthwise convolution across their borders, an MLP."""

    def __init__(self, dim: int, heads: int, window: int, medical_branch: bool) -> None:
        super().__init__()
        self.window = window
        self.attn = _Attention(dim, heads, window, medical_branch)
        self.mlp = _Mlp(dim)
        self.local_conv = ConvNorm(dim, dim, kernel=3, groups=dim)
        if medical_branch:
            self.med_dah = _Mlp(dim)
        self.medical_branch = medical_branch

    def _attend(self, x: Tensor) -> Tensor:
        """Cells beyond the map are 0 before the norm and attended to like others, as the weights were trained."""
        tiles = to_windows(x, self.window)
        return from_windows(self.attn(tiles.flatten(1, 2)).view(tiles.shape), *x.shape[1:3])

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        x = x.permute(0, 2, 3, 1)
        x = self.local_conv((x + self._attend(x)).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        added = self.mlp(x) + self.med_dah(x) if self.medical_branch else self.mlp(x)
        return (x + added).permute(0, 3, 1, 2)


class _Stage(nn.Module):
    """Blocks, then the step to the next stage."""

    def __init__(self, blocks: list[nn.Module], downsample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)


class TinyVit(nn.Module):
    """TinyViT with SAM's neck."""

    def __init__(self, config: TinyVitConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = _PatchEmbed(config.dims[0], config.patch_stride)
        self.layers = nn.ModuleList(_stage(config, index) for index in range(4))
        if config.classes:
            self.norm_head = nn.LayerNorm(config.dims[3])
            self.head = nn.Linear(config.dims[3], config.classes)
        self.neck = nn.Sequential(
            nn.Conv2d(config.dims[3], NECK_CHANNELS, kernel_size=1, bias=False),
            LayerNorm2d(NECK_CHANNELS),
            nn.Conv2d(NECK_CHANNELS, NECK_CHANNELS, kernel_size=3, padding=1, bias=False),
            LayerNorm2d(NECK_CHANNELS),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """Image embedding.

        Parameters
        ----------
        pixels : (B, 3, S, S) float, normalised; S a multiple of the config's stride

        Returns
        -------
        (B, 256, S / stride, S / stride)
        """
        x = self.patch_embed(pixels)
        for stage in self.layers:
            x = stage(x)
        return self.neck(x)


def _stage(config: TinyVitConfig, index: int) -> _Stage:
    dim, heads, window = config.dims[index], config.heads[index], config.windows[index]
    count = range(config.blocks[index])
    if index == 0:
        blocks = [_ConvBlock(dim) for _ in count]
    else:
        blocks = [_Block(dim, heads, window, config.medical_branch) for _ in count]
    # The step to the last stage keeps the map: SAM's decoder wants stride 16.
    merge = _Merge(dim, config.dims[index + 1], 1 if index == 2 else 2) if index < 3 else None
    return _Stage(blocks, merge)


def infer_tinyvit_config(shapes: Mapping[str, tuple[int, ...]], prefix: str = "image_encoder.") -> TinyVitConfig | None:
    """Which of the released encoders a checkpoint's shapes are of, by its keys under ``prefix``; None if of none."""
    patches = shapes.get(prefix + _PATCHES, ())
    if len(patches) != 4:
        return None
    classes = shapes.get(prefix + _CLASSIFIER, (0,))[:1]
    medical = any(key.startswith(prefix) and ".med_dah." in key for key in shapes)
    return TinyVitConfig(patch_stride=1 if patches[2:] == (1, 1) else 4, classes=sum(classes), medical_branch=medical)
