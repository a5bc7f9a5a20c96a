"""Names of Slicer that came after the oldest version we support, from a manifest of all its names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

OLDEST = (5, 10, 0)


def is_late(since: str) -> bool:
    """Whether a name first seen in this version is missing from the oldest Slicer.

    Compiled VTK classes were read from Python wheels, of which 5.11 is the first: that says nothing about 5.10.
    """
    if since == "HEAD":
        return True
    version = tuple(int(part) for part in since.removeprefix("v").split("."))
    return version > OLDEST and version[:2] != (5, 11)


@dataclass(frozen=True)
class LaterNames:
    """What came after the oldest version, with the version of each.

    Attributes
    ----------
    modules
        Python modules of Slicer, such as ``slicer.packaging``.
    functions
        Functions of modules, by module.
    classes
        Classes of ``slicer``, ``ctk``.
    members
        Members of classes, by name, which no class had before.
    widgets
        Members by widget class, its bases' included; a name may be old in another class.
    """

    modules: dict[str, str]
    functions: dict[str, dict[str, str]]
    classes: dict[str, str]
    members: dict[str, str]
    widgets: dict[str, dict[str, str]]

    @classmethod
    def from_manifest(cls, manifest: dict) -> LaterNames:
        functions = {
            module: {name: entry["since"] for name, entry in entries.items() if is_late(entry["since"])}
            for module, entries in manifest["python"].items()
        }
        modules = {
            module: next(iter(functions[module].values()))
            for module, entries in manifest["python"].items()
            if entries and len(functions[module]) == len(entries)
        }
        dated = list(_dated_members(manifest))
        old = {name for _, name, since in dated if not is_late(since)}
        own: dict[str, dict[str, str]] = {}
        for owner, name, since in dated:
            if is_late(since):
                own.setdefault(owner, {})[name] = since
        qt = manifest["qt"]
        entries = {**manifest["vtk"], **qt}
        return cls(
            modules=modules,
            functions=functions,
            classes={name: entry["since"] for name, entry in entries.items() if _ours_to_date(name, entry)},
            members={
                **{name: since for names in own.values() for name, since in names.items() if name not in old},
                **{name: since for module in modules for name, since in functions[module].items() if name[0].islower()},
            },
            widgets={name: _with_bases(name, qt, own) for name in qt},
        )


def _ours_to_date(name: str, entry: dict) -> bool:
    """Classes of plain VTK are in the manifest where a wheel happened to use them first."""
    return is_late(entry["since"]) and (not name.startswith("vtk") or name.startswith(("vtkMRML", "vtkSlicer")))


def _dated_members(manifest: dict) -> Iterator[tuple[str, str, str]]:
    """(class, member, since) of each method, property and signal."""
    for owner, entry in manifest["qt"].items():
        for kind in ("methods", "properties", "signals"):
            for name in entry[kind]:
                yield owner, name, entry.get("_since", {}).get(f"{kind}.{name}", entry["since"])
    for owner, entry in manifest["vtk"].items():
        inherited_date = entry["since"] if owner.startswith(("vtkMRML", "vtkSlicer")) else "5.11"
        for name, kind in entry["members"].items():
            if kind == "method":
                yield owner, name, entry.get("_since", {}).get(f"members.{name}", inherited_date)


def _with_bases(name: str, classes: dict, own: dict[str, dict[str, str]]) -> dict[str, str]:
    found = dict(own.get(name, {}))
    for base in classes[name]["bases"]:
        if base in classes:
            found = {**_with_bases(base, classes, own), **found}
    return found
