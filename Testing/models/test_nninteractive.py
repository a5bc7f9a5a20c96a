"""nnInteractive on a server: what is sent, to whom, and what is believed of the answer."""

from __future__ import annotations

import logging
import socket
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from SegmentAnythingMedLib.errors import ModelUnavailableError, SegmentAnythingMedError, VolumeError
from SegmentAnythingMedLib.geometry import Plane, SliceGeometry, VolumeGeometry
from SegmentAnythingMedLib.models.base import Region, VolumeModel
from SegmentAnythingMedLib.models.nninteractive_remote import NnInteractiveModel
from SegmentAnythingMedLib.models.nninteractive_wire import sent_voxels
from SegmentAnythingMedLib.models.registry import ModelRegistry
from SegmentAnythingMedLib.prompts import (
    BoxPrompt,
    LassoPrompt,
    MaskPrompt,
    PointPrompt,
    ScribblePrompt,
)
from SegmentAnythingMedLib.volume import Modality, Volume
from Testing.models.nninteractive_server import BOMB_BYTES, StandIn, a_bomb, nninteractive_server
from Testing.models.weights_server import make_certificate

SHAPE_KJI = (9, 12, 14)
AXIAL, CORONAL = Plane(2), Plane(1)


@pytest.fixture
def server() -> Iterator[StandIn]:
    with nninteractive_server() as stand_in:
        yield stand_in


@pytest.fixture
def voxels() -> np.ndarray:
    """Two bright bars along K on a dark ground: one at rows 2 to 4, columns 3 to 7, one at rows 8 and 9."""
    voxels = np.random.default_rng(1).integers(-20, 20, SHAPE_KJI).astype(np.int16)
    voxels[1:8, 2:5, 3:8] += 500
    voxels[2:7, 8:10, 9:12] += 500
    return voxels


@pytest.fixture
def volume(voxels: np.ndarray) -> Volume:
    return Volume.from_array(voxels, VolumeGeometry.from_spacing(SHAPE_KJI[::-1], (0.8, 0.8, 2.5)))


@pytest.fixture
def first_bar(voxels: np.ndarray) -> np.ndarray:
    mask = voxels > 250
    mask[:, 6:] = False
    return mask


@pytest.fixture
def model(server: StandIn) -> NnInteractiveModel:
    return loaded(server)


def loaded(server: StandIn, **options: object) -> NnInteractiveModel:
    return ModelRegistry().load("nninteractive", address=server.url, **options)


def click(i: int, j: int, k: int, positive: bool = True) -> PointPrompt:
    return PointPrompt((i, j, k), positive, AXIAL)


def whole(region: Region) -> np.ndarray:
    mask = np.zeros(SHAPE_KJI, dtype=bool)
    mask[tuple(slice(a, a + n) for a, n in zip(region.start_kji, region.mask.shape, strict=True))] = region.mask
    return mask


# -- what is sent ------------------------------------------------------------------------------------------------


def test_the_volume_is_sent_raw_in_array_order_and_a_click_reversed(
    server: StandIn, model: NnInteractiveModel, volume: Volume, voxels: np.ndarray, first_bar: np.ndarray
) -> None:
    region = model.predict(volume, [click(5, 3, 2)], None)
    upload, asked = server.asked
    assert (upload.path, asked.path) == ("/upload_image", "/add_point_interaction")
    assert upload.array.dtype == np.int16 and np.array_equal(upload.array, voxels)
    assert upload.headers["Content-Type"].startswith("multipart/form-data; boundary=")
    assert asked.headers["Content-Type"] == "application/json"
    assert asked.content == {"voxel_coord": [2, 3, 5], "positive_click": True}
    assert np.array_equal(whole(region), first_bar)
    assert region.start_kji == (1, 2, 3) and region.mask.shape == (7, 3, 5), "only the box round the object is kept"


def test_nothing_but_voxels_and_prompts_is_sent(server: StandIn, model: NnInteractiveModel, voxels: np.ndarray) -> None:
    geometry = VolumeGeometry.from_spacing(SHAPE_KJI[::-1], (0.73, 0.73, 2.5), origin_mm=(-101.5, 33.25, 7.0))
    model.predict(Volume.from_array(voxels, geometry, name="Doe^Jane"), [click(5, 3, 2)], None)
    said = repr([(one.path, one.headers, sorted(one.content)) for one in server.asked])
    assert "Doe" not in said and "0.73" not in said and "101.5" not in said
    assert set(server.asked[0].content) == {"file"}


def test_a_box_is_sent_with_its_upper_end_outside_so_that_it_stays_on_its_slice(
    server: StandIn, model: NnInteractiveModel, volume: Volume, first_bar: np.ndarray
) -> None:
    region = model.predict(volume, [BoxPrompt.on_slice((7, 4, 3, 2), 1, AXIAL)], None)
    content = server.asked[-1].content
    assert content == {"outer_point_one": [1, 2, 3], "outer_point_two": [2, 5, 8], "positive_click": True}
    assert np.array_equal(whole(region), first_bar), "slice 1 is the bar's first: one before, there is nothing"


def test_a_box_on_another_plane_keeps_its_axis(server: StandIn, model: NnInteractiveModel, volume: Volume) -> None:
    model.predict(volume, [BoxPrompt.on_slice((3, 1, 7, 6), 3, CORONAL)], None)
    assert server.asked[-1].content["outer_point_one"] == [1, 3, 3]
    assert server.asked[-1].content["outer_point_two"] == [7, 4, 8]


@pytest.mark.parametrize("positive", [True, False])
def test_a_scribble_is_a_line_in_the_volume(
    server: StandIn, model: NnInteractiveModel, volume: Volume, positive: bool
) -> None:
    model.predict(volume, [ScribblePrompt(((3, 3, 4), (6, 3, 4)), positive, AXIAL)], None)
    asked, expected = server.asked[-1], np.zeros(SHAPE_KJI, dtype=np.uint8)
    expected[4, 3, 3:7] = 1
    assert asked.path == "/add_scribble_interaction" and asked.content["positive_click"] == str(positive)
    assert asked.array.dtype == np.uint8 and np.array_equal(asked.array, expected)


def test_a_lasso_is_filled(server: StandIn, model: NnInteractiveModel, volume: Volume, first_bar: np.ndarray) -> None:
    lasso = LassoPrompt(((2.5, 1.5, 4), (7.5, 1.5, 4), (7.5, 4.5, 4), (2.5, 4.5, 4)), AXIAL)
    region = model.predict(volume, [lasso], None)
    expected = np.zeros(SHAPE_KJI, dtype=np.uint8)
    expected[4, 2:5, 3:8] = 1
    assert server.asked[-1].path == "/add_lasso_interaction" and np.array_equal(server.asked[-1].array, expected)
    assert np.array_equal(whole(region), first_bar)


def test_a_mask_of_a_slice_is_sent_as_a_lasso_and_an_empty_one_not_at_all(
    server: StandIn, model: NnInteractiveModel, volume: Volume, first_bar: np.ndarray
) -> None:
    model.predict(volume, [MaskPrompt(first_bar[:, 3], 3, CORONAL), MaskPrompt(np.zeros((12, 14), bool), 0)], None)
    expected = np.zeros(SHAPE_KJI, dtype=bool)
    expected[:, 3] = first_bar[:, 3]
    assert server.paths == ["/upload_image", "/add_lasso_interaction"]
    assert np.array_equal(server.asked[-1].array, expected)


def test_a_box_on_an_oblique_plane_is_a_filled_drawing_on_that_plane(
    server: StandIn, model: NnInteractiveModel, volume: Volume
) -> None:
    plane = Plane.from_normal(np.array([0.0, 1.0, 1.0]), volume.geometry)
    slices = SliceGeometry(volume.geometry, plane)
    middle = np.array(slices.shape) / 2
    corners = slices.ijk_from_pixels(slices.count // 2, np.stack([middle - 3, middle + 3]))
    model.predict(volume, [BoxPrompt(tuple(map(tuple, corners)), plane)], None)
    drawn = np.argwhere(server.asked[-1].array)
    depth, _ = slices.pixels_from_ijk(drawn[:, ::-1])
    assert server.asked[-1].path == "/add_lasso_interaction" and len(drawn) > 10
    assert np.abs(depth - slices.count // 2).max() <= 0.5 and len(set(drawn[:, 0])) > 1


@pytest.mark.parametrize(
    ("stored", "sent"),
    [("u1", "u1"), ("<i2", "<i2"), (">i2", "<i2"), ("<u2", "<i4"), ("<i8", "<f4"), ("<f8", "<f4"), ("?", "u1")],
)
def test_voxels_travel_in_a_type_that_the_server_reads(voxels: np.ndarray, stored: str, sent: str) -> None:
    array = (voxels > 250).astype(stored) if stored in ("?", "u1") else np.abs(voxels).astype(stored)
    found = sent_voxels(Volume.from_array(array))
    assert found.dtype == np.dtype(sent) and found.flags.c_contiguous and np.array_equal(found, array)


def test_values_that_are_no_numbers_are_not_sent(voxels: np.ndarray) -> None:
    array = voxels.astype(np.float32)
    array[0, 0, :3] = np.nan, np.inf, -np.inf
    found = sent_voxels(Volume.from_array(array))
    assert found[0, 0, :3].tolist() == [voxels.min(), voxels.max(), voxels.min()]
    assert np.isnan(array[0, 0, 0]), "the user's voxels are not touched"


def test_a_volume_of_one_value_is_refused_before_it_is_sent(server: StandIn, model: NnInteractiveModel) -> None:
    with pytest.raises(VolumeError, match="nothing to outline"):
        model.predict(Volume.from_array(np.zeros(SHAPE_KJI)), [click(1, 1, 1)], None)
    assert server.connections == 0


# -- what the server is told again, and what not ------------------------------------------------------------------


def test_a_second_prompt_costs_one_request_and_the_volume_goes_once(
    server: StandIn, model: NnInteractiveModel, volume: Volume, first_bar: np.ndarray
) -> None:
    first, second = click(5, 3, 2), click(10, 8, 4)
    region = model.predict(volume, [first], None)
    grown = model.predict(volume, [first, second], region)
    assert server.paths == ["/upload_image", "/add_point_interaction", "/add_point_interaction"]
    assert whole(grown).sum() > whole(region).sum()
    back = model.predict(volume, [first, second, click(10, 8, 4, positive=False)], grown)
    assert np.array_equal(whole(back), first_bar)


def test_a_prompt_taken_back_is_forgotten_by_the_server(
    server: StandIn, model: NnInteractiveModel, volume: Volume, first_bar: np.ndarray
) -> None:
    first, second = click(5, 3, 2), click(10, 8, 4)
    both = model.predict(volume, [first, second], None)
    only = model.predict(volume, [first], both)
    assert np.array_equal(whole(only), first_bar)
    assert server.paths[3:] == ["/upload_segment", "/add_point_interaction"]
    assert not server.asked[3].array.any()


def test_two_objects_never_get_each_others_prompts(
    server: StandIn, model: NnInteractiveModel, volume: Volume, voxels: np.ndarray, first_bar: np.ndarray
) -> None:
    first, second, more = click(5, 3, 2), click(10, 8, 4), click(4, 4, 6)
    one = model.predict(volume, [first], None)
    two = model.predict(volume, [second], None)
    again = model.predict(volume, [first, more], one)
    assert np.array_equal(whole(one), first_bar) and np.array_equal(whole(again), first_bar)
    assert np.array_equal(whole(two), (voxels > 250) & ~first_bar)
    assert server.paths.count("/upload_image") == 1


def test_a_region_from_elsewhere_is_the_object_so_far(
    server: StandIn, model: NnInteractiveModel, volume: Volume, voxels: np.ndarray, first_bar: np.ndarray
) -> None:
    region = model.predict(volume, [click(10, 8, 4)], Region(first_bar))
    assert np.array_equal(server.asked[1].array, first_bar)
    assert np.array_equal(whole(region), voxels > 250)


def test_a_server_that_was_started_again_gets_everything_anew(
    server: StandIn, model: NnInteractiveModel, volume: Volume, voxels: np.ndarray
) -> None:
    first, second = click(5, 3, 2), click(10, 8, 4)
    region = model.predict(volume, [first], None)
    server.forget()
    assert np.array_equal(whole(model.predict(volume, [first, second], region)), voxels > 250)
    assert server.paths.count("/upload_image") == 2


def test_another_volume_is_sent_and_an_edited_one_too(
    server: StandIn, model: NnInteractiveModel, volume: Volume, voxels: np.ndarray
) -> None:
    model.predict(volume, [click(5, 3, 2)], None)
    model.predict(Volume.from_array(voxels - 3), [click(5, 3, 2)], None)
    assert server.paths.count("/upload_image") == 2 and server.asked[2].array.min() == voxels.min() - 3


def test_after_a_failure_no_half_of_an_answer_is_built_upon(
    server: StandIn, model: NnInteractiveModel, volume: Volume, first_bar: np.ndarray
) -> None:
    first, wrong = click(5, 3, 2), click(10, 8, 4)
    region = model.predict(volume, [first], None)
    server.fault = "cut_body"
    with pytest.raises(ModelUnavailableError):
        model.predict(volume, [first, wrong], region)
    server.fault = ""
    assert np.array_equal(whole(model.predict(volume, [first], region)), first_bar)


# -- where it is sent ----------------------------------------------------------------------------------------------


def test_without_an_address_nothing_is_sent_and_the_sentence_says_how_to_give_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("SEGMENT_ANYTHING_MED_NNINTERACTIVE", raising=False)
    assert "address" not in ModelRegistry().card("nninteractive").options
    with pytest.raises(ModelUnavailableError, match="SEGMENT_ANYTHING_MED_NNINTERACTIVE=https://HOST:PORT"):
        ModelRegistry().load("nninteractive")


def test_the_address_comes_from_the_option_the_environment_or_the_users_card(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "ours.json").write_text(
        '{"name": "ours", "title": "Ours", "family": "nninteractive_remote", "licence": "CC-BY-NC-SA-4.0", '
        '"capabilities": ["volume"], "options": {"address": "https://card.example"}}'
    )
    registry = ModelRegistry([tmp_path], tmp_path)
    monkeypatch.delenv("SEGMENT_ANYTHING_MED_NNINTERACTIVE", raising=False)
    assert registry.load("ours").device == "card.example:443"
    monkeypatch.setenv("SEGMENT_ANYTHING_MED_NNINTERACTIVE", "https://environment.example:1527/nn/")
    assert registry.load("ours").device == "environment.example:1527"
    assert registry.load("ours", address="http://[::1]:1527").device == "[::1]:1527"


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("http://gpu.example.org:1527", "gpu.example.org:1527 unencrypted: .*ssh -L 1527:localhost:1527"),
        ("http://192.168.0.7", "unencrypted"),
        ("http://127.0.0.1.example.org", "unencrypted"),
        ("http://0.0.0.0:1527", "unencrypted"),
        ("http://localhost.example.org:1527", "unencrypted"),
        ("gpu.example.org:1527", "is not the address"),
        ("ftp://localhost", "is not the address"),
        ("file:///etc/passwd", "is not the address"),
        ("https://user:secret@gpu.example.org", "is not the address"),
        ("https://gpu.example.org?x=1", "is not the address"),
        ("https://gpu.example.org:99999", "is not the address"),
        ("https://", "is not the address"),
        ("https://[1", "is not the address"),
        ("https://gpu..example.org", "is not the address"),
        ("https://" + "a" * 70 + ".example.org", "is not the address"),
        ("https://gpu.example.org/nn ä", "is not the address"),
        ("http://127.0.0.1:0", "is not the address"),
        ("http://127.0.0.1\n.example.org", "unencrypted"),
    ],
)
def test_an_address_that_is_not_safe_is_refused_with_what_to_do(address: str, sentence: str) -> None:
    with pytest.raises(ModelUnavailableError, match=sentence):
        ModelRegistry().load("nninteractive", address=address)


def test_a_name_that_only_claims_to_be_this_machine_gets_nothing(
    server: StandIn, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = loaded(server)
    monkeypatch.setattr(socket.socket, "getpeername", lambda self: ("192.0.2.1", 1527))
    with pytest.raises(ModelUnavailableError, match=r"is not this machine here but 192\.0\.2\.1"):
        model.predict(volume, [click(5, 3, 2)], None)
    assert server.asked == []


def test_no_socket_is_opened_by_loading(server: StandIn) -> None:
    model = loaded(server)
    assert isinstance(model, VolumeModel) and model.card.research_only
    assert server.connections == 0 and model.device == server.url.removeprefix("http://")


def test_https_is_spoken_with_a_certificate_that_is_trusted_and_with_no_other(
    volume: Volume, first_bar: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with nninteractive_server(make_certificate(tmp_path)) as server:
        with pytest.raises(ModelUnavailableError, match="no certificate this machine trusts"):
            loaded(server).predict(volume, [click(5, 3, 2)], None)
        assert server.asked == []
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        assert np.array_equal(whole(loaded(server).predict(volume, [click(5, 3, 2)], None)), first_bar)


def test_https_to_a_server_without_it_says_so(server: StandIn, volume: Volume) -> None:
    model = ModelRegistry().load("nninteractive", address=server.url.replace("http:", "https:"))
    with pytest.raises(ModelUnavailableError, match="does not speak https"):
        model.predict(volume, [click(5, 3, 2)], None)


def test_the_log_says_where_the_volume_goes(
    server: StandIn, model: NnInteractiveModel, volume: Volume, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "SegmentAnythingMedLib"):
        model.predict(volume, [click(5, 3, 2)], None)
    assert f"is sent to the nnInteractive server {model.device}" in caplog.text


# -- faults ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("slow", "does not answer"),
        ("trickle", "does not answer"),
        ("closes", "broke"),
        ("cut_body", "broke"),
        ("cut_gzip", "broke off"),
        ("not_gzip", "damaged"),
        ("short", "fewer voxels than was sent"),
        ("long", "more voxels than was sent"),
        ("bomb", "more voxels than was sent"),
        ("endless", "more than a mask"),
        ("html", "but with text/html"),
        ("brotli", "does not answer as"),
        ("says_no", "CUDA out of memory"),
        ("status 302", "leads somewhere else"),
        ("status 401", "sign-in"),
        ("status 413", "size"),
        ("status 422", "protocol"),
        ("status 500", "log"),
    ],
)
def test_a_fault_of_the_server_is_a_sentence(server: StandIn, volume: Volume, fault: str, sentence: str) -> None:
    server.fault = fault
    with pytest.raises(ModelUnavailableError, match=sentence):
        loaded(server, timeout_s=0.3 if fault in ("slow", "trickle") else 30).predict(volume, [click(5, 3, 2)], None)


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("status 404", "since version 2 speaks another"),
        ("html", "text/html"),
        ("closes", "broke"),
        ("slow", "does not answer"),
    ],
)
def test_a_fault_at_the_upload_is_a_sentence(server: StandIn, volume: Volume, fault: str, sentence: str) -> None:
    server.fault, server.on_upload = fault, True
    model = loaded(server, timeout_s=0.5 if fault == "slow" else 30)
    with pytest.raises(ModelUnavailableError, match=sentence):
        model.predict(volume, [click(5, 3, 2)], None)
    server.fault = ""
    assert model.predict(volume, [click(5, 3, 2)], None).mask.any(), "the upload is tried again"


def test_a_bomb_is_never_unpacked(server: StandIn, model: NnInteractiveModel, volume: Volume) -> None:
    server.fault = "bomb"
    assert len(a_bomb()) < 1 << 16, "small enough to be read"
    tracemalloc.start()
    try:
        with pytest.raises(ModelUnavailableError, match="more voxels than was sent"):
            model.predict(volume, [click(5, 3, 2)], None)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < BOMB_BYTES // 4


def test_a_server_that_is_gone_is_named(volume: Volume) -> None:
    with nninteractive_server() as server:
        model = loaded(server)
    with pytest.raises(ModelUnavailableError, match=f"Nothing answers at {model.device}: start"):
        model.predict(volume, [click(5, 3, 2)], None)


@pytest.mark.parametrize("timeout", [0, -1, "soon", True, float("nan")])
def test_a_timeout_that_is_none_is_refused(server: StandIn, timeout: object) -> None:
    with pytest.raises(SegmentAnythingMedError, match="timeout_s"):
        loaded(server, timeout_s=timeout)


def test_an_upload_tells_how_far_it_is_and_can_be_broken_off(server: StandIn, model: NnInteractiveModel) -> None:
    voxels = np.random.default_rng(0).integers(0, 100, (20, 400, 400)).astype(np.int16)
    voxels[5:9, 100:200, 100:200] += 500
    volume = Volume.from_array(voxels, modality=Modality.CT)
    begun = model.prepare(volume)
    done, total = next(begun)
    assert 0 < done < total and total > volume.nbytes
    begun.close()
    assert server.asked == [], "the server has not got the volume"
    seen = list(model.prepare(volume))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen) and seen[-1] == (total, total)
    assert len(seen) > 4 and list(model.prepare(volume)) == []
