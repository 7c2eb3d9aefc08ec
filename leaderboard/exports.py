"""The leaderboard for other programs: CSV, JSON, LaTeX, and the metadata of a Hugging Face model card."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator

from huggingface_hub import EvalResult, ModelCardData
from huggingface_hub.utils import yaml_dump  # type: ignore[attr-defined]  # public, and not marked as such

from core.errors import RecordError
from core.metrics import find_metric
from leaderboard import frames
from leaderboard.board import Board, Column, Leaderboard, ResultCell
from leaderboard.tables import CellText, has_families, text_frame

LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$",
         "↑": r"$\uparrow$", "↓": r"$\downarrow$", **{sign: f"\\{sign}" for sign in "&%$#_{}"}}  # fmt: skip


def to_csv(board: Leaderboard) -> str:
    """Tidy CSV, one row a cell; published values have the source `published`."""
    text: str = frames.cells(board).to_csv(index=False, float_format="%.4f", lineterminator="\n")
    return text


def to_json(board: Leaderboard) -> str:
    """All that is known: the fields of `leaderboard/board.py`, as objects and lists."""
    return json.dumps(dataclasses.asdict(board), ensure_ascii=False, indent=1, default=_digest_of_bytes) + "\n"


def _digest_of_bytes(waveform: bytes) -> str:
    """What stands for a waveform, which is no text."""
    return f"sha256:{hashlib.sha256(waveform).hexdigest()}"


def to_latex(board: Leaderboard) -> str:
    """A table environment a board, in the style of booktabs."""
    return "\n".join(_latex_table(each) for each in (*board.boards, *board.variants))


def _latex_table(board: Board) -> str:
    frame = text_frame(board, _latex_cell, _tex)
    texts = 2 if has_families(board) else 1
    first_published = len(board.rows)
    if 0 < first_published < len(frame):
        frame.iloc[first_published, 0] = "\\midrule\n" + frame.iloc[first_published, 0]
    table: str = frame.to_latex(
        index=False,
        column_format="l" * texts + "r" * (frame.shape[1] - texts),
        caption=f"{_tex(board.title)}. {_tex(board.interval_note)} {_tex(board.score.explanation)}",
    )
    return "% \\usepackage{booktabs}\n" + table


def _latex_cell(cell: CellText) -> str:
    value = _tex(cell.value)
    value = f"\\textbf{{{value}}}" if cell.best else f"\\underline{{{value}}}" if cell.tied else value
    letters = f"\\textsuperscript{{{cell.letters}}}" if cell.letters else ""
    small = [f"{{\\scriptsize {_tex(text)}}}" for text in (cell.interval, cell.published) if text]
    return " ".join([value + letters, *small])


def _tex(text: str) -> str:
    return "".join(LATEX.get(sign, sign) for sign in text)


def model_index(board: Leaderboard, upstream: str | None) -> str:
    """The `model-index` block of a Hugging Face model card (YAML) with all results of one upstream.

    Args:
        board: without other heads, which are no part of the leaderboard.
        upstream: name of the row; may be left out where there is one.

    Raises: RecordError: no row of that name, or several and none named.
    """
    name = _one_upstream(board, upstream)
    results = [_eval_result(*found) for found in _results_of(board, name)]
    card = ModelCardData(model_name=name, eval_results=results)
    return card.to_yaml() + "\n"


def _one_upstream(board: Leaderboard, upstream: str | None) -> str:
    names = list(dict.fromkeys(row.name for each in board.boards for row in each.rows))
    if upstream is None and len(names) == 1:
        return names[0]
    if upstream not in names:
        raise RecordError(
            f"a model card is of one upstream, and {f'{upstream!r} is none' if upstream else 'none is named'}: "
            f"add --upstream with one of {', '.join(names) or 'those that were run'}"
        )
    return upstream


def _results_of(board: Leaderboard, upstream: str) -> Iterator[tuple[Board, Column, ResultCell]]:
    for each in board.boards:
        for row in each.rows:
            for column in each.columns:
                if row.name == upstream and column.key in row.cells:
                    yield each, column, row.cells[column.key]


def eval_results(board: Leaderboard, upstream: str | None) -> str:
    """An `.eval_results/*.yaml` file of the Hugging Face hub with all results of one upstream.

    The hub shows those whose dataset is a benchmark that is registered there; the names here are those of the corpora.

    Args:
        board: without other heads, which are no part of the leaderboard.
        upstream: name of the row; may be left out where there is one.

    Raises: RecordError: no row of that name, or several and none named.
    """
    name = _one_upstream(board, upstream)
    entries = [
        {
            "dataset": {"id": column.corpus, "task_id": column.key},
            "value": round(cell.mean, 4),
            **_finished(cell),
            "notes": _said_of(each, column, cell),
        }
        for each, column, cell in _results_of(board, name)
    ]
    return yaml_dump(entries)


def _finished(cell: ResultCell) -> dict[str, str]:
    """When the last run ended, where all of them tell."""
    times = [run.circumstances.get("finished") for run in cell.seeds]
    return {"date": max(map(str, times))} if all(times) else {}


def _said_of(board: Board, column: Column, cell: ResultCell) -> str:
    interval = "" if cell.interval is None else f", 95 % interval {cell.interval.low:.2f} to {cell.interval.high:.2f}"
    return (
        f"{column.metric_title} {column.unit}".strip()
        + f" on test; frozen encoder, head {column.head}, recipe {board.recipe}, {len(cell.values)} seeds{interval}; "
        + f"data {column.corpus_digest[:16]}, runs {', '.join(run.run[:16] for run in cell.seeds)}"
    )


def _eval_result(board: Board, column: Column, cell: ResultCell) -> EvalResult:
    arguments = {
        "seeds": len(cell.values),
        "std": cell.std,
        "interval_95": None if cell.interval is None else [round(edge, 4) for edge in cell.interval],
        "learning_rate": list(cell.learning_rates),
        "runs": [run.run for run in cell.seeds],
    }
    return EvalResult(
        task_type=metric.hub_task if (metric := find_metric(column.metric)) else "audio-classification",
        task_name=f"{column.title}, frozen, head {column.head}, recipe {board.recipe}",
        dataset_type=column.corpus,
        dataset_name=column.corpus,
        dataset_split="test",
        dataset_args={"digest": column.corpus_digest},
        metric_type=column.metric,
        metric_name=f"{column.metric_title} {column.unit}",
        metric_value=round(cell.mean, 4),
        metric_args={key: value for key, value in arguments.items() if value is not None},
    )
