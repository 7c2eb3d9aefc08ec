"""A trained head at work: what a run's upstream and head say about recordings of one's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from core.digest import file_digest
from core.errors import BenchmarkError, CheckpointError, RecordError
from core.feature_cache import Kind
from core.records import NAME_LENGTH, RecordStore, ResultRecord
from downstreams._downstream import Downstream, downstream_of, load_trained
from frostbench.instances import built
from upstreams._base import Precision, Upstream
from upstreams._extraction.clips import Clip
from upstreams._extraction.encoding import FrozenUpstream
from upstreams._facts import UpstreamFacts
from upstreams._resolve import build_upstream


@dataclass(frozen=True)
class Predictor:
    """An upstream and the head that a run trained on it.

    Attributes:
        record: of the run.
        encoder: the frozen upstream.
        downstream: featurizer and head, in evaluation mode, on the same device.
    """

    record: ResultRecord
    encoder: FrozenUpstream
    downstream: Downstream

    def predict(self, path: Path) -> Any:
        """The keyword, speaker, emotion, transcript, phones, text with slots, or slot -> value of an intent.

        The recording is read whole.

        Raises: AudioError: it can't be read. ContractError: it is too short for the upstream.
        """
        kind: Kind = self.record.features["kind"]
        clip = Clip("", path, 0, frozenset({kind}), gain_db=self.record.audio["gain_db"])
        (rows,) = self.encoder.rows([clip], [clip.read(self.encoder.sample_rate)], {kind})[kind]
        rows = rows.half().float() if self.record.features["dtype"] == "float16" else rows  # as the head was trained
        lengths = torch.tensor([len(rows)], device=self.encoder.device)
        with torch.no_grad():
            logits = self.downstream(rows[None].to(self.encoder.device), lengths)
        return self.downstream.head.predict(logits, lengths)[0]


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
    path = store.run_folder(record.run) / "head.safetensors"
    if not path.is_file() or file_digest(path) != record.artifacts[path.name]:
        raise CheckpointError(f"{path}: missing, or not the head of this run; look at: frostbench verify")
    trained, description = load_trained(path)
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
    downstream = downstream_of(description, trained.state).to(device).eval()
    return Predictor(record, FrozenUpstream(upstream.to(device), device, precision), downstream)


def _named(upstream: object) -> str:
    return upstream if isinstance(upstream, str) else type(upstream).__qualname__


def as_text(prediction: Any) -> str:
    """A prediction in one line."""
    if isinstance(prediction, dict):
        return ", ".join(f"{slot}: {value}" for slot, value in prediction.items())
    return str(prediction)
