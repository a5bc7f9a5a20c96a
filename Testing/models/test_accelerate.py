"""OpenVINO in place of torch: the same results, kept on disk, without telemetry, and torch where it cannot."""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import logging
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
if importlib.util.find_spec("openvino") is None:  # importing it here would import its telemetry
    pytest.skip("OpenVINO is not installed", allow_module_level=True)
safetensors_torch = pytest.importorskip("safetensors.torch")

from torch import Tensor, nn  # noqa: E402

from SegmentAnythingMedLib.errors import ModelUnavailableError  # noqa: E402
from SegmentAnythingMedLib.geometry import Plane  # noqa: E402
from SegmentAnythingMedLib.models import accelerate, sam2, sam2_engine  # noqa: E402
from SegmentAnythingMedLib.models.accelerate import Accelerator, Part  # noqa: E402
from SegmentAnythingMedLib.models.card import ModelCard  # noqa: E402
from SegmentAnythingMedLib.models.mapped_conversion import MappedConversion  # noqa: E402
from SegmentAnythingMedLib.models.networks import sam2_network  # noqa: E402
from SegmentAnythingMedLib.models.networks.efficient_tam_network import EfficientTamNetwork  # noqa: E402
from SegmentAnythingMedLib.models.networks.hiera import HieraConfig  # noqa: E402
from SegmentAnythingMedLib.models.networks.pooled_attention import CrossAttention  # noqa: E402
from SegmentAnythingMedLib.models.networks.sam2_network import Sam2Config, Sam2Network  # noqa: E402
from SegmentAnythingMedLib.models.sam2_engine import make_ready, run_in_openvino  # noqa: E402
from SegmentAnythingMedLib.prompts import BoxPrompt, PointPrompt  # noqa: E402
from SegmentAnythingMedLib.session import VolumeSession  # noqa: E402
from SegmentAnythingMedLib.volume import Volume  # noqa: E402
from Testing.models import small_edgetam, small_efficient_tam  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
K = Plane(2)
SMALL = Sam2Config(
    HieraConfig(dim=8, heads=1, blocks=(1, 1, 2, 1), global_blocks=(3,)),
    image_size=64,
    dim=32,
    memory_dim=8,
    memory_layers=1,
    mlp_dim=32,
)
CARD = ModelCard(
    "small", "small", "sam2", "none", ("slice", "memory"), ("point", "box", "mask"), preprocessing="imagenet"
)


def small_network(family: str) -> Sam2Network:
    """With weights away from zero and one, and objects that are there."""
    torch.manual_seed(0)
    network = Sam2Network(SMALL) if family == "sam2" else small_edgetam.small_network()
    small_edgetam.scatter(network)
    with torch.no_grad():
        network.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(5.0)
        network.maskmem_tpos_enc.normal_()
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module", params=["sam2", "edgetam"])
def both(request: pytest.FixtureRequest, cache: Path) -> tuple[Sam2Network, Sam2Network]:
    """A network, and the same computed by OpenVINO."""
    plain = small_network(request.param)
    fast = copy.deepcopy(plain)
    run_in_openvino(fast, Accelerator(cache / request.param), torch.float32)
    return plain, fast


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("openvino")


@pytest.fixture(scope="module")
def a_drifting_column() -> Volume:
    voxels = np.full((9, 28, 34), 30, dtype=np.uint8)
    for index in range(9):
        voxels[index, 8:20, 4 + index : 16 + index] = 220
    return Volume.from_array(voxels)


class _Product(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.arange(12.0).reshape(3, 4))

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (x @ self.weight,)


@pytest.fixture
def product() -> Part:
    return Part("product", _Product(), (torch.ones(2, 3),), {0: 0})


def logits_of(network: Sam2Network, volume: Volume) -> np.ndarray:
    """Of a slice with a box, the slices tracked from it, and after a click on another slice."""
    kept: list[np.ndarray] = []

    class Recording(sam2.Sam2Model):
        def predict(self, *arguments: object, **options: object) -> object:
            prediction = super().predict(*arguments, **options)
            kept.append(prediction.logits[0])
            return prediction

    session = VolumeSession(volume, Recording(CARD, network))
    session.segment_slice(1, session.add_prompt(1, BoxPrompt.on_slice((5, 8, 16, 19), 0, K)))
    list(session.propagate([1], plane=K, first=0, last=8))
    session.segment_slice(1, session.add_prompt(1, PointPrompt((10.0, 12.0, 6.0), True, K)))
    return np.stack(kept)


def test_a_session_finds_the_same_to_a_hundred_thousandth(
    both: tuple[Sam2Network, Sam2Network], a_drifting_column: Volume
) -> None:
    plain, fast = (logits_of(network, a_drifting_column) for network in both)
    assert np.abs(fast - plain).max() <= 1e-5 * np.abs(plain).max()


def test_nearly_all_of_a_tracked_slice_is_openvinos(
    both: tuple[Sam2Network, Sam2Network], a_drifting_column: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[object] = []
    for part in ("image_encoder", "memory_attention", "sam_mask_decoder"):
        module = getattr(both[1], part)
        for child in module.children():
            child.register_forward_hook(lambda module, *_: called.append(module))
    logits_of(both[1], a_drifting_column)
    assert not [one for one in called if one not in list(both[1].sam_mask_decoder.children())]


def test_torchs_weights_of_what_openvino_computes_are_read_from_its_files(
    both: tuple[Sam2Network, Sam2Network], cache: Path
) -> None:
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("only Linux tells what is mapped")
    lines = [line.split() for line in maps.read_text().splitlines() if line.endswith(".ov")]
    spans = [tuple(int(end, 16) for end in line[0].split("-")) for line in lines]
    for key, tensor in both[1].state_dict().items():
        if key.startswith(("image_encoder", "memory_attention")):
            assert any(first <= tensor.data_ptr() < last for first, last in spans), key


def test_weights_and_their_keys_stay(both: tuple[Sam2Network, Sam2Network]) -> None:
    plain, fast = (network.state_dict() for network in both)
    assert list(plain) == list(fast)
    assert all(torch.equal(plain[key], fast[key]) for key in plain)


def test_gradients_flow_as_before(both: tuple[Sam2Network, Sam2Network]) -> None:
    side = both[1].config.image_size
    pixels = torch.rand(1, 3, side, side, requires_grad=True)
    both[1].encode_image(pixels).embedding.sum().backward()
    assert pixels.grad.abs().sum() > 0


def test_batches_and_sizes_that_were_not_compiled_are_computed_too(both: tuple[Sam2Network, Sam2Network]) -> None:
    side = both[0].config.image_size
    pixels = torch.rand(2, 3, side, side)
    with torch.inference_mode():
        expected, found = (network.encode_image(pixels).embedding for network in both)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        maps = [network.encode_no_clicks(2) for network in both]
        masks = [
            network.decode_masks(features.embedding, features.high_resolution, prompts, True).mask_logits
            for network, prompts, features in ((n, p, n.encode_image(pixels)) for n, p in zip(both, maps, strict=True))
        ]
    torch.testing.assert_close(masks[1], masks[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [CrossAttention.POOLED_SCORES, CrossAttention.POOLED_KEYS])
def test_memories_of_merged_cells(kind: CrossAttention, a_drifting_column: Volume) -> None:
    torch.manual_seed(0)
    plain = EfficientTamNetwork(replace(small_efficient_tam.SMALL, cross_attention=kind))
    small_edgetam.scatter(plain)
    plain.eval().requires_grad_(False)
    fast = copy.deepcopy(plain)
    run_in_openvino(fast, Accelerator(None), torch.float32)
    shapes: list[int] = []
    attend = fast.memory_attention.forward._compiled
    fast.memory_attention.forward._compiled = lambda *tensors: shapes.append(len(tensors[1])) or attend(*tensors)
    expected, found = (logits_of(network, a_drifting_column) for network in (plain, fast))
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
    lonely = EfficientTamNetwork(replace(small_efficient_tam.SMALL, cross_attention=kind, memory_slots=1))
    examples = {part.name: part.example for part in sam2_engine._parts(lonely.eval(), torch.float32)}
    assert len(examples["memory_attention-64"][1]) == 2, "torch cannot export a length of 1 as any length"
    assert min(shapes) == 2 < max(shapes), "a single memory is looked at in full, by torch"


def test_in_bf16_it_is_near(a_drifting_column: Volume, cache: Path) -> None:
    plain = small_network("edgetam")
    fast = copy.deepcopy(plain)
    assert make_ready(fast, torch.bfloat16, "openvino", cache / "edgetam") == "openvino"
    expected, found = (logits_of(network, a_drifting_column) for network in (plain, fast))
    assert 1e-5 < np.linalg.norm(found - expected) / np.linalg.norm(expected) < 0.1


def test_in_bf16_torch_keeps_its_weights_in_it() -> None:
    network = small_network("edgetam")
    assert make_ready(network, torch.bfloat16, "torch") == "torch"
    assert network.memory_attention.layers[0].linear1.weight.dtype is torch.bfloat16


# -- any length ------------------------------------------------------------------------------------------------------


def test_a_length_that_comes_often_gets_its_own_program(product: Part) -> None:
    compiled = Accelerator(None).compile(product)
    for length in (2, 5, 5, 5, 5, 5, 3, 2):
        x = torch.rand(length, 3)
        torch.testing.assert_close(compiled(x)[0], x @ product.module.weight)
    assert list(compiled._special) == [((5, 3),), ((2, 3),)], "the example's length has one from the start"


def test_a_program_for_one_length_that_gives_other_results_is_not_used(
    product: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    general: list[bool] = []

    class Wrong(accelerate.Compiled):
        def _infer(self, request: object, arrays: list[np.ndarray]) -> tuple[Tensor, ...]:
            general.append(request is self._general)
            found = super()._infer(request, arrays)
            return found if general[-1] else tuple(tensor * np.nan for tensor in found)

    monkeypatch.setattr(accelerate, "Compiled", Wrong)
    compiled = Accelerator(None).compile(product)
    torch.testing.assert_close(compiled(torch.ones(2, 3))[0], torch.ones(2, 3) @ product.module.weight)
    assert not all(general), "it was tried"


def test_what_is_no_number_never_gets_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plain = small_network("sam2")
    fast = copy.deepcopy(plain)
    run_in_openvino(fast, Accelerator(tmp_path), torch.bfloat16)
    pixels, side = torch.rand(1, 3, 64, 64), fast.config.image_size
    assert side == 64
    fast.encode_image._compiled._infer = lambda *_: (torch.full((1, 1), np.nan),)
    with torch.inference_mode():
        expected = plain.encode_image(pixels).embedding
        for _ in range(2):
            torch.testing.assert_close(fast.encode_image(pixels).embedding, expected)
    assert caplog.text.count("torch goes on") == 1


@pytest.mark.parametrize("maps", [1, 2, 8])
def test_in_bf16_memory_attention_is_right_for_any_number_of_memories(maps: int) -> None:
    plain = small_network("edgetam")
    fast = copy.deepcopy(plain)
    run_in_openvino(fast, Accelerator(None), torch.bfloat16)
    torch.manual_seed(1)
    cells, tokens = plain.config.image_size // 16, plain.config.latents + plain.config.window_grid**2
    features = torch.randn(1, plain.config.dim, cells, cells)
    memories = [(torch.randn(1, plain.config.memory_dim, tokens), slot % 7) for slot in range(maps)]
    pointers = [(torch.randn(1, plain.config.dim), float(slot)) for slot in range(maps)]
    with torch.inference_mode():
        for _ in range(5):  # by then this length has a program of its own
            found = fast.condition(features, memories, pointers)
        expected = plain.condition(features, memories, pointers)
    assert float((found - expected).abs().max()) < 0.05 * float(expected.abs().max())


def test_a_version_of_openvino_without_the_setting_compiles_all_the_same(
    product: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    accelerator, asked = Accelerator(None), []
    plain = accelerator._core.compile_model

    class Core:
        def __getattr__(self, name: str) -> object:
            return getattr(plain.__self__, name)

        def compile_model(self, model: object, device: str, settings: dict[str, object]) -> object:
            asked.append("SNIPPETS_MODE" in settings)
            if asked[-1]:
                raise RuntimeError("unknown property")
            return plain(model, device, settings)

    monkeypatch.setattr(accelerator, "_core", Core())
    compiled = accelerator.compile(replace(product, fused=False))
    torch.testing.assert_close(compiled(torch.ones(4, 3))[0], torch.ones(4, 3) @ product.module.weight)
    assert True in asked and False in asked


# -- the cache -------------------------------------------------------------------------------------------------------


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of parts as they are converted."""
    done: list[str] = []
    convert = Accelerator._converted

    def counted(self: Accelerator, part: Part) -> object:
        done.append(part.name)
        return convert(self, part)

    monkeypatch.setattr(Accelerator, "_converted", counted)
    return done


def test_what_was_converted_is_found_again(tmp_path: Path, product: Part, conversions: list[str]) -> None:
    for _ in range(2):
        compiled = Accelerator(tmp_path / "new").compile(product)
        torch.testing.assert_close(compiled(torch.ones(4, 3))[0], torch.ones(4, 3) @ product.module.weight)
    assert conversions == ["product"]
    assert [path.suffix for path in (tmp_path / "new").iterdir()] == [".ov"], "nothing else is left behind"


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda content: content[:10],
        lambda content: b"",
        lambda content: content[:-40] + bytes([content[-40] ^ 1]) + content[-39:],
        lambda content: b"X" + content[1:],
        lambda content: content[:8] + hashlib.sha256(bytes(len(content) - 40)).digest() + bytes(len(content) - 40),
    ],
    ids=["cut", "cut in the head", "empty", "one bit", "another file", "nothing with a right digest"],
)
def test_a_damaged_file_is_made_anew(tmp_path: Path, product: Part, conversions: list[str], damage: object) -> None:
    Accelerator(tmp_path).compile(product)
    (path,) = tmp_path.glob("*.ov")
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    x = torch.rand(2, 3)
    torch.testing.assert_close(Accelerator(tmp_path).compile(product)(x)[0], x @ product.module.weight)
    assert conversions == ["product"] * 2 and path.stat().st_size == len(whole)


def test_other_weights_take_the_place_of_the_old(tmp_path: Path, product: Part, conversions: list[str]) -> None:
    Accelerator(tmp_path).compile(product)
    changed = _Product()
    with torch.no_grad():
        changed.weight[0, 0] = 7.0
    x = torch.eye(3)
    compiled = Accelerator(tmp_path).compile(replace(product, module=changed))
    torch.testing.assert_close(compiled(x)[0], changed.weight.detach())
    assert conversions == ["product"] * 2 and len(list(tmp_path.glob("*.ov"))) == 1


@pytest.mark.skipif(os.name == "nt", reason="a folder cannot be made read-only there")
def test_a_folder_that_cannot_be_written_to_is_done_without(
    tmp_path: Path, product: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    x = torch.rand(2, 3)
    compiled = Accelerator(tmp_path / "file" / "folder").compile(product)
    torch.testing.assert_close(compiled(x)[0], x @ product.module.weight)


def test_a_program_reads_its_weights_from_the_file_and_has_no_second_copy(tmp_path: Path, product: Part) -> None:
    for _ in range(2):  # converted, and found
        compiled = Accelerator(tmp_path).compile(product)
        assert compiled._kept.weights.base is not None and not compiled._kept.weights.flags.owndata
        compiled._kept.forget()
        x = torch.rand(7, 3)
        torch.testing.assert_close(compiled(x)[0], x @ product.module.weight)


def test_weights_of_a_spare_part_leave_memory_and_stay_the_same(tmp_path: Path, product: Part) -> None:
    compiled = Accelerator(tmp_path).compile(replace(product, spare=True))
    weight, before, place = product.module.weight, product.module.weight.clone(), product.module.weight.data_ptr()
    compiled.unload()
    assert product.module.weight is weight and weight.data_ptr() != place and torch.equal(weight, before)
    with torch.no_grad():
        weight += 1  # changes stay here: neither the file nor the program sees them
    x = torch.rand(2, 3)
    torch.testing.assert_close(compiled(x)[0], x @ before)
    torch.testing.assert_close(product.module(x)[0], x @ (before + 1))
    (path,) = tmp_path.glob("*.ov")
    assert torch.equal(MappedConversion.find(path).tensor("weight", before), before)


def test_a_program_for_any_length_is_right_after_its_memory_was_let_go(tmp_path: Path, product: Part) -> None:
    compiled = Accelerator(tmp_path).compile(product)
    for length in (2, 2, 2, 2, 5, 2, 2, 2, 6):
        x = torch.rand(length, 3)
        torch.testing.assert_close(compiled(x)[0], x @ product.module.weight)


def test_lengths_that_come_by_turns_do_not_get_new_programs_each_time(product: Part) -> None:
    compiled, made = Accelerator(None).compile(product), []
    specialize = compiled._specialize
    compiled._specialize = lambda arrays: (made.append(len(arrays[0])), specialize(arrays))
    for _ in range(12):
        for length in range(3, 10):
            compiled(torch.rand(length, 3))
    assert len(made) <= 12 * 7 / 3


def test_a_part_that_is_not_spare_keeps_its_weights(tmp_path: Path, product: Part) -> None:
    compiled, place = Accelerator(tmp_path).compile(product), product.module.weight.data_ptr()
    compiled.unload()
    assert product.module.weight.data_ptr() == place


def test_weights_that_openvinos_hold_are_not_written_twice(tmp_path: Path) -> None:
    xml, weights = b'<net><data offset="8" size="48"/></net>', bytes(8) + np.arange(12, dtype=np.float32).tobytes()
    tensors = {"held": torch.arange(12.0), "turned": torch.arange(12.0).reshape(3, 4).T.contiguous()}
    MappedConversion.write(tmp_path / "a.ov", xml, weights, tensors)
    kept = MappedConversion.find(tmp_path / "a.ov")
    assert kept.xml.encode() == xml and kept.weights.tobytes() == weights
    assert all(torch.equal(kept.tensor(name, tensor), tensor) for name, tensor in tensors.items())
    assert kept.tensor("another", torch.zeros(1)) is None
    assert list(kept._places.values()) == [8, 64]


def test_a_file_of_an_older_form_is_replaced(tmp_path: Path, product: Part, conversions: list[str]) -> None:
    Accelerator(tmp_path).compile(product)
    (path,) = tmp_path.glob("*.ov")
    older = path.with_name(path.name.replace(path.stem[-24:], "0" * 24))
    older.write_bytes(b"SAM-OV01" + bytes(100))
    path.write_bytes(b"SAM-OV01" + bytes(100))
    Accelerator(tmp_path).compile(product)
    assert conversions == ["product"] * 2 and list(tmp_path.iterdir()) == [path]


def test_other_code_of_ours_converts_anew(
    tmp_path: Path, product: Part, conversions: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {"accelerate.py", "mapped_conversion.py", "sam2_engine.py", "sam2_parts.py"}
    read, changed = Path.read_bytes, set()
    monkeypatch.setattr(Path, "read_bytes", lambda path: read(path) + (b"#" if path.name in changed else b""))
    Accelerator(tmp_path).compile(product)
    for name in sorted(names):
        changed.add(name)
        Accelerator(tmp_path).compile(product)
    assert len(conversions) == 1 + len(names)


# -- what goes wrong -------------------------------------------------------------------------------------------------


class _Odd(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (torch.linalg.eigvals(x).real,)


def test_what_openvino_cannot_compute_is_refused_in_a_sentence() -> None:
    with pytest.raises(ModelUnavailableError, match=r"OpenVINO cannot compute odd \(.*\): use torch"):
        Accelerator(None).compile(Part("odd", _Odd(), (torch.eye(3),)))


def test_a_conversion_that_gives_other_results_is_refused(product: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerate.Compiled, "__call__", lambda self, *tensors: (torch.zeros(2, 4),))
    with pytest.raises(ModelUnavailableError, match="its results differ from torch's"):
        Accelerator(None).compile(product)


def test_then_torch_computes_and_the_log_says_so(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise ModelUnavailableError("OpenVINO cannot compute it: use torch.")

    monkeypatch.setattr(Accelerator, "compile", fails)
    network = small_network("sam2")
    with caplog.at_level(logging.WARNING):
        assert make_ready(network, torch.float32, "auto") == "torch"
    assert "torch computes the model" in caplog.text
    assert "encode_image" not in vars(network)


@pytest.mark.parametrize(("engine", "lines"), [("auto", 0), ("openvino", 1)])
def test_without_openvino_torch_computes(
    engine: str, lines: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr(sam2_engine, "is_installed", lambda: False)
    with caplog.at_level(logging.WARNING):
        assert make_ready(small_network("sam2"), torch.float32, engine) == "torch"
    assert len(caplog.records) == lines


def test_an_engine_of_another_name_is_refused() -> None:
    with pytest.raises(ModelUnavailableError, match="use auto, torch, openvino"):
        make_ready(small_network("sam2"), torch.float32, "onnx")


def test_a_model_from_a_file_keeps_its_conversion_beside_the_file(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if (cache / "sam2").is_dir():  # converted by another test: one part is left to do
        shutil.copytree(cache / "sam2", tmp_path / "openvino")
        next((tmp_path / "openvino").glob("mask_decoder*")).unlink()
    monkeypatch.setattr(sam2, "infer_sam2_config", lambda state, size: SMALL)
    safetensors_torch.save_file(small_network("sam2").state_dict(), tmp_path / "small.safetensors")
    model = sam2.load(
        replace(CARD, input_size=64), tmp_path / "small.safetensors", "cpu", engine="openvino", precision="fp32"
    )
    assert "encode_image" in vars(model.network)
    names = {path.name.partition("-")[0] for path in (tmp_path / "openvino").iterdir()}
    assert names == {"image_encoder", "mask_decoder", "memory_attention", "memory_encoder"}


QUIET = """
import socket, sys

class Refused(socket.socket):
    def __init__(self, *arguments, **options):
        raise SystemExit("a socket was opened")

def refused(*arguments, **options):
    raise SystemExit("an address was looked up")

socket.socket, socket.create_connection, socket.getaddrinfo = Refused, refused, refused
import torch
from SegmentAnythingMedLib.models.accelerate import Accelerator, Part

part = Part("layer", torch.nn.Sequential(torch.nn.Linear(3, 4)), (torch.rand(2, 3),))
part.module.forward = lambda x: (part.module[0](x),)
print(Accelerator(None).compile(part)(torch.rand(2, 3))[0].shape, sys.modules["openvino_telemetry"])
"""


def test_converting_and_running_opens_no_socket_and_loads_no_telemetry() -> None:
    run = subprocess.run([sys.executable, "-c", QUIET], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout.strip()) == (0, "torch.Size([2, 4]) None"), run.stderr


def test_openvino_with_its_telemetry_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino_telemetry", object())
    with pytest.raises(ModelUnavailableError, match="telemetry"):
        Accelerator(None)


def test_the_network_package_knows_nothing_of_it() -> None:
    assert "openvino" not in Path(sam2_network.__file__).read_text(encoding="utf-8").lower()
