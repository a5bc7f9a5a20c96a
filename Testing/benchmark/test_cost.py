from __future__ import annotations

from pathlib import Path

import pytest

from SegmentAnythingMedLib.benchmark import cost
from SegmentAnythingMedLib.benchmark.__main__ import main
from SegmentAnythingMedLib.benchmark.datasets import Structure
from SegmentAnythingMedLib.benchmark.machine import core_count, matmul_gflops, peak_bytes, processor, reset_peak

TinyData = tuple[Path, list[Structure]]


def test_the_machine_is_described_by_numbers_that_can_be_true() -> None:
    assert 0.1 < matmul_gflops(256, 0.05) < 1e6
    assert 1e7 < peak_bytes() < 1e12
    assert core_count() >= 1 and str(core_count()) in processor()


@pytest.mark.skipif(not reset_peak(), reason="this system cannot reset its peak")
def test_the_peak_counts_from_its_reset() -> None:
    before = peak_bytes()
    bytearray(b"x") * 200_000_000
    assert peak_bytes() > before + 150e6
    reset_peak()
    assert peak_bytes() < before + 100e6


def test_a_measured_session_counts_no_encoder_call_after_a_correction(tiny_data: TinyData) -> None:
    data, structures = tiny_data
    found = [cost.measure("classic", structures[0], data)]
    assert found[0].second_encodings == 0 and found[0].slices > 2
    assert found[0].stages["encode"][1] > 2
    assert cost.acceptance(found)[0].holds
    text = cost.markdown(found, {"date": "today"})
    assert "| encode: ms a call (calls) |" in text and "| image-encoder calls in it | 0 |" in text


def test_the_command_line_says_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["structures", "--data", "/no/such/folder"]) == 2
    assert "does not exist" in capsys.readouterr().err
