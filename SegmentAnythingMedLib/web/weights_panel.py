"""The list of models in the browser, and getting, importing and removing their weights where the user may."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from SegmentAnythingMedLib.errors import VolumeError
from SegmentAnythingMedLib.models.weights.converting import SUFFIXES
from SegmentAnythingMedLib.panel.actions import is_between_tasks
from SegmentAnythingMedLib.panel.models import ModelChoice, default_choice, model_choices
from SegmentAnythingMedLib.web.panel_state import model_detail, model_values

if TYPE_CHECKING:
    from SegmentAnythingMedLib.mrml.controller import Controller
    from SegmentAnythingMedLib.panel.weights import Finished, Weights

WEIGHTS_SUFFIXES = (".safetensors", *SUFFIXES)


class WeightsPanel:
    """What the browser shows of models, and what its buttons do with them.

    Parameters
    ----------
    weights
        Lists and gets; it knows whether this user may change anything.
    controller
        Takes the model that is chosen.

    Attributes
    ----------
    models
        The list of models, as JSON can hold it.
    """

    def __init__(self, weights: Weights, controller: Controller) -> None:
        self._weights, self._controller = weights, controller
        self._choices: tuple[ModelChoice, ...] = ()
        self.models: list[dict[str, Any]] = []
        self._brought: Path | None = None
        self._read()

    @property
    def values(self) -> dict[str, Any]:
        """Question or task of the moment, as JSON can hold it; the folder is told only to those who may change it."""
        weights, content = self._weights, self._weights.content
        return {
            "lines": list(content.lines),
            "warning": content.warning,
            "isError": content.is_error,
            "yes": content.yes,
            "no": content.no,
            "running": content.is_running,
            "progress": None if content.progress is None else round(100 * content.progress, 1),
            "mayChange": weights.may_change,
            "folder": str(weights.folder) if weights.may_change else "",
            "suffixes": ",".join(WEIGHTS_SUFFIXES),
        }

    def look(self) -> None:
        """Hear what a task says, and use what came."""
        if self._weights.poll():
            for finished in self._weights.take_finished():
                self._react(finished)
        if self._brought is not None and not self._weights.is_running:
            shutil.rmtree(self._brought.parent, ignore_errors=True)
            self._brought = None

    def choose(self, name: str) -> None:
        """Take a model, offer to download it, or say what is missing."""
        choice = self._choice(name)
        if choice is None:
            return
        if choice.is_ready:
            self._controller.set_model(name)
            self._weights.convert(name)
        elif not choice.has_weights:
            self._weights.offer(name)
        else:
            self._controller.tell(model_detail(choice))

    def say_yes(self) -> None:
        """Accept and download, go on, try again, delete, or use."""
        self._weights.say_yes()

    def say_no(self) -> None:
        """Decline, cancel or close."""
        self._weights.say_no()

    def offer_removal(self, name: str) -> None:
        """Ask whether to delete a model's weights."""
        self._weights.offer_removal(name)

    def check_may_import(self) -> None:
        """Refuse a file of a user who may not bring weights, or while something else runs.

        Raises
        ------
        VolumeError
            With what to do.
        """
        if not self._weights.may_change:
            raise VolumeError("Weights are imported by whoever runs this server: segment-anything-med models import.")
        if self._weights.is_running:
            raise VolumeError("Wait until the other weights are here, or cancel them first.")

    def import_upload(self, path: Path) -> None:
        """Take in an uploaded file; it and its folder are removed when that is done."""
        self._brought = path
        self._weights.import_file(path)

    def close(self) -> None:
        """The session ends: what runs is stopped; what came of a download is kept."""
        self._weights.close()

    def _read(self) -> None:
        self._choices = model_choices(self._weights.registry)
        removable = {one.card.name for one in self._choices if self._weights.can_remove(one.card.name)}
        self.models = [row | {"removable": row["name"] in removable} for row in model_values(self._choices)]

    def _react(self, finished: Finished) -> None:
        name = finished.name
        self._read()
        if finished.kind == "use" or (finished.kind == "download" and is_between_tasks(self._controller)):
            self.choose(name)
        elif finished.kind == "download":
            self._controller.tell(f"{name} is here: choose it in the list when you are done.")
        elif finished.kind == "remove":
            self._controller.tell(f"The weights of {name} were deleted.")
            self._leave_what_is_gone()

    def _leave_what_is_gone(self) -> None:
        used = self._choice(self._controller.link.model)
        if used is None or not used.has_weights:
            self._controller.set_model(default_choice(self._choices).card.name)

    def _choice(self, name: str) -> ModelChoice | None:
        return next((one for one in self._choices if one.card.name == name), None)


def check_weights_name(name: str) -> None:
    """Refuse to receive what cannot be weights.

    Raises
    ------
    VolumeError
        With the endings that weights have.
    """
    if not name.lower().endswith(WEIGHTS_SUFFIXES):
        raise VolumeError(f"{name} is no weights file: choose one that ends in {', '.join(WEIGHTS_SUFFIXES)}.")
