"""Modules that lie beside a plug-in's file: its own code can import them, and nothing else finds them by accident.

On `sys.path` a folder of plug-ins would stay for the whole program: a folder `onnx` or `data` in it would stand for a
package that is not installed, in our code as in that of every library.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

IMPORT_SYSTEM = ("importlib", "_frozen_importlib", "_frozen_importlib_external", "runpy", "pkgutil")


class SiblingFinder(MetaPathFinder):
    """Finds top-level modules in the folder of the code that imports them, where that is a folder of plug-ins.

    It is asked last, so a module beside a plug-in hides neither our modules nor installed ones.
    """

    def __init__(self) -> None:
        self.folders: set[Path] = set()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See MetaPathFinder.find_spec."""
        if path is not None:  # a part of a package, which knows where its parts lie
            return None
        folder = _folder_of_importer()
        return PathFinder.find_spec(fullname, [str(folder)]) if folder in self.folders else None


def find_siblings_in(folder: Path) -> None:
    """Lets the code in a folder import what lies beside it."""
    finder = next((each for each in sys.meta_path if isinstance(each, SiblingFinder)), None)
    if finder is None:
        finder = SiblingFinder()
        sys.meta_path.append(finder)
    finder.folders.add(folder.resolve())


def _folder_of_importer() -> Path | None:
    """The folder of the code that asks for a module; None where it has no file."""
    frame = sys._getframe(2)
    while frame is not None and str(frame.f_globals.get("__name__")).split(".")[0] in IMPORT_SYSTEM:
        frame = frame.f_back  # type: ignore[assignment]
    file = frame.f_globals.get("__file__") if frame is not None else None
    return Path(file).resolve().parent if isinstance(file, str) else None
