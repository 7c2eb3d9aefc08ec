"""Headings above many columns of the page: what the tasks ask of speech."""

from __future__ import annotations

import re
from dataclasses import replace

import made_boards

from leaderboard.domains import DOMAINS, domain_of, headings_of, in_domains
from leaderboard.page import page
from tasks._base import TASKS

HEADING = re.compile(r'<th scope="colgroup" colspan="(\d+)" data-domain="(\w+)">')


def board_of(*tasks: str):
    columns = tuple(made_boards.column(task) for task in tasks)
    return replace(made_boards.board(), columns=columns)


def test_every_task_has_a_domain_and_ones_own_are_others():
    listed = [task for tasks in DOMAINS.values() for task in tasks]
    assert set(listed) >= set(TASKS.names()) and len(set(listed)) == len(listed)
    assert domain_of("accent") == "other" and domain_of("se") == "generation"


def test_many_columns_are_ordered_and_counted_by_domain_few_stay():
    many = in_domains(board_of("accent", "asr", "asv", "ic", "ks", "sd", "se", "ss"))
    assert [column.task for column in many.columns] == ["asr", "ks", "asv", "sd", "ic", "se", "ss", "accent"]
    assert headings_of(many.columns) == [
        ("content", 2), ("speaker", 2), ("semantics", 1), ("generation", 2), ("other", 1),
    ]  # fmt: skip
    few = board_of("sid", "asr", "ic", "ks")
    assert in_domains(few) == few and headings_of(few.columns) == []
    assert headings_of(board_of(*"abcdefgh").columns) == []


def test_the_page_has_the_headings_above_their_columns():
    text = page(made_boards.leaderboard(made_boards.board(tasks=8)))
    assert [(int(count), domain) for count, domain in HEADING.findall(text)] == [
        (4, "content"), (1, "speaker"), (2, "semantics"), (1, "paralinguistics"),
    ]  # fmt: skip
    assert re.findall(r'data-of="(\w+)"', text) == ["content"] * 4 + ["speaker"] + ["semantics"] * 2 + [
        "paralinguistics"
    ]
    assert not HEADING.findall(page(made_boards.leaderboard(made_boards.board(tasks=4))))
