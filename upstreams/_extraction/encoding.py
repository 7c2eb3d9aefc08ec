"""Waveforms -> what is kept of their hidden states: frames, or means over time. Long clips pass in pieces."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from core.audio import SAMPLE_RATE
from core.errors import ContractError
from core.feature_cache import Kind
from core.hidden_states import HiddenStates
from core.lengths import pad
from upstreams._base import Precision, Upstream
from upstreams._extraction.clips import GPU_BATCHES, LONGEST_SECONDS, Clip, is_long, lay_out, pieces
from upstreams._extraction.reading import Read, read_ahead

CPU = torch.device("cpu")


@dataclass(frozen=True)
class FrozenUpstream:
    """A frozen upstream, where it computes, and how.

    Attributes:
        upstream: on the device.
        device: of the waveforms it is given.
        precision: see Upstream.extract.
    """

    upstream: Upstream
    device: torch.device
    precision: Precision = "float32"

    @property
    def sample_rate(self) -> int:
        """Sample rate of the waveforms that `rows` is given, in hertz."""
        return self.upstream.sample_rate

    def batches(self, clips: Sequence[Clip]) -> list[list[Clip]]:
        """Clips laid out as this upstream takes them on this device."""
        window = max(1, self.upstream.window_samples * SAMPLE_RATE // self.sample_rate)
        together = 1 if self.device.type == "cpu" else GPU_BATCHES
        return lay_out(clips, window, self.upstream.batch_seconds * together)

    def stream(
        self, batches: Sequence[list[Clip]], kinds: Collection[Kind] | None = None, read: Read = Clip.read
    ) -> Iterator[tuple[list[Clip], dict[Kind, list[torch.Tensor]]]]:
        """Each batch with its rows; see `rows`. The next batches are read meanwhile.

        Args:
            batches: as `lay_out` made them.
            kinds: what is wanted of all clips; None is what any clip of the batch asks for.
            read: gives the waveform of a clip at a sample rate.

        Raises: ContractError: see `rows`. AudioError: a recording can't be read.
        """
        for batch, wavs in read_ahead(batches, self.sample_rate, read):
            wanted = {kind for clip in batch for kind in clip.kinds} if kinds is None else kinds
            yield batch, self.rows(batch, wavs, wanted)

    def rows(
        self, clips: Sequence[Clip], wavs: Sequence[torch.Tensor], kinds: Collection[Kind]
    ) -> dict[Kind, list[torch.Tensor]]:
        """For each kind the rows of each clip, float32 (rows, num_layers, hidden_size), on the CPU.

        Args:
            clips: a batch.
            wavs: as they were read, at `sample_rate`.
            kinds: what is wanted of all of them.

        Raises: ContractError: a clip is shorter than the upstream's shortest input, or its hidden states are not
            finite.
        """
        for clip, wav in zip(clips, wavs, strict=True):
            if len(wav) < self.upstream.min_samples:
                raise ContractError(
                    f"{clip.path}: has {len(wav)} samples at {self.sample_rate / 1000:g} kHz, the shortest legal input "
                    f"of {self.upstream.display_name} is {self.upstream.min_samples}; "
                    f"take the recording out of the manifest"
                )
        rows = self.computed(wavs, kinds)
        for index, clip in enumerate(clips):
            # A sum is finite if, and hardly ever unless, all it is made of is; and it needs no memory.
            if not all(torch.isfinite(rows[kind][index].sum()) for kind in rows):
                raise ContractError(
                    f"{clip.path}: {self.upstream.display_name} gives hidden states that are NaN or infinite; "
                    f"run: frostbench check, and look at the recording"
                )
        return rows

    def computed(self, wavs: Sequence[torch.Tensor], kinds: Collection[Kind]) -> dict[Kind, list[torch.Tensor]]:
        """See `rows`; whatever comes out."""
        if len(wavs) == 1 and is_long(len(wavs[0]), self.sample_rate):
            return self._rows_in_pieces(wavs[0], kinds)
        return self._rows_of(self._states(wavs), kinds)

    def _rows_of(self, states: HiddenStates, kinds: Collection[Kind]) -> dict[Kind, list[torch.Tensor]]:
        return rows_of(states, kinds)

    def _states(self, wavs: Sequence[torch.Tensor]) -> HiddenStates:
        padded, lengths = pad(wavs)
        return self.upstream.extract(padded.to(self.device), lengths.to(self.device), self.precision)

    def _rows_in_pieces(self, wav: torch.Tensor, kinds: Collection[Kind]) -> dict[Kind, list[torch.Tensor]]:
        """Frames are those of the whole recording, one behind the other; means are weighted by frames."""
        if self.upstream.utterance_level:
            return self._vector_in_pieces(wav, kinds)
        rate = self.upstream.downsample_rate
        unit = max(rate, self.upstream.window_samples)  # windows that an upstream cuts itself stay as they are
        cuts = pieces(len(wav), unit, max(0, self.upstream.min_samples - rate), self.sample_rate)
        parts: dict[Kind, list[torch.Tensor]] = {kind: [] for kind in kinds}
        weights = []
        for number, cut in enumerate(cuts):
            states = self._states([wav[cut]])
            given = int(states.lengths)
            weights.append(given if cut is cuts[-1] else (cuts[number + 1].start - cut.start) // rate)
            if given < weights[-1]:
                raise ContractError(
                    f"{self.upstream.display_name}: gives {given} frames for {len(wav[cut])} samples, must be "
                    f"{weights[-1]} or more, or a recording above {LONGEST_SECONDS:g} s has gaps; correct its "
                    f"min_samples or frame_lengths"
                )
            layers = tuple(layer[:, : weights[-1]] for layer in states.layers)
            part = self._rows_of(HiddenStates(layers, torch.tensor(weights[-1:], device=self.device)), kinds)
            for kind in kinds:
                parts[kind] += part[kind]
        return {kind: [_joined(kind, parts[kind], weights)] for kind in kinds}

    def _vector_in_pieces(self, wav: torch.Tensor, kinds: Collection[Kind]) -> dict[Kind, list[torch.Tensor]]:
        """The mean of the pieces' vectors, weighted by their lengths."""
        cuts = pieces(len(wav), max(1, self.upstream.window_samples), 0, self.sample_rate)
        parts = [self._rows_of(self._states([wav[cut]]), kinds) for cut in cuts]
        weights = [cut.stop - cut.start for cut in cuts]
        return {kind: [_joined("pooled", [part[kind][0] for part in parts], weights)] for kind in kinds}


def _joined(kind: Kind, parts: Sequence[torch.Tensor], weights: Sequence[int]) -> torch.Tensor:
    if kind == "frames":
        return torch.cat(list(parts))
    shares = torch.tensor(weights, dtype=torch.float32) / sum(weights)
    return torch.stack([part * share for part, share in zip(parts, shares, strict=True)]).sum(dim=0)


class TrainedUpstream(FrozenUpstream):
    """An upstream that is being fine-tuned: gradients reach it, and rows stay on its device."""

    def _rows_of(self, states: HiddenStates, kinds: Collection[Kind]) -> dict[Kind, list[torch.Tensor]]:
        return rows_of(states, kinds, self.device)

    def _states(self, wavs: Sequence[torch.Tensor]) -> HiddenStates:
        padded, lengths = pad(wavs)
        return self.upstream.extract_with_gradients(padded.to(self.device), lengths.to(self.device))


def rows_of(states: HiddenStates, kinds: Collection[Kind], place: torch.device = CPU) -> dict[Kind, list[torch.Tensor]]:
    """What each kind keeps of each row of a batch (rows, num_layers, hidden_size).

    Args:
        states: of the batch.
        kinds: what is wanted.
        place: where the rows go.
    """
    kept: dict[Kind, list[torch.Tensor]] = {}
    if "frames" in kinds:
        together = torch.stack(states.layers, dim=2).to(place)  # where they are: one copy from a GPU, not one a layer
        kept["frames"] = [together[row, :frames] for row, frames in enumerate(states.lengths.tolist())]
    if "pooled" in kinds:
        kept["pooled"] = _means(states.layers, states.lengths, place)
    if "pooled_normalised" in kinds:
        normalised = [functional.layer_norm(layer, layer.shape[-1:]) for layer in states.layers]
        kept["pooled_normalised"] = _means(normalised, states.lengths, place)
    return kept


def _means(layers: Sequence[torch.Tensor], lengths: torch.Tensor, place: torch.device) -> list[torch.Tensor]:
    """Over each row's own frames: a sum over padding as well would be rounded as the longest row of the batch is."""
    means = [
        torch.stack([layer[row, :frames].mean(dim=0) for layer in layers])
        for row, frames in enumerate(lengths.tolist())
    ]
    return list(torch.stack(means)[:, None].to(place))
