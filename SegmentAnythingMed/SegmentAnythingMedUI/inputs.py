"""The selectors at the top of the panel: volume, segmentation, segment, window and model."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import qt
from slicer.i18n import tr as _

from SegmentAnythingMedLib.models.registry import EMBEDDED_MODEL, FALLBACK_MODEL
from SegmentAnythingMedLib.panel.models import default_choice, model_choices
from SegmentAnythingMedLib.windowing import CT_PRESETS

if TYPE_CHECKING:
    from slicer import vtkMRMLNode

    from SegmentAnythingMedLib.mrml.controller import Controller
    from SegmentAnythingMedLib.panel.content import PanelContent
    from SegmentAnythingMedLib.panel.models import ModelChoice
    from SegmentAnythingMedLib.panel.weights import Weights
    from SegmentAnythingMedUI.install import Installer
    from SegmentAnythingMedUI.parameters import Parameters


class Inputs:
    """What is worked on, chosen by the user and shown from the controller.

    Parameters
    ----------
    ui
        The widgets of the panel, by name.
    controller, installer
        Do what is chosen.
    weights
        Lists the models, and gets what is not here.
    parameters
        Gives the parameter node of the moment.
    """

    def __init__(
        self,
        ui: object,
        controller: Controller,
        installer: Installer,
        weights: Weights,
        parameters: Callable[[], Parameters],
    ) -> None:
        self._ui, self._controller, self._installer = ui, controller, installer
        self._weights, self._parameters = weights, parameters
        self._choices: tuple[ModelChoice, ...] = ()
        self._segments: tuple[object, ...] = ()
        self._wanted = ""
        self._emptied: set[str] = set()
        self.is_emptied_by_user = False
        self._fill_windows()
        self.refresh_models()
        ui.volumeSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._volume_chosen)
        ui.segmentationSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._segmentation_chosen)
        ui.segmentBox.connect("activated(int)", self._segment_chosen)
        ui.windowBox.connect("activated(int)", self._window_chosen)
        ui.modelBox.connect("activated(int)", self._model_chosen)
        ui.installButton.connect("clicked()", self._install_pressed)

    # -- models ----------------------------------------------------------------------------------------------------

    @property
    def choice(self) -> ModelChoice:
        """The model that is chosen in the list, whether it can be used or not."""
        return next((one for one in self._choices if one.card.name == self._wanted), default_choice(self._choices))

    def refresh_models(self) -> None:
        """Look again at what is installed and which weights lie here."""
        self._choices = model_choices(self._weights.registry)
        box = self._ui.modelBox
        box.clear()
        for n, choice in enumerate(self._choices):
            box.addItem(choice.label, choice.card.name)
            box.setItemData(n, choice.detail, qt.Qt.ToolTipRole)
        self.show_model()

    def want_model(self, name: str) -> None:
        """Choose a model by name without asking anything; unknown names and the empty one give the default."""
        self._wanted = name
        self._wanted = self.choice.card.name
        if self.choice.is_ready and self._controller.link.model != self._wanted:
            self._use(self.choice)
        self.show_model()

    def ensure_model(self) -> bool:
        """Whether the chosen model can be used; if packages are missing the user is asked, once."""
        choice = self.choice
        if choice.is_ready and choice.card.name == self._controller.link.model:
            return True
        if choice.is_ready:
            self._use(choice)
            return True
        self._want(choice)
        return self._controller.link.model == self._wanted and not self._installer.is_running

    def _want(self, choice: ModelChoice, again: bool = False) -> None:
        if not choice.has_weights:
            self._weights.offer(choice.card.name)
            self._fall_back()
        elif not self._installer.ensure(
            choice, lambda: self._installed(choice), again
        ) and self._installer.has_declined(choice):
            self._fall_back()
        self.show_model()

    def _installed(self, choice: ModelChoice) -> None:
        self._wanted = choice.card.name
        self._use(choice)
        self.refresh_models()

    def choose(self, name: str) -> None:
        """Choose a model by name as the user does in the list: what it lacks is asked for."""
        n = next((n for n, one in enumerate(self._choices) if one.card.name == name), None)
        if n is not None:
            self._model_chosen(n)

    def leave_what_is_gone(self) -> None:
        """Go on with the default model, if the one in use cannot be used any more."""
        used = next((one for one in self._choices if one.card.name == self._controller.link.model), None)
        if used is None or not used.has_weights:
            self.want_model("")

    def _use(self, choice: ModelChoice) -> None:
        self._controller.set_model(choice.card.name, self._controller.link.device)
        self._weights.convert(choice.card.name)

    def _fall_back(self) -> None:
        """Go on with the model that is in use."""
        self._wanted = self._controller.link.model

    def show_model(self) -> None:
        """Show the chosen model, and in words what is special about it."""
        box, names = self._ui.modelBox, [one.card.name for one in self._choices]
        at = names.index(self.choice.card.name)
        if box.currentIndex != at:
            box.setCurrentIndex(at)
        choice = self.choice
        is_plain = choice.is_ready and not choice.card.research_only
        detail = self._hint() if is_plain else choice.detail
        box.setToolTip(choice.detail)
        self._ui.modelDetailLabel.setText(detail)
        self._ui.modelDetailLabel.setVisible(bool(detail))
        self._ui.installButton.setVisible(bool(choice.missing and choice.has_weights) or bool(self._declined()))

    def _declined(self) -> list[ModelChoice]:
        """The models that still lack what the user did not want to install."""
        return [one for one in self._choices if self._installer.has_declined(one) and one.missing]

    def _hint(self) -> str:
        """Beside the fallback: that a better model is one package away, until the user has said no."""
        better = next((one for one in self._choices if one.card.name == EMBEDDED_MODEL), None)
        is_near = better is not None and better.has_weights and better.missing and better not in self._declined()
        if self.choice.card.name != FALLBACK_MODEL or not is_near:
            return ""
        return _(
            "The model {name} is more accurate. It needs one small package, {module} (about {size} MB): choose it in "
            "the list to install it."
        ).format(name=better.card.name, module=better.missing[0].module, size=better.missing[0].download_mb)

    def _install_pressed(self) -> None:
        """Ask again for what the chosen model lacks, or else the one that was declined."""
        choice = self.choice
        if not choice.missing:
            choice = next(iter(self._declined()), choice)
        self._want(choice, again=True)

    def _model_chosen(self, n: int) -> None:
        choice = self._choices[n]
        self._wanted = choice.card.name
        if choice.is_ready:
            self._use(choice)
            self.show_model()
        else:
            self._want(choice, again=True)

    # -- volume, segmentation, segment, window -----------------------------------------------------------------------

    def show(self, content: PanelContent) -> None:
        """Show what the controller works on."""
        for selector, node in (
            (self._ui.volumeSelector, self._controller.volume),
            (self._ui.segmentationSelector, self._controller.segmentation),
        ):
            if selector.currentNode() is not node:
                selector.setCurrentNode(node)
        self._show_segments(content)
        self._show_device(content.device)
        n = self._ui.windowBox.findData(self._controller.link.window)
        if n >= 0 and self._ui.windowBox.currentIndex != n:
            self._ui.windowBox.setCurrentIndex(n)

    def _show_device(self, device: str) -> None:
        """Say in the list where the model runs, once it is loaded."""
        for n, choice in enumerate(self._choices):
            is_loaded = bool(device) and choice.card.name == self._controller.link.model
            text = f"{choice.card.name} ({device})" if is_loaded else choice.label
            if self._ui.modelBox.itemText(n) != text:
                self._ui.modelBox.setItemText(n, text)

    def settle(self) -> None:
        """Do what was put off: a selector became empty, by the user or because its node was removed."""
        emptied, self._emptied = self._emptied, set()
        controller = self._controller
        if "volume" in emptied and self._ui.volumeSelector.currentNode() is None and controller.volume is not None:
            self.is_emptied_by_user = True
            controller.set_volume(None)
        elif (
            "segmentation" in emptied
            and self._ui.segmentationSelector.currentNode() is None
            and controller.segmentation is not None
        ):
            controller.set_segmentation(None)

    def _volume_chosen(self, node: vtkMRMLNode | None) -> None:
        if node is None:
            self._emptied.add("volume")  # after the next poll: the controller has to hear of a removed node first
        elif node is not self._controller.volume:
            self.is_emptied_by_user = False
            channels = [channel for channel in self._parameters().channels() if channel is not node]
            self._controller.set_volume(node, channels)

    def _segmentation_chosen(self, node: vtkMRMLNode | None) -> None:
        if node is None:
            self._emptied.add("segmentation")
        elif node is not self._controller.segmentation:
            self._controller.set_segmentation(node)
            if self._controller.volume is not None and node.GetSegmentation().GetNumberOfSegments():
                self._controller.set_segment("")

    def _segment_chosen(self, n: int) -> None:
        self._controller.set_segment(self._ui.segmentBox.itemData(n))

    def _window_chosen(self, n: int) -> None:
        self._controller.set_window(self._ui.windowBox.itemData(n))

    def _fill_windows(self) -> None:
        names = {"auto": _("Auto"), "display": _("As displayed"), "percentile": _("Percentiles"), "identity": _("None")}
        for name in ("auto", "display", *CT_PRESETS, "percentile", "identity"):
            label = names.get(name) or name.replace("-", " ").capitalize()
            width, level = CT_PRESETS.get(name, (0, 0))
            self._ui.windowBox.addItem(label, name)
            if width:
                n = self._ui.windowBox.count - 1
                tip = _("Width {width:g}, level {level:g} HU").format(width=width, level=level)
                self._ui.windowBox.setItemData(n, tip, qt.Qt.ToolTipRole)

    def _show_segments(self, content: PanelContent) -> None:
        box = self._ui.segmentBox
        if content.segments != self._segments:
            self._segments = content.segments
            box.clear()
            for line in content.segments:
                pixels = qt.QPixmap(12, 12)
                pixels.fill(qt.QColor(*(int(round(255 * part)) for part in line.color)))
                box.addItem(qt.QIcon(pixels), line.name, line.segment_id)
        at = next((n for n, line in enumerate(self._segments) if line.segment_id == content.segment_id), -1)
        if box.currentIndex != at:
            box.setCurrentIndex(at)
        box.setEnabled(bool(self._segments))
