"""The packages that SAM 2 is measured against, with random weights that mean something: PyPI's sam2 and transformers.

They come with the extra ``oracle`` and are used in tests and benchmarks only.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

os.environ.setdefault("HF_HUB_OFFLINE", "1")
CONFIGS = {"tiny": "t", "small": "s", "base_plus": "b+", "large": "l"}


@functools.cache
def declare_torchvision_operators() -> torch.library.Library | None:
    """PyPI's torchvision cannot load its operators beside a CPU build of torch; declared, it can be imported.

    Beside a torch that it fits to nothing is declared: its own library would end the process over a second operator.
    """
    with contextlib.suppress(ImportError, RuntimeError):
        import torchvision  # noqa: F401

        return None
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        with contextlib.suppress(RuntimeError):  # torchvision, or another oracle, has declared it
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library  # kept alive by the cache


def sam2_predictor(size: str, version: str, image_size: int, device: str = "cpu", compiled: bool = False) -> nn.Module:
    """PyPI sam2's video predictor with the overrides of its own postprocessing, without hole filling.

    ``compiled`` is its own switch for speed, ``vos_optimized``: every part goes through `torch.compile`.
    """
    declare_torchvision_operators()
    from sam2.build_sam import build_sam2_video_predictor

    folder = {"2.1": "sam2.1/sam2.1", "2.0": "sam2/sam2"}[version]
    decoder = "++model.sam_mask_decoder_extra_args.dynamic_multimask"
    model = build_sam2_video_predictor(
        f"configs/{folder}_hiera_{CONFIGS[size]}.yaml",
        None,
        device=device,
        apply_postprocessing=False,
        vos_optimized=compiled,
        hydra_overrides_extra=[
            f"++model.image_size={image_size}",
            "++model.binarize_mask_from_pts_for_mem_enc=true",
            f"{decoder}_via_stability=true",
            f"{decoder}_stability_delta=0.05",
            f"{decoder}_stability_thresh=0.98",
        ],
    )
    randomise(model)
    return model


@torch.no_grad()
def randomise(model: nn.Module, seed: int = 0) -> None:
    """Random weights: no parameter left at zero or one, logits well above 5, objects present.

    The gain of 0.6 is about that of torch's own initialisation. With 1.0 the models amplify noise: the memories'
    rounding to bf16 flips, and sam2 differs from itself without oneDNN by up to 3e-5 of the largest logit. With 0.6
    that is 2e-6, and a wrong pointer range, a wrong time slot or unrounded memories still show (2e-5 to 7e-2).
    """
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(model.state_dict().items()):
        noise = torch.randn(parameter.shape, generator=generator)
        if "positional_encoding_gaussian_matrix" in name:
            parameter.copy_(noise)
        elif name.endswith("weight") and parameter.ndim == 1:
            parameter.copy_(1 + 0.1 * noise)
        elif name.endswith("gamma"):
            parameter.copy_(0.1 * noise)
        elif parameter.ndim >= 2 and name.endswith("weight"):
            parameter.copy_(0.6 * noise * parameter[0].numel() ** -0.5)
        else:
            parameter.copy_(0.05 * noise)
    state = model.state_dict()
    state["maskmem_tpos_enc"].mul_(6)
    state["sam_mask_decoder.pred_obj_score_head.layers.2.bias"].fill_(10.0)
    for index in range(4):
        state[f"sam_mask_decoder.output_hypernetworks_mlps.{index}.layers.2.weight"].mul_(40)


@dataclass(frozen=True)
class Prompt:
    """A prompted slice: points with labels in model pixels, or a mask of S x S."""

    slice_index: int
    points: Sequence[Sequence[float]] = ()
    labels: Sequence[int] = ()
    mask: Tensor | None = None


def reference_track(
    predictor: nn.Module, frames: Tensor, cache: dict, objects: Mapping[int, Sequence[Prompt]], order: Sequence[int]
) -> dict[int, Tensor]:
    """The same by PyPI sam2's video predictor, on a fresh state: logits (objects, 1, S, S) by slice."""
    return dict(reference_slices(predictor, frames, objects, order, cache))


def reference_slices(
    predictor: nn.Module,
    frames: Tensor,
    objects: Mapping[int, Sequence[Prompt]],
    order: Sequence[int],
    cache: Mapping[int, object] | None = None,
) -> Iterator[tuple[int, Tensor]]:
    """PyPI sam2's video predictor, slice by slice.

    Parameters
    ----------
    predictor
        From `sam2_predictor`.
    frames
        (N, 3, S, S) float32, normalised.
    objects
        Prompts of each object.
    order
        Slices in the order they are tracked, neighbours.
    cache
        Image features by slice; by default the predictor encodes, and keeps one slice.

    Yields
    ------
    tuple
        Slice and (objects, 1, S, S) logits.
    """
    import sam2.sam2_video_predictor as module

    size = frames.shape[-1]
    original, module.load_video_frames = module.load_video_frames, lambda **_: (frames, size, size)
    original_progress, module.tqdm = module.tqdm, lambda iterable, **_: iterable
    try:
        with torch.inference_mode():
            state = predictor.init_state("")
            state["cached_features"] = dict(cache or {})
            for object_id, prompts in objects.items():
                for prompt in prompts:
                    at = {"inference_state": state, "frame_idx": prompt.slice_index, "obj_id": object_id}
                    if prompt.mask is not None:
                        predictor.add_new_mask(mask=prompt.mask, **at)
                    elif list(prompt.labels) == [2, 3]:
                        predictor.add_new_points_or_box(box=sum(prompt.points, []), **at)
                    else:
                        predictor.add_new_points_or_box(points=prompt.points, labels=prompt.labels, **at)
            outputs = predictor.propagate_in_video(state, start_frame_idx=order[0], reverse=order[1] < order[0])
        for index, _, masks in outputs:
            yield index, masks.clone()
    finally:
        module.load_video_frames, module.tqdm = original, original_progress


def transformers_model(size: str, image_size: int) -> nn.Module:
    """transformers' SAM 2.1 video model of a released size."""
    declare_torchvision_operators()
    from transformers import (
        Sam2HieraDetConfig,
        Sam2VideoConfig,
        Sam2VideoModel,
        Sam2VideoPromptEncoderConfig,
        Sam2VisionConfig,
    )

    trunks = {
        "tiny": {},
        "small": {"blocks_per_stage": [1, 2, 11, 2], "global_attention_blocks": [7, 10, 13]},
        "base_plus": {
            "hidden_size": 112,
            "embed_dim_per_stage": [112, 224, 448, 896],
            "num_attention_heads_per_stage": [2, 4, 8, 16],
            "blocks_per_stage": [2, 3, 16, 3],
            "global_attention_blocks": [12, 16, 20],
            "window_positional_embedding_background_size": [14, 14],
        },
    }
    channels = [896, 448, 224, 112] if size == "base_plus" else [768, 384, 192, 96]
    trunk = Sam2HieraDetConfig(image_size=[image_size, image_size], **trunks[size])
    sides = [[image_size // stride] * 2 for stride in (4, 8, 16)]
    config = Sam2VideoConfig(
        vision_config=Sam2VisionConfig(
            backbone_config=trunk, backbone_channel_list=channels, backbone_feature_sizes=sides
        ),
        prompt_encoder_config=Sam2VideoPromptEncoderConfig(image_size=image_size),
        image_size=image_size,
        memory_attention_rope_feat_sizes=sides[-1],
    )
    return Sam2VideoModel(config).eval()


def transformers_track(
    model: nn.Module, frames: Tensor, objects: Mapping[int, Prompt], order: Sequence[int]
) -> dict[int, Tensor]:
    """The same by transformers' video model, prompted by clicks or a box: (objects, 1, S/4, S/4) logits by slice."""
    return dict(transformers_slices(model, frames, objects, order))


def transformers_slices(
    model: nn.Module, frames: Tensor, objects: Mapping[int, Prompt], order: Sequence[int]
) -> Iterator[tuple[int, Tensor]]:
    """transformers' video model, slice by slice; see `reference_slices`. Yields (objects, 1, S/4, S/4) logits."""
    from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

    side = frames.shape[-1]
    session = Sam2VideoInferenceSession(
        video=frames,
        video_height=side,
        video_width=side,
        dtype=torch.float32,
        inference_device="cpu",
        inference_state_device="cpu",
        video_storage_device="cpu",
    )
    with torch.inference_mode():
        for object_id, prompt in objects.items():
            points = torch.tensor(prompt.points, dtype=torch.float32)[None, None]
            labels = torch.tensor(prompt.labels, dtype=torch.int32)[None, None]
            inputs = {"point_coords": points, "point_labels": labels}
            session.add_point_inputs(session.obj_id_to_idx(object_id), prompt.slice_index, inputs)
        session.obj_with_new_inputs = list(objects)
        model(session, frame_idx=order[0])
    for output in model.propagate_in_video_iterator(session, start_frame_idx=order[0], reverse=order[1] < order[0]):
        yield output.frame_idx, output.pred_masks


_HEADS = r"((?:iou_prediction_head|pred_obj_score_head|output_hypernetworks_mlps\.\d+|obj_ptr_proj)\.)layers\."
_TO_TRANSFORMERS = (
    (r"^sam_(prompt_encoder|mask_decoder)", r"\1"),
    (r"^image_encoder\.trunk", "vision_encoder.backbone"),
    (r"^image_encoder\.neck\.convs\.(\d)\.conv", r"vision_encoder.neck.convs.\1"),
    (r"patch_embed\.proj", "patch_embed.projection"),
    (r"(blocks\.\d+|transformer\.layers\.\d)\.mlp\.layers\.0", r"\1.mlp.proj_in"),
    (r"(blocks\.\d+|transformer\.layers\.\d)\.mlp\.layers\.1", r"\1.mlp.proj_out"),
    (_HEADS + "0", r"\1proj_in"),
    (_HEADS + "1", r"\1layers.0"),
    (_HEADS + "2", r"\1proj_out"),
    (r"output_upscaling\.0", "upscale_conv1"),
    (r"output_upscaling\.1", "upscale_layer_norm"),
    (r"output_upscaling\.3", "upscale_conv2"),
    (r"mask_downscaling\.0", "mask_embed.conv1"),
    (r"mask_downscaling\.1", "mask_embed.layer_norm1"),
    (r"mask_downscaling\.3", "mask_embed.conv2"),
    (r"mask_downscaling\.4", "mask_embed.layer_norm2"),
    (r"mask_downscaling\.6", "mask_embed.conv3"),
    (r"pe_layer\.positional_encoding_gaussian_matrix", "shared_embedding.positional_embedding"),
    (r"^memory_encoder\.out_proj", "memory_encoder.projection"),
    (r"out_proj", "o_proj"),
    (r"\.norm", ".layer_norm"),
    (r"pix_feat_proj", "feature_projection"),
    (r"\.fuser\.", ".memory_fuser."),
    (r"mask_downsampler\.encoder\.12", "mask_downsampler.final_conv"),
    (
        r"mask_downsampler\.encoder\.(\d+)",
        lambda m: f"mask_downsampler.layers.{int(m[1]) // 3}." + ("layer_norm" if int(m[1]) % 3 else "conv"),
    ),
    (r"dwconv", "depthwise_conv"),
    (r"pwconv", "pointwise_conv"),
    (r"gamma$", "scale"),
    (r"^obj_ptr_tpos_proj", "temporal_positional_encoding_projection_layer"),
    (r"^obj_ptr_proj", "object_pointer_proj"),
    (r"^no_obj_ptr$", "no_object_pointer"),
    (r"^no_obj_embed_spatial$", "occlusion_spatial_embedding_parameter"),
    (r"^maskmem_tpos_enc$", "memory_temporal_positional_encoding"),
    (r"^no_mem_embed$", "no_memory_embedding"),
    (r"^no_mem_pos_enc$", "no_memory_positional_encoding"),
)


def to_transformers_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Original keys renamed to those of transformers' Sam2VideoModel."""
    renamed = {}
    for key, tensor in state.items():
        for pattern, replacement in _TO_TRANSFORMERS:
            key = re.sub(pattern, replacement, key)
        renamed[key] = tensor
    points = [renamed.pop(f"prompt_encoder.point_embeddings.{i}.weight") for i in range(4)]
    renamed["prompt_encoder.point_embed.weight"] = torch.cat(points)
    shared = renamed["prompt_encoder.shared_embedding.positional_embedding"]
    renamed["shared_image_embedding.positional_embedding"] = shared
    return renamed
