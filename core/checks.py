"""Contracts as checks: one function a promise, run by the tests and by whoever writes a plug-in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from core.errors import BenchmarkError, ContractError

Subject = TypeVar("Subject")


@dataclass(frozen=True)
class CheckResult:
    """How a check ended. `expected` tells that it is listed as a known failure."""

    check: str
    error: str | None
    expected: bool = False

    @property
    def passed(self) -> bool:
        """A known failure has to fail: the day it passes, the list is wrong."""
        return (self.error is not None) == self.expected


def run_check(
    check: Callable[[Subject], None], subject: Subject, known_failures: Mapping[str, str] | None = None
) -> CheckResult:
    """Runs one check; whatever the subject raises is its failure.

    Args:
        check: raises where the promise is broken.
        subject: what is checked.
        known_failures: name of a check -> reason why it can't hold.
    """
    name = check.__name__  # type: ignore[attr-defined]  # checks are functions
    expected = name in (known_failures or {})
    try:
        check(subject)
    except Exception as error:  # a plug-in may fail in any way, and its author wants to read which
        kind = "" if isinstance(error, BenchmarkError) else f"{type(error).__name__}: "
        return CheckResult(name, f"{kind}{error}", expected)
    return CheckResult(name, None, expected)


def require(condition: bool, message: str) -> None:
    """Raises a ContractError where a promise is broken."""
    if not condition:
        raise ContractError(message)
