"""The data of a training: a plan of micro-batches without end that follows from a seed, read ahead of the computation.

An update takes so many micro-batches as its recipe says, whoever computes them. Crops and masks follow from seed,
update and micro-batch. So neither an interruption nor the number of processes changes the data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import torch

from core.audio import SAMPLE_RATE, num_samples, read_audio
from core.errors import TrainingError
from core.lengths import bounded_batches, pad
from core.manifest import Utterance
from upstreams._pretraining.contract import PretrainRecipe, TrainableUpstream, TrainingBatch, samples_of

KEPT_SAMPLES = 1 << 28  # 4.6 hours of decoded audio are kept, a gigabyte; the rest is decoded again each epoch
HEADER_THREADS = 8
# Equal lengths are multiples of so many frames: on a CPU, an update of a shape not seen before takes 30 % longer, and
# memory for what is prepared for it.
STEP_FRAMES = 5


class Position(NamedTuple):
    """Where a training stands in its data: the next micro-batch is number `place` of epoch `epoch`."""

    epoch: int = 0
    place: int = 0


class Update(NamedTuple):
    """What one process trains on in one update.

    Attributes:
        batches: number of a micro-batch in the update -> the micro-batch, those of this process.
        seconds: of audio in them, padding not counted.
        after: where the data stands once the update is done.
    """

    batches: dict[int, TrainingBatch]
    seconds: float
    after: Position


def seed_of(seed: int, *places: int) -> int:
    """A seed for one place in a training, such as a micro-batch of an update.

    32 bits, well mixed: of more, torch's generator on the CPU takes the lowest 32 only.
    """
    return int.from_bytes(hashlib.sha256(repr((seed, *places)).encode()).digest()[:4])


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Recordings, and how they are cut and batched.

    Attributes:
        utterances: of the train split.
        recipe: crops, sizes of batches.
        seed: of the order and the crops.
        min_samples: shorter recordings are left out.
        frame_samples: where targets or equal lengths are wanted, crops begin at multiples of it.
        equal_lengths: the utterances of a micro-batch are cut to its shortest.
        targets: utterance id -> what is to be predicted at every frame, (frames, ...); None without targets.
        min_utterances: a micro-batch holds at least so many.
    """

    utterances: Sequence[Utterance]
    recipe: PretrainRecipe
    seed: int
    min_samples: int
    frame_samples: int
    equal_lengths: bool = False
    targets: Mapping[str, torch.Tensor] | None = None
    min_utterances: int = 1
    _epochs: dict[int, list[list[int]]] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of(
        cls,
        utterances: Sequence[Utterance],
        upstream: TrainableUpstream,
        recipe: PretrainRecipe,
        seed: int,
        targets: Mapping[str, torch.Tensor] | None = None,
    ) -> TrainingData:
        """The data as this upstream needs them."""
        return cls(
            utterances,
            recipe,
            seed,
            upstream.min_training_samples,
            upstream.downsample_rate,
            upstream.equal_lengths,
            targets,
            upstream.min_utterances,
        )

    @cached_property
    def _whole(self) -> list[int]:
        """Samples of every recording, as its header says."""
        return header_lengths(self.utterances)

    @cached_property
    def _lengths(self) -> list[int]:
        """Samples of every recording after cropping."""
        return [min(length, self._crop_samples) for length in self._whole]

    @property
    def _crop_samples(self) -> int:
        """So short that a micro-batch has room for as many utterances as it must hold."""
        return samples_of(min(self.recipe.crop_seconds, self.recipe.micro_batch_seconds / self.min_utterances))

    @cached_property
    def _usable(self) -> list[int]:
        return [place for place, length in enumerate(self._lengths) if length >= self.min_samples]

    def _epoch(self, epoch: int) -> list[list[int]]:
        """Micro-batches of an epoch, each a list of places of recordings."""
        if epoch not in self._epochs:
            for old in [number for number in self._epochs if number < epoch - 1]:
                del self._epochs[old]
            self._epochs[epoch] = self._planned(epoch)
        return self._epochs[epoch]

    def _planned(self, epoch: int) -> list[list[int]]:
        """Micro-batches of places: neighbours of about one length, in a new order every epoch."""
        generator = torch.Generator().manual_seed(seed_of(self.seed, epoch))
        budget = samples_of(self.recipe.micro_batch_seconds)
        # Lengths are blurred by up to a quarter, so that batches are even in length but not the same every epoch.
        blur = (1 + 0.25 * torch.rand(len(self._usable), generator=generator)).tolist()
        order = sorted(range(len(blur)), key=lambda number: self._lengths[self._usable[number]] * blur[number])
        batches = bounded_batches((self._usable[number] for number in order), self._lengths, budget)
        batches = _filled(batches, self.min_utterances)
        if not batches:
            crop, needed = self._crop_samples / SAMPLE_RATE, self.min_samples / SAMPLE_RATE
            raise TrainingError(
                f"crops of {crop:.2f} s are shorter than the {needed:.2f} s that the loss needs: set batch_seconds or "
                f"crop_seconds higher, or micro_batches lower"
            )
        return [batches[number] for number in torch.randperm(len(batches), generator=generator).tolist()]

    def _next(self, position: Position) -> tuple[list[list[int]], Position]:
        """The micro-batches of one update, and where the next begins."""
        taken: list[list[int]] = []
        epoch, place = position
        while len(taken) < self.recipe.micro_batches:
            batches = self._epoch(epoch)
            more = batches[place : place + self.recipe.micro_batches - len(taken)]
            taken += more
            place += len(more)
            if place == len(batches):
                epoch, place = epoch + 1, 0
        return taken, Position(epoch, place)

    def updates(self, first: int, position: Position, process: int = 0, processes: int = 1) -> Iterator[Update]:
        """What a process trains on, update by update without end, read one ahead.

        Args:
            first: number of the first update, from 1.
            position: where the data stands before it.
            process: number of this process; it gets every `processes`-th micro-batch.
            processes: how many share the work.
        """
        recordings = _Recordings()
        with ThreadPoolExecutor(1) as reader:
            step = first
            batches, after = self._next(position)
            ahead = reader.submit(self._read, recordings, step, batches, process, processes)
            while True:
                here, position = ahead, after
                batches, after = self._next(position)
                step += 1
                ahead = reader.submit(self._read, recordings, step, batches, process, processes)
                found = here.result()
                seconds = sum(int(batch.wav_lengths.sum()) for batch in found.values()) / SAMPLE_RATE
                yield Update(found, seconds, position)

    def _read(
        self, recordings: _Recordings, step: int, batches: Sequence[Sequence[int]], process: int, processes: int
    ) -> dict[int, TrainingBatch]:
        return {
            number: self._batch(recordings, step, number, batches[number])
            for number in range(process, len(batches), processes)
        }

    def _batch(self, recordings: _Recordings, step: int, number: int, places: Sequence[int]) -> TrainingBatch:
        generator = torch.Generator().manual_seed(seed_of(self.seed, step, number))
        pieces = [self._piece(recordings, place, generator) for place in places]
        if self.equal_lengths:
            shortest = min(len(wav) for wav, _ in pieces)
            most = max(self.min_samples, shortest - shortest % (STEP_FRAMES * self.frame_samples))
            starts = [self._start(len(wav), most, generator) for wav, _ in pieces]
            pieces = [
                (wav[start : start + most], first + start) for (wav, first), start in zip(pieces, starts, strict=True)
            ]
        padded, lengths = pad([wav for wav, _ in pieces])
        targets = None
        if self.targets is not None:
            targets = [
                _as_targets(self.targets[self.utterances[place].id][start // self.frame_samples :])
                for place, (_, start) in zip(places, pieces, strict=True)
            ]
        return TrainingBatch(padded, lengths, torch.tensor(places), targets, step)

    def _piece(self, recordings: _Recordings, place: int, generator: torch.Generator) -> tuple[torch.Tensor, int]:
        """A recording, or a random piece of a long one, and where it begins."""
        most = self._crop_samples
        if self._whole[place] <= most:
            return recordings.read(self.utterances[place], 0, None)[:most], 0
        # Headers may be a few samples off: the last frame is left out.
        start = self._start(self._whole[place] - self.frame_samples, most, generator)
        return recordings.read(self.utterances[place], start, start + most), start

    def _start(self, samples: int, most: int, generator: torch.Generator) -> int:
        choices = max(0, samples - most) // self.frame_samples + 1
        return int(torch.randint(choices, (1,), generator=generator)) * self.frame_samples


def _filled(batches: list[list[int]], least: int) -> list[list[int]]:
    """Micro-batches that hold too few joined with the one before, or the first with the one behind."""
    filled: list[list[int]] = []
    for batch in batches:
        if filled and (len(batch) < least or len(filled[-1]) < least):
            filled[-1] += batch
        else:
            filled.append(batch)
    return filled


def _as_targets(frames: torch.Tensor) -> torch.Tensor:
    return frames.float() if frames.is_floating_point() else frames.long()


class _Recordings:
    """Decoded recordings, up to a bound; of those beyond it no more is read than is wanted."""

    def __init__(self) -> None:
        self._wavs: dict[str, torch.Tensor] = {}
        self._room = KEPT_SAMPLES

    def read(self, utterance: Utterance, start: int, stop: int | None) -> torch.Tensor:
        """The samples of an utterance from `start` to `stop`, counted from its own beginning."""
        wav = self._wavs.get(utterance.id)
        if wav is None and self._room > 0:
            wav = read_audio(utterance.path, utterance.start, utterance.stop)
            if utterance.start or utterance.stop:
                wav = wav.clone()  # a piece would hold on to all of its file
            if len(wav) <= self._room:
                self._wavs[utterance.id] = wav
                self._room -= len(wav)
        if wav is not None:
            return wav[start:stop]
        end = utterance.stop if stop is None else utterance.start + stop
        return read_audio(utterance.path, utterance.start + start, end)


def header_lengths(utterances: Sequence[Utterance]) -> list[int]:
    """Samples of every recording at 16 kHz, as its header says."""

    def length(utterance: Utterance) -> int:
        return (utterance.stop or num_samples(utterance.path)) - utterance.start

    with ThreadPoolExecutor(HEADER_THREADS) as pool:
        return list(pool.map(length, utterances))
