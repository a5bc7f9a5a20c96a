"""SAM 2 with a short-term memory of its own, of random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from SegmentAnythingMedLib.errors import ModelFileError  # noqa: E402
from SegmentAnythingMedLib.geometry import Plane  # noqa: E402
from SegmentAnythingMedLib.models import sam2  # noqa: E402
from SegmentAnythingMedLib.models.card import ModelCard  # noqa: E402
from SegmentAnythingMedLib.models.networks.hiera import HieraConfig  # noqa: E402
from SegmentAnythingMedLib.models.networks.sam2_network import Sam2Config, Sam2Network  # noqa: E402
from SegmentAnythingMedLib.models.networks.short_long_network import ShortLongNetwork, is_short_long  # noqa: E402
from SegmentAnythingMedLib.prompts import BoxPrompt  # noqa: E402
from SegmentAnythingMedLib.session import VolumeSession  # noqa: E402
from SegmentAnythingMedLib.volume import Volume  # noqa: E402

TRUNK = HieraConfig(dim=8, heads=1, blocks=(1, 1, 2, 1), global_blocks=(3,))
SMALL = Sam2Config(TRUNK, image_size=64, dim=32, memory_dim=8, memory_layers=1, mlp_dim=32)
CARD = ModelCard("s", "s", "sam2", "none", ("slice", "memory"), ("point", "box", "mask"), preprocessing="imagenet")


@pytest.fixture
def base() -> Sam2Network:
    torch.manual_seed(0)
    network = Sam2Network(SMALL)
    with torch.no_grad():
        network.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(5.0)
        network.maskmem_tpos_enc.normal_()
    return network.eval()


@pytest.fixture
def recalled() -> tuple[torch.Tensor, list, list]:
    """An embedding, memories of two slices and their pointers."""
    torch.manual_seed(1)
    memories = [(torch.randn(1, 8, 4, 4), 0), (torch.randn(1, 8, 4, 4), 1)]
    return torch.randn(1, 32, 4, 4), memories, [(torch.randn(1, 32), 2.0), (torch.randn(1, 32), 1.0)]


def tracked(network: Sam2Network, policy: str) -> np.ndarray:
    """(5, 24, 40) mask of a session over a noisy volume."""
    voxels = (np.random.default_rng(0).random((5, 24, 40)) * 255).astype(np.uint8)
    session = VolumeSession(Volume.from_array(voxels), sam2.Sam2Model(CARD, network), policy=policy)
    session.segment_slice(1, session.add_prompt(1, BoxPrompt.on_slice((5, 4, 30, 20), 1, Plane(2))))
    list(session.propagate(plane=Plane(2), first=0, last=4))
    return session.labelmap(1).copy()


def test_a_grown_network_has_the_base_and_its_own_modules_under_the_published_keys(base: Sam2Network) -> None:
    own = set(ShortLongNetwork.grown_from(base).state_dict()) - set(base.state_dict())
    assert {key.partition(".")[0] for key in own} == {
        "recent_memory_attention", "recent_memory_fuser", "rec_maskmem_tpos_enc",
    }  # fmt: skip
    assert "recent_memory_fuser.layers.1.gamma" in own
    assert "recent_memory_attention.layers.0.cross_attn_image.k_proj.weight" in own


def test_without_a_second_look_back_it_is_the_base(base: Sam2Network) -> None:
    np.testing.assert_array_equal(tracked(ShortLongNetwork.grown_from(base), "recent"), tracked(base, "recent"))


def test_a_fuser_without_its_layers_gives_exactly_the_sum(base: Sam2Network, recalled: tuple) -> None:
    network = ShortLongNetwork.grown_from(base)
    embedding, memories, pointers = recalled
    with torch.no_grad():
        for layer in network.recent_memory_fuser.layers:
            layer.gamma.zero_()
        network.rec_maskmem_tpos_enc.copy_(network.maskmem_tpos_enc)
        long = network.condition(embedding, memories, pointers)
        short = network.condition(embedding, memories[1:], pointers[1:])
        both = network.condition_twice(long, embedding, memories[1:], pointers[1:])
    torch.testing.assert_close(both, long + short, rtol=0, atol=0)


def test_its_time_table_is_its_own_and_starts_at_zero(base: Sam2Network, recalled: tuple) -> None:
    network = ShortLongNetwork.grown_from(base)
    embedding, memories, pointers = recalled
    assert not network.rec_maskmem_tpos_enc.any()
    with torch.no_grad():
        before = network.condition_twice(embedding, embedding, memories[1:], pointers[1:])
        network.maskmem_tpos_enc.normal_()
        same = network.condition_twice(embedding, embedding, memories[1:], pointers[1:])
        network.rec_maskmem_tpos_enc[0].normal_()
        other = network.condition_twice(embedding, embedding, memories[1:], pointers[1:])
    assert torch.equal(before, same) and not torch.allclose(before, other)


def test_gradients_reach_only_its_own_modules_when_the_base_is_frozen(base: Sam2Network, recalled: tuple) -> None:
    network = ShortLongNetwork.grown_from(base)
    network.requires_grad_(False)
    for parameter in network.own_parameters():
        parameter.requires_grad_(True)
    embedding, memories, pointers = recalled
    long = network.condition(embedding, memories, pointers)
    network.condition_twice(long, embedding, memories[1:], pointers[1:]).square().sum().backward()
    reached = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert reached == {name for name in network.state_dict() if name not in base.state_dict()}


def test_with_the_policy_a_session_fuses_both_looks(base: Sam2Network) -> None:
    network = ShortLongNetwork.grown_from(base)
    with torch.no_grad():
        for layer in network.recent_memory_fuser.layers:
            layer.gamma.fill_(1.0)
    fused: list[int] = []
    fuse = network.condition_twice
    network.condition_twice = lambda long, embedding, memories, *rest: (
        fused.append(len(memories)), fuse(long, embedding, memories, *rest))[1]  # fmt: skip
    short_long = tracked(network, "short_long")
    assert fused == [1, 1, 1, 1], "one slice just passed, key slice included"
    assert (short_long != tracked(network, "recent")).any()


def test_a_checkpoint_is_recognised_by_its_keys(tmp_path: Path) -> None:
    card = ModelCard("t", "t", "sam2", "none", ("slice",), preprocessing="imagenet", input_size=64)
    with torch.device("meta"):
        config = Sam2Config.released("tiny", image_size=64)
        shapes = {key: tensor.shape for key, tensor in ShortLongNetwork(config).state_dict().items()}
    state = {key: torch.zeros(shape, dtype=torch.float16) for key, shape in shapes.items()}
    assert is_short_long(state)
    torch.save({"model": state}, tmp_path / "slm.pt")
    assert isinstance(sam2.load(card, tmp_path / "slm.pt", "cpu").network, ShortLongNetwork)
    del state["recent_memory_fuser.layers.0.gamma"]
    torch.save({"model": state}, tmp_path / "cut.pt")
    with pytest.raises(ModelFileError, match="recent_memory_fuser"):
        sam2.load(card, tmp_path / "cut.pt", "cpu")
