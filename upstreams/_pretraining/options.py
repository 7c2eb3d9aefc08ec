"""Other values for a size or a recipe, as they are typed: KEY=VALUE, put into the dataclass that has the field."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from core.errors import ContractError
from upstreams._pretraining.contract import Clusters


def parse_options(written: Sequence[str]) -> dict[str, str]:
    """`key=value` as typed, several.

    Raises: ContractError: one is not of that form.
    """
    pairs = [text.partition("=") for text in written]
    for key, equals, _ in pairs:
        if not equals:
            raise ContractError(f"--set {key}: write it as KEY=VALUE, such as num_layers=6")
    return {key.strip(): value.strip() for key, _, value in pairs}


def option_names(value: Any) -> list[str]:
    """Fields of a dataclass that can be set by option; clusters are known by their number, and by their own fields."""
    names = []
    for field in fields(value):
        held = getattr(value, field.name)
        if isinstance(held, Clusters):
            names += ["clusters", *(name for name in option_names(held) if name != "count")]
        elif held is not None:
            names.append(field.name)
    return names


def with_option(value: Any, key: str, text: str) -> Any:
    """A dataclass with a field changed, where it has that field."""
    if key not in option_names(value):
        return value
    if isinstance(getattr(value, "clusters", None), Clusters) and key not in {field.name for field in fields(value)}:
        return replace(value, clusters=with_option(value.clusters, key, text))
    if key == "clusters":
        return replace(value, clusters=with_option(value.clusters, "count", text))
    old = getattr(value, key)
    try:
        return replace(value, **{key: _parsed(text, old)})
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
