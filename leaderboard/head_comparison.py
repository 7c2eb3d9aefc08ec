"""Rank stability: in which order another head puts the same upstreams."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations

import scipy

from leaderboard.board import Board, Column, HeadComparison


def comparisons(board: Board, variants: Iterable[Board]) -> Iterator[HeadComparison]:
    """For every task of a board that was run with another head on the same data, by the same recipe."""
    columns = {column.task: column for column in board.columns if column.primary}
    for variant in variants:
        for column in variant.columns:
            own = columns.get(column.task) if column.primary else None
            if own and variant.recipe == board.recipe and column.corpus_digest == own.corpus_digest:
                yield _comparison(board, variant, own, column)


def _comparison(board: Board, variant: Board, own: Column, column: Column) -> HeadComparison:
    task = own.task
    others = {row.name: row.cells[task] for row in variant.rows if task in row.cells}
    shared = {row.name: row.cells[task] for row in board.rows if task in row.cells and row.name in others}
    default = [cell.mean for cell in shared.values()]
    means = [others[name].mean for name in shared]
    alike = 1 if column.direction == own.direction else -1  # a head may have a metric of its own
    return HeadComparison(
        task=task,
        head=column.head,
        default_head=own.head,
        upstreams=tuple(shared),
        default_means=tuple(default),
        means=tuple(means),
        default_intervals=tuple(cell.interval for cell in shared.values()),
        intervals=tuple(others[name].interval for name in shared),
        tau=rank_correlation(default, [alike * mean for mean in means]),
        flipped=tuple(
            (first, second)
            for first, second in combinations(shared, 2)
            if alike * (shared[first].mean - shared[second].mean) * (others[first].mean - others[second].mean) < 0
        ),
    )


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Kendall's tau-b; None where there is no order: below two values, or all alike."""
    if len(set(one)) < 2 or len(set(other)) < 2:
        return None
    return float(scipy.stats.kendalltau(one, other).statistic)
