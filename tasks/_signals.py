"""Labels that name waveforms: sources of the row's own mixture by their number, or files beside the row's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from core._metadata import Files
from core.audio import num_samples
from core.errors import AudioError, ManifestError
from core.manifest import Manifest, Utterance, refuse
from core.mixtures import Mixture, Source, mixture_to_json


@dataclass(frozen=True)
class Signals:
    """What a row's label names.

    Attributes:
        label: as its kind of labels takes it (`downstreams/labels/waveforms.py`).
        digests: sha256 of what each target is made of.
    """

    label: Mapping[str, Any]
    digests: tuple[str, ...]


def signals_of(manifest: Manifest, rows: Sequence[Utterance], label: str, gain_db: float) -> Mapping[str, Signals]:
    """Id of each row -> what its label names.

    Args:
        manifest: whose digests are remembered.
        rows: of it, all with the label.
        label: its key: the number of a source of the row's mixture, from 0, the name of a file, or a list of them.
        gain_db: level change of what is heard, in decibels, and so of its targets.

    Raises: ManifestError: names every row whose label names no waveform, or one of another length.
    """
    targets: dict[str, list[Source]] = {}
    problems = []
    files: dict[Any, Files] = {}
    for row in rows:
        try:
            targets[row.id] = [_source(row, each, files) for each in _listed(row.labels[label])]
        except (ManifestError, AudioError) as problem:
            problems.append(f"{row.where}: {label}: {problem}")
    refuse(manifest.source, problems)
    parts = [
        Utterance(f"{row.id} {number}", source.path, row.split, {}, row.line, mixture=Mixture((source,)))
        for row in rows
        for number, source in enumerate(targets[row.id])
    ]
    digests = replace(manifest, utterances=tuple(parts)).audio_digests
    found = {}
    for row in rows:
        sources = targets[row.id]
        named = {"names": [each.path.stem for each in sources], "signals": _signals(row, sources, gain_db)}
        found[row.id] = Signals(named, tuple(digests[f"{row.id} {number}"] for number in range(len(sources))))
    return found


def _signals(row: Utterance, targets: Sequence[Source], gain_db: float) -> list[Any]:
    heard = row.mixture or Mixture(row.sources)
    signals = (heard, *(Mixture((target,)) for target in targets))
    return [
        mixture_to_json(
            replace(each, sources=tuple(replace(part, gain_db=part.gain_db + gain_db) for part in each.sources))
        )
        for each in signals
    ]


def _listed(value: Any) -> list[Any]:
    listed = value if isinstance(value, list | tuple) else [value]
    if not listed or len(set(map(str, listed))) < len(listed):
        raise ManifestError(f"is {value!r}, must name one source or file, or several different ones")
    return list(listed)


def _source(row: Utterance, named: Any, files: dict[Any, Files]) -> Source:
    """The source of a mixture by its number, or a file, which has to be as long as what is heard."""
    if isinstance(named, int) and not isinstance(named, bool):
        if row.mixture is None or not 0 <= named < len(row.mixture.sources):
            count = "no mixture" if row.mixture is None else f"a mixture of {len(row.mixture.sources)}"
            raise ManifestError(f"there is no source {named}: the row is {count}; count from 0, or name a file")
        return row.mixture.sources[named]
    if not isinstance(named, str):
        raise ManifestError(f"is {named!r}, must be the number of a source or the name of a file")
    folder = row.folder or row.path.parent
    path = files.setdefault(folder, Files(folder)).find(named)
    found, heard = num_samples(path), row.mixture.samples() if row.mixture else num_samples(row.path)
    if found != heard:
        raise ManifestError(f"'{named}' has {found:,} samples at 16 kHz, what is heard {heard:,}: they must be equal")
    return Source(path, row.start, row.stop)
