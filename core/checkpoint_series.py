"""Series over checkpoints: which specifications of upstreams a pattern names, and at which step of training each is.

hf:runs/step-*   apc@runs/apc-*.safetensors   my_module.py:MyUpstream@runs/*.pt
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

WILDCARD = re.compile(r"[*?\[]")
# Whole numbers, and such as 1.5M or 200k.
NUMBER = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,9})?[kKM](?![A-Za-z])|[0-9]{1,15}")
THOUSANDS = {"k": 10**3, "K": 10**3, "M": 10**6}
FILE_SUFFIX = re.compile(r"\.[A-Za-z]\w*$")


def belongs(spec: str, pattern: str) -> bool:
    """Whether a specification is one of those that a pattern names, be its checkpoint there or not."""
    return _fits(spec.split("/"), pattern.split("/"))


def _fits(names: Sequence[str], parts: Sequence[str]) -> bool:
    if not parts:
        return not names
    if parts[0] == "**":  # any number of folders
        return any(_fits(names[start:], parts[1:]) for start in range(len(names) + 1))
    return bool(names) and fnmatchcase(names[0], parts[0]) and _fits(names[1:], parts[1:])


def steps_of(pattern: str, specs: Iterable[str]) -> dict[str, int]:
    """Specification -> step: behind what the pattern fixes, the first number that tells all of them apart.

    Those without any number, such as `runs/step-last`, are left out.

    Args:
        pattern: that names them.
        specs: each once.

    Returns: nothing where no number tells them apart.
    """
    wildcard = WILDCARD.search(pattern)
    fixed = len(pattern[: wildcard.start() if wildcard else None].rstrip("0123456789"))
    numbers = {spec: [_number(found) for found in NUMBER.findall(spec[fixed:])] for spec in specs}
    counted = {spec: found for spec, found in numbers.items() if found}
    for place in range(min(map(len, counted.values()), default=0)):
        steps = {spec: found[place] for spec, found in counted.items()}
        if len(set(steps.values())) == len(steps):
            return steps
    return {}


def _number(text: str) -> int:
    return round(float(text[:-1]) * THOUSANDS[text[-1]]) if text[-1] in THOUSANDS else int(text)


def natural_order(text: str) -> list[int | str]:
    """By which names are sorted as people do: step-2 before step-10."""
    return [int(part) if place % 2 else part for place, part in enumerate(re.split("([0-9]+)", text))]


def told_apart(upstreams: Mapping[str, tuple[str, str]]) -> dict[str, str]:
    """Digest -> name; where several have one name, with as much of the path of their checkpoints as it takes.

    That is `apc@apc-100` of `apc@runs/apc-100.safetensors`, and of folders, whose names they have, `first/step-100`.

    Args:
        upstreams: digest -> name, specification.
    """
    shown = {digest: name for digest, (name, _) in upstreams.items()}
    for name in set(shown.values()):
        alike = {digest: spec for digest, (own, spec) in upstreams.items() if own == name}
        if len(alike) > 1:
            depth = max(len(_path(spec)) for spec in alike.values())
            tried = [
                {digest: _with_path(name, spec, parts) for digest, spec in alike.items()}
                for parts in range(1, depth + 1)
            ]
            best: dict[str, str] = max(tried, key=lambda names: len(set(names.values())), default={})
            shown |= best
    return shown


def _path(spec: str) -> list[str]:
    """Of the checkpoint; nothing where none is named."""
    kind, colon, rest = spec.partition(":")
    path = rest if colon and not kind.endswith(".py") else spec.partition("@")[2]
    return [part for part in path.split("/") if part]


def _with_path(name: str, spec: str, parts: int) -> str:
    path = _path(spec)[-parts:]
    if not path or spec.startswith("instance:"):
        return name
    behind = name.removeprefix(path[-1])  # what else is part of a name, such as the precision
    if behind != name and behind[:2] in ("", " ("):
        return "/".join(path) + behind
    return f"{name}@{FILE_SUFFIX.sub('', '/'.join(path))}"
