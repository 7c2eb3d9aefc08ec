"""Whether the program's packages are found: their names are short, and a folder of the user's may hide one."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGES = ("core", "upstreams", "downstreams", "tasks", "leaderboard")
HOME = Path(__file__).resolve().parent.parent


def require_own_packages() -> None:
    """Refuses to go on where another package has the name of one of ours. Imports none of them.

    Raises: ImportError: says which folder or file it is, and what to do.
    """
    for name in PACKAGES:
        places = list(_places(name))
        if HOME not in (place.parent.resolve() for place in places):
            found = f"{places[0]} hides" if places else "nothing stands for"
            raise ImportError(
                f"frostbench: {found} Frostbench's own package '{name}' in {HOME}; rename it, or start Python where "
                f"it is not on the path",
                name=name,
            )


def _places(name: str) -> Iterator[Path]:
    """The folder that would be imported, or the file; of a package without `__init__.py` all folders."""
    module = sys.modules.get(name)
    spec = getattr(module, "__spec__", None) if module is not None else importlib.util.find_spec(name)
    folders = list(getattr(module, "__path__", None) or getattr(spec, "submodule_search_locations", None) or ())
    file = getattr(module, "__file__", None) or getattr(spec, "origin", None)
    for place in folders or ([file] if file else []):
        yield Path(place)
