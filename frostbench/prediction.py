"""A trained head at work: what a run's upstream and head say about recordings of one's own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from core.audio import SAMPLE_RATE
from core.digest import file_digest, written_then_renamed
from core.errors import BenchmarkError, CheckpointError, ContractError, RecordError
from core.feature_cache import Kind
from core.metrics import find_metric
from core.records import NAME_LENGTH, TUNED_FILE, RecordStore, ResultRecord
from downstreams._downstream import Downstream, downstream_of, load_trained
from frostbench.grid.finetuning import load_tuned
from frostbench.instances import built
from leaderboard.stored_predictions import predictions_of
from tasks._audio import AudioRecipe, without_pauses
from tasks._scorers import scores
from upstreams._base import Precision, Upstream
from upstreams._extraction.clips import Clip
from upstreams._extraction.encoding import FrozenUpstream
from upstreams._facts import UpstreamFacts
from upstreams._resolve import build_upstream


@dataclass(frozen=True)
class Answer:
    """What is predicted of a recording, or of a pair of them.

    Attributes:
        files: the recording, or both.
        prediction: what `Predictor.predict` gives; of a pair its score, and where the run's test has a threshold, that
            and the answer: accept or reject.
    """

    files: tuple[Path, ...]
    prediction: Any

    def to_json(self) -> dict[str, Any]:
        """For scripts: `file` or, of a pair, `files`, and `prediction`."""
        names = [str(file) for file in self.files]
        return {**({"files": names} if len(names) > 1 else {"file": names[0]}), "prediction": self.prediction}


@dataclass(frozen=True)
class Predictor:
    """An upstream and the head that a run trained on it.

    Attributes:
        record: of the run.
        encoder: the frozen upstream.
        downstream: featurizer and head, in evaluation mode, on the same device.
        threshold: score from which a pair of recordings is accepted; None where the task compares none, or its metric
            has no threshold.
    """

    record: ResultRecord
    encoder: FrozenUpstream
    downstream: Downstream
    threshold: float | None = None

    def answers(self, files: Sequence[Path]) -> list[Answer]:
        """What is predicted of each recording; where the task compares recordings, of each two that follow each other.

        Raises: ContractError: their number is odd, but they are compared. AudioError: one can't be read.
        """
        scorer = self.record.task.get("scorer")
        if scorer is None:
            return [Answer((file,), self.predict(file)) for file in files]
        if len(files) % 2:
            raise ContractError(
                f"{self.record.task['name']} compares recordings two by two, but {len(files)} "
                f"{'is' if len(files) == 1 else 'are'} named: name another one"
            )
        different = list(dict.fromkeys(files))
        pairs = list(zip(files[::2], files[1::2], strict=True))
        places = [(different.index(first), different.index(second)) for first, second in pairs]
        found = scores(scorer, [self.predict(file) for file in different], places)
        return [Answer(pair, self._judged(score)) for pair, score in zip(pairs, found, strict=True)]

    def _judged(self, score: float) -> dict[str, Any]:
        if self.threshold is None:
            return {"score": score}
        answer = "accept" if score >= self.threshold else "reject"
        return {"score": score, "answer": answer, "threshold": self.threshold}

    def predict(self, path: Path) -> Any:
        """The keyword, speaker, emotion, transcript, phones, text with slots, turns, or slot -> value of an intent.

        Of enhancement and separation it is the waveforms, float32 (sources, samples) at 16 kHz.

        The recording is read whole, but for its pauses, where the run took them out; of a task that compares
        recordings the prediction is what they are compared by.

        Raises: AudioError: it can't be read. ContractError: it is too short for the upstream.
        """
        kind: Kind = self.record.features["kind"]
        audio = AudioRecipe.from_json(self.record.audio)
        clip = Clip("", path, 0, frozenset({kind}), gain_db=audio.gain_db)
        if audio.trim is not None:
            (clip,) = without_pauses([clip], audio.trim, None)
        (rows,) = self.encoder.rows([clip], [clip.read(self.encoder.sample_rate)], {kind})[kind]
        rows = rows.half().float() if self.record.features["dtype"] == "float16" else rows  # as the head was trained
        lengths = torch.tensor([len(rows)], device=self.encoder.device)
        heard = ([clip.read()],) if self.downstream.head.hears else ()
        with torch.no_grad():
            logits = self.downstream(rows[None].to(self.encoder.device), lengths, *heard)
        return self.downstream.head.predict(logits, lengths, *heard)[0]


def with_waveforms_written(answers: Sequence[Answer], folder: Path, task: str) -> list[Answer]:
    """The answers, of which waveforms are files now, and each prediction is the list of their names.

    Args:
        answers: of one run.
        folder: where the files go: 32-bit float WAV at 16 kHz, called after the recording and the task.
        task: its name.

    Raises: ContractError: two recordings are called alike. OSError: one can't be written.
    """
    if not any(isinstance(answer.prediction, np.ndarray) for answer in answers):
        return list(answers)
    named = Counter(answer.files[0].stem for answer in answers)
    if len(named) < len(answers):
        raise ContractError(f"several recordings are called '{named.most_common(1)[0][0]}': predict them one by one")
    written = []
    for answer in answers:
        count = len(answer.prediction)
        ends = [task if count == 1 else f"{task}{number}" for number in range(1, count + 1)]
        paths = [folder / f"{answer.files[0].stem}.{end}.wav" for end in ends]
        for path, wav in zip(paths, answer.prediction, strict=True):
            with written_then_renamed(path) as temporary:
                soundfile.write(temporary, wav, SAMPLE_RATE, subtype="FLOAT")
        written.append(Answer(answer.files, list(map(str, paths))))
    return written


def find_run(store: RecordStore, run: str) -> ResultRecord:
    """The record whose digest begins so, or that lies in that file.

    Raises: RecordError: there is none, or several.
    """
    if Path(run).is_file():
        return store.read(Path(run))
    named = [path for path in store.paths() if len(path.stem) == NAME_LENGTH]  # others are copies
    found = [path for path in named if path.stem.startswith(run[:NAME_LENGTH])] if run else []
    if len(found) != 1:
        said = f"{len(found)} runs begin" if found else "no run begins"
        raise RecordError(f"{store.folder / 'records'}: {said} with '{run}'; the names of the files there are the runs")
    return store.read(found[0])


def load_predictor(
    store: RecordStore, run: str, upstream: str | Upstream | type[Upstream] | None, device: torch.device
) -> Predictor:
    """Builds what a run trained.

    Args:
        store: the folder of results.
        run: beginning of its digest.
        upstream: specification of the upstream, where it lies elsewhere than when the head was trained; or an object.
        device: where to compute.

    Raises: RecordError: no such run. CheckpointError: the head was changed, or the upstream is another one.
    """
    record = find_run(store, run)
    downstream = trained_downstream(store, record)
    spec = upstream or record.circumstances["upstream_spec"]
    try:
        upstream = build_upstream(spec) if isinstance(spec, str) else built(spec).freeze()
    except BenchmarkError as error:
        raise CheckpointError(f"{error}; if the upstream of this run lies elsewhere, add --upstream") from None
    precision: Precision = record.upstream["precision"]
    if (
        UpstreamFacts.of(str(record.circumstances["upstream_spec"]), upstream, precision).digest
        != record.upstream["digest"]
    ):
        raise CheckpointError(
            f"upstream '{_named(spec)}' is another one than the head was trained on ({record.upstream['name']}, digest "
            f"{record.upstream['digest'][:NAME_LENGTH]}): name the same weights with --upstream"
        )
    if record.finetuning is not None:
        path = store.run_folder(record.run) / TUNED_FILE
        upstream = load_tuned(path, record.artifacts.get(TUNED_FILE, ""), upstream)
    encoder = FrozenUpstream(upstream.to(device), device, precision)
    return Predictor(record, encoder, downstream.to(device), threshold_of(store, record))


def trained_downstream(store: RecordStore, record: ResultRecord) -> Downstream:
    """The featurizer and head that a run trained, in evaluation mode, on the CPU.

    Raises: CheckpointError: the head beside the record is gone, or is another one.
    """
    path = store.run_folder(record.run) / "head.safetensors"
    if not path.is_file() or file_digest(path) != record.artifacts[path.name]:
        raise CheckpointError(f"{path}: missing, or not the head of this run; look at: frostbench verify")
    trained, description = load_trained(path)
    return downstream_of(description, trained.state).eval()


def threshold_of(store: RecordStore, record: ResultRecord) -> float | None:
    """The score from which pairs are accepted, by the run's own test; None where none follows from it.

    Raises: RecordError: the predictions are not those that the record was made from.
    """
    if record.task.get("scorer") is None:
        return None
    for name in record.values:
        metric = find_metric(name)
        if metric is not None and metric.threshold is not None:
            rows = predictions_of(store, record)
            return metric.threshold(np.array([row.statistics[name] for row in rows])) if rows else None
    return None


def _named(upstream: object) -> str:
    return upstream if isinstance(upstream, str) else type(upstream).__qualname__


def as_text(prediction: Any) -> str:
    """A prediction in one line."""
    if isinstance(prediction, dict):
        return ", ".join(
            f"{slot}: {value:.4g}" if isinstance(value, float) else f"{slot}: {value}"
            for slot, value in prediction.items()
        )
    if isinstance(prediction, list):
        return "\n".join(map(as_text, prediction))
    return str(prediction)
