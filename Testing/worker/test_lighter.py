"""A GPU without memory left: the model gets lighter step by step, the job goes on, and the user is told."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from SegmentAnythingMedLib.models.base import Prediction
from SegmentAnythingMedLib.worker import messages as m
from SegmentAnythingMedLib.worker import workbench
from SegmentAnythingMedLib.worker.lighter import NOTICE, lighter_steps
from SegmentAnythingMedLib.worker.workbench import Workbench
from Testing.worker.conftest import AXIAL, box
from Testing.worker.fake_model import FakeModel

torch = pytest.importorskip("torch")
LOAD = m.LoadModel(1, "fake", "cuda", {})


class HungryModel(FakeModel):
    """Says that a GPU is full, from some slice on, as long as it is on one and not light enough."""

    def __init__(self, device: str, options: dict[str, object], fits: Callable[[HungryModel], bool]) -> None:
        super().__init__()
        self.device, self.options, self._fits = device, options, fits

    def predict(self, *arguments: object, **options: object) -> Prediction:
        if arguments[0].index >= 14 and not self._fits(self):
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return super().predict(*arguments, **options)


class Loading:
    """A registry of one model that remembers how it was asked for it."""

    def __init__(self, fits: Callable[[HungryModel], bool], loads: Callable[[str], bool] = lambda device: True) -> None:
        self.asked: list[tuple[str, dict[str, object]]] = []
        self._fits, self._loads = fits, loads

    def load(self, name: str, device: str = "auto", **options: object) -> HungryModel:
        self.asked.append((device, options))
        if not self._loads(device):
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return HungryModel(device, options, self._fits)


@pytest.fixture
def opened(a_volume: object, monkeypatch: pytest.MonkeyPatch) -> Callable[[Loading], Workbench]:
    """A workbench with the volume, and an object outlined on slice 12."""
    monkeypatch.setattr(workbench, "opened_series", lambda command: a_volume)

    def open_with(registry: Loading) -> Workbench:
        bench = Workbench(registry)
        list(bench.perform(LOAD))
        volume = m.OpenVolume(2, "", (1, 1, 1, 1, 1), "uint8", (0.0,) * 16, "CT", "x")
        list(bench.perform(volume))
        list(bench.perform(m.OpenSession(3, "identity")))
        list(bench.perform(m.SetPrompts(4, 1, 1, (box(),))))
        list(bench.perform(m.SegmentSlice(5, 1, 1, AXIAL, 12)))
        return bench

    return open_with


def notices(events: list[m.Event]) -> list[str]:
    return [event.line for event in events if isinstance(event, m.Log) and event.level == NOTICE]


def slices(events: list[m.Event]) -> dict[int, object]:
    return {event.key.index: event.mask for event in events if isinstance(event, m.SliceMask)}


FITS = {
    "one by one": lambda model: model.options.get("object_batch") == 1,
    "bfloat16": lambda model: model.options.get("precision") == "bf16",
    "processor": lambda model: model.device == "cpu",
}


@pytest.mark.parametrize(("word", "steps"), [("one by one", 1), ("bfloat16", 2), ("processor", 3)])
def test_the_job_goes_on_with_as_few_steps_as_needed(
    opened: Callable[[Loading], Workbench], word: str, steps: int
) -> None:
    registry, plenty = Loading(FITS[word]), Loading(lambda model: True)
    events = list(opened(registry).perform(m.Propagate(6, AXIAL)))
    told = notices(events)
    assert len(told) == steps and word in told[-1] and "The job goes on" in told[-1]
    assert len(registry.asked) == 1 + steps
    expected = slices(list(opened(plenty).perform(m.Propagate(6, AXIAL))))
    found = slices(events)
    assert found.keys() == expected.keys() and all((found[i] == expected[i]).all() for i in expected)


def test_a_model_that_does_not_fit_when_loaded_is_loaded_lighter() -> None:
    registry = Loading(lambda model: True, loads=lambda device: device == "cpu")
    events = list(Workbench(registry).perform(LOAD))
    assert [event.device for event in events if isinstance(event, m.ModelLoaded)] == ["cpu"]
    assert "runs on the processor" in notices(events)[-1]


def test_a_model_on_the_processor_that_has_no_memory_fails_as_ever(opened: Callable[[Loading], Workbench]) -> None:
    bench = opened(Loading(lambda model: False))
    with pytest.raises(torch.cuda.OutOfMemoryError):
        list(bench.perform(m.Propagate(6, AXIAL)))


def test_other_errors_are_not_taken_for_it(opened: Callable[[Loading], Workbench]) -> None:
    def broken(model: HungryModel) -> bool:
        raise RuntimeError("shapes do not match")

    bench, registry = None, Loading(broken)
    bench = opened(registry)
    with pytest.raises(RuntimeError, match="shapes"):
        list(bench.perform(m.Propagate(6, AXIAL)))
    assert len(registry.asked) == 1


def test_steps_that_change_nothing_are_left_out() -> None:
    light = {"encoder_batch": 1, "object_batch": 1, "precision": "bf16"}
    steps = lighter_steps(m.LoadModel(1, "fake", "cuda", light))
    assert [step.command.device for step in steps] == ["cpu"]
    assert [step.command.name for step in lighter_steps(LOAD)] == ["fake"] * 3
