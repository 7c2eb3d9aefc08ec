"""What an evaluation came to, or what a folder of results holds: pandas frames, a page, Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import pandas as pd

from core.digest import written_then_renamed
from core.records import RecordStore, ResultRecord
from leaderboard import frames
from leaderboard.aggregate import leaderboard
from leaderboard.board import Leaderboard
from leaderboard.page import page
from leaderboard.tables import to_markdown
from leaderboard.usable_records import Usable, usable_records


@dataclass(frozen=True)
class Results:
    """Runs of a folder of results.

    Attributes:
        folder: the folder, as `--output` of the command line.
        only: digests of the runs that are meant; None is all of them.
        custom: whether runs with limited data or changed recipes are shown, too.
        published: whether SUPERB's published rows are laid beside what was measured on SUPERB's corpora.
        computed: how many runs the evaluation computed.
        skipped: how many were there before.
        failures: (name of the job, error) of what failed, each once.
        passed: upstream -> how many clips passed it.
    """

    folder: Path
    only: tuple[str, ...] | None = None
    custom: bool = False
    published: bool = False
    computed: int = 0
    skipped: int = 0
    failures: tuple[tuple[str, str], ...] = ()
    passed: Mapping[str, int] = field(default_factory=dict)

    def cells(self) -> pd.DataFrame:
        """One row an upstream and task, over all seeds.

        Returns: upstream, task, corpus, metric, direction, mean, std (over seeds), seeds, test_utterances,
            learning_rate, params, low and high (95 % interval), rank, letters (ties), speakers, head, recipe, board,
            score, gflops_per_second, source ("measured" or "published"), family, letters_same_speakers (ties on other
            utterances of these same speakers).
        """
        return frames.cells(self.board)

    def runs(self) -> pd.DataFrame:
        """One row a run: a seed of a cell.

        Returns: upstream, task, corpus, recipe, head, seed, fold, run, metric, direction, value, learning_rate, valid,
            seconds, custom, utterances of each split, params, digests of upstream, corpus and recipe, protocol, device,
            commit, finished, layer (of a run on one alone), finetuning (full, top:N, lora:RANK, or missing), budget (of
            a run on a part of train), condition (of one heard in it), and a version_... of each package.
        """
        return frames.runs(self.records)

    def predictions(self) -> pd.DataFrame:
        """One row a test utterance and run.

        Returns: upstream, task, corpus, recipe, head, seed, fold, run, id, speaker, prediction, reference, and what the
            utterance adds to the metric.
        Raises: RecordError: a file of predictions is not the one that its record was made from.
        """
        return frames.predictions(self.store, self.records)

    def layers(self) -> pd.DataFrame:
        """One row an upstream, task, seed and layer.

        Returns: upstream, task, corpus, recipe, head, seed, fold, run, layer, weight (of the learned sum),
            corrected_weight (times the norm of the layer's features, scaled to sum to 1), value (of a head on this
            layer alone, where `layers=` asked for it), metric, direction, layer_run.
        """
        return frames.layers(self.records)

    def budgets(self) -> pd.DataFrame:
        """One row an upstream, task, seed and label budget, of those that `budgets=` asked for; `all` is among them.

        Returns: upstream, task, corpus, recipe, head, seed, fold, run, budget, seconds (of train that were drawn),
            train (recordings that were drawn), value, metric, direction.
        """
        return frames.budgets(self.records)

    def series(self) -> pd.DataFrame:
        """One row a series over checkpoints (`hf:runs/step-*`), task, seed and checkpoint, by the steps of training.

        Returns: upstream, task, corpus, recipe, head, seed, fold, run, series (the pattern), step (as the checkpoint's
            name says it), value, metric, direction.
        """
        return frames.series(self.records)

    def conditions(self) -> pd.DataFrame:
        """One row an upstream, task, seed and condition, of those that `conditions=` asked for; `clean` is among them.

        Returns: upstream, task, corpus, recipe, head, seed, fold, run, condition, value, metric, direction, clean_run
            (which has trained the head).
        """
        return frames.conditions(self.records)

    def page(self, path: str | Path) -> Path:
        """Writes everything into one HTML file that needs nothing else, and returns its path."""
        with written_then_renamed(Path(path)) as temporary:
            temporary.write_text(page(self.board), encoding="utf-8")
        return Path(path)

    def to_markdown(self) -> str:
        """The tables in Markdown, with what is to be said about them."""
        return to_markdown(self.board)

    @property
    def failed(self) -> int:
        """How many of the runs that were asked for are not there."""
        return 0 if self.only is None else len(self.only) - self.skipped - self.computed

    @property
    def store(self) -> RecordStore:
        """The folder of records."""
        return RecordStore(self.folder)

    @cached_property
    def board(self) -> Leaderboard:
        """What tables, exports and the page are written from: see `leaderboard/board.py`.

        Raises: RecordError: no run has predictions that are its own.
        """
        runs = [record.run for record in self.records]
        if self.published or any(record.has_row for record in self.records):
            board = leaderboard(self.store, custom=True, published=self.published, only=runs)
            return replace(board, left_out=(*self.left_out, *board.left_out))
        return Leaderboard((), (), 0, self.left_out)

    @cached_property
    def records(self) -> list[ResultRecord]:
        """The records of the runs that are shown."""
        return [record for record in self._usable.records if self.custom or not record.custom]

    @property
    def left_out(self) -> tuple[str, ...]:
        """Files of records that can't be used, each with what is wrong with it; `verify` fails on them."""
        return tuple(map(str, self._usable.left_out))

    @cached_property
    def _usable(self) -> Usable:
        return usable_records(self.store, self.only)

    def __repr__(self) -> str:
        failed = f", {len(self.failures)} failures" if self.failures else ""
        failed += f", {len(self.left_out)} files left out" if self.left_out else ""
        return f"<Results: {len(self.records)} runs in {self.folder}{failed}>"
