"""The source of classes and functions that were typed into a notebook or at a prompt, where no file holds it."""

from __future__ import annotations

import linecache
import sys
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any

from core.errors import ContractError


def has_file(module: str) -> bool:
    """Whether a module was read from a file; `__main__` of a notebook, a prompt or `python -c` was not."""
    return getattr(sys.modules.get(module), "__file__", None) is not None


def interactive_source(what: type | FunctionType) -> str:
    """The text of all cells that a class or function was typed in, its helpers' cells included.

    Followed are the names that its functions use, as far as they stand for classes and functions typed in the same
    session. Values that a cell computes are not seen, nor changes of a global that a function reads.

    Raises: ContractError: Python kept no source, as with `python -c`.
    """
    cells: dict[str, str] = {}
    waiting, seen = list(_functions(what)), set[int]()
    while waiting:
        function = waiting.pop()
        if id(function) in seen:
            continue
        seen.add(id(function))
        file = function.__code__.co_filename
        cells[file] = "".join(linecache.getlines(file))
        for name in names_of(function.__code__):
            used = function.__globals__.get(name)
            if isinstance(used, type | FunctionType) and used.__module__ == what.__module__:
                waiting += _functions(used)
    if not cells or not all(cells.values()):
        raise ContractError(
            f"{what.__qualname__}: Python keeps no source of it, so that no digest can follow its code; write it in a "
            f"file and import it, or in a notebook's cell"
        )
    return "\n".join(sorted(cells.values()))  # the numbers of cells change with every session


def _functions(what: type | FunctionType) -> Iterator[FunctionType]:
    """A function itself, or those of a class and of its bases, as far as they were typed in the same session."""
    if isinstance(what, FunctionType):
        yield what
        return
    for cls in what.__mro__:
        for value in vars(cls).values() if cls.__module__ == what.__module__ else ():
            yield from _unwrapped(value)


def _unwrapped(value: Any) -> Iterator[FunctionType]:
    parts = (value, getattr(value, "__func__", None), *(getattr(value, name, None) for name in ("fget", "func")))
    yield from (part for part in parts if isinstance(part, FunctionType))


def names_of(code: CodeType) -> Iterator[str]:
    """The names that code asks for, in the functions inside it as well; those of attributes are among them."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from names_of(constant)
