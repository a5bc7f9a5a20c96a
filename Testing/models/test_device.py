"""Which device and precision are chosen where nobody says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from SegmentAnythingMedLib.errors import ModelUnavailableError  # noqa: E402
from SegmentAnythingMedLib.models import device  # noqa: E402
from SegmentAnythingMedLib.models.device import ENOUGH_BYTES, choose_device, choose_precision  # noqa: E402
from SegmentAnythingMedLib.models.sam2 import wanted_precision  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
CHOOSE = """
import torch
from SegmentAnythingMedLib.models.device import choose_precision
print(torch.ops.mkldnn._is_mkldnn_bf16_supported(), choose_precision("auto"))
"""


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> dict[int, int]:
    """Free bytes of each, to be changed."""
    free = {0: ENOUGH_BYTES, 1: 2 * ENOUGH_BYTES}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(free))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (free[index], 4 * ENOUGH_BYTES))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    return free


def test_the_gpu_with_most_room_is_taken(two_gpus: dict[int, int]) -> None:
    assert choose_device("auto") == torch.device("cuda", 1)


def test_one_gpu_is_the_gpu(two_gpus: dict[int, int]) -> None:
    del two_gpus[1]
    assert choose_device("auto") == torch.device("cuda")


def test_a_full_gpu_leaves_the_cpu_and_the_log_says_so(
    two_gpus: dict[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    two_gpus.update({0: ENOUGH_BYTES - 1, 1: 0})
    assert choose_device("auto") == torch.device("cpu")
    assert "too little free memory" in caplog.text


def test_a_gpu_that_cannot_be_asked_is_not_taken(two_gpus: dict[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(index: int) -> tuple[int, int]:
        raise RuntimeError("CUDA-capable device(s) is/are busy or unavailable")

    monkeypatch.setattr(torch.cuda, "mem_get_info", busy)
    assert choose_device("auto") == torch.device("cpu")


def test_apples_gpu_comes_before_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("auto") == torch.device("mps")


@pytest.mark.parametrize(("fp32", "bf16", "chosen"), [(1.3, 1.0, "bf16"), (1.2, 1.0, "fp32"), (1.0, 6.0, "fp32")])
def test_bf16_must_be_clearly_faster(fp32: float, bf16: float, chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {torch.float32: fp32, torch.bfloat16: bf16}
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    monkeypatch.setattr(device, "_fastest_product", lambda dtype: seconds[dtype])
    assert choose_precision("auto", torch.device("cpu")) is choose_precision(chosen)


def test_a_cpu_without_bf16_is_not_even_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    monkeypatch.setattr(device, "_fastest_product", lambda dtype: pytest.fail("tried"))
    assert choose_precision("auto") is torch.float32


@pytest.mark.parametrize("limit", ["AVX2", "AVX512_CORE"])
def test_a_cpu_capped_to_older_instructions_computes_in_fp32(limit: str) -> None:
    capped = {"ONEDNN_MAX_CPU_ISA": limit, "DNNL_MAX_CPU_ISA": limit, "ATEN_CPU_CAPABILITY": "avx2"}
    run = subprocess.run(
        [sys.executable, "-c", CHOOSE], cwd=ROOT, env=os.environ | capped, capture_output=True, text=True, check=True
    )
    assert run.stdout.split()[-1] == "torch.float32"


def test_other_devices_choose_fp32_by_themselves() -> None:
    assert choose_precision("auto", torch.device("mps")) is torch.float32


def test_a_precision_of_another_name_is_refused() -> None:
    with pytest.raises(ModelUnavailableError, match="use auto, fp32, bf16, fp16"):
        choose_precision("int8")


def test_a_product_is_timed_at_least_once() -> None:
    assert device._fastest_product(torch.float32, size=8, limit=0.0) < 10


@pytest.mark.parametrize(("faster", "chosen"), [(True, "bf16"), (False, "fp32")])
def test_weights_from_a_file_are_computed_in_what_is_fastest_unless_the_card_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, faster: bool, chosen: str
) -> None:
    monkeypatch.setattr(device, "is_faster_in_bf16", lambda: faster)
    cpu, file = torch.device("cpu"), tmp_path / "weights.pt"
    assert wanted_precision({}, file, cpu) is choose_precision(chosen)
    assert wanted_precision({"precision": "fp32"}, file, cpu) is torch.float32
    assert wanted_precision({"precision": "bf16"}, None, cpu) is torch.bfloat16
    assert wanted_precision({}, None, cpu) is torch.float32, "random weights"
    assert wanted_precision({}, file, torch.device("cuda")) is torch.float32
