"""Messages for users: whatever a file's values bring into them, they stay one line that any output takes."""

from __future__ import annotations

import copy

import pytest

from core import errors

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.BenchmarkError)]


@pytest.mark.parametrize("kind", KINDS)
def test_odd_characters_of_a_value_are_spelled_out(kind):
    error = kind("upstream 'a\nb\t\x1b[31m\x00\u2028\ud800é 字\u200d', known: c", *[()] * (kind.__name__[0] == "E"))
    shown = "upstream 'a\\nb\\t\\x1b[31m\\x00\\u2028\\ud800é 字\u200d', known: c"
    assert str(error) == str(copy.copy(error)) == shown  # a copy is made as pickle makes it, on the way from a worker
    shown.encode()


def test_lists_of_our_own_keep_their_lines():
    assert str(errors.ManifestError("\n  ".join(["two are missing:", "a.wav", "b.wav"]))).count("\n") == 2
