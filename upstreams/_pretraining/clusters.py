"""Clusters as targets: k-means over frames, by MFCC or by a layer of an earlier upstream (HuBERT's)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from core.audio import SAMPLE_RATE, read_audio
from core.errors import TrainingError
from core.feature_cache import Kind
from core.manifest import Utterance, slots_of
from upstreams._base import Upstream
from upstreams._encoders import kaldi
from upstreams._extraction.clips import Clip, is_long
from upstreams._extraction.encoding import FrozenUpstream
from upstreams._pretraining.targets import TargetRecipe, Targets, TargetSource

KMEANS = {  # those of HuBERT's authors, but 3 starts instead of 20
    "init": "k-means++",
    "batch_size": 10_000,
    "max_iter": 100,
    "max_no_improvement": 100,
    "n_init": 3,
    "reassignment_ratio": 0.0,
    "tol": 0.0,
}
BATCH_SECONDS = 16.0  # of audio that passes an upstream at a time
WORD_LABELS = ("keyword",)  # labels that a whole recording has, and that follow from its sound alone
FRAMES: Kind = "frames"
Recording = tuple[Utterance, torch.Tensor]  # with its waveform
FrameMaker = Callable[[Sequence[Recording]], list[torch.Tensor]]


@dataclass(frozen=True)
class Clusters(TargetRecipe):
    """A cluster for every frame: k-means over frames of the training recordings.

    Attributes:
        count: of the clusters.
        layer: of the upstream that the iteration before gave, 0 is the input of the first block; None takes MFCC.
        fit_frames: k-means is fitted on about so many frames, those of randomly drawn recordings.
        centred: MFCC have their mean over each recording taken out first, and with it rooms and channels.
    """

    count: int
    layer: int | None = None
    fit_frames: int = 1_000_000
    centred: bool = False

    option_names: ClassVar[Mapping[str, str]] = {"count": "clusters"}

    @property
    def title(self) -> str:
        """See TargetRecipe.title."""
        return f"{self.count} clusters"

    @property
    def needs_previous(self) -> bool:
        """See TargetRecipe.needs_previous."""
        return self.layer is not None

    def problem(self, num_layers: int | None = None) -> str | None:
        """See TargetRecipe.problem."""
        if self.count < 2:
            return "clusters must be at least 2"
        if self.layer is not None and num_layers is not None and not 0 <= self.layer < num_layers:
            return f"layer {self.layer} can't be clustered, 0 to {num_layers - 1} can: add --set layer=NUMBER"
        return None

    def make(self, source: TargetSource) -> Targets:
        """Fits k-means on a sample of the recordings and gives every frame of all of them its cluster, int32.

        Raises: TrainingError: there are fewer frames than clusters, or frames do not fit those of the upstream.
        """
        frames_of = self._frame_maker(source)
        order = torch.randperm(len(source.utterances), generator=torch.Generator().manual_seed(source.seed)).tolist()
        sample: dict[str, torch.Tensor] = {}
        held = 0
        for utterance, frames in _all_frames([source.utterances[place] for place in order], frames_of):
            sample[utterance.id] = frames
            held += len(frames)
            if held >= self.fit_frames:
                break
        model = _fitted(torch.cat(list(sample.values())).numpy(), self.count, source.seed)
        others = [utterance for utterance in source.utterances if utterance.id not in sample]
        found = {name: _assigned(model, frames) for name, frames in sample.items()}
        found |= {utterance.id: _assigned(model, frames) for utterance, frames in _all_frames(others, frames_of)}
        return Targets(found, quality(found, source.utterances, self.count))

    def example(self, frames: int) -> torch.Tensor:
        """See TargetRecipe.example."""
        return torch.arange(frames) % self.count

    def _frame_maker(self, source: TargetSource) -> FrameMaker:
        if self.layer is None:
            return _mfcc_frames(source.frame_samples, self.centred)
        assert source.previous is not None, "the training loads it where needs_previous says so"
        return _layer_frames(source.previous, self.layer, source.frame_samples, source.device)


def _fitted(frames: np.ndarray, count: int, seed: int) -> Any:
    # Imported here: scikit-learn takes a second, and most commands never cluster anything.
    from sklearn.cluster import MiniBatchKMeans
    from threadpoolctl import threadpool_limits

    if len(frames) < count:
        raise TrainingError(f"{len(frames)} frames can't make {count} clusters: set clusters lower, or add recordings")
    with threadpool_limits(1):  # sums of several threads would depend on their number
        return MiniBatchKMeans(count, random_state=seed, **KMEANS).fit(frames)


def _assigned(model: Any, frames: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(model.predict(frames.numpy()).astype(np.int32))


def _all_frames(utterances: Sequence[Utterance], frames_of: FrameMaker) -> Iterator[tuple[Utterance, torch.Tensor]]:
    """Utterances with their frames, in the order given; short ones pass together."""
    batch: list[Recording] = []
    for utterance in utterances:
        wav = read_audio(utterance.path, utterance.start, utterance.stop)
        if is_long(len(wav)):  # passes alone, in pieces
            yield from _framed([(utterance, wav)], frames_of)
            continue
        batch.append((utterance, wav))
        if max(len(wav) for _, wav in batch) * len(batch) >= BATCH_SECONDS * SAMPLE_RATE:
            yield from _framed(batch, frames_of)
            batch = []
    yield from _framed(batch, frames_of)


def _framed(batch: Sequence[Recording], frames_of: FrameMaker) -> Iterable[tuple[Utterance, torch.Tensor]]:
    return zip((utterance for utterance, _ in batch), frames_of(batch) if batch else [], strict=True)


def _mfcc_frames(frame_samples: int, centred: bool) -> FrameMaker:
    """13 cepstra with two derivatives every 10 ms, as many of them left out as the upstream's frames are wider."""
    step, rest = divmod(frame_samples, kaldi.HOP_LENGTH)
    if rest or not step:
        raise TrainingError(
            f"frames of {frame_samples} samples can't take MFCC as targets: 160 or a multiple is needed"
        )

    def frames_of(batch: Sequence[Recording]) -> list[torch.Tensor]:
        cepstra = [kaldi.mfcc(wav) for _, wav in batch]
        if centred:
            cepstra = [each - each.mean(dim=0) for each in cepstra]
        return [kaldi.with_deltas(each)[::step] for each in cepstra]

    return frames_of


def _layer_frames(upstream: Upstream, layer: int, frame_samples: int, device: torch.device) -> FrameMaker:
    if not 0 <= layer < upstream.num_layers:
        raise TrainingError(
            f"layer {layer} can't be clustered: the upstream before has layers 0 to {upstream.num_layers - 1}"
        )
    if upstream.downsample_rate != frame_samples:
        raise TrainingError(
            f"frames of {upstream.downsample_rate} samples can't be targets of frames of {frame_samples}"
        )

    frozen, kinds = FrozenUpstream(upstream, device), frozenset({FRAMES})

    def frames_of(batch: Sequence[Recording]) -> list[torch.Tensor]:
        clips = [Clip(row.id, row.path, len(wav), kinds, row.start, row.stop) for row, wav in batch]
        rows = frozen.rows(clips, [wav for _, wav in batch], kinds)[FRAMES]
        return [row[:, layer].contiguous() for row in rows]

    return frames_of


def quality(clusters: Mapping[str, torch.Tensor], utterances: Sequence[Utterance], count: int) -> dict[str, float]:
    """How well clusters are used, and how well they fit the words of recordings.

    Args:
        clusters: utterance id -> cluster of every frame.
        utterances: with their labels.
        count: of the clusters.

    Returns: "perplexity", the number of clusters in even use; "used", how many occur; and where recordings have a word
        for a label, "word_purity": the proportion of their frames that lie in a cluster most of whose frames are of the
        same word, and "word_chance", that proportion if all frames lay in one cluster.
    """
    counts = torch.zeros(count, dtype=torch.int64)
    for frames in clusters.values():
        counts += torch.bincount(frames.long(), minlength=count)
    shares = counts[counts > 0] / counts.sum()
    found = {"perplexity": float((-(shares * shares.log()).sum()).exp()), "used": float((counts > 0).sum())}
    for label in WORD_LABELS:
        pairs: Counter[tuple[int, str]] = Counter()
        for utterance in utterances:
            if utterance.labels.get(label) is not None and utterance.id in clusters:
                word = str(slots_of(utterance.labels[label], label))
                pairs.update((cluster, word) for cluster in clusters[utterance.id].tolist())
        if pairs:
            found["word_purity"] = _purity(pairs)
            found["word_chance"] = _purity(Counter((0, word) for _, word in pairs.elements()))
    return found


def _purity(pairs: Counter[tuple[int, str]]) -> float:
    largest: dict[int, int] = {}
    for (cluster, _), number in pairs.items():
        largest[cluster] = max(largest.get(cluster, 0), number)
    return sum(largest.values()) / pairs.total()
