"""What the leaderboard holds: the one structure that tables, exports and the page are written from.

    Leaderboard -> Board (one corpus and recipe, or the suite of SUPERB) -> Row (an upstream) -> ResultCell (a task)

All of it is plain values, so `dataclasses.asdict` gives the JSON export (digests for waveforms). Values are in
the metric's unit (percent); scores say their own unit. Nothing here is text to be shown unescaped: names are whatever a
record holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import mean
from typing import Any

from core.metrics import optimum
from leaderboard.board_curves import BudgetScore, ConditionScore, Interval, LayerScore
from leaderboard.board_errors import Confusion, DetectionCurve, Mistake, WrongTurns, WrongWaveforms

INTERVAL_NOTE = (
    "95 % intervals speak of these trained heads, averaged over their seeds, on other speakers of the same kind: "
    "bootstrap over the speakers of the test set (over its utterances where speakers are not known), with Student's "
    "quantile. Ties: upstreams of a column that share a letter can't be told apart by the paired test on the same "
    "utterances, corrected by Holm's method within the column, at 5 %. Small letters speak of other speakers, capital "
    "ones of other utterances of these same speakers."
)


@dataclass(frozen=True)
class TriedRate:
    """A learning rate of the search.

    Attributes:
        learning_rate: of Adam.
        valid: the metric on valid at its best step; None where training diverged.
        step: that step; None where training diverged.
        diverged: update before which training diverged; None where it did not.
    """

    learning_rate: float
    valid: float | None
    step: int | None
    diverged: int | None = None


@dataclass(frozen=True)
class SeedRun:
    """One run of a cell: one record.

    Attributes:
        run: digest of the inputs; `results/records/<first 16>.json` and `results/runs/<first 16>/`.
        seed: of the head's training.
        fold: that was tested on; None where there are none.
        value: on test.
        learning_rate: chosen on valid.
        learning_rates: every one tried, in the order of the rates.
        layer_weights: learned softmax weights, one a layer.
        layer_norms: mean norm of each layer's features; empty where unknown.
        wall_seconds: load, train and test together.
        artifacts: file name -> sha256.
        circumstances: of the record.
    """

    run: str
    seed: int
    fold: str | None
    value: float
    learning_rate: float
    learning_rates: tuple[TriedRate, ...]
    layer_weights: tuple[float, ...]
    layer_norms: tuple[float, ...]
    wall_seconds: float
    artifacts: Mapping[str, str]
    circumstances: Mapping[str, Any]


@dataclass(frozen=True)
class PublishedValue:
    """What was published of the same upstream and task.

    Attributes:
        name: of the published row.
        value: in the unit of the column.
        difference: measured mean minus it.
        source: where it stands.
    """

    name: str
    value: float
    difference: float
    source: str


@dataclass(frozen=True)
class ResultCell:
    """An upstream on a task.

    Attributes:
        mean: over seeds; of a seed with folds it is the mean over them, as SUPERB's.
        std: sample standard deviation over seeds; None where there is one.
        interval: 95 %, over test utterances (clustered by speaker); None where the predictions are not there.
        speakers: how many clusters; None where speakers are unknown and every utterance counts as one.
        utterances: of test.
        rank: 1 + how many upstreams are significantly better, so ties have equal ranks; by the mean alone where
            predictions are missing.
        letters: compact letter display: upstreams of a column that share a letter can't be told apart; may be empty.
        best: highest place by the mean.
        tied: not the best, but can't be told apart from it.
        seeds: the runs, in the order of the seeds and folds.
        layer_weights: mean over seeds.
        corrected_weights: the same times the layers' norms, scaled to sum to 1: what a layer adds to the sum; empty
            where the norms are unknown.
        wall_seconds: of all seeds.
        confusion: empty where the task has no categories.
        worst: the worst utterances of speech recognition, the worst first; else empty.
        worst_turns: the worst recordings of diarisation, the worst first; else empty.
        worst_waveforms: the worst recordings of enhancement or separation, where runs kept some; the worst first.
        published: None where nothing is, or it was not asked for.
        detection: of the run whose value is the median one, where the metric judges trials and there are no folds.
        single_layers: the layers that heads were trained on alone, ascending; empty where `run --layers` was not asked.
        letters_same_speakers: as `letters`, of the test that speaks of these speakers alone; capitals, empty where it
            can't be made.
        budgets: parts of train that heads were given, ascending, all of it last; empty where `run --budget` was not
            asked.
        conditions: that test was heard in by the same heads, each kind from the mildest to the hardest, without any
            first; empty where `run --condition` was not asked.
    """

    mean: float
    std: float | None
    interval: Interval | None
    speakers: int | None
    utterances: int
    rank: int
    letters: str
    best: bool
    tied: bool
    seeds: tuple[SeedRun, ...]
    layer_weights: tuple[float, ...]
    corrected_weights: tuple[float, ...]
    wall_seconds: float
    confusion: tuple[Confusion, ...]
    worst: tuple[Mistake, ...]
    worst_turns: tuple[WrongTurns, ...] = ()
    worst_waveforms: tuple[WrongWaveforms, ...] = ()
    published: PublishedValue | None = None
    detection: DetectionCurve | None = None
    single_layers: tuple[LayerScore, ...] = ()
    letters_same_speakers: str = ""
    budgets: tuple[BudgetScore, ...] = ()
    conditions: tuple[ConditionScore, ...] = ()

    @property
    def values(self) -> Mapping[int, float]:
        """Seed -> value, the mean over its folds where there are some."""
        found: dict[int, list[float]] = {}
        for run in self.seeds:
            found.setdefault(run.seed, []).append(run.value)
        return {seed: mean(values) for seed, values in found.items()}

    @property
    def learning_rates(self) -> tuple[float, ...]:
        """Those that the seeds chose, each once, ascending."""
        return tuple(sorted({run.learning_rate for run in self.seeds}))


@dataclass(frozen=True)
class Column:
    """A metric of a task of a board.

    Attributes:
        task: its name.
        title: in words.
        metric: name of the metric.
        primary: whether it is the task's first, which its other figures and tests are shown with.
        selecting: whether it is the one that chooses on valid.
        metric_title: as in headings (Acc, WER).
        unit: of the values.
        direction: "higher" or "lower" is better.
        bounds: lowest and highest value; None where there is no end.
        known: whether the metric is one that this program has; of another there are values only.
        head: that was trained.
        corpus: name.
        corpus_digest: of the rows that the task takes.
        train, valid, test: utterances; of folds the mean in train and valid, and the sum in test.
    """

    task: str
    title: str
    metric: str
    primary: bool
    selecting: bool
    metric_title: str
    unit: str
    direction: str
    bounds: tuple[float | None, float | None]
    known: bool
    head: str
    corpus: str
    corpus_digest: str
    train: int
    valid: int
    test: int

    @property
    def key(self) -> str:
        """Of `Row.cells`: the task, with the metric where it is not the task's first."""
        return self.task if self.primary else f"{self.task} {self.metric}"

    @property
    def label(self) -> str:
        """Where there is room for a word: `KS`, and `ASR CER` where the metric is not the task's first."""
        return self.task.upper() if self.primary else f"{self.task.upper()} {self.metric_title}"

    @property
    def heading(self) -> str:
        """For tables: `KS Acc % ↑`."""
        arrow = {"higher": "↑", "lower": "↓"}[self.direction]
        return " ".join(text for text in (self.task.upper(), self.metric_title, self.unit, arrow) if text)

    @property
    def optimum(self) -> float | None:
        """The best value there is; None where there is none."""
        return optimum(self.direction, self.bounds)

    def error(self, value: float) -> float | None:
        """How far a value is from the optimum; of decibels without one, the energy of what is wrong, by any unit."""
        if self.optimum is not None:
            return abs(self.optimum - value)
        return 10 ** ((-value if self.direction == "higher" else value) / 10) if self.unit == "dB" else None


@dataclass(frozen=True)
class Row:
    """An upstream on a board.

    Attributes:
        name: unique on the board; where one name stands for several contents, the digest's beginning is added.
        digest: of weights and configuration.
        params: number of parameters; None where unknown.
        gflops_per_second: multiply-adds (counted as two) for a second of audio, in billions; None if not countable.
        num_layers, hidden_size, downsample_rate: its shape; 160 samples a frame are 10 ms at 16 kHz; None where an
            utterance has one vector.
        score: `Board.score` says which; None where a task or the baseline is missing.
        mean_rank: mean over the tasks of the place by the mean (ties share the mean of their places).
        cells: `Column.key` -> cell; a task that was not run is missing.
        family: of self-supervision, as its records name it, such as contrastive; empty where they don't.
        leaks: in words, what of the tests it was trained on; empty where nothing is known to be.
        series: that it is a checkpoint of, by the pattern that was asked for; empty where it is of none.
        step: of its training, from its name; None where no number there tells the checkpoints of a series apart.
    """

    name: str
    digest: str
    params: int | None
    gflops_per_second: float | None
    num_layers: int
    hidden_size: int
    downsample_rate: int | None
    score: float | None
    mean_rank: float
    cells: Mapping[str, ResultCell]
    family: str = ""
    leaks: tuple[str, ...] = ()
    series: str = ""
    step: int | None = None


@dataclass(frozen=True)
class Pair:
    """Two upstreams on the same test utterances of a task.

    Attributes:
        task: of the comparison.
        metric: name of the metric.
        first, second: names of the rows.
        difference: mean of the first minus mean of the second.
        interval: 95 % of the difference, not corrected for the number of comparisons.
        p: of the paired test, as it is.
        p_holm: corrected by Holm's method for all pairs of the column.
        different: p_holm is below 0.05.
        p_same_speakers: of the test that speaks of other utterances of these same speakers, corrected in the same way;
            None where it can't be made.
        different_same_speakers: p_same_speakers is below 0.05.
    """

    task: str
    metric: str
    first: str
    second: str
    difference: float
    interval: Interval
    p: float
    p_holm: float
    different: bool
    p_same_speakers: float | None = None
    different_same_speakers: bool | None = None


@dataclass(frozen=True)
class ScoreCard:
    """Which score a board has.

    Attributes:
        name: heading.
        unit: of the score; may be empty.
        explanation: in words, to be shown with it.
    """

    name: str
    unit: str
    explanation: str


@dataclass(frozen=True)
class PublishedRow:
    """A published upstream; only on the board of the SUPERB suite, and only if asked for.

    Attributes:
        name: as published.
        params: number of parameters; None where unknown.
        values: `Column.key` -> value in the column's unit.
        score: SUPERB's over the columns of this board.
        source: where the numbers stand.
    """

    name: str
    params: int | None
    values: Mapping[str, float]
    score: float | None
    source: str


@dataclass(frozen=True)
class HeadComparison:
    """How another head orders the same upstreams on a task.

    Attributes:
        task: of the comparison.
        head: the other one.
        default_head: the task's own.
        upstreams: rows that have both.
        default_means, means: their values with the task's own and with the other head.
        default_intervals, intervals: 95 %; None where predictions are missing.
        tau: Kendall's tau-b between the two orders: 1 the same, -1 reversed; None below two upstreams.
        flipped: pairs of upstreams whose order is reversed.
    """

    task: str
    head: str
    default_head: str
    upstreams: tuple[str, ...]
    default_means: tuple[float, ...]
    means: tuple[float, ...]
    default_intervals: tuple[Interval | None, ...]
    intervals: tuple[Interval | None, ...]
    tau: float | None
    flipped: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Tuning:
    """An upstream that was trained with its head, beside itself when it was frozen, by the first metric of a task.

    Attributes:
        task: of the comparison.
        upstream, name: rows of the frozen and of the fine-tuned one.
        how: full, top:N or lora:RANK.
        frozen_mean, mean: over seeds.
        frozen_interval, interval: 95 %; None where predictions are missing.
        difference: mean of the fine-tuned one minus that of the frozen one.
        difference_interval: 95 %, by the paired test; None where predictions are missing.
        p_holm: of that test, corrected for all pairs of the column.
        p_same_speakers: of the test on other utterances of these same speakers; None where it can't be made.
        different: `p_holm` is below 0.05.
        trained_parameters, frozen_trained_parameters: how many are trained; of the frozen one those of sum and head.
        audio_seconds, frozen_audio_seconds: that pass the upstream, for all that is tried; of the frozen one each
            recording once, whatever else is asked of it.
        seconds, frozen_seconds: of training, for all that is tried; of the frozen one without its one pass.
    """

    task: str
    upstream: str
    name: str
    how: str
    frozen_mean: float
    frozen_interval: Interval | None
    mean: float
    interval: Interval | None
    difference: float
    difference_interval: Interval | None
    p_holm: float | None
    p_same_speakers: float | None
    different: bool
    trained_parameters: float | None
    frozen_trained_parameters: float | None
    audio_seconds: float | None
    frozen_audio_seconds: float | None
    seconds: float | None
    frozen_seconds: float | None


@dataclass(frozen=True)
class Board:
    """One table.

    Attributes:
        title: corpus and recipe, or `SUPERB`; unique.
        superb: whether these are SUPERB's own corpora, whole, with its recipe.
        recipe: its name.
        custom: whether it shows limited or changed runs, which stay off a leaderboard.
        columns: metrics of the tasks, in the order of the tasks' names.
        rows: upstreams, the best first: by score, else by mean rank.
        pairs: all pairwise tests.
        score: which score the rows have.
        published: published rows; empty unless asked for.
        heads: comparisons with other heads; empty where none was run.
        interval_note: what the intervals speak of, in words.
        tunings: of a board of frozen and fine-tuned upstreams, which is no leaderboard, each beside its frozen one.
    """

    title: str
    superb: bool
    recipe: str
    custom: bool
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    pairs: tuple[Pair, ...]
    score: ScoreCard
    published: tuple[PublishedRow, ...]
    heads: tuple[HeadComparison, ...]
    interval_note: str
    tunings: tuple[Tuning, ...] = ()


@dataclass(frozen=True)
class Leaderboard:
    """All boards of a folder of results.

    Attributes:
        boards: SUPERB's first, the others by title.
        variants: boards of tasks that were run with another head than their own, which `Board.heads` compares, and of
            frozen and fine-tuned upstreams, which `Board.tunings` compares.
        hidden: how many custom runs are not shown.
        left_out: files that can't be used, each with what is wrong with it.
    """

    boards: tuple[Board, ...]
    variants: tuple[Board, ...]
    hidden: int
    left_out: tuple[str, ...] = ()
