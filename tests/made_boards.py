"""Leaderboards of any size and with any names, made up, for the tests of the page and the figures."""

from __future__ import annotations

import random
from dataclasses import replace
from statistics import NormalDist

import numpy as np

from leaderboard.board import (
    Board,
    Column,
    HeadComparison,
    Leaderboard,
    PublishedRow,
    PublishedValue,
    ResultCell,
    Row,
    ScoreCard,
    SeedRun,
    TriedRate,
)
from leaderboard.board_curves import BudgetScore, ConditionScore, Interval, LayerScore
from leaderboard.board_errors import Confusion, DetectionCurve, Mistake, Turn, WrongTurns, WrongWaveforms

RATES = (0.1, 0.01, 0.001, 0.0001)
LABELS = ("down", "go", "left", "no", "off", "on", "right", "stop", "up", "yes")
TASKS = ("asr", "ic", "ks", "sid", "er", "pr", "sf", "qbe", "asv", "st")
NAMES = ("fbank", "mfcc", "apc", "mockingjay", "wav2vec2", "hubert", "wavlm", "data2vec")
MISTAKE = Mistake("asr-7", "anna", 0, 3, 5, (
    ("equal", "bring", "bring"), ("substitute", "me tea", "many"), ("delete", "now", ""), ("insert", "", "please"),
))  # fmt: skip


def column(task: str) -> Column:
    """Word errors for asr, accuracy for the others."""
    title, metric, direction = ("WER", "wer", "lower") if task == "asr" else ("Acc", "accuracy", "higher")
    bounds = (0.0, None) if task == "asr" else (0.0, 100.0)
    read = (metric, True, True, title, "%", direction, bounds, True)
    return Column(task, f"Task {task}", *read, "utterance_linear", "tiny", "c" * 64, 90, 20, 60)


def _weights(layers: int, draw: random.Random) -> tuple[float, ...]:
    drawn = [draw.random() ** 3 + 0.01 for _ in range(layers)]
    return tuple(each / sum(drawn) for each in drawn)


def _run(run: str, seed: int, value: float, layers: int, draw: random.Random) -> SeedRun:
    rates = tuple(TriedRate(rate, value - 4 * i * draw.random(), 150) for i, rate in enumerate(RATES))
    circumstances = {
        "versions": {"torch": "2.14.1", "frostbench": "0.1.0"}, "git": {"commit": "f" * 40, "dirty": False},
        "machine": {"cores": 2, "processor": "a processor", "system": "Linux"}, "device": "cpu",
        "finished": "2026-11-23T08:07:01Z", "upstream_spec": "given", "wall_seconds": {"train": 12.9},
    }  # fmt: skip
    weights = _weights(layers, draw)
    return SeedRun(
        run, seed, None, value, 0.1, rates, weights, weights, 13.0, {"predictions.jsonl": "e" * 64}, circumstances
    )


def cell(name: str, task: str, layers: int, place: int, draw: random.Random, seeds: int = 3) -> ResultCell:
    """A value with all that can hang on it."""
    mean = 20.0 + place * 3 if task == "asr" else 80.0 - place * 3
    counts = tuple(
        (i, j, 12 if i == j else 1) for i in range(len(LABELS)) for j in range(len(LABELS)) if (i + j) % 3 < 2
    )
    runs = tuple(
        _run(f"{name}{task}{seed}".ljust(64, "0"), seed, mean + seed - 1, layers, draw) for seed in range(seeds)
    )
    return ResultCell(
        mean=mean,
        std=1.0 if seeds > 1 else None,
        interval=Interval(mean - 2.5, mean + 2.0),
        speakers=8,
        utterances=60,
        rank=1 if place < 2 else place + 1,
        letters="a" if place < 2 else "b",
        best=place == 0,
        tied=place == 1,
        seeds=runs,
        layer_weights=_weights(layers, draw),
        corrected_weights=_weights(layers, draw),
        wall_seconds=39.0,
        confusion=(Confusion("", LABELS, counts),) if task in ("ks", "ic") else (),
        worst=(MISTAKE,) if task == "asr" else (),
    )


def in_families(made: Board, *families: str) -> Board:
    """The same with families given to its rows, in their order."""
    return replace(
        made, rows=tuple(replace(row, family=family) for row, family in zip(made.rows, families, strict=True))
    )


def board(upstreams: int = 4, tasks: int = 4, layers: int = 4, names: tuple[str, ...] = NAMES) -> Board:
    """Upstreams in order, the first the best; the first has one layer and no parameters."""
    draw = random.Random(0)
    columns = tuple(column(task) for task in TASKS[:tasks])
    rows = []
    for place in range(upstreams):
        name = names[place] if place < len(names) else f"upstream-{place}"
        deep = 1 if place == 0 else layers
        cells = {each.task: cell(name, each.task, deep, place, draw) for each in columns}
        params = place * 1_000_000
        rows.append(Row(name, f"{place:064x}", params, 0.1 + place, deep, 256, 320, 50.0 - place, 1.0 + place, cells))
    score = ScoreCard("score", "", "How the score is made.")
    return Board("tiny, recipe fast", False, "fast", False, columns, tuple(rows), (), score, (), (), "Of speakers.")


def with_published(made: Board) -> Board:
    """The same with a published row, a published value and a comparison of heads."""
    task = made.columns[0].task
    first = made.rows[0]
    value = PublishedValue("FBANK", 23.0, -3.0, "a paper")
    cells = {**first.cells, task: replace(first.cells[task], published=value)}
    row = PublishedRow("WavLM", 94_700_000, {task: 12.5}, 90.0, "a paper")
    names = tuple(row.name for row in made.rows)
    means = tuple(row.cells[task].mean for row in made.rows)
    heads = HeadComparison(task, "utterance_attention", "utterance_linear", names, means, means[::-1],
                           (None,) * len(names), (None,) * len(names), -1.0, (names[:2],))  # fmt: skip
    return replace(made, rows=(replace(first, cells=cells), *made.rows[1:]), published=(row,), heads=(heads,))


def with_single_layers(made: Board, *upstreams: str, tasks: int | None = None) -> Board:
    """The same with every layer of these upstreams tried alone, in the first tasks or in all of them.

    Each layer is worse than the one before by 5, the first is as good as the sum; the last has no interval.
    """
    rows = []
    for row in made.rows:
        cells = dict(row.cells)
        for column in made.columns[:tasks] if row.name in upstreams else ():
            found = cells[column.key]
            values = [
                found.mean + (5 if column.direction == "lower" else -5) * layer for layer in range(row.num_layers)
            ]
            scores = [LayerScore(layer, value, Interval(value - 3, value + 2), (0, 1)) for layer, value in
                      enumerate(values)]  # fmt: skip
            scores[-1] = scores[-1]._replace(interval=None)
            cells[column.key] = replace(found, single_layers=tuple(scores))
        rows.append(replace(row, cells=cells))
    return replace(made, rows=tuple(rows))


def with_detection(made: Board, task: str, *rates: float) -> Board:
    """The same with pairs judged in a task: straight curves of these equal error rates, in percent, a row each."""
    rows = list(made.rows)
    for place, rate in enumerate(rates):
        equal = NormalDist().inv_cdf(rate / 100) if rate else 0.0
        errors = tuple((100 * NormalDist().cdf(equal + d / 20), 100 * NormalDist().cdf(equal - d / 20)) for d in
                       range(-60, 61))  # fmt: skip
        cell = replace(rows[place].cells[task], detection=DetectionCurve(1, 300, 4_500, errors if rate else (), rate))
        rows[place] = replace(rows[place], cells={**rows[place].cells, task: cell})
    return replace(made, rows=tuple(rows))


WRONG_TURNS = WrongTurns("mix-3", 2, 3.5, 14.0, (
    Turn("anna", 0.0, 4.0), Turn("ben", 3.0, 8.0), Turn("anna", 9.0, 14.0)), (
    Turn("anna", 0.2, 4.0), Turn("ben", 3.0, 7.0), Turn("", 9.0, 10.0), Turn("anna", 10.0, 14.0)))  # fmt: skip


def with_turns(made: Board, task: str) -> Board:
    """The same with a badly diarised recording in every row of a task."""
    rows = [replace(row, cells={**row.cells, task: replace(row.cells[task], worst_turns=(WRONG_TURNS,))}) for row in
            made.rows]  # fmt: skip
    return replace(made, rows=tuple(rows))


def with_waveforms(made: Board, task: str) -> Board:
    """The same with a badly enhanced recording in every row of a task: a second of noise, silence and noise again."""
    noise = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float16)
    signals = tuple(each.tobytes() for each in (noise, 0 * noise, noise / 2))
    wrong = WrongWaveforms("noisy-7", 1, 1.25, ("Heard", "Clean", "Enhanced"), signals)
    rows = [replace(row, cells={**row.cells, task: replace(row.cells[task], worst_waveforms=(wrong,))}) for row in
            made.rows]  # fmt: skip
    return replace(made, rows=tuple(rows))


def with_budgets(made: Board, *upstreams: str) -> Board:
    """The same with a minute and ten of train for these upstreams, worse than all of it by 20 and by 10."""
    rows = []
    for row in made.rows:
        cells = dict(row.cells)
        for column in made.columns if row.name in upstreams else ():
            found = cells[column.key]
            worse = 1 if column.direction == "lower" else -1
            values = {"1min": found.mean + 20 * worse, "10min": found.mean + 10 * worse}
            ends = {name: Interval(value - 3, value + 2) for name, value in values.items()}
            scores = [BudgetScore(name, seconds, train, values[name], ends[name], (0, 1))
                      for name, seconds, train in (("1min", 58.0, 20), ("10min", 598.5, 210))]  # fmt: skip
            end = BudgetScore("all", 3600.0, column.train, found.mean, found.interval, (0, 1, 2))
            cells[column.key] = replace(found, budgets=(*scores, end))
        rows.append(replace(row, cells=cells))
    return replace(made, rows=tuple(rows))


def with_conditions(made: Board, *upstreams: str) -> Board:
    """The same heard in noise, by these upstreams, the worse the louder it is, and by telephone as well as recorded."""
    rows = []
    for row in made.rows:
        cells = dict(row.cells)
        for column in made.columns if row.name in upstreams else ():
            found = cells[column.key]
            worse = 1 if column.direction == "lower" else -1
            lost = {"clean": 0, "noise@20dB": 5, "noise@0dB": 25, "telephone": 0}
            values = {condition: found.mean + worse * points for condition, points in lost.items()}
            scores = [ConditionScore(condition, value, Interval(value - 3, value + 2), (0, 1)) for condition, value in
                      values.items()]  # fmt: skip
            cells[column.key] = replace(found, conditions=(scores[0]._replace(interval=found.interval), *scores[1:]))
        rows.append(replace(row, cells=cells))
    return replace(made, rows=tuple(rows))


def with_checkpoints(made: Board, first: int, series: str = "hf:runs/step-*") -> Board:
    """The same with the rows from this place on as checkpoints of one training: the best is of its last step."""
    rows = [
        row if place < first else replace(row, series=series, step=1000 * (len(made.rows) - place))
        for place, row in enumerate(made.rows)
    ]
    return replace(made, rows=tuple(rows))


def leaderboard(*boards: Board) -> Leaderboard:
    """Boards as one."""
    return Leaderboard(boards, (), 0)
