"""Plug-ins: registries (names to entries, from a package's plain-named modules and entry points) and users' files."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.metadata
import importlib.util
import pkgutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Generic, TypeVar

from core._siblings import find_siblings_in
from core.checks import described
from core.code import files_with, siblings_of, tree_digest
from core.errors import BenchmarkError, ContractError, UnknownNameError

Entry = TypeVar("Entry")
BY_PATH = "plugin_"  # begins the name of a module that was loaded by its path
CONTENT = "__frostbench_content__"  # of such a module: its files and their digests


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UnknownNameError:
    """The error for a name that is not known, with the nearest one that is."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(names)}"
    return UnknownNameError(f"unknown {kind} '{name}': {hint}")


class Registry(Generic[Entry]):
    """Entries of one kind by name.

    Args:
        kind: the word for an entry in messages, such as "upstream".
        package: package whose modules register entries when imported; underscored ones are machinery and skipped. None
            where all of ours are registered by the module that makes the registry.
        group: entry-point group through which installed packages add entries.
    """

    def __init__(self, kind: str, package: str | None = None, group: str | None = None) -> None:
        self.kind = kind
        self._package = package
        self._group = group
        self._entries: dict[str, Entry] = {}
        self._discovered = False

    def add(self, name: str, entry: Entry) -> None:
        """Registers an entry; a class that is defined anew, as by a notebook's cell run twice, replaces itself.

        Raises: BenchmarkError: the name is taken by another entry.
        """
        if isinstance(entry, type) and not entry.__module__.startswith(f"{self._package}."):
            self._discover()  # or a plug-in could take the name of an entry that has not been imported yet
        if not _is_same_definition(self._entries.get(name, entry), entry):
            raise BenchmarkError(f"{self.kind} '{name}' is registered twice: rename one of them")
        self._entries[name] = entry

    def get(self, name: str) -> Entry:
        """The entry of that name.

        Raises: UnknownNameError: there is none; the message names the nearest.
        """
        self._discover()
        if name not in self._entries:
            raise unknown_name(self.kind, name, self._entries)
        return self._entries[name]

    def names(self) -> list[str]:
        """All names, sorted."""
        self._discover()
        return sorted(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter([self._entries[name] for name in self.names()])

    def _discover(self) -> None:
        if self._discovered:
            return
        self._discovered = True
        if self._package is not None:
            package = importlib.import_module(self._package)
            for module in pkgutil.walk_packages(package.__path__, prefix=f"{self._package}."):
                if not any(part.startswith("_") for part in module.name.split(".")):
                    importlib.import_module(module.name)
        for point in importlib.metadata.entry_points(group=self._group) if self._group else ():
            self.add(point.name, point.load())


def _is_same_definition(known: object, entry: object) -> bool:
    if known is entry:
        return True
    if not (isinstance(known, type) and isinstance(entry, type)):
        return False
    return (known.__module__, known.__qualname__) == (entry.__module__, entry.__qualname__)


def is_loaded_by_path(module: str) -> bool:
    """Whether a module's name was made by `load_module`, so that it can't be imported by that name elsewhere."""
    return module.startswith(BY_PATH)


def load_module(path: Path) -> ModuleType:
    """Imports a user's Python file under a name made from its path; twice the same content is one module.

    Modules and packages that lie beside the file can be imported by it, now or later, and by nothing else.

    Raises: ContractError: no such file, or it fails while being imported, or what it imports from beside it is another
        module of that name.
    """
    if not path.is_file():
        raise ContractError(f"{path}: no such file; name the Python file of your plug-in")
    path = path.resolve()
    name = f"{BY_PATH}{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    files = files_with(path)
    content = tuple(sorted((file, tree_digest(file)) for file in files.values()))
    known = sys.modules.get(name)
    if known is not None and getattr(known, CONTENT, None) == content:
        return known
    if known is not None:  # it was edited, or a module that it imports was
        for module in [key for key, value in sys.modules.items() if _is_one_of(value, files.values())]:
            del sys.modules[module]
    return _imported(name, path, content)


def _is_one_of(module: ModuleType, files: Iterable[Path]) -> bool:
    source = getattr(module, "__file__", None)
    return source is not None and source.endswith(".py") and Path(source).resolve() in files


def _imported(name: str, path: Path, content: tuple[tuple[Path, str], ...]) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None, "a .py file always has a loader"
    module = importlib.util.module_from_spec(spec)
    setattr(module, CONTENT, content)
    sys.modules[name] = module
    find_siblings_in(path.parent)
    try:
        spec.loader.exec_module(module)
        _require_own_siblings(path)
    except ContractError:
        del sys.modules[name]
        raise
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise ContractError(f"{path}: fails when imported: {described(error, str(path))}") from error
    return module


def _require_own_siblings(path: Path) -> None:
    """What was imported by a sibling's name is the sibling: its code is what the digest is made of."""
    for key, file in siblings_of(path).items():
        name = key.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        found = getattr(sys.modules.get(name), "__file__", None)
        if found is not None and Path(found).resolve() != file.resolve():
            raise ContractError(
                f"{path}: imports '{name}', which is {found} in this program, and not {file}: rename the file beside it"
            )
