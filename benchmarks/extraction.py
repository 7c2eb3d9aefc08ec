"""Extraction through a base-size HuBERT: Frostbench against a bare loop over the same model, and a naive one.

The bare loop is the best one can write in ten lines: decoded audio in memory, sorted by length, the batch size that
was fastest in a trial, the same precision and threads, hidden states thrown away. The naive loop goes in file order in
batches of 8. Frostbench decodes files, checks and pools every layer and writes the cache.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import count
from pathlib import Path

import torch

from benchmarks._material import clips, mixed_lengths, save_hubert, scratch, speech_corpus
from benchmarks._measure import Ratio, Report, by_turns, medians, parser
from core.audio import SAMPLE_RATE, read_audio
from core.feature_cache import Kind
from core.lengths import pad, padding_mask
from core.manifest import Manifest
from frostbench.jobs.base import set_up_worker
from upstreams._base import Precision, Upstream
from upstreams._extraction.fill import caches_of, extract, lay_out
from upstreams._resolve import build_upstream

BATCH_SIZES = {"cpu": (1, 2, 4, 8, 16), "cuda": (4, 8, 16, 32, 64)}
NAIVE_BATCH = 8


def main() -> None:
    """Measures and prints."""
    options = _options()
    set_up_worker(options.threads)  # both sides compute as Frostbench's workers do
    recordings = 8 if options.quick else options.recordings
    report = Report("extraction", options.quick)
    with scratch() as folder:
        manifest = speech_corpus(folder / "corpus", mixed_lengths(recordings))
        upstream = build_upstream(f"hf:{save_hubert(folder / 'hubert', options.size)}")
        wavs = [read_audio(row.path) for row in manifest.utterances]
        device = torch.device(options.device)
        bare = BareLoop(folder / "hubert", options.precision, device)
        batch_size = bare.best_batch_size(wavs[:: 2 if options.quick else 3])
        ordered = sorted(wavs, key=len)
        sides = {
            "frostbench": frostbench_side(
                upstream, manifest, options.kind, folder / "caches", device, options.precision
            ),
            "bare": lambda: bare.run(ordered, batch_size),
            "naive": lambda: bare.run([read_audio(row.path) for row in manifest.utterances], NAIVE_BATCH),
        }
        repeats = 1 if options.quick else options.repeats
        seconds = by_turns(sides, repeats, {"naive": max(1, repeats - 1)})
    audio = sum(map(len, wavs)) / SAMPLE_RATE
    best = medians(seconds)
    speed = {name: f"{name} {audio / value:.1f} audio-s/s" for name, value in best.items()}
    report.ratios = [
        Ratio("throughput against the best bare loop", best["bare"] / best["frostbench"], 0.95, "at least",
              f"{speed['frostbench']}, {speed['bare']} (batches of {batch_size})"),
        Ratio("throughput against the naive loop", best["naive"] / best["frostbench"], 1.5, "at least",
              f"{speed['frostbench']}, {speed['naive']} (file order, batches of {NAIVE_BATCH})"),
    ]  # fmt: skip
    report.facts = {**vars(options), "audio_seconds": audio, "batch_size": batch_size, "seconds": seconds}
    report.show()


def _options() -> argparse.Namespace:
    asked = parser(__doc__)
    asked.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help="of both sides")
    asked.add_argument("--threads", type=int, default=1, help="of torch, on both sides")
    asked.add_argument("--kind", choices=("pooled", "frames"), default="pooled", help="what Frostbench keeps")
    asked.add_argument("--size", choices=("768x12", "256x4"), default="768x12", help="of HuBERT")
    asked.add_argument("--device", choices=tuple(BATCH_SIZES), default="cpu", help="of both sides")
    asked.add_argument("--recordings", type=int, default=24, help="of 2 to 12 s each")
    return asked.parse_args()


class BareLoop:
    """transformers' own model and nothing around it.

    Args:
        folder: of `save_pretrained`.
        precision: float32, or bfloat16 by autocast.
        device: where it computes.
    """

    def __init__(self, folder: Path, precision: str, device: torch.device) -> None:
        import transformers

        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        self.model = transformers.HubertModel.from_pretrained(folder).eval().to(device)
        self.precision, self.device = precision, device

    @torch.no_grad()
    def run(self, wavs: Sequence[torch.Tensor], batch_size: int) -> None:
        """One pass in the order given."""
        for start in range(0, len(wavs), batch_size):
            padded, lengths = pad(wavs[start : start + batch_size])
            mask = (~padding_mask(lengths, padded.shape[1])).long().to(self.device)
            with self._casting():
                self.model(padded.to(self.device), attention_mask=mask, output_hidden_states=True)
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def best_batch_size(self, wavs: Sequence[torch.Tensor]) -> int:
        """The fastest of a few, tried on these recordings in order of length."""
        ordered = sorted(wavs, key=len)
        self.run(ordered[:1], 1)  # the first call is slower
        sizes = [size for size in BATCH_SIZES[self.device.type] if size <= len(ordered)]
        seconds = medians(by_turns({str(size): self._trial(ordered, size) for size in sizes}, 1))
        return min(sizes, key=lambda size: seconds[str(size)])

    def _trial(self, wavs: Sequence[torch.Tensor], batch_size: int) -> Callable[[], None]:
        return lambda: self.run(wavs, batch_size)

    def _casting(self) -> AbstractContextManager[object]:
        return torch.autocast(self.device.type, torch.bfloat16) if self.precision == "bfloat16" else nullcontext()


def frostbench_side(
    upstream: Upstream, manifest: Manifest, kind: Kind, folder: Path, device: torch.device, precision: Precision
) -> Callable[[], None]:
    """A pass of Frostbench over the whole corpus into a new cache each time."""
    asked = clips(manifest, kind)
    batches, source = lay_out(asked, upstream.window_samples), upstream.digest()
    numbers = count()

    def side() -> None:
        caches = caches_of(folder / str(next(numbers)), source, {kind})
        passed = extract(upstream, batches, caches, device, precision=precision)
        assert passed == len(asked), "a new cache lacks everything"

    return side


if __name__ == "__main__":
    main()
