"""Digests of the code behind a plug-in, so that whatever an edit could change is computed anew.

Our own entries have versions, raised by hand and held by tests; nobody does that for a plug-in. What counts of it are
the syntax trees of its files: a comment, a docstring or a line break recomputes nothing. Where code was typed into a
notebook or at a prompt, no file holds it, and its cells stand for files.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import linecache
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

from core.digest import digest_of
from core.errors import ContractError

OURS = ("core", "upstreams", "downstreams", "tasks", "frostbench", "leaderboard")
LIBRARIES = frozenset(Path(sysconfig.get_path(kind)) for kind in ("stdlib", "purelib", "platlib"))
BLANK = ("type_comment", "kind")  # fields of a syntax tree that change nothing


def is_ours(module: str) -> bool:
    """Whether a module, by its full name, is one of Frostbench's own."""
    return module.split(".")[0] in OURS


def code_digest(entry: type | Callable[..., Any]) -> str | None:
    """sha256 of all code that a plug-in's class or function is made of; None for our own, whose versions count.

    Of a module in a package, these are all .py files of the outermost package; of a single file, the file and the
    modules beside it that it imports, and those that they import. The classes that it inherits from count as well, as
    far as they keep one of our contracts themselves.
    """
    while isinstance(entry, functools.partial):
        entry = entry.func
    if is_ours(entry.__module__):
        return None
    classes = entry.__mro__ if isinstance(entry, type) else (entry,)
    keepers = [each for each in classes if each is entry or _keeps_a_contract(each)]
    digests = {_digest_around(each) for each in keepers if not is_ours(each.__module__)}
    return digest_of({"name": entry.__qualname__, "modules": sorted(digests)})


def _digest_around(entry: Any) -> str:
    if has_file(entry.__module__):
        return module_digest(entry.__module__)
    return source_digest(interactive_source(entry).encode())


def _keeps_a_contract(entry: Any) -> bool:
    return any(is_ours(base.__module__) for base in entry.__mro__)


def module_digest(module: str) -> str:
    """sha256 of the files behind an imported module, as they are now."""
    return digest_of({name: tree_digest(path) for name, path in files_of(module).items()})


def files_of(module: str) -> dict[str, Path]:
    """Name -> file of all code that counts for a module that was imported from a file."""
    package = _outermost_package(module)
    if package is not None:
        return _files_below(package)
    return files_with(Path(str(sys.modules[module].__file__)))


def files_with(file: Path) -> dict[str, Path]:
    """Name -> file of all code that counts for a single file: itself, whatever its name, and its siblings."""
    return {"": file, **siblings_of(file)}


def _outermost_package(module: str) -> Path | None:
    """The folder of the outermost package, namespace packages left out."""
    parts = module.split(".")
    for end in range(1, len(parts) + 1):
        found = sys.modules.get(".".join(parts[:end]))
        if getattr(found, "__path__", None) and getattr(found, "__file__", None):
            return Path(str(found.__file__)).parent  # type: ignore[union-attr]
    return None


def _files_below(package: Path) -> dict[str, Path]:
    return {path.relative_to(package.parent).as_posix(): path for path in package.rglob("*.py")}


def siblings_of(file: Path) -> dict[str, Path]:
    """Name -> file of the modules beside a file that it imports, directly or through each other; packages whole."""
    found: dict[str, Path] = {}
    waiting = [file]
    allowed = _of_one_distribution(file)
    while waiting:
        for name in sorted(_imports(waiting.pop()) - set(OURS)):
            if allowed is not None and name not in allowed:
                continue
            module, package = file.parent / f"{name}.py", file.parent / name
            is_package = (package / "__init__.py").is_file() or (package.is_dir() and not module.is_file())
            new = _files_below(package) if is_package else {}
            if not new and module.is_file() and module.resolve() != file.resolve():
                new = {module.name: module}
            waiting += [path for key, path in new.items() if key not in found]
            found.update(new)
    return found


def _of_one_distribution(file: Path) -> set[str] | None:
    """Where all installed modules lie side by side, the names that came with this one; elsewhere None."""
    if file.resolve().parent not in {place.resolve() for place in LIBRARIES}:
        return None
    owners = importlib.metadata.packages_distributions()
    mine = set(owners.get(file.stem, ()))
    return {name for name, theirs in owners.items() if mine & set(theirs)}


def _imports(file: Path) -> set[str]:
    """The outermost names of the modules that a file imports anywhere in it."""
    tree = _parsed(file.read_bytes())
    names: set[str] = set()
    for node in ast.walk(tree) if tree is not None else ():
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def tree_digest(file: Path) -> str:
    """`source_digest` of a file."""
    state = file.stat()
    return _tree_digest(file, state.st_mtime_ns, state.st_size)


@functools.cache
def _tree_digest(file: Path, changed_ns: int, size: int) -> str:
    return source_digest(file.read_bytes())


def source_digest(source: bytes) -> str:
    """sha256 of the syntax tree without docstrings; of the bytes where this Python can't read them."""
    tree = _parsed(source)
    return hashlib.sha256(source if tree is None else "\n".join(_told(tree)).encode()).hexdigest()


def _parsed(source: bytes) -> ast.Module | None:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError):
        return None


def _told(node: ast.AST) -> Iterator[str]:
    """A syntax tree as lines.

    `ast.dump` writes other text in other versions of Python; fields that are empty, which is what newer versions add,
    are left out here.
    """
    yield f"({type(node).__name__}"
    for name, value in ast.iter_fields(node):
        if name in BLANK or value is None or value == []:
            continue
        yield name
        values = value if isinstance(value, list) else [value]
        if name == "body" and _is_text(values[0]):
            values = values[1:]
        if isinstance(node, ast.JoinedStr):
            values = [each for each in values if getattr(each, "value", None) != ""]  # Python 3.12 has empty parts
        for each in values:
            if isinstance(each, ast.AST):
                yield from _told(each)
            else:
                yield f"{type(each).__name__} {each!r}"
    yield ")"


def _is_text(node: object) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


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
