"""Calls of the same shapes are recorded or compiled, and answer as before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from SegmentAnythingMedLib.models.networks.hiera import HieraConfig
from SegmentAnythingMedLib.models.networks.on_gpu import Compile, failures, keep_weights_in, make_faster
from SegmentAnythingMedLib.models.networks.repeated_call import COMPILE_AT, RepeatedCall
from SegmentAnythingMedLib.models.networks.sam2_network import ImageFeatures, Sam2Config, Sam2Network

SIDE = 64
SMALL = Sam2Config(
    HieraConfig(dim=8, heads=1, blocks=(1, 1, 1, 1), global_blocks=(2,)),
    image_size=SIDE,
    dim=32,
    memory_dim=8,
    memory_layers=1,
    mlp_dim=32,
)


@dataclass(frozen=True)
class Pair:
    left: Tensor
    right: Tensor | None


class Recorder:
    """Records as a CUDA graph does: results lie in the same place every time."""

    def __init__(self) -> None:
        self.recorded = 0

    def __call__(self, function: Callable[..., Pair], inputs: tuple) -> Callable[[], Pair]:
        self.recorded += 1
        kept = function(*inputs)

        def replay() -> Pair:
            again = function(*inputs)
            kept.left.copy_(again.left)
            return kept

        return replay


def double(pair: Pair, factor: int = 2) -> Pair:
    return Pair(pair.left * factor, None)


def ones(size: int, value: float = 1.0) -> Pair:
    return Pair(torch.full((size,), value), None)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def test_a_call_is_recorded_when_its_shapes_come_again_and_sees_new_values(recorder: Recorder) -> None:
    call = RepeatedCall(double, recorder)
    with torch.inference_mode():
        found = [call(ones(3, value)).left[0].item() for value in (1.0, 2.0, 3.0, 4.0)]
    assert found == [2.0, 4.0, 6.0, 8.0]
    assert recorder.recorded == 1


def test_results_of_a_recorded_call_outlive_the_next_one(recorder: Recorder) -> None:
    call = RepeatedCall(double, recorder)
    with torch.inference_mode():
        results = [call(ones(2, value)) for value in (1.0, 2.0, 3.0, 4.0)]
    assert [one.left[0].item() for one in results] == [2.0, 4.0, 6.0, 8.0]


def test_other_shapes_and_other_numbers_are_other_calls(recorder: Recorder) -> None:
    call = RepeatedCall(double, recorder)
    with torch.inference_mode():
        for _ in range(2):
            assert len(call(ones(2)).left) == 2
            assert len(call(ones(5)).left) == 5
            assert call(ones(2), 7).left[0].item() == 7
    assert recorder.recorded == 3


def test_training_is_never_recorded(recorder: Recorder) -> None:
    call = RepeatedCall(double, recorder)
    weight = torch.ones(2, requires_grad=True)
    for _ in range(4):
        call(Pair(weight, None)).left.sum().backward()
    assert recorder.recorded == 0
    assert weight.grad is not None


def test_what_cannot_be_recorded_goes_on_as_before_and_says_why(caplog: pytest.LogCaptureFixture) -> None:
    def broken(function: Callable, inputs: tuple) -> Callable:
        raise RuntimeError("operation not permitted when stream is capturing")

    call = RepeatedCall(double, broken)
    with torch.inference_mode():
        found = [call(ones(2, value)).left[0].item() for value in (1.0, 2.0, 3.0)]
    assert found == [2.0, 4.0, 6.0]
    assert "not permitted" in call.failure
    assert "goes on as before" in caplog.text


def test_only_what_comes_in_a_row_is_compiled() -> None:
    compiled: list[int] = []

    def compiler(function: Callable) -> Callable:
        return lambda pair: (compiled.append(len(pair.left)), function(pair))[1]

    call = RepeatedCall(double, None, compiler)
    with torch.inference_mode():
        for size in [*range(1, 9)] * COMPILE_AT:
            call(ones(size))
        assert compiled == []
        for _ in range(COMPILE_AT):
            assert call(ones(9)).left[0].item() == 2.0
    assert set(compiled) == {9}


def a_network() -> Sam2Network:
    torch.manual_seed(0)
    network = Sam2Network(SMALL).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.copy_(0.2 * torch.randn(parameter.shape))
    return network


def tracked(network: Sam2Network, slices: int = 4) -> Tensor:
    """Mask logits of slices that all look back on the first two."""
    frames = torch.randn(slices + 2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    pointer, found = torch.ones(1, 32), []
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        maps = [network.encode_image(frame[None]) for frame in frames]
        memory = network.encode_memory(maps[0].embedding, torch.ones(1, 1, 16, 16), torch.ones(1, 1), True)
        for index in range(2, slices + 2):
            lookback = network.lookback([(memory, 0), (memory, 1)], [(pointer, index), (pointer, 1)], 5)
            found.append(network.track(maps[index], lookback).mask_logits)
    return torch.cat(found)


def test_weights_kept_in_bfloat16_answer_exactly_as_weights_cast_each_time() -> None:
    kept = a_network()
    keep_weights_in(kept, torch.bfloat16)
    assert kept.image_encoder.neck.convs[0].conv.weight.dtype is torch.bfloat16
    assert kept.maskmem_tpos_enc.dtype is torch.float32
    assert torch.equal(tracked(kept), tracked(a_network()))


def test_a_recorded_network_answers_exactly_as_it_did() -> None:
    recorded, wanted = a_network(), tracked(a_network())
    make_faster(recorded, graphs=True, record=lambda function, inputs: lambda: function(*inputs))
    assert torch.equal(tracked(recorded), wanted)
    assert failures(recorded) == []


def test_tracking_in_tensors_is_conditioning_and_decoding() -> None:
    network = a_network()
    features = network.encode_image(torch.randn(1, 3, SIDE, SIDE))
    memory, pointer = torch.randn(1, 8, 4, 4), torch.randn(1, 32)
    memories, pointers = [(memory, 0), (memory, 3)], [(pointer, 2), (pointer, 7)]
    embedding = network.condition(features.embedding, memories, pointers, 9)
    wanted = network.decode_masks(embedding, features.high_resolution, network.encode_no_clicks(1), True)
    found = network.track(features, network.lookback(memories, pointers, 9))
    assert torch.equal(found.mask_logits, wanted.mask_logits)
    assert found.iou.shape == (1, 3)


@pytest.mark.parametrize("part", ["encode_image", "track", "encode_memory"])
def test_the_compiler_can_follow_each_part_from_end_to_end(part: str) -> None:
    network = a_network()
    features = network.encode_image(torch.randn(1, 3, SIDE, SIDE))
    memory = torch.randn(1, 8, 4, 4)
    arguments = {
        "encode_image": (torch.randn(1, 3, SIDE, SIDE),),
        "track": (features, network.lookback([(memory, 0)], [(torch.randn(1, 32), 2)], 9)),
        "encode_memory": (features.embedding, torch.randn(1, 1, 16, 16), torch.ones(1, 1), False),
    }[part]
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        wanted = getattr(network, part)(*arguments)
        found = torch.compile(getattr(network, part), backend="eager", fullgraph=True)(*arguments)
    torch.compiler.reset()
    first = {"encode_image": "embedding", "track": "mask_logits"}.get(part)
    assert torch.equal(getattr(found, first) if first else found, getattr(wanted, first) if first else wanted)


def test_a_card_cannot_ask_for_a_compiled_part_that_is_not_there() -> None:
    assert Compile("encoder").parts == ("encode_image",)
    with pytest.raises(ValueError, match="decoder"):
        Compile("decoder")


def test_features_keep_their_kind_through_a_recording(recorder: Recorder) -> None:
    def swap(maps: ImageFeatures) -> Pair:
        return Pair(maps.embedding + 1, None)

    call = RepeatedCall(swap, recorder)
    maps = ImageFeatures(None, None, torch.zeros(1, 2, 2, 2))
    with torch.inference_mode():
        found = [call(maps) for _ in range(3)]
    assert isinstance(found[-1], Pair)
    assert found[-1].left.sum() == 8
