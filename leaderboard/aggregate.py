"""Records -> one row a cell of the leaderboard: mean and spread over seeds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pandas as pd

from core.errors import RecordError
from core.records import ResultRecord

COLUMNS = (
    "upstream",
    "task",
    "corpus",
    "metric",
    "direction",
    "mean",
    "std",
    "seeds",
    "test_utterances",
    "learning_rate",
    "params",
)


def tidy(records: Sequence[ResultRecord], custom: bool = False) -> pd.DataFrame:
    """One row a cell (upstream, task, corpus, recipe), with mean and sample standard deviation over its seeds.

    Args:
        records: of any number of runs.
        custom: whether runs with limited data or changed recipes are shown, too.

    Returns: the columns of COLUMNS, then recipe, unit, title and task_title; `std` is empty where there is one seed,
        `learning_rate` lists what the seeds chose.
    Raises: RecordError: nothing is left to show.
    """
    shown = [record for record in records if custom or not record.custom]
    if not shown:
        hint = "all of them are custom: add --custom" if records else "run something first: run_benchmark.py run"
        raise RecordError(f"no records for a leaderboard; {hint}")
    rows = pd.DataFrame([_row(record) for record in shown])
    rows["upstream"] = _distinct(rows, "upstream", "upstream_digest", [])
    rows["recipe"] = _distinct(rows, "recipe", "recipe_digest", ["task"])
    # Within a recipe: one that crops or changes the level makes other clips of the same corpus.
    rows["corpus"] = _distinct(rows, "corpus", "corpus_digest", ["task", "recipe"])
    cells = rows.groupby(["upstream", "task", "corpus", "recipe", "metric", "direction"], sort=False)
    table = cells.agg(
        mean=("value", "mean"),
        std=("value", "std"),
        seeds=("value", "size"),
        test_utterances=("test_utterances", "first"),
        learning_rate=("learning_rate", lambda rates: " ".join(f"{rate:g}" for rate in sorted(set(rates)))),
        params=("params", "first"),
        unit=("unit", "first"),
        title=("title", "first"),
        task_title=("task_title", "first"),
    ).reset_index()
    extra = [column for column in table.columns if column not in COLUMNS]
    return table[[*COLUMNS, *extra]]


def _row(record: ResultRecord) -> dict[str, object]:
    return {
        "upstream": record.upstream["name"],
        "upstream_digest": record.upstream["digest"],
        "task": record.task["name"],
        "task_title": record.task["title"],
        "corpus": record.corpus["name"],
        "corpus_digest": record.corpus["digest"],
        "recipe": record.recipe["name"] + (" (custom)" if record.custom else ""),
        "recipe_digest": record.recipe["digest"],
        "metric": record.metric["name"],
        "title": record.metric["title"],
        "unit": record.metric["unit"],
        "direction": record.metric["direction"],
        "value": record.value,
        "learning_rate": record.learning_rate,
        "test_utterances": record.counts["test"],
        "params": record.upstream["params"],
    }


def _distinct(rows: pd.DataFrame, name: str, digest: str, within: Sequence[str]) -> list[str]:
    """Names made unique: where one name stands for several contents, the beginning of the digest is added."""
    pairs = rows[[*within, name, digest]].drop_duplicates()
    counts = Counter(tuple(pair) for pair in pairs[[*within, name]].itertuples(index=False))
    return [
        f"{row[-2]}#{row[-1][:6]}" if counts[tuple(row[:-1])] > 1 else str(row[-2])
        for row in rows[[*within, name, digest]].itertuples(index=False)
    ]
