"""The published SUPERB numbers: `published.csv`, every value with the file it was read from.

They come from the board's own data and a screenshot of it; numbers that could only be remembered are left out.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from core.metrics import Metric, get_metric
from core.records import ResultRecord
from leaderboard.board import Column, PublishedRow, PublishedValue, ResultCell
from leaderboard.scores import superb_score
from leaderboard.superb import SuperbTask, superb_tasks

FILE = Path(__file__).parent / "published.csv"
# Names that the same upstream has here. Names are cheap: it has to have as many parameters, too.
NAMES: Mapping[str, tuple[str, ...]] = {
    "FBANK (no CMVN)": ("fbank", "fbank_no_cmvn"),
    "FBANK (CMVN)": ("fbank_cmvn",),
    "APC": ("apc", "apc_360hr"),
    "VQ-APC": ("vq_apc", "vq_apc_360hr"),
    "Mockingjay": ("mockingjay", "mockingjay_origin"),
    "TERA": ("tera", "tera_960hr"),
    "wav2vec 2.0 Base": ("wav2vec2", "wav2vec2-base", "wav2vec2_base", "wav2vec2_base_960", "WAV2VEC2_BASE"),
    "wav2vec 2.0 Large": ("wav2vec2-large-lv60", "wav2vec2_large_ll60k", "WAV2VEC2_LARGE_LV60K"),
    "HuBERT Base": ("hubert", "hubert-base-ls960", "hubert_base", "HUBERT_BASE"),
    "HuBERT Large": ("hubert-large-ll60k", "hubert_large_ll60k", "HUBERT_LARGE"),
    "WavLM Base": ("wavlm", "wavlm-base", "wavlm_base", "WAVLM_BASE"),
    "WavLM Base+": ("wavlm-base-plus", "wavlm_base_plus", "WAVLM_BASE_PLUS"),
    "WavLM Large": ("wavlm-large", "wavlm_large", "WAVLM_LARGE"),
    "DistilHuBERT": ("distilhubert", "distilhubert_base"),
}
SAME_PARAMS = 0.02  # wrappers count a mask embedding or a projection more or less
METRICS = {"acc": "accuracy", "f1": "slot_type_f1", "mtwv_x100": "mtwv"}  # their names -> ours


@dataclass(frozen=True)
class Published:
    """A published upstream.

    Attributes:
        name: as published.
        params: number of parameters, to the published precision.
        values: (task, metric) -> value.
        source: where the values stand.
    """

    name: str
    params: int
    values: Mapping[tuple[str, str], float]
    source: str


@cache
def published_rows() -> tuple[Published, ...]:
    """All of them, in the order of the file; columns that the board displays but that are computed are left out."""
    rows: dict[str, list[Mapping[str, str]]] = {}
    with FILE.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            rows.setdefault(row["upstream"], []).append(row)
    return tuple(_row(name, [row for row in found if row["task"] != "OVERALL"]) for name, found in rows.items())


def _row(name: str, found: list[Mapping[str, str]]) -> Published:
    values = {(row["task"].lower(), _metric_of(row)): float(row["value"]) for row in found}
    sources = dict.fromkeys(row["source"] for row in found)
    return Published(name, round(float(found[0]["params_m"]) * 1e6), values, "; ".join(sources))


def _metric_of(row: Mapping[str, str]) -> str:
    """Our name of the metric; the character errors of slot filling are those of slot values."""
    return (
        "slot_value_cer"
        if row["task"] == "SF" and row["metric"] == "cer"
        else METRICS.get(row["metric"], row["metric"])
    )


def published_as(name: str, params: int | None) -> Published | None:
    """The published row of the same upstream.

    Args:
        name: in our table, without the digest that tells two of a name apart.
        params: its number of parameters; None where unknown, which is nobody's.
    """
    if params is None:
        return None
    for row in published_rows():
        if name in NAMES.get(row.name, ()) and abs(params - row.params) <= SAME_PARAMS * row.params:
            return row
    return None


def published_columns() -> list[Column]:
    """The tasks that are run here, for a board of published rows alone."""
    return [_column(name, task, get_metric(metric)) for name, task in superb_tasks().items() for metric in task.metrics]


def _column(name: str, task: SuperbTask, metric: Metric) -> Column:
    first = metric.name == task.metrics[0]
    return Column(
        task=name,
        title=task.title,
        metric=metric.name,
        primary=first,
        selecting=first,
        metric_title=metric.title,
        unit=metric.unit,
        direction=metric.direction,
        bounds=metric.bounds,
        known=True,
        head=task.head,
        corpus=task.corpus,
        corpus_digest="",
        train=task.train,
        valid=task.valid,
        test=task.test,
    )


def rows_for(columns: Sequence[Column]) -> tuple[PublishedRow, ...]:
    """The published rows that have one of the columns at least, the best score first."""
    rows = []
    for row in published_rows():
        values = {column.key: row.values[column.task, column.metric] for column in columns
                  if (column.task, column.metric) in row.values}  # fmt: skip
        if values:
            score = superb_score(row.values, list(dict.fromkeys(column.task for column in columns)))
            rows.append(PublishedRow(row.name, row.params, values, score, row.source))
    return tuple(sorted(rows, key=lambda row: -(row.score if row.score is not None else float("inf"))))


def beside(
    record: ResultRecord, columns: Mapping[str, Column], cells: Mapping[str, ResultCell]
) -> dict[str, ResultCell]:
    """Cells with what was published of the same upstream."""
    params = record.upstream["params"]
    # What has no parameters is only known by what was typed: s3prl's upstream of FBANK's name removes the mean.
    name = record.upstream["name"] if params else str(record.circumstances.get("upstream_spec", ""))
    row = published_as(name, params)
    if row is None:
        return dict(cells)
    values = {key: row.values.get((columns[key].task, columns[key].metric)) for key in cells}
    return {
        key: cell if (value := values[key]) is None else replace(
            cell, published=PublishedValue(row.name, value, cell.mean - value, row.source)
        )
        for key, cell in cells.items()
    }  # fmt: skip
