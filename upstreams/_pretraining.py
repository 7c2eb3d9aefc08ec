"""Trains an upstream from scratch: manifest + `pretrain_loss` -> checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from core.audio import SAMPLE_RATE, read_audio
from core.digest import digest_of
from core.errors import BenchmarkError, CheckpointError, ContractError, TrainingError
from core.lengths import pad
from core.manifest import Manifest, Utterance
from core.registry import unknown_name
from upstreams import _checkpoint
from upstreams._base import UPSTREAMS, PretrainRecipe, Upstream

MEMORY_SAMPLES = 1 << 28  # 4.6 hours of decoded audio are kept, a gigabyte; the rest is decoded again each epoch
LOG_EVERY = 20


@dataclass(frozen=True)
class Pretraining:
    """What to train and how.

    Attributes:
        upstream: name in the registry.
        size: one of its sizes.
        recipe: the training's settings.
        seed: of weights, order and masks.
    """

    upstream: str
    size: str
    recipe: PretrainRecipe
    seed: int = 0

    def digest(self, manifest: Manifest) -> str:
        """sha256 of everything that decides the checkpoint."""
        upstream = UPSTREAMS.get(self.upstream)
        settings = {"config": upstream.sizes[self.size], "version": upstream.card.version}
        return digest_of({"pretraining": self, "settings": settings, "corpus": manifest.digest})


def planned(name: str, size: str, seed: int = 0, steps: int | None = None) -> Pretraining:
    """The pretraining of an upstream with the recipe of its size.

    Raises: ContractError: the upstream can't be trained here. UnknownNameError: no such upstream or size.
    """
    upstream = UPSTREAMS.get(name)
    if not upstream.sizes:
        trainable = [entry.card.name for entry in UPSTREAMS if entry.sizes]
        raise ContractError(f"'{name}' can't be pretrained here; these can: {', '.join(trainable)}")
    if size not in upstream.sizes:
        raise unknown_name(f"size of {name}", size, upstream.sizes)
    recipe = upstream.recipes[size]
    if steps is not None:
        recipe = PretrainRecipe(**{**asdict(recipe), "steps": steps})
    return Pretraining(name, size, recipe, seed)


def is_done(path: Path, pretraining: Pretraining, manifest: Manifest) -> bool:
    """Whether a checkpoint holds the outcome of exactly this pretraining.

    Raises: CheckpointError: another one stands in its place, which is not overwritten.
    """
    if not path.exists():
        return False
    if _checkpoint.read_metadata(path)["notes"].get("pretraining") == pretraining.digest(manifest):
        return True
    raise CheckpointError(f"{path}: holds a checkpoint of another training; name another --output or delete it")


def pretrain(
    pretraining: Pretraining,
    manifest: Manifest,
    path: Path,
    device: str,
    *,
    advance: Callable[[float], None] = lambda updates: None,
) -> float:
    """Trains and writes the checkpoint.

    Args:
        pretraining: what and how.
        manifest: its train split is heard; labels are not looked at.
        path: of the checkpoint to write.
        device: where to train.
        advance: called with the updates done since the last call.

    Returns: the mean loss of the last updates.
    Raises: TrainingError: the loss is no longer finite.
    """
    recipe = pretraining.recipe
    started = time.monotonic()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(pretraining.seed)
        upstream = _untrained(pretraining).to(device).train()
        generator = torch.Generator().manual_seed(pretraining.seed)
        optimizer = torch.optim.AdamW(
            upstream.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, recipe))
        losses: list[float] = []
        curve: list[float] = []
        heard = 0.0
        batches = _batches(manifest.split("train"), recipe.batch_seconds, pretraining.seed, upstream.min_samples)
        for step, wavs in zip(range(1, recipe.steps + 1), batches, strict=False):
            padded, lengths = pad(wavs)
            loss = upstream.pretrain_loss(padded.to(device), lengths.to(device), generator)
            if not torch.isfinite(loss):
                raise TrainingError(
                    f"pretraining {pretraining.upstream}: the loss is {loss.item()} at step {step}; "
                    f"lower the learning rate ({recipe.learning_rate:g}) or look for damaged recordings"
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(upstream.parameters(), recipe.clip)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            heard += sum(len(wav) for wav in wavs) / SAMPLE_RATE
            if step % LOG_EVERY == 0 or step == recipe.steps:
                curve.append(sum(losses) / len(losses))
                advance(len(losses))
                losses.clear()
    notes = {
        "pretraining": pretraining.digest(manifest),
        "size": pretraining.size,
        "recipe": asdict(recipe),
        "seed": pretraining.seed,
        "corpus": {"name": manifest.name, "digest": manifest.digest},
        "audio_seconds": round(heard, 1),
        "wall_seconds": round(time.monotonic() - started, 1),
        "loss_curve": [round(loss, 5) for loss in curve],
        "log_every": LOG_EVERY,
    }
    _checkpoint.save(path, pretraining.upstream, upstream.configuration(), upstream, notes)
    return curve[-1]


def _untrained(pretraining: Pretraining) -> Upstream:
    upstream = UPSTREAMS.get(pretraining.upstream)
    return upstream(upstream.sizes[pretraining.size])  # type: ignore[call-arg]  # trainable ones take their config


def _rate(step: int, recipe: PretrainRecipe) -> float:
    """Linear warm-up, then linear decay to zero, as a factor of the peak."""
    warm = max(1, round(recipe.steps * recipe.warmup))
    return min((step + 1) / warm, max(0.0, (recipe.steps - step) / max(1, recipe.steps - warm)))


def _batches(
    utterances: Sequence[Utterance], batch_seconds: float, seed: int, min_samples: int
) -> Iterator[list[torch.Tensor]]:
    """Batches without end: a new order every epoch, neighbours of about one length, read one batch ahead."""
    memory: dict[str, torch.Tensor] = {}
    room = MEMORY_SAMPLES

    def read(utterance: Utterance) -> torch.Tensor:
        nonlocal room
        if utterance.id in memory:
            return memory[utterance.id]
        wav = read_audio(utterance.path)
        if len(wav) <= room:
            memory[utterance.id] = wav
            room -= len(wav)
        return wav

    with ThreadPoolExecutor(1) as reader:
        lengths = list(reader.map(lambda utterance: len(read(utterance)), utterances))
        usable = [index for index, length in enumerate(lengths) if length >= min_samples]
        if not usable:
            raise BenchmarkError(f"every recording is shorter than {min_samples} samples: nothing to train on")
        generator = torch.Generator().manual_seed(seed)
        plan = _endless(usable, lengths, batch_seconds, generator)
        ahead = reader.submit(lambda batch: [read(utterances[index]) for index in batch], next(plan))
        for batch in plan:
            wavs = ahead.result()
            ahead = reader.submit(lambda batch: [read(utterances[index]) for index in batch], batch)
            yield wavs


def _endless(
    usable: Sequence[int], lengths: Sequence[int], batch_seconds: float, generator: torch.Generator
) -> Iterator[list[int]]:
    budget = int(batch_seconds * SAMPLE_RATE)
    while True:
        # Lengths are blurred by up to a quarter, so that batches are even in length but not the same every epoch.
        blur = (1 + 0.25 * torch.rand(len(usable), generator=generator)).tolist()
        order = sorted(range(len(usable)), key=lambda place: lengths[usable[place]] * blur[place])
        epoch: list[list[int]] = [[]]
        longest = 0
        for place in order:
            longest = max(longest, lengths[usable[place]])
            if epoch[-1] and longest * (len(epoch[-1]) + 1) > budget:
                epoch.append([])
                longest = lengths[usable[place]]
            epoch[-1].append(usable[place])
        for number in torch.randperm(len(epoch), generator=generator).tolist():
            yield epoch[number]
