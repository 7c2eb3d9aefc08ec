"""Records -> boards: one row an upstream, one column a task, with intervals, tests, ties and scores."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from statistics import mean

from core.errors import RecordError
from core.records import RecordStore, ResultRecord
from leaderboard import scores
from leaderboard.board import INTERVAL_NOTE, Board, Column, Leaderboard, ResultCell, Row, ScoreCard
from leaderboard.cell_curves import with_curves
from leaderboard.checkpoint_series import in_series, places_in_series
from leaderboard.finetuned import tunings
from leaderboard.grouping import Entry, Group, grouped
from leaderboard.head_comparison import comparisons
from leaderboard.leaks import pretraining_leaks
from leaderboard.published import beside, published_columns, rows_for
from leaderboard.result_cells import columns_of, results_of
from leaderboard.usable_records import LeftOut, usable_records


def leaderboard(
    store: RecordStore, *, custom: bool = False, published: bool = False, only: Collection[str] | None = None
) -> Leaderboard:
    """All boards of a folder of results.

    Runs on one layer alone (`run --layers`), on a part of train (`run --budget`) or in a condition (`run --condition`)
    have no row: they are curves in the cell of the run on the sum, on all of train and on test as it was recorded.

    Args:
        store: the folder; without `runs/` beside `records/` there are means and spreads, but no intervals and tests.
        custom: whether runs with limited data or changed recipes are shown, too, on boards of their own.
        published: whether the board of the SUPERB suite gets the published rows; there is one then in any case.
        only: digests of the runs to take; None takes all.

    Returns: the boards, and the files that they are made without: records that can't be used, and predictions that are
        not those of their record, which goes with them.
    Raises: RecordError: nothing is left to show.
    """
    usable, left_out = usable_records(store, only)
    records = [record for record in usable if record.has_row]
    others = [record for record in usable if not record.has_row]
    shown = [record for record in records if custom or not record.custom]
    if not shown and not published:
        raise _nothing_to_show(records, left_out)
    groups = grouped(shown)
    few = [record for record in others if record.drawn is not None]
    frozen = [group for group in groups if not group.finetuned]
    default = [_board(store, group, others, published, left_out) for group in frozen if group.head is None]
    variants = [_board(store, group, others, False, left_out) for group in frozen if group.head is not None]
    tuned = [_with_tunings(_board(store, group, few, False, left_out), group) for group in groups if group.finetuned]
    default, variants, tuned = (
        [board for board in boards if board.rows or board.published] for boards in (default, variants, tuned)
    )
    if not default and not variants and not tuned and not published:
        raise _nothing_to_show((), left_out)
    if published and not any(board.superb for board in default):
        default.insert(0, _published_alone())
    compared = [replace(board, heads=tuple(comparisons(board, variants))) for board in default]
    named = tuple(dict.fromkeys(map(str, left_out)))
    return Leaderboard(tuple(compared), (*variants, *tuned), len(records) - len(shown), named)


def _with_tunings(board: Board, group: Group) -> Board:
    columns = {column.key: column for column in board.columns}
    return replace(board, tunings=tuple(tunings(group.entries, columns, board.rows, board.pairs)))


def _nothing_to_show(records: Sequence[ResultRecord], left_out: Sequence[LeftOut]) -> RecordError:
    if not records and left_out:
        lines = list(dict.fromkeys(map(str, left_out)))
        return RecordError("\n  ".join(lines) if len(lines) == 1 else "\n  ".join(["no usable records:", *lines]))
    hint = "all of them are custom: add --custom" if records else "run something first: frostbench run"
    return RecordError(f"no records for a leaderboard; {hint}")


def _board(
    store: RecordStore, group: Group, others: Sequence[ResultRecord], published: bool, left_out: list[LeftOut]
) -> Board:
    by_task: dict[str, list[Entry]] = defaultdict(list)
    for entry in group.entries:
        by_task[entry.task].append(entry)
    columns = {column.key: column for task in sorted(by_task) for column in columns_of(by_task[task])}
    results = {key: results_of(store, column, by_task[column.task]) for key, column in columns.items()}
    left_out.extend(each for result in results.values() for each in result.left_out)
    cells: dict[str, dict[str, ResultCell]] = defaultdict(dict)
    for key, column in columns.items():
        found, unused = with_curves(store, column, results[key].cells, others, by_task[column.task])
        left_out.extend(unused)
        for upstream, cell in found.items():
            cells[upstream][key] = cell
    columns = {key: column for key, column in columns.items() if results[key].cells}
    facts = {entry.upstream: entry.record for entry in group.entries if entry.upstream in cells}
    if published and group.superb:
        cells = {name: beside(facts[name], columns, found) for name, found in cells.items()}
    card, points = _scores(group, columns, cells, facts)
    ranks = _mean_ranks(columns, cells)
    families = _families(group)
    rows = [
        replace(_row(name, facts[name], points[name], ranks[name], found), family=families.get(name, ""))
        for name, found in cells.items()
    ]
    rows = in_series(rows, facts, places_in_series([entry.record for entry in group.entries]))
    rows.sort(key=lambda row: (row.score is None, -(row.score or 0.0), row.mean_rank, row.name))
    return Board(
        title=group.title,
        superb=group.superb,
        recipe=group.recipe,
        custom=any(record.custom for record in facts.values()),
        columns=tuple(columns.values()),
        rows=tuple(rows),
        pairs=tuple(pair for result in results.values() for pair in result.pairs),
        score=card,
        published=rows_for(list(columns.values())) if published and group.superb else (),
        heads=(),
        interval_note=INTERVAL_NOTE,
    )


def _published_alone() -> Board:
    """The suite with nothing measured yet."""
    columns = published_columns()
    card = scores.superb_card([column.task for column in columns])
    return Board("SUPERB", True, "superb", False, tuple(columns), (), (), card, rows_for(columns), (), INTERVAL_NOTE)


def _row(name: str, record: ResultRecord, score: float | None, rank: float, cells: Mapping[str, ResultCell]) -> Row:
    upstream = record.upstream
    facts = {key: upstream.get(key, 0) for key in ("params", "num_layers", "hidden_size", "downsample_rate")}
    return Row(
        name=name,
        digest=upstream["digest"],
        gflops_per_second=record.circumstances.get("gflops_per_second"),
        score=score,
        mean_rank=rank,
        cells=dict(cells),
        leaks=tuple(pretraining_leaks(cells)),
        **facts,
    )


def _families(group: Group) -> dict[str, str]:
    """Upstream -> its family, from any of its records: those of the first versions do not name it."""
    named = ((entry.upstream, entry.record.upstream.get("family")) for entry in group.entries)
    return {upstream: family for upstream, family in named if family}


def _mean_ranks(columns: Mapping[str, Column], cells: Mapping[str, Mapping[str, ResultCell]]) -> dict[str, float]:
    """Mean over the tasks, and in a task over its metrics, of the place by the mean; equal ones share the mean of their
    places.
    """
    places: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for key, column in columns.items():
        sign = 1 if column.direction == "higher" else -1
        values = {name: sign * found[key].mean for name, found in cells.items() if key in found}
        for name, value in values.items():
            ahead = sum(other > value for other in values.values())
            equal = sum(other == value for other in values.values())
            places[name][column.task].append(ahead + (equal + 1) / 2)
    return {name: mean(map(mean, found.values())) for name, found in places.items()}


def _scores(
    group: Group,
    columns: Mapping[str, Column],
    cells: Mapping[str, Mapping[str, ResultCell]],
    facts: Mapping[str, ResultRecord],
) -> tuple[ScoreCard, dict[str, float | None]]:
    if group.superb:
        tasks = list(dict.fromkeys(column.task for column in columns.values()))
        points = {name: scores.superb_score(_values(found, columns), tasks) for name, found in cells.items()}
        return scores.superb_card(tasks), points
    judged = {key: column for key, column in columns.items() if column.error(0.0) is not None}
    errors = {
        name: {key: error for key, cell in found.items() if (error := columns[key].error(cell.mean)) is not None}
        for name, found in cells.items()
    }
    # By what was typed, too: s3prl's upstream of this name removes the mean.
    baselines = [name for name, record in facts.items() if _typed(record) == record.upstream["name"] == scores.BASELINE]
    baseline = baselines[0] if len(baselines) == 1 and set(errors[baselines[0]]) == set(judged) else None
    by_task: dict[str, list[str]] = defaultdict(list)
    for key in judged:
        by_task[columns[key].task].append(key)
    points = {
        name: scores.error_reduction(found, errors[baseline], list(by_task.values())) if baseline else None
        for name, found in errors.items()
    }
    return scores.reduction_card(list(judged.values()), baseline), points


def _typed(record: ResultRecord) -> str:
    return str(record.circumstances.get("upstream_spec", ""))


def _values(cells: Mapping[str, ResultCell], columns: Mapping[str, Column]) -> scores.Values:
    return {(columns[key].task, columns[key].metric): cell.mean for key, cell in cells.items()}
