"""Contracts as checks: one function a promise, run by the tests and by whoever writes a plug-in."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from core.code import LIBRARIES, OURS
from core.errors import BenchmarkError, ContractError

Subject = TypeVar("Subject")
FRAME = re.compile(r'File "([^"]+)", line (\d+)')
HOME = Path(__file__).resolve().parent.parent


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
    except (Exception, SystemExit) as error:  # a plug-in may fail in any way, and its author wants to read which
        kind = subject if isinstance(subject, type) else type(subject)
        return CheckResult(name, described(error, source_of(kind)), expected)
    return CheckResult(name, None, expected)


def source_of(kind: type) -> str | None:
    """The file in which a class is defined; None where there is none, as for a class typed at a prompt."""
    return getattr(sys.modules.get(kind.__module__), "__file__", None)


def described(error: BaseException, file: str | None = None) -> str:
    """An error in one line, with the last line of the user's code that it went through.

    Args:
        error: that was raised; the words of our own errors stand for themselves.
        file: the user's, such as that of a plug-in; without one, or where the error did not go through it, any file
            counts that is neither ours nor a library's.
    """
    if isinstance(error, BenchmarkError):
        return str(error)
    words = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, SystemExit):
        words = "it ends the program by sys.exit(); raise an error instead"
    place = place_of(error, file)
    return f"{words} ({place})" if place else words


def place_of(error: BaseException, file: str | None = None) -> str | None:
    """The last line of the user's code that an error went through, as `described` says it; None where there is none."""
    frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if error.__cause__ is not None:  # what a worker process raised comes with its traceback as text
        frames += [(name, int(line)) for name, line in FRAME.findall(str(error.__cause__))]
    own = [frame for frame in frames if frame[0] == file] or [frame for frame in frames if _is_users(frame[0])]
    return f"{Path(own[-1][0]).name}, line {own[-1][1]}" if own else None


def _is_users(file: str) -> bool:
    """Whether a file is neither one of ours, nor of an installed library, nor generated code."""
    if file.startswith("<"):
        return False
    folders = {*Path(file).resolve().parents}
    return (
        not folders & {*(HOME / name for name in OURS), *(folder.resolve() for folder in LIBRARIES)}
        and Path(file).name != "run_benchmark.py"
    )


def require(condition: bool, message: str) -> None:
    """Raises a ContractError where a promise is broken."""
    if not condition:
        raise ContractError(message)
