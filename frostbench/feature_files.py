"""Hidden states as files for other programs: npz, safetensors or parquet, an array an utterance, in the corpus' order.

Every recording passes the upstream once and is kept in the cache, from which the files are written: what a run computed
before is not computed again, and memory holds one utterance at a time (of safetensors one file of SHARD_BYTES).
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch

from core.digest import write_json, written_then_renamed
from core.errors import CheckpointError, ContractError
from core.extras import require_extra
from core.feature_cache import FeatureCache, Kind
from core.manifest import Manifest, validate
from core.records import NAME_LENGTH, RecordStore
from downstreams._featurizer import Featurizer
from frostbench.cache_space import in_use, make_room
from frostbench.grid.costs import Costs
from frostbench.grid.needs import Part, dtypes_of, needs_of
from frostbench.grid.run import extraction_jobs, seconds_of
from frostbench.grid.stages import Stages
from frostbench.grid.wanted import WantedClips
from frostbench.jobs.base import Executor
from frostbench.jobs.forecast import Stage
from frostbench.jobs.progress import Watcher
from frostbench.prediction import find_run, trained_downstream
from tasks._audio import AudioRecipe
from tasks._rows import clips_of, recording_of
from upstreams._facts import UpstreamFacts

Format = Literal["npz", "safetensors", "parquet"]
Array = npt.NDArray[np.floating]
SHARD_BYTES = 1 << 28  # of a file of safetensors
INDEX = "index.json"


@dataclass(frozen=True)
class Wanted:
    """What is wanted of each recording.

    Attributes:
        kind: "pooled", the mean over time, float32 (layers, hidden_size); or "frames", float16 (frames, layers,
            hidden_size).
        layers: which, in this order; None is all.
        mix: a trained head's weighted sum of all layers instead: the axis of the layers is gone.
    """

    kind: Literal["pooled", "frames"] = "pooled"
    layers: Sequence[int] | None = None
    mix: Featurizer | None = None

    def of(self, stored: Array) -> Array:
        """What is written of what the cache has (rows, num_layers, hidden_size)."""
        if self.mix is not None:
            with torch.no_grad():
                rows: Array = self.mix(torch.from_numpy(np.asarray(stored, np.float32))).numpy().astype(stored.dtype)
        else:
            rows = stored if self.layers is None else stored[:, list(self.layers)]
        return np.ascontiguousarray(rows[0] if self.kind == "pooled" else rows)


def mix_of(store: RecordStore, run: str, upstream: UpstreamFacts) -> Featurizer:
    """The weighted sum that a run learned.

    Raises: RecordError: no such run. CheckpointError: its head is gone or was changed, or it is of another upstream.
    """
    record = find_run(store, run)
    if record.upstream["digest"] != upstream.digest:
        raise CheckpointError(
            f"run {record.run[:NAME_LENGTH]} is one of {record.upstream['name']} (digest "
            f"{record.upstream['digest'][:NAME_LENGTH]}), not of {upstream.name} ({upstream.digest[:NAME_LENGTH]})"
        )
    if record.finetuning is not None:
        raise CheckpointError(
            f"run {record.run[:NAME_LENGTH]} fine-tuned its upstream, whose features are not those of {upstream.name}: "
            f"name a run of the frozen one"
        )
    return trained_downstream(store, record).featurizer


def write_features(
    upstream: UpstreamFacts,
    manifest: Manifest,
    wanted: Wanted,
    file_format: Format,
    output: Path,
    cache: Path,
    limit: int | None,
    executor: Executor,
    watcher: Watcher,
) -> list[Path]:
    """Passes what the cache lacks, and writes the features of every row of a corpus.

    Args:
        upstream: its facts.
        manifest: of the corpus, labelled or not.
        wanted: of each recording.
        file_format: of the files.
        output: folder to write to.
        cache: folder of the cache.
        limit: bytes of the cache; None is no limit.
        executor: where the upstream computes; not yet entered.
        watcher: is told how it goes.

    Returns: the files, and last the index: ids in order, their splits, shapes, and what decided the numbers.
    Raises: ContractError: no such layer or format. ManifestError: recordings that can't be read; names all of them.
    """
    _require_possible(upstream, wanted, file_format)
    kind: Kind = wanted.kind
    audio = AudioRecipe()
    digests = manifest.audio_digests
    recordings = [recording_of(row, digests[row.id], audio) for row in manifest.utterances]
    watcher.stage("checking recordings", len(recordings), "recordings")
    validate(manifest, advance=lambda: watcher.advance(1))
    clips = WantedClips(clips_of([(recordings, kind)]))
    part = Part(upstream, "float16" if kind == "frames" else None, clips, [], {})
    needs = needs_of(part, cache)
    make_room(cache, limit, needs)
    with in_use(needs):
        _extract(part, cache, executor, watcher)
        stored = FeatureCache(cache, upstream.digest, kind, dtypes_of(part.frames)[kind])
        ids = [row.id for row in manifest.utterances]
        arrays = (wanted.of(stored.get(clip.key)) for clip in recordings)
        watcher.stage("writing features", len(ids), "utterances")
        output.mkdir(parents=True, exist_ok=True)
        shapes: dict[str, list[int]] = {}
        files = WRITERS[file_format](output, _noted(ids, arrays, shapes, watcher))
    about = {
        "upstream": upstream.recorded(),
        "corpus": {"name": manifest.name, "digest": manifest.digest},
        "kind": kind,
        "layers": "mix" if wanted.mix is not None else wanted.layers or list(range(upstream.num_layers)),
        "layer_weights": None if wanted.mix is None else wanted.mix.layer_weights().tolist(),
        "dtype": stored.dtype,
        "files": [path.name for path in files],
        "utterances": [{"id": row.id, "split": row.split, "shape": shapes[row.id]} for row in manifest.utterances],
    }
    write_json(output / INDEX, about)
    return [*files, output / INDEX]


def _require_possible(upstream: UpstreamFacts, wanted: Wanted, file_format: str) -> None:
    if file_format not in get_args(Format):
        raise ContractError(f"'{file_format}' is no format of features: {', '.join(get_args(Format))} are")
    if file_format == "parquet":
        require_extra("hf-datasets", "features as parquet")
    if wanted.kind == "frames" and upstream.utterance_level:
        raise ContractError(f"{upstream.name} gives one vector an utterance and has no frames: leave --frames out")
    if wanted.mix is not None and wanted.mix.normalise and wanted.kind == "pooled":
        raise ContractError("the head of this run normalises frames before it sums layers: ask for frames")
    unknown = [layer for layer in wanted.layers or () if not 0 <= layer < upstream.num_layers]
    if unknown:
        raise ContractError(
            f"{upstream.name} has layers 0 to {upstream.num_layers - 1}, not {', '.join(map(str, unknown))}"
        )


def _extract(part: Part, cache: Path, executor: Executor, watcher: Watcher) -> None:
    jobs = extraction_jobs([part], cache, max(1, executor.workers), {})
    if not jobs:
        return
    costs = Costs(cache)
    works = [costs.extracting(part.upstream, seconds_of(job.arguments[1])) for job in jobs]
    stages = Stages(executor, watcher, costs, [Stage("extracting features", works)])
    with stages.entered():
        outcomes = stages.run("extracting features", "s of audio", jobs, works)
    failed = [str(outcome.error) for outcome in outcomes if outcome.error is not None]
    if failed:
        raise ContractError(f"{part.upstream.name}: {failed[0]}")


def _noted(
    ids: Sequence[str], arrays: Iterator[Array], shapes: dict[str, list[int]], watcher: Watcher
) -> Iterator[tuple[str, Array]]:
    for name, array in zip(ids, arrays, strict=True):
        shapes[name] = list(array.shape)
        yield name, array
        watcher.advance(1)


def _write_npz(folder: Path, arrays: Iterator[tuple[str, Array]]) -> list[Path]:
    """As numpy.savez writes, an array at a time."""
    path = folder / "features.npz"
    with written_then_renamed(path) as temporary, zipfile.ZipFile(temporary, "w", allowZip64=True) as archive:
        for name, array in arrays:
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
    return [path]


def _write_safetensors(folder: Path, arrays: Iterator[tuple[str, Array]]) -> list[Path]:
    """Files of about SHARD_BYTES each, since a file is made whole in memory."""
    from safetensors.numpy import save_file

    paths: list[Path] = []
    shard: dict[str, Array] = {}
    held = 0

    def flush() -> None:
        path = folder / f"features-{len(paths):05}.safetensors"
        with written_then_renamed(path) as temporary:
            save_file(shard, temporary)
        paths.append(path)

    for name, array in arrays:
        if shard and held + array.nbytes > SHARD_BYTES:
            flush()
            shard, held = {}, 0
        shard[name] = array
        held += array.nbytes
    flush()
    return paths


def _write_parquet(folder: Path, arrays: Iterator[tuple[str, Array]]) -> list[Path]:
    """Columns id, shape and values, flat in C order; a row group is written whenever so many bytes came together."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / "features.parquet"
    writer: pq.ParquetWriter | None = None
    rows: list[tuple[str, Array]] = []
    with written_then_renamed(path) as temporary:
        for table in _tables(arrays, rows, pa):
            writer = writer or pq.ParquetWriter(temporary, table.schema)
            writer.write_table(table)
        if writer is not None:
            writer.close()
    return [path]


def _tables(arrays: Iterator[tuple[str, Array]], rows: list[tuple[str, Array]], pa: Any) -> Iterator[Any]:
    def made() -> Any:
        flat = [array.reshape(-1) for _, array in rows]
        ends = np.cumsum([0, *map(len, flat)])
        columns = {
            "id": pa.array([name for name, _ in rows]),
            "shape": pa.array([list(array.shape) for _, array in rows], pa.list_(pa.int64())),
            "values": pa.LargeListArray.from_arrays(pa.array(ends, pa.int64()), pa.array(np.concatenate(flat))),
        }
        rows.clear()
        return pa.table(columns)

    held = 0
    for name, array in arrays:
        rows.append((name, array))
        held += array.nbytes
        if held > SHARD_BYTES:
            yield made()
            held = 0
    if rows:
        yield made()


WRITERS: Mapping[Format, Callable[[Path, Iterator[tuple[str, Array]]], list[Path]]] = {
    "npz": _write_npz,
    "safetensors": _write_safetensors,
    "parquet": _write_parquet,
}
