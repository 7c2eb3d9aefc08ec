"""Trains an upstream from scratch: manifest + `pretrain_loss` -> checkpoint, over as many iterations as it takes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch

from core.audio import SAMPLE_RATE
from core.digest import digest_of
from core.errors import CheckpointError, ContractError, TrainingError
from core.manifest import Manifest, Utterance
from core.registry import unknown_name
from upstreams._base import UPSTREAMS
from upstreams._pretraining.clusters import Targets, load_targets, make_targets, save_targets
from upstreams._pretraining.contract import PretrainRecipe, TrainableUpstream, trainable
from upstreams._pretraining.data import TrainingData, header_lengths
from upstreams._pretraining.options import option_names, with_option
from upstreams._pretraining.processes import Mixed, first_process_first
from upstreams._pretraining.trainer import LOG_EVERY, Conduct, Course, Trainer, Watch, read_state

WORK = ".training"  # folder beside the checkpoints for what an interrupted training goes on from
LOGS = "logs"  # folder beside the checkpoints for TensorBoard
Advance = Callable[..., None]


@dataclass(frozen=True)
class Pretraining:
    """What to train and how.

    Attributes:
        upstream: name in the registry.
        size: what its configuration is called.
        config: sizes of the network, the upstream's own dataclass.
        recipes: a recipe an iteration.
        seed: of weights, order and masks.
        mixed_precision: in which forward and backward are computed.
    """

    upstream: str
    size: str
    config: Any
    recipes: tuple[PretrainRecipe, ...]
    seed: int = 0
    mixed_precision: Mixed = "no"

    @property
    def kind(self) -> type[TrainableUpstream]:
        """The class behind the name."""
        return _kind(self.upstream)

    def iteration(self, number: int) -> Pretraining:
        """The part up to an iteration, from 1."""
        return replace(self, recipes=self.recipes[:number])

    def digest(self, manifest: Manifest) -> str:
        """sha256 of everything that decides the checkpoint."""
        return digest_of({"pretraining": self, "version": self.kind.card.version, "corpus": manifest.digest})

    def checkpoint(self, folder: Path, number: int | None = None) -> Path:
        """Where the checkpoint of an iteration, the last if None, is written."""
        last = number is None or number == len(self.recipes)
        return folder / f"{self.upstream}-{self.size}{'' if last else f'-iteration{number}'}{self.kind.file_suffix}"


@dataclass(frozen=True)
class Circumstances:
    """What does not decide the checkpoint.

    Attributes:
        save_seconds: between two states from which an interrupted training goes on.
        looks: how often it is watched.
        watch: see Conduct.
    """

    save_seconds: float = 120.0
    looks: int = 4
    watch: Watch | None = None


def _kind(name: str) -> type[TrainableUpstream]:
    upstream = UPSTREAMS.get(name)
    if not trainable(upstream):
        names = [entry.card.name for entry in UPSTREAMS if trainable(entry)]
        raise ContractError(f"'{name}' can't be pretrained here; these can: {', '.join(names)}")
    return cast(type[TrainableUpstream], upstream)


def planned(
    name: str,
    size: str,
    seed: int = 0,
    steps: int | None = None,
    minutes: float | None = None,
    options: Mapping[str, str] | None = None,
    mixed_precision: Mixed = "no",
) -> Pretraining:
    """The pretraining of an upstream with the recipes of its size.

    Args:
        name: of the upstream.
        size: one of its sizes.
        seed: of weights, order and masks.
        steps: of every iteration, instead of the recipes'.
        minutes: of all iterations together, shared out as the recipes' audio is; instead of steps.
        options: fields of configuration and recipes with other values, as typed.
        mixed_precision: in which forward and backward are computed.

    Raises: ContractError: the upstream can't be trained here, or an option has an unfit value. UnknownNameError: no
        such upstream, size or option.
    """
    kind = _kind(name)
    if size not in kind.sizes:
        raise unknown_name(f"size of {name}", size, kind.sizes)
    config, recipes = kind.sizes[size], list(kind.recipes[size])
    for key, text in (options or {}).items():
        known = option_names(config) + [each for recipe in recipes for each in option_names(recipe)]
        if key not in known:
            raise unknown_name(f"option of {name}", key, known)
        config = with_option(config, key, text)
        recipes = [with_option(recipe, key, text) for recipe in recipes]
    if steps is not None:
        recipes = [replace(recipe, steps=steps) for recipe in recipes]
    if minutes is not None:
        audio = [recipe.steps * recipe.batch_seconds for recipe in recipes]
        recipes = [
            replace(recipe, minutes=minutes * part / sum(audio)) for recipe, part in zip(recipes, audio, strict=True)
        ]
    made = Pretraining(name, size, config, tuple(recipes), seed, mixed_precision)
    if options:
        _require_possible(made)
    return made


def _require_possible(pretraining: Pretraining) -> None:
    """Builds the networks without weights, and looks at the recipes: better now than after an iteration."""
    words = f"pretraining {pretraining.upstream} with these options"
    for recipe in pretraining.recipes:
        if (problem := recipe.problem()) is not None:
            raise ContractError(f"{words}: {problem}; correct --set")
        try:
            with torch.device("meta"):
                network = pretraining.kind.untrained(pretraining.config, recipe)
        except Exception as error:  # each network has its own way to say that sizes do not fit
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise ContractError(
                f"{words}: no such network can be built ({reason[-1].strip()}); correct --set"
            ) from error
        layer = recipe.clusters.layer if recipe.clusters is not None else None
        if layer is not None and not 0 <= layer < network.num_layers:
            raise ContractError(
                f"{words}: layer {layer} can't be clustered, 0 to {network.num_layers - 1} can: add --set layer=NUMBER"
            )


def summary(path: Path, notes: Mapping[str, Any]) -> list[str]:
    """What a person should know of a finished training: how loss and looks went, and what is wrong."""
    curve = notes["loss_curve"]
    heard = f"{notes['audio_seconds'] / 3600:.1f} h of audio in {notes['wall_seconds'] / 60:.1f} min"
    lines = [f"{path}: loss {curve[0]:.3f} -> {curve[-1]:.3f} in {notes['steps']} updates, {heard}"]
    for name in [name for name in (notes["looks"] or [{}])[-1] if name not in {"step", "variation"}]:
        lines.append(f"  {name} of mini: {' -> '.join(f'{look[name]:.1f}' for look in notes['looks'])} %")
    return lines + [f"  WARNING: {warning}" for warning in notes["warnings"]]


def is_done(path: Path, pretraining: Pretraining, manifest: Manifest) -> bool:
    """Whether a checkpoint holds the outcome of exactly this pretraining.

    Raises: CheckpointError: another one stands in its place, which is not overwritten.
    """
    if not path.exists():
        return False
    if pretraining.kind.read_notes(path).get("pretraining") == pretraining.digest(manifest):
        return True
    raise CheckpointError(f"{path}: holds a checkpoint of another training; name another --output or delete it")


def pretrain(
    pretraining: Pretraining,
    manifest: Manifest,
    folder: Path,
    circumstances: Circumstances = Circumstances(),
    *,
    device: str,
    advance: Advance = lambda amount, line="": None,
) -> Mapping[str, Any]:
    """Trains and writes the checkpoint of every iteration; what is there already is not done again.

    Args:
        pretraining: what and how.
        manifest: its train split is heard; labels are only looked at to tell what clusters are worth.
        folder: of the checkpoints.
        circumstances: precision, states, looks.
        device: where to train.
        advance: called with the audio-seconds, as the recipes count them, done since the last call, and a line on how
            it goes.

    Returns: the notes of the last checkpoint.
    Raises: TrainingError: the loss is no longer finite, or the recordings can't serve. CheckpointError: a checkpoint
        or state of another training stands in the way.
    """
    for number, recipe in enumerate(pretraining.recipes, start=1):
        path = pretraining.checkpoint(folder, number)
        if is_done(path, pretraining.iteration(number), manifest):
            advance(cost_of(recipe))
        else:
            _Iteration(pretraining, manifest, folder, circumstances, number, device).run(advance)
    return pretraining.kind.read_notes(pretraining.checkpoint(folder))


def cost_of(recipe: PretrainRecipe) -> float:
    """Audio-seconds of a recipe, padding included; of one that ends by the clock, seconds."""
    return 60 * recipe.minutes if recipe.minutes > 0 else recipe.steps * recipe.batch_seconds


@dataclass(frozen=True)
class _Iteration:
    pretraining: Pretraining
    manifest: Manifest
    folder: Path
    circumstances: Circumstances
    number: int
    device: str

    @property
    def _recipe(self) -> PretrainRecipe:
        return self.pretraining.recipes[self.number - 1]

    @property
    def _name(self) -> str:
        several = len(self.pretraining.recipes) > 1
        return f"{self.pretraining.upstream}{f' {self.number}/{len(self.pretraining.recipes)}' if several else ''}"

    def run(self, advance: Advance) -> None:
        recipe, seed = self._recipe, self.pretraining.seed
        path = self.pretraining.checkpoint(self.folder, self.number)
        work = self.folder / WORK / path.name
        digest = self.pretraining.iteration(self.number).digest(self.manifest)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            upstream = self.pretraining.kind.untrained(self.pretraining.config, recipe)
        read_state(work / "state.pt", digest)  # another training's is refused before anything is computed
        utterances = self._usable(upstream.min_training_samples)
        with first_process_first(self.device):
            targets = self._targets(work, digest, utterances, upstream, advance)
        conduct = Conduct(
            self._name,
            digest,
            work / "state.pt",
            self.folder / LOGS / path.stem,
            self.device,
            self.pretraining.mixed_precision,
            self.circumstances.save_seconds,
            self.circumstances.watch,
            self.circumstances.looks,
            lambda share, line: advance(share * cost_of(recipe), line),
        )
        data = TrainingData.of(utterances, upstream, recipe, seed, None if targets is None else targets.clusters)
        trainer = Trainer(upstream, recipe, data, conduct)
        course = trainer.train()
        if trainer.is_main:
            upstream.cpu().save(path, self._notes(digest, course, targets))
            shutil.rmtree(work, ignore_errors=True)
        trainer.wait()

    def _usable(self, samples: int) -> list[Utterance]:
        rows = self.manifest.split("train")
        usable = [row for row, length in zip(rows, header_lengths(rows), strict=True) if length >= samples]
        if not usable:
            raise TrainingError(
                f"{self.manifest.source}: every recording is shorter than {samples / SAMPLE_RATE:.2f} s, "
                f"what {self.pretraining.upstream} needs; there is nothing to train on"
            )
        return usable

    def _targets(
        self, work: Path, digest: str, utterances: Sequence[Utterance], upstream: TrainableUpstream, advance: Advance
    ) -> Targets | None:
        clusters = self._recipe.clusters
        if clusters is None:
            return None
        found = load_targets(work / "targets.safetensors", digest)
        if found is None:
            advance(0.0, f"{self._name}: finding {clusters.count} clusters")
            previous = None
            if clusters.layer is not None:
                before = self.pretraining.checkpoint(self.folder, self.number - 1)
                previous = self.pretraining.kind.from_checkpoint(str(before)).freeze().to(self.device)
            found = make_targets(
                utterances,
                clusters,
                upstream.downsample_rate,
                previous,
                self.pretraining.seed,
                torch.device(self.device),
            )
            save_targets(work / "targets.safetensors", found, digest)
        told = ", ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in found.quality.items())
        advance(0.0, f"{self._name}: {clusters.count} clusters, {told}")
        return found

    def _notes(self, digest: str, course: Course, targets: Targets | None) -> dict[str, Any]:
        notes = {
            "pretraining": digest,
            "size": self.pretraining.size,
            "iteration": self.number,
            "last": self.number == len(self.pretraining.recipes),
            "recipe": asdict(self._recipe),
            "seed": self.pretraining.seed,
            "mixed_precision": self.pretraining.mixed_precision,
            "corpus": {"name": self.manifest.name, "digest": self.manifest.digest},
            "steps": course.step,
            "audio_seconds": round(course.audio_seconds, 1),
            "wall_seconds": round(course.seconds, 1),
            "loss_curve": [round(entry["loss"], 5) for entry in course.curve],
            "figures": {name: float(f"{value:.5g}") for name, value in course.curve[-1].items()},
            "looks": course.looks,
            "warnings": course.warnings,
            "log_every": LOG_EVERY,
        }
        return notes if targets is None else {**notes, "clusters": dict(targets.quality)}
