"""The contract tests for a plug-in's own repository, by pytest.

import frostbench as fb
from frostbench.testing import parametrize_with_checks
from my_package import Loudness, MyHead, emotion

@parametrize_with_checks(Loudness, MyHead, emotion)
def test_contract(check):
check()
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from frostbench.entries import subject_of
from tasks.corpora._base import open_corpus

if TYPE_CHECKING:
    import pytest


def parametrize_with_checks(*entries: Any, corpus: str | None = None) -> pytest.MarkDecorator:
    """One test a promise of each entry: a decorator for a test function whose one parameter is `check`.

    Args:
        entries: upstreams (objects, classes or specifications), heads (classes or names), tasks (objects or names), or
            any of them as `FILE.py:NAME`.
        corpus: name or folder of a corpus that tasks are checked on, too.

    What an upstream's card or a corpus lists as known failures is expected to fail, and fails the test if it passes.

    Raises: UnknownNameError: no such entry. ContractError: something else than an entry, or one that can't be built.
    """
    import pytest

    return pytest.mark.parametrize("check", [case for entry in entries for case in _cases(entry, corpus)])


def _cases(entry: Any, corpus: str | None) -> Iterator[Any]:
    import pytest

    subject = subject_of(entry)
    if corpus is not None and subject.kind == "task":
        subject = subject_of(entry, open_corpus(corpus))
    for check in subject.checks:
        reason = subject.known_failures.get(check.name)
        marks = [] if reason is None else [pytest.mark.xfail(reason=reason, strict=True)]
        yield pytest.param(check, id=f"{subject.name}-{check.name}", marks=marks)
