"""Other values for a size or a recipe, as they are typed: KEY=VALUE, put into the dataclass that has the field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

from core.errors import ContractError


def parse_options(written: Sequence[str]) -> dict[str, str]:
    """Splits options that were typed as `key=value`.

    Raises: ContractError: one is not of that form.
    """
    pairs = [text.partition("=") for text in written]
    for key, equals, _ in pairs:
        if not equals:
            raise ContractError(f"--set {key}: write it as KEY=VALUE, such as num_layers=6")
    return {key.strip(): value.strip() for key, _, value in pairs}


def option_names(value: Any) -> list[str]:
    """What can be set by option in a dataclass and in the dataclasses that it holds."""
    return list(_paths(value))


def with_option(value: Any, key: str, text: str) -> Any:
    """A dataclass with a field changed, where it or one that it holds has that field."""
    path = _paths(value).get(key)
    return value if path is None else _with(value, path, key, text)


def _paths(value: Any) -> dict[str, tuple[str, ...]]:
    """Name of an option -> the fields that lead to it; a field that is None has no type to be read by, and has none."""
    names: Mapping[str, str] = getattr(value, "option_names", {})
    found: dict[str, tuple[str, ...]] = {}
    for field in fields(value):
        held = getattr(value, field.name)
        if is_dataclass(held):
            found |= {name: (field.name, *path) for name, path in _paths(held).items() if name not in found}
        elif held is not None:
            found[names.get(field.name, field.name)] = (field.name,)
    return found


def _with(value: Any, path: tuple[str, ...], key: str, text: str) -> Any:
    name, *rest = path
    old = getattr(value, name)
    if rest:
        return replace(value, **{name: _with(old, tuple(rest), key, text)})
    try:
        return replace(value, **{name: _parsed(text, old)})
    except ValueError:
        raise ContractError(f"{key}={text}: not a value like {old!r}, which it has now") from None


def _parsed(text: str, like: Any) -> Any:
    if isinstance(like, bool):
        if text.lower() not in {"true", "false"}:
            raise ValueError(text)
        return text.lower() == "true"
    if isinstance(like, tuple):
        return tuple(_parsed(part, like[0]) for part in text.split(","))
    return type(like)(text)
