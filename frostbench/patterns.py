"""Patterns among the upstreams that are asked for: each names the checkpoints of a training that are there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from glob import glob
from pathlib import Path
from typing import Any, NamedTuple

from core.checkpoint_series import WILDCARD, natural_order
from core.errors import CheckpointError


class Asked(NamedTuple):
    """Upstreams that are asked for.

    Attributes:
        upstreams: each once; of a pattern the specifications of what it names, in the order of their numbers.
        series: specification -> the series that it is a checkpoint of, named by the pattern of its last part.
    """

    upstreams: list[Any]
    series: dict[str, str]


class _Pattern(NamedTuple):
    """A specification with a pattern in place of its checkpoint: what stands before, the path, and what behind."""

    before: str
    path: str
    behind: str

    def named(self, path: str) -> str:
        """The specification with another path."""
        return f"{self.before}{path}{self.behind}"


def with_checkpoints(upstreams: Iterable[Any]) -> Asked:
    """Upstreams with what patterns name in the place of each.

    A path that is there as it is written is no pattern, whatever characters it has.

    Args:
        upstreams: specifications such as `hf:runs/step-*` or `apc@runs/*.safetensors`; all else is left as it is.

    Raises: CheckpointError: nothing is there that a pattern names.
    """
    found: list[Any] = []
    series: dict[str, str] = {}
    for given in upstreams:
        named = dict(_checkpoints(given)) if isinstance(given, str) else {}
        for spec, pattern in named.items():
            series.setdefault(spec, pattern)
        found += [each for each in (named or [given]) if each not in found]
    return Asked(found, series)


def _checkpoints(spec: str) -> Iterator[tuple[str, str]]:
    """The specifications that one with a pattern names, each with its series; none of one without."""
    patterns = [each for each in _readings(spec) if WILDCARD.search(each.path)]
    if not patterns or any(Path(each.path).expanduser().exists() for each in patterns):
        return
    for pattern in patterns:
        whole = str(Path(pattern.path).expanduser())
        paths = sorted(glob(whole, recursive=True), key=natural_order)  # noqa: PTH207  # Path's takes no absolute one
        yield from ((pattern.named(path), pattern.named(_series_of(whole, path))) for path in paths)
        if paths:
            return
    raise CheckpointError(
        f"upstream '{spec}': no file or folder here has a name like {patterns[0].path}; correct the pattern, which "
        f"names checkpoints on this machine, not those of a hub"
    )


def _readings(spec: str) -> Iterator[_Pattern]:
    """What of a specification may be a path, the likeliest first: KIND:PATH[@...], KIND:NAME@PATH, NAME@PATH."""
    kind, colon, rest = spec.partition(":")
    if colon and not kind.endswith(".py"):
        yield _Pattern(f"{kind}:", rest, "")
        first, at, second = rest.partition("@")
        if at:
            yield _Pattern(f"{kind}:", first, f"@{second}")
            yield _Pattern(f"{kind}:{first}@", second, "")
    else:
        name, at, path = spec.partition("@")
        yield _Pattern(f"{name}{at}", path, "")


def _series_of(pattern: str, path: str) -> str:
    """The pattern with its earlier folders as they are called in a path: those of several trainings are several series.

    Of one with `**`, which may stand for any number of folders, the pattern as it is.
    """
    parts, names = pattern.split("/"), path.split("/")
    if "**" in parts or len(parts) != len(names):
        return pattern
    last = max(place for place, part in enumerate(parts) if WILDCARD.search(part))
    return "/".join(
        part if place == last else name for place, (part, name) in enumerate(zip(parts, names, strict=True))
    )
