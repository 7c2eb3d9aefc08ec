"""What an upstream computes with that its digest may know nothing of: weights that torch has not registered."""

from __future__ import annotations

import enum
import functools
import logging
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path, PurePath
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import nn

from core.code import names_of
from upstreams._base import Upstream, UpstreamCard, is_plug_in

MOST_VALUES = 1_000  # of a list or table; code has fewer, weights have more
HARMLESS = (
    bool, int, float, complex, bytes, range, type, ModuleType, BuiltinFunctionType, MethodType, property, classmethod,
    staticmethod, enum.Enum, re.Pattern, logging.Logger, torch.dtype, torch.device, torch.Generator, UpstreamCard,
)  # fmt: skip
OURS_AND_LIBRARIES = ("torch", "builtins", "abc", "typing", "core", "frostbench")
OF_MODULES = frozenset(vars(nn.Module()))  # what torch keeps in a module itself, registered tensors among it


def hidden_weights(upstream: Upstream) -> list[str]:
    """What may hold weights and is no registered tensor: 'name (type)' of attributes, and of globals that methods use.

    That is what another library computes with (arrays, sessions), tensors and modules that are not registered, long
    tables, and names of files that are read later.

    Args:
        upstream: which has computed something, so that what is loaded late is there.
    """
    found: dict[str, None] = {}
    for module in upstream.modules():
        values = [(name, value) for name, value in vars(module).items() if name not in OF_MODULES]
        persistent = module.state_dict(keep_vars=True).keys()
        values += [each for each in module.named_buffers(recurse=False) if each[0] not in persistent]
        for kind in filter(_is_users, type(module).__mro__):
            values += [each for each in vars(kind).items() if not each[0].startswith(("__", "_abc_"))]
            values += _used_by(kind)
        found |= {f"{name} ({_described(value)})": None for name, value in values if not _is_plain(value)}
    return list(found)


def _is_users(kind: type) -> bool:
    return is_plug_in(kind) and kind.__module__.split(".")[0] not in OURS_AND_LIBRARIES


def _used_by(kind: type) -> Iterator[tuple[str, Any]]:
    """Globals and texts that a class's methods use, and the functions of their module that they call."""
    waiting, seen = list(vars(kind).values()), set[int]()
    while waiting:
        function = waiting.pop()
        function = getattr(function, "__func__", getattr(function, "__wrapped__", function))
        if not isinstance(function, FunctionType) or id(function) in seen or function.__module__ != kind.__module__:
            continue
        seen.add(id(function))
        yield from (("a text", each) for each in function.__code__.co_consts if isinstance(each, str))
        used = {
            name: function.__globals__[name] for name in names_of(function.__code__) if name in function.__globals__
        }
        waiting += used.values()
        yield from used.items()


def _is_plain(value: object) -> bool:
    """Whether nothing can be hidden in it that decides features."""
    waiting, seen = [value], dict[int, object]()  # which keeps them, so that no number is given twice
    while waiting:
        part = waiting.pop()
        if id(part) in seen or part is None or isinstance(part, HARMLESS):
            continue
        seen[id(part)] = part
        held = [] if isinstance(part, str | PurePath) else list(_held_by(part))
        if _may_be_weights(part, held):
            return False
        waiting += held
    return True


def _may_be_weights(part: object, held: Collection[Any]) -> bool:
    if isinstance(part, str | PurePath):
        return _is_file(part)
    if isinstance(part, Mapping | list | tuple | set | frozenset):
        return len(part) > MOST_VALUES
    if isinstance(part, torch.Tensor | nn.Module):
        return True
    return not (held or isinstance(part, functools.partial) or _is_function(part))


def _is_function(value: object) -> bool:
    """Whether it is a function, also of a library's C code, such as numpy's."""
    return callable(value) and hasattr(value, "__name__")


def _held_by(value: Any) -> Iterator[Any]:
    """Parts of a container, a function's closure, or an object's attributes."""
    if isinstance(value, Mapping):
        yield from value.values()
    elif isinstance(value, list | tuple | set | frozenset):
        yield from value
    elif isinstance(value, FunctionType):
        with suppress(ValueError):  # a cell that is empty yet
            yield from (cell.cell_contents for cell in value.__closure__ or ())
    elif isinstance(value, functools.partial):
        yield from (value.func, *value.args, *value.keywords.values())
    elif not _is_function(value):
        yield from getattr(value, "__dict__", {}).values()


def _is_file(name: str | PurePath) -> bool:
    try:
        return len(str(name)) > 1 and Path(name).is_file()
    except (OSError, ValueError):  # too long for a name, or with a zero in it
        return False


def _described(value: object) -> str:
    return f"the file {value}" if isinstance(value, str | PurePath) else type(value).__name__
