"""Names that came into Slicer after the oldest version we support must be used behind a check.

A manifest of Slicer's programming interface says in which version each name is first seen. A use of a later name passes
where one of these says that the program looked first:

- it is in the branch of an ``if`` (or of ``x if c else y``, or after ``c and``) whose condition asks for the name with
  ``hasattr`` or ``getattr(..., default)``, asks for Slicer's version, or asks a variable or function of the same
  module that got its answer so or by a tried import;
- an earlier statement of the same block leaves it (return, raise, continue) when the name is missing;
- it is inside a ``try`` that catches ImportError or AttributeError, or inside ``suppress`` of one.
"""

from __future__ import annotations

import ast
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

from desktop.later_names import LaterNames

MISSING = {"ImportError", "ModuleNotFoundError", "AttributeError"}
VERSION_NAMES = {"majorVersion", "minorVersion", "applicationVersion"}
# Arguments that came with 5.12.0; the manifest dates functions, not their arguments.
LATER_ARGUMENTS = {
    "launchConsoleProcess": {"blocking", "logCallback", "completedCallback"},
    "pip_install": {
        "blocking", "logCallback", "completedCallback", "constraints", "no_deps_requirements", "skip_packages",
        "requester", "show_progress",
    },
}  # fmt: skip


def widgets_of(ui: Path) -> dict[str, str]:
    """Class of each widget of a .ui file, by the widget's name."""
    return {widget.get("name", ""): widget.get("class", "") for widget in ElementTree.parse(ui).iter("widget")}


def later_in_ui(ui: Path, names: LaterNames) -> list[str]:
    """Classes and properties of a .ui file that the oldest Slicer lacks; a file cannot look first."""
    found = []
    for widget in ElementTree.parse(ui).iter("widget"):
        kind = widget.get("class", "")
        if kind in names.classes:
            found.append(f"{ui.name}: {kind} came with {names.classes[kind]}")
        for entry in widget.findall("property"):
            since = names.widgets.get(kind, {}).get(entry.get("name", ""))
            if since:
                found.append(f"{ui.name}: {kind}.{entry.get('name')} came with {since}")
    return found


def later_in_python(source: str, filename: str, names: LaterNames, widgets: dict[str, str]) -> list[str]:
    """Unchecked uses of later names in a module's text, one line each."""
    return _Reader(ast.parse(source), names, widgets).findings(filename)


def _dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


class _Reader:
    """One module: its uses of later names, and what surrounds each."""

    def __init__(self, tree: ast.Module, names: LaterNames, widgets: dict[str, str]) -> None:
        self.tree, self.names, self.widgets = tree, names, widgets
        self.parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
        defined = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        self.defined = {node.name for node in ast.walk(tree) if isinstance(node, defined)}
        self.asked = self._names_that_know()

    def findings(self, filename: str) -> list[str]:
        found = []
        for node in ast.walk(self.tree):
            for words, since in self._late(node):
                if not self._is_checked(node, set(words)):
                    found.append(f"{filename}:{node.lineno}: {'.'.join(words)} came with {since}: check before use")
        return sorted(set(found))

    def _late(self, node: ast.AST) -> Iterator[tuple[tuple[str, ...], str]]:
        """The words of each later name that this node uses; to check for any of them will do."""
        names = self.names
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name in names.modules:
                    yield tuple(alias.name.split(".")[1:]), names.modules[alias.name]
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                since = names.functions.get(node.module, {}).get(alias.name)
                since = since or names.modules.get(f"{node.module}.{alias.name}")
                if since:
                    yield (*node.module.split(".")[1:], alias.name), since
        elif isinstance(node, ast.Attribute):
            yield from self._late_attribute(node)
        elif isinstance(node, ast.Call):
            yield from self._late_call(node)

    def _late_attribute(self, node: ast.Attribute) -> Iterator[tuple[tuple[str, ...], str]]:
        owner, name = _dotted(node.value), node.attr
        module = f"{owner}.{name}"
        if owner in self.names.modules:
            return  # reported at the module's own name
        if module in self.names.modules:
            parent = self.parents.get(node)
            outer = (parent.attr,) if isinstance(parent, ast.Attribute) else ()
            yield (name, *outer), self.names.modules[module]
        elif name in self.names.functions.get(owner, {}):
            yield (name,), self.names.functions[owner][name]
        elif owner in ("slicer", "ctk", "qt") and name in self.names.classes:
            yield (name,), self.names.classes[name]
        elif owner.startswith("self.ui."):
            since = self.names.widgets.get(self.widgets.get(owner.removeprefix("self.ui."), ""), {}).get(name)
            if since:
                yield (name,), since
        elif name in self.names.members and name not in self.defined and owner != "slicer.util":
            homes = [home.split(".")[-1] for home in self.names.modules if name in self.names.functions[home]]
            yield (*homes, name), self.names.members[name]

    def _late_call(self, node: ast.Call) -> Iterator[tuple[tuple[str, ...], str]]:
        called = _dotted(node.func).split(".")
        for keyword in node.keywords:
            if keyword.arg in LATER_ARGUMENTS.get(called[-1], ()) and "packaging" not in called:
                yield (called[-1], keyword.arg), "v5.12.0"
        first = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else None
        if not isinstance(first, str):
            return
        if called[-1] in ("import_module", "__import__") and first in self.names.modules:
            yield tuple(first.split(".")[1:]), self.names.modules[first]
        signal = first.partition("(")[0]
        if called[-1] == "connect" and signal in self.names.members:
            yield (signal,), self.names.members[signal]
        if called[-1] == "AddNewNodeByClass" and first in self.names.classes:
            yield (first,), self.names.classes[first]

    def _is_checked(self, node: ast.AST, words: set[str]) -> bool:
        child, same_function = node, True
        while (parent := self.parents.get(child)) is not None:
            if same_function and _catches_missing(parent, child):
                return True
            if isinstance(parent, ast.If | ast.IfExp) and child is not parent.test:
                body = parent.body if isinstance(parent.body, list) else [parent.body]
                if self._asks(parent.test, words) and _is_positive(parent.test) == (child in body):
                    return True
            if isinstance(parent, ast.BoolOp) and isinstance(parent.op, ast.And):
                earlier = parent.values[: parent.values.index(child)]
                if any(self._asks(value, words) and _is_positive(value) for value in earlier):
                    return True
            if any(self._leaves_without(before, words) for before in _statements_before(parent, child)):
                return True
            same_function = same_function and not isinstance(
                parent, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
            )
            child = parent
        return False

    def _leaves_without(self, statement: ast.stmt, words: set[str]) -> bool:
        if isinstance(statement, ast.Try):
            tried = any(_words_imported(node) & words for node in statement.body)
            return tried and all(_leaves(handler.body) for handler in statement.handlers)
        if not isinstance(statement, ast.If) or not _leaves(statement.body):
            return False
        return self._asks(statement.test, words) and not _is_positive(statement.test)

    def _asks(self, test: ast.expr, words: set[str]) -> bool:
        """Whether a condition asks for one of the words, for the version, or a name that knows."""
        for node in ast.walk(test):
            if _words_asked(node) & words or (isinstance(node, ast.Attribute) and node.attr in VERSION_NAMES):
                return True
            if isinstance(node, ast.Name | ast.Attribute) and self.asked.get(_dotted(node), set()) & words:
                return True
        return False

    def _names_that_know(self) -> dict[str, set[str]]:
        """Functions that look, tried imports, and variables set by those or by ``hasattr`` and ``getattr``."""
        known: dict[str, set[str]] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef):
                known[node.name] = set().union(*(_words_asked(n) | self._words_tried(n) for n in ast.walk(node)))
            elif self._words_tried(node):
                known.update({alias.asname or alias.name: self._words_tried(node) for alias in node.names})
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Assign):
                called = node.value.func if isinstance(node.value, ast.Call) else node.value
                words = _words_asked(node.value) or known.get(_dotted(called).removeprefix("self."), set())
                known.update({_dotted(target): words for target in node.targets if words})
        return known

    def _words_tried(self, node: ast.AST) -> set[str]:
        return _words_imported(node) if _catches_missing(self.parents.get(node), node) else set()


def _words_imported(node: ast.AST) -> set[str]:
    if not isinstance(node, ast.Import | ast.ImportFrom):
        return set()
    paths = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
    return {word for path in paths for word in path.split(".")} - {"slicer", "util", ""}


def _leaves(block: list[ast.stmt]) -> bool:
    return isinstance(block[-1], ast.Return | ast.Raise | ast.Continue)


def _words_asked(node: ast.AST) -> set[str]:
    """The name that a call of hasattr, or of getattr with a default, asks for."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) > 1):
        return set()
    if node.func.id != "hasattr" and (node.func.id != "getattr" or len(node.args) < 3):
        return set()
    return {node.args[1].value} if isinstance(node.args[1], ast.Constant) else set()


def _is_positive(test: ast.expr) -> bool:
    """False for ``not ...``, ``... is None`` and ``version < ...``."""
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return False
    return not (isinstance(test, ast.Compare) and isinstance(test.ops[0], ast.Is | ast.Lt | ast.LtE))


def _catches_missing(parent: ast.AST | None, child: ast.AST) -> bool:
    if isinstance(parent, ast.Try) and child in parent.body:
        return any(MISSING & {_dotted(name) for name in ast.walk(h.type)} for h in parent.handlers if h.type)
    if isinstance(parent, ast.With) and child in parent.body:
        calls = [item.context_expr for item in parent.items if isinstance(item.context_expr, ast.Call)]
        return any(
            _dotted(call.func).endswith("suppress") and MISSING & {_dotted(name) for name in call.args}
            for call in calls
        )
    return False


def _statements_before(parent: ast.AST, child: ast.AST) -> list[ast.stmt]:
    """The statements of the same block that run before this one."""
    for block in (getattr(parent, name, None) for name in ("body", "orelse", "finalbody")):
        if isinstance(block, list) and child in block:
            return block[: block.index(child)]
    return []
