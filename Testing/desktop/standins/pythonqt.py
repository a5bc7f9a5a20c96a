"""A module ``qt`` as PythonQt gives it, made of PySide6's own classes.

PythonQt differs from PySide6 in what the panel's code sees: a Qt property is an attribute (``button.enabled``, not
``button.enabled()``), ``widget.name`` is the object name, and ``widget.connect("clicked()", f)`` connects by signature.
"""

from __future__ import annotations

import inspect
import os
import re
import types
from collections.abc import Callable

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets

_VIRTUAL = {"sizeHint", "minimumSizeHint"}
"""Called from C++ as functions, so they cannot become attributes."""

raised: list[Exception] = []
"""What functions connected to signals have raised: Qt prints it and goes on, a test must not."""

_custom: dict[str, type] = {}
_kept: list[QtCore.QObject] = []


class QtProperty:
    """A Qt property as an attribute of the instance; on the class it stays what it was."""

    def __init__(self, name: str, original: object) -> None:
        self.name, self.original = name, original

    def __get__(self, instance: QtCore.QObject | None, _owner: type) -> object:
        return self.original if instance is None else instance.property(self.name)

    def __set__(self, instance: QtCore.QObject, value: object) -> None:
        if not instance.setProperty(self.name, value):
            raise TypeError(f"{type(instance).__name__}.{self.name} does not take {value!r}")


def custom_widget(cls: type) -> type:
    """Have the loader of .ui files know a stand-in by its class name."""
    _custom[cls.__name__] = cls
    return cls


def custom_widgets() -> dict[str, type]:
    """All stand-ins by class name."""
    return dict(_custom)


def qt_module() -> types.ModuleType:
    """The module; PySide6's classes are changed in place, once."""
    module = types.ModuleType("qt")
    for source in (QtCore, QtGui, QtWidgets):
        for name in dir(source):
            if name.startswith("Q") or name == "Qt":
                item = getattr(source, name)
                setattr(module, name, item)
                if isinstance(item, type) and issubclass(item, QtCore.QObject):
                    _make_pythonic(item)
    if not isinstance(inspect.getattr_static(QtCore.QObject, "name", None), QtProperty):
        QtCore.QObject.name = QtProperty("objectName", None)
    module.QUiLoader = UiLoader
    return module


def application() -> QtWidgets.QApplication:
    """The one application of this process."""
    return QtWidgets.QApplication.instance() or QtWidgets.QApplication(["slicer"])


def _make_pythonic(cls: type) -> None:
    meta = cls.staticMetaObject
    if meta.className() == cls.__name__:
        for n in range(meta.propertyOffset(), meta.propertyCount()):
            name = meta.property(n).name()
            if name not in _VIRTUAL and not isinstance(inspect.getattr_static(cls, name, None), QtProperty):
                setattr(cls, name, QtProperty(name, getattr(cls, name, None)))
    begin = cls.__dict__.get("__init__")
    if begin is None or hasattr(begin, "is_pythonic"):
        return

    def __init__(self: QtCore.QObject, *args: object, **kwargs: object) -> None:  # noqa: N807
        begin(self, *args, **kwargs)
        adopt(self)

    __init__.is_pythonic = True
    cls.__init__ = __init__


def adopt(item: QtCore.QObject) -> QtCore.QObject:
    """Give an object PythonQt's ``connect`` and ``disconnect``; PySide looks for its own on the class first."""
    if "connect" not in item.__dict__:
        item.__dict__["connect"] = types.MethodType(_connect, item)
        item.__dict__["disconnect"] = types.MethodType(_disconnect, item)
    return item


def _connect(self: QtCore.QObject, signature: object, receiver: object, slot: str | None = None, *more: object) -> bool:
    if not isinstance(signature, str) or not re.fullmatch(r"\w+\(.*\)", signature):
        return QtCore.QObject.connect(self, signature, receiver, slot, *more)  # PySide's own machinery
    name, arguments = signature.rstrip(")").split("(", 1)
    signal = getattr(self, name, None)
    if not hasattr(signal, "connect"):
        raise ValueError(f"{type(self).__name__} has no signal {signature}")
    target = receiver if slot is None else getattr(receiver, slot.partition("(")[0])
    given = len([argument for argument in arguments.split(",") if argument])
    call = _taking(target, min(given, _arity(target, given)))
    self.__dict__.setdefault("connected", []).append((name, target, call))
    signal.connect(call)
    return True


def _disconnect(self: QtCore.QObject, signature: str, target: object) -> bool:
    name = signature.partition("(")[0]
    for entry in self.__dict__.get("connected", []):
        if entry[:2] == (name, target):
            getattr(self, name).disconnect(entry[2])
            self.__dict__["connected"].remove(entry)
            return True
    return False


def _arity(target: Callable[..., object], given: int) -> int:
    """How many arguments a callable takes: PythonQt drops what is too much."""
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return given
    if any(item.kind is item.VAR_POSITIONAL for item in parameters):
        return given
    return sum(item.kind in (item.POSITIONAL_ONLY, item.POSITIONAL_OR_KEYWORD) for item in parameters)


def _taking(target: Callable[..., object], count: int) -> Callable[..., object]:
    """A function of exactly ``count`` arguments, which PySide reads from its code."""

    def call(*arguments: object) -> None:
        try:
            target(*arguments)
        except Exception as error:
            raised.append(error)
            raise

    if count == 0:
        return lambda: call()
    if count == 1:
        return lambda first: call(first)
    return lambda first, second: call(first, second)


class UiLoader(QtUiTools.QUiLoader):
    """Loads .ui files with the stand-ins in them; connections between widgets are made in Python."""

    def createWidget(  # noqa: N802
        self, class_name: str, parent: QtWidgets.QWidget | None = None, name: str = ""
    ) -> QtWidgets.QWidget:
        if class_name in _custom:
            made = _custom[class_name](parent)
            made.setObjectName(name)
        else:
            made = super().createWidget(class_name, parent, name)
        _kept.append(adopt(made))
        return made

    def load(self, device: QtCore.QIODevice, parent: QtWidgets.QWidget | None = None) -> QtWidgets.QWidget:
        from xml.etree import ElementTree

        root = ElementTree.fromstring(bytes(device.readAll().data()))
        wanted = [
            [item.findtext(part) for part in ("sender", "signal", "receiver", "slot")]
            for item in root.iter("connection")
        ]
        for item in root.findall("connections"):
            root.remove(item)
        buffer = QtCore.QBuffer()
        buffer.setData(ElementTree.tostring(root))
        buffer.open(QtCore.QIODevice.ReadOnly)
        made = super().load(buffer, parent)
        if made is None:
            raise RuntimeError(self.errorString())
        by_name = {item.objectName: item for item in (made, *made.findChildren(QtCore.QObject))}
        for sender, signal, receiver, slot in wanted:
            adopt(by_name[sender]).connect(signal, by_name[receiver], slot)
        return made
