"""Which files of a folder of results a leaderboard is made of, and which are left out, each with its reason.

One file that is old, strange or incomplete says nothing of the others, so it doesn't stop a report: it is left out and
named there, and `verify` fails on it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from core.conditions import Condition
from core.errors import BenchmarkError, RecordError
from core.finetuning import is_recorded
from core.records import RecordStore, ResultRecord

LARGEST_RATE = 1e100
Check = Callable[[Any], bool]
LARGEST = 1e15  # of a number: beyond it whole ones are no longer exact, and sums and squares may overflow


class LeftOut(NamedTuple):
    """A file that a leaderboard is made without.

    Attributes:
        path: of the file.
        problem: what is wrong with it, and what to do.
    """

    path: Path
    problem: str

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}"


class Usable(NamedTuple):
    """The records of a folder.

    Attributes:
        records: those to show, in the order of their files.
        left_out: the other files.
    """

    records: list[ResultRecord]
    left_out: list[LeftOut]


def usable_records(store: RecordStore, only: Collection[str] | None = None) -> Usable:
    """The records of a folder that can be shown, and what is left out.

    A file under another name than its run's is a copy, as clients that synchronise folders make ("NAME (1).json"), and
    no further seed.

    Args:
        store: the folder.
        only: digests of the runs to take; None takes all. Of runs without a file nothing is said.
    """
    paths = store.paths() if only is None else [store.path(run) for run in dict.fromkeys(only) if run in store]
    usable = Usable([], [])
    for path in paths:
        try:
            record = store.read(path)
        except RecordError as error:
            usable.left_out.append(LeftOut(path, str(error).removeprefix(f"{path}: ")))
            continue
        problem = _problem(record, path, store)
        if problem is None:
            usable.records.append(record)
        else:
            usable.left_out.append(LeftOut(path, problem))
    return usable


def _problem(record: ResultRecord, path: Path, store: RecordStore) -> str | None:
    lacking = unfit(record)
    if lacking is not None:
        return f"{lacking}; delete it and run the cell again"
    own = store.path(record.run)
    if own == path:
        return None
    if own.is_file():
        return f"a copy of {own.name}, which is there as well; delete it"
    return f"has another name than its run; rename it {own.name}"


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST


def _is_rate(value: Any) -> bool:
    """Of learning rates absurd ones are tried as well."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= LARGEST_RATE


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _or_none(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _several(check: Check) -> Check:
    return lambda values: isinstance(values, Sequence) and not isinstance(values, str) and all(map(check, values))


def _by_name(check: Check) -> Check:
    return lambda values: isinstance(values, Mapping) and all(map(check, values.values()))


def _with(**checks: Check) -> Check:
    """A mapping that has these keys, and may have others."""
    return lambda values: (
        isinstance(values, Mapping) and all(key in values and check(values[key]) for key, check in checks.items())
    )


def _may_have(**checks: Check) -> Check:
    """A mapping in which these keys, where they are there, are so."""
    return lambda values: (
        isinstance(values, Mapping) and all(check(values[key]) for key, check in checks.items() if key in values)
    )


def _both(one: Check, other: Check) -> Check:
    return lambda value: one(value) and other(value)


def _is_finetuning(value: Any) -> bool:
    return is_recorded(value) and _several(_is_rate)(value.get("learning_rates"))


def _is_condition(value: Any) -> bool:
    """In the form that today's program gives it: tables are sorted by what it says."""
    try:
        return _is_text(value) and str(Condition.from_text(value)) == value
    except BenchmarkError:
        return False


_SIZE = _or_none(_is_whole)
_METRIC = _with(
    name=_is_text,
    title=_is_text,
    unit=_is_text,
    direction=lambda value: value in ("higher", "lower"),
    bounds=lambda value: _several(_or_none(_is_number))(value) and len(value) == 2,
)
# Field -> what every table, figure and test relies on. What nothing reads is not looked at.
FIELDS: Mapping[str, Check] = {
    "run": _is_text,
    "upstream": _both(
        _with(name=_is_text, digest=_is_text),
        _may_have(
            params=_SIZE,
            num_layers=_SIZE,
            hidden_size=_SIZE,
            downsample_rate=_or_none(_is_number),
            family=_or_none(_is_text),
        ),
    ),
    "task": _with(
        name=_is_text,
        title=_is_text,
        head=_is_text,
        default_head=_is_text,
        label=_is_text,
        metrics=_several(_is_text),
        select=_is_text,
        version=_is_whole,
        code=_or_none(_is_text),
    ),
    "corpus": _both(
        _with(name=_is_text, digest=_is_text),
        _may_have(
            folds=_several(_is_text),
            undivided=_is_text,
            drawn=_with(
                budget=_is_text, seconds=_is_number, whole_seconds=_is_number, whole_train=_is_whole, whole=_is_text
            ),
        ),
    ),
    "recipe": _both(
        _with(name=_is_text, digest=_is_text), _may_have(layer=_or_none(_is_whole), finetune=_or_none(_is_finetuning))
    ),
    "audio": _may_have(condition=_or_none(_is_condition)),
    "protocol": _is_whole,
    "live": _is_bool,
    "frames": lambda value: value in (None, "float16", "int8", "recompute"),
    "fold": lambda value: value is None or _is_text(value) or _is_number(value),
    "custom": _is_bool,
    "seed": _is_whole,
    "metrics": lambda value: _several(_METRIC)(value) and len(value) > 0,
    "metric": _METRIC,
    "value": _is_number,
    "values": _by_name(_is_number),
    "learning_rate": _is_rate,
    "learning_rates": _several(
        _both(
            _with(learning_rate=_is_rate, valid=_or_none(_is_number), step=_SIZE),
            _may_have(layer=_is_whole, diverged=_SIZE, upstream_rate=_is_rate),
        )
    ),
    "counts": _with(train=_is_whole, valid=_is_whole, test=_is_whole),
    "layer_weights": lambda value: _several(_is_number)(value) and len(value) > 0,
    "artifacts": _by_name(_is_text),
    "circumstances": _may_have(
        wall_seconds=_by_name(_is_number),
        git=lambda value: isinstance(value, Mapping),
        versions=lambda value: isinstance(value, Mapping),
        layer_norms=_several(_is_number),
        gflops_per_second=_or_none(_is_number),
        finetuning=_by_name(_is_number),
    ),
}


def unfit(record: ResultRecord) -> str | None:
    """What a record lacks of what a leaderboard needs, in words; None where it is whole."""
    wrong = [name for name, check in FIELDS.items() if not check(getattr(record, name))]
    if wrong:
        return (
            f"not a whole result record: {', '.join(wrong)} {'has' if len(wrong) == 1 else 'have'} not what is needed"
        )
    if record.layer is not None and record.layer not in range(len(record.layer_weights)):
        return f"not a whole result record: it is of layer {record.layer} alone, of {len(record.layer_weights)} layers"
    if {metric["name"] for metric in record.metrics} != set(record.values):
        return "not a whole result record: its values are not those of its metrics"
    return None
