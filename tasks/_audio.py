"""What is made of a recording before it passes an upstream: its level, pieces to train on, and silence taken out."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from core.audio import SAMPLE_RATE, read_audio
from core.digest import LATER, digest_of, parsed_json, write_json
from core.errors import ManifestError
from core.mixtures import Mixture, Source, mixture_digest
from upstreams._extraction.clips import Clip

LEVEL_SAMPLES = SAMPLE_RATE // 50  # 20 ms, over which a level is taken, as sox does
READERS = 4  # threads that decode


@dataclass(frozen=True)
class Trim:
    """Pauses are taken out, at the ends and inside, as by sox's effect `silence 1 SECONDS LEVEL -1 SECONDS LEVEL`.

    Attributes:
        level: root mean square over 20 ms below which it is silent, of full scale; the default is SUPERB's.
        seconds: silence of at least this length is a pause; between pauses, sound that is shorter goes with them.
    """

    level: float = 1e-3
    seconds: float = 0.1


@dataclass(frozen=True)
class AudioRecipe:
    """What is made of the recordings of a task. It decides the clips that pass an upstream, and so the cache's keys.

    Attributes:
        gain_db: level change of all recordings, in decibels.
        trim: takes pauses out of all recordings; None leaves them as they are.
        min_samples: train recordings, without their pauses, that are not longer are left out.
        crop_samples: longer train recordings are cut to random pieces of this length; 0 leaves them whole.
        crops: how many such pieces of a recording are made and kept; without a cache (`--exact`) there is no end.
        condition: what those of test are heard in (`run --condition`); None is as they were recorded. No task declares
            it.
    """

    gain_db: float = 0.0
    trim: Trim | None = None
    min_samples: int = 0
    crop_samples: int = 0
    crops: int = 0
    condition: str | None = field(default=None, metadata=LATER)

    @property
    def cuts(self) -> bool:
        """Whether what is said in a recording may be cut, or come at another time."""
        return self.trim is not None or bool(self.crop_samples)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> AudioRecipe:
        """The inverse of `dataclasses.asdict`, after a passage through JSON; also reads what older versions wrote."""
        trim = content.get("trim")
        return cls(**{**content, "trim": None if trim is None else Trim(**trim)})


def crops_of(whole: Clip, audio: AudioRecipe) -> list[Clip]:
    """The clips to train on: the recording, or random pieces of a long one.

    The places of the pieces follow from the audio alone, so they are the same everywhere and for every upstream.
    """
    if not audio.crop_samples:
        return [whole]
    room = samples_of(whole) - audio.crop_samples
    if room <= 0:
        return [whole]
    starts = random.Random(f"{whole.audio_digest}{whole.start}").sample(range(room + 1), min(audio.crops, room + 1))
    begins = [whole.start + start for start in sorted(starts)]
    return [
        replace(whole, start=begin, stop=begin + audio.crop_samples, samples=audio.crop_samples) for begin in begins
    ]


def samples_of(clip: Clip) -> int:
    """Its length at 16 kHz, as far as the files' headers tell."""
    return clip.samples or clip.recorded_samples() - clip.start


Spans = list[tuple[int, int]]


def sounding(wav: torch.Tensor, trim: Trim) -> Spans:
    """Where a waveform (samples,) is not in a pause: (first sample, sample behind the last) of each stretch."""
    shortest = round(trim.seconds * SAMPLE_RATE)
    energies = torch.nn.functional.pad(wav.double().square().cumsum(dim=0), (1, 0))
    half = LEVEL_SAMPLES // 2
    places = torch.arange(len(wav))
    first, last = (places - half).clamp(min=0), (places + half).clamp(max=len(wav))
    loud = (energies[last] - energies[first]) / (last - first) >= trim.level**2
    gaps = [gap for gap in _runs(~loud) if gap[1] - gap[0] >= shortest]
    edges = [0, *(edge for gap in gaps for edge in gap), len(wav)]
    between = zip(edges[::2], edges[1::2], strict=True)
    if not gaps:
        return [(0, len(wav))]
    return [(start, stop) for start, stop in between if stop - start >= shortest]


def _runs(flags: torch.Tensor) -> Spans:
    """Where flags are set: (first, behind the last) of each run."""
    edges = torch.diff(torch.nn.functional.pad(flags.int(), (1, 1)))
    starts, stops = ((edges == change).nonzero()[:, 0].tolist() for change in (1, -1))
    return list(zip(starts, stops, strict=True))


def without_pauses(recordings: Sequence[Clip], trim: Trim, memory: Path | None) -> list[Clip]:
    """The recordings with their pauses taken out; each is decoded once, unless its pauses are remembered.

    Args:
        recordings: whole ones.
        trim: what a pause is.
        memory: folder where the pauses of recordings are remembered; None finds them each time.

    Raises: ManifestError: a mixture, or recordings without any sound; names all of them.
    """
    mixed = [clip for clip in recordings if clip.mixture is not None]
    if mixed:
        raise ManifestError(f"{mixed[0].path}: is part of a mixture, of which pauses can't be taken out; "
                            f"choose a recipe that does not trim")  # fmt: skip
    spans = _remembered_spans(recordings, trim, memory)
    silent = [str(clip.path) for clip in recordings if not spans[clip.key]]
    if silent:
        raise ManifestError(
            f"{len(silent)} recordings hold no {trim.seconds:g} s of sound above {trim.level:g} of full scale: "
            f"{', '.join(silent[:5])}; take them out of the manifest"
        )
    return [_joined(clip, spans[clip.key]) for clip in recordings]


def _remembered_spans(recordings: Iterable[Clip], trim: Trim, memory: Path | None) -> dict[str, Spans]:
    """Key of each recording -> where it is not in a pause."""
    clips = {clip.key: clip for clip in recordings}
    file = memory and memory / f"pauses-{digest_of(trim)[:32]}.json"
    known = {} if file is None else _known_spans(file)
    lacking = [clip for key, clip in clips.items() if key not in known]

    def found(clip: Clip) -> Spans:
        wav = read_audio(clip.path, clip.start, clip.stop)
        return [(clip.start + start, clip.start + stop) for start, stop in sounding(wav, trim)]

    with ThreadPoolExecutor(READERS) as pool:
        known.update(zip((clip.key for clip in lacking), pool.map(found, lacking), strict=True))
    if file is not None and lacking:
        write_json(file, known)
    return {key: [(int(start), int(stop)) for start, stop in known[key]] for key in clips}


def _known_spans(file: Path) -> dict[str, Any]:
    """What was remembered; nothing where the file is absent or damaged."""
    try:
        content = parsed_json(file.read_text(encoding="utf-8"))
        return {str(key): [(int(start), int(stop)) for start, stop in spans] for key, spans in content.items()}
    except (FileNotFoundError, ValueError, TypeError, AttributeError):
        return {}


def _joined(clip: Clip, spans: Spans) -> Clip:
    """The stretches of a recording one behind the other."""
    samples = sum(stop - start for start, stop in spans)
    if len(spans) == 1:
        return replace(clip, start=spans[0][0], stop=spans[0][1], samples=samples)
    sources, end = [], 0
    for start, stop in spans:
        sources.append(Source(clip.path, start, stop, offset=end))
        end += stop - start
    mixture = Mixture(tuple(sources))
    digest = mixture_digest(mixture, {clip.path: clip.audio_digest})
    return replace(clip, audio_digest=digest, start=0, stop=None, samples=samples, mixture=mixture)
