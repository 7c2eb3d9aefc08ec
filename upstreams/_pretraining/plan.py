"""Trains an upstream from scratch: manifest + `pretrain_loss` -> checkpoint, over as many iterations as it takes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from core.audio import SAMPLE_RATE
from core.digest import digest_of
from core.errors import CheckpointError, ContractError, TrainingError
from core.manifest import Manifest, Utterance
from core.registry import unknown_name
from upstreams._base import UPSTREAMS
from upstreams._encoders.notes import KEY
from upstreams._pretraining.contract import PretrainRecipe, TrainableUpstream, trainable
from upstreams._pretraining.data import TrainingData, header_lengths
from upstreams._pretraining.options import option_names, with_option
from upstreams._pretraining.processes import Mixed, first_process_first
from upstreams._pretraining.state import Evaluate, TrainerSettings, TrainingState, read_state
from upstreams._pretraining.targets import Targets, TargetSource, load_targets, save_targets
from upstreams._pretraining.trainer import LOG_EVERY, Trainer

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
        """The class of the upstream."""
        return _kind(self.upstream)

    def iteration(self, number: int) -> Pretraining:
        """This pretraining as far as an iteration, from 1."""
        return replace(self, recipes=self.recipes[:number])

    def digest(self, manifest: Manifest) -> str:
        """sha256 of everything that decides the checkpoint."""
        targets = [type(recipe.targets).__name__ for recipe in self.recipes]
        decisive = {
            each.name: getattr(self.config, each.name)
            for each in fields(self.config)
            if not (each.metadata.get("later") and getattr(self.config, each.name) == each.default)
        }
        own = {each.name: getattr(self, each.name) for each in fields(self)} | {"config": decisive}
        content = {"pretraining": own, "targets": targets, "version": self.kind.card.version}
        return digest_of({**content, "corpus": manifest.heard_digest})

    def checkpoint(self, folder: Path, number: int | None = None) -> Path:
        """Where the checkpoint of an iteration, the last if None, is written."""
        last = number is None or number == len(self.recipes)
        return folder / f"{self.upstream}-{self.size}{'' if last else f'-iteration{number}'}{self.kind.file_suffix}"


@dataclass(frozen=True)
class PretrainingSettings:
    """What does not decide the checkpoint.

    Attributes:
        save_seconds: between two states from which an interrupted training goes on.
        evaluations: how often `evaluate` is called.
        evaluate: see TrainerSettings.
        recordings: what the checkpoint notes of the recordings, so that `run` can tell that it knows them.
    """

    save_seconds: float = 120.0
    evaluations: int = 4
    evaluate: Evaluate | None = None
    recordings: Mapping[str, Any] | None = None


def _kind(name: str) -> type[TrainableUpstream]:
    upstream = UPSTREAMS.get(name)
    if not trainable(upstream):
        names = [entry.card.name for entry in UPSTREAMS if trainable(entry)]
        raise ContractError(f"'{name}' can't be pretrained here; these can: {', '.join(names)}")
    if upstream.sample_rate != SAMPLE_RATE:
        raise ContractError(
            f"'{name}' wants {upstream.sample_rate} Hz, and upstreams are trained at {SAMPLE_RATE} Hz only"
        )
    return upstream


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
    _require_possible(made, built=bool(options))
    return made


def _require_possible(pretraining: Pretraining, built: bool) -> None:
    """Examines the recipes and, where `built`, the networks without weights: better now than after an iteration."""
    words = f"pretraining {pretraining.upstream} with these options"
    for recipe in pretraining.recipes:
        if (problem := recipe.problem()) is not None:
            raise ContractError(f"{words}: {problem}; correct --set")
        if not built:
            continue
        try:
            with torch.device("meta"):
                network = pretraining.kind.untrained(pretraining.config)
                network.prepare(recipe, recordings=1)
        except Exception as error:  # each network has its own way to say that sizes do not fit
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise ContractError(
                f"{words}: no such network can be built ({reason[-1].strip()}); correct --set"
            ) from error
        unfit = None if recipe.targets is None else recipe.targets.problem(network.num_layers)
        if unfit is not None:
            raise ContractError(f"{words}: {unfit}; correct --set")


def summary(path: Path, notes: Mapping[str, Any]) -> list[str]:
    """What a person should know of a finished training: loss, evaluations, and what is wrong."""
    curve = notes["loss_curve"]
    audio = f"{notes['audio_seconds'] / 3600:.1f} h of audio in {notes['wall_seconds'] / 60:.1f} min"
    lines = [f"{path}: loss {curve[0]:.3f} -> {curve[-1]:.3f} in {notes['steps']} updates, {audio}"]
    for name in [name for name in (notes["evaluations"] or [{}])[-1] if name not in {"step", "variation"}]:
        lines.append(f"  {name} of mini: {' -> '.join(f'{each[name]:.1f}' for each in notes['evaluations'])} %")
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
    settings: PretrainingSettings = PretrainingSettings(),
    *,
    device: str,
    advance: Advance = lambda amount, line="": None,
) -> Mapping[str, Any]:
    """Trains and writes the checkpoint of every iteration; what is there already is not done again.

    Args:
        pretraining: what and how.
        manifest: its train split is trained on; labels only serve to say what targets are worth.
        folder: of the checkpoints.
        settings: states and evaluations.
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
            _Iteration(pretraining, manifest, folder, settings, number, device).run(advance)
    return pretraining.kind.read_notes(pretraining.checkpoint(folder))


def cost_of(recipe: PretrainRecipe) -> float:
    """Audio-seconds of a recipe, padding included; of one that ends by the clock, seconds."""
    return 60 * recipe.minutes if recipe.minutes > 0 else recipe.steps * recipe.batch_seconds


@dataclass(frozen=True)
class _Iteration:
    pretraining: Pretraining
    manifest: Manifest
    folder: Path
    settings: PretrainingSettings
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
        recipe = self._recipe
        path = self.pretraining.checkpoint(self.folder, self.number)
        work = self.folder / WORK / path.name
        digest = self.pretraining.iteration(self.number).digest(self.manifest)
        read_state(work / "state.pt", digest)  # another training's is refused before anything is computed
        upstream, utterances = self._fresh()
        with first_process_first(self.device):
            targets = self._targets(work, digest, utterances, upstream, advance)
        settings = TrainerSettings(
            self._name,
            digest,
            work / "state.pt",
            self.folder / LOGS / path.stem,
            self.device,
            self.pretraining.mixed_precision,
            self.settings.save_seconds,
            self.settings.evaluate,
            self.settings.evaluations,
            lambda share, line: advance(share * cost_of(recipe), line),
        )
        frames = None if targets is None else targets.frames
        data = TrainingData.of(utterances, upstream, recipe, self.pretraining.seed, frames)
        trainer = Trainer(upstream, recipe, data, settings)
        state = trainer.train()
        if trainer.is_main:
            upstream.cpu().save(path, self._notes(digest, state, targets))
            shutil.rmtree(work, ignore_errors=True)
        trainer.wait()

    def _fresh(self) -> tuple[TrainableUpstream, list[Utterance]]:
        """The upstream as training begins, and what it is trained on."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.pretraining.seed)
            upstream = self.pretraining.kind.untrained(self.pretraining.config)
            utterances = self._usable(upstream)
            upstream.prepare(self._recipe, len(utterances))
        return upstream, utterances

    def _usable(self, upstream: TrainableUpstream) -> list[Utterance]:
        samples, least = upstream.min_training_samples, upstream.min_utterances
        rows = self.manifest.recordings("train")
        usable = [row for row, length in zip(rows, header_lengths(rows), strict=True) if length >= samples]
        if not usable:
            raise TrainingError(
                f"{self.manifest.source}: every recording is shorter than {samples / SAMPLE_RATE:.2f} s, "
                f"what {self.pretraining.upstream} needs; there is nothing to train on"
            )
        if len(usable) < least:
            raise TrainingError(
                f"{self.manifest.source}: {len(usable)} recordings are long enough, but {self.pretraining.upstream} "
                f"compares at least {least} with each other; add recordings"
            )
        return usable

    def _targets(
        self, work: Path, digest: str, utterances: Sequence[Utterance], upstream: TrainableUpstream, advance: Advance
    ) -> Targets | None:
        wanted = self._recipe.targets
        if wanted is None:
            return None
        found = load_targets(work / "targets.safetensors", digest)
        if found is None:
            advance(0.0, f"{self._name}: computing {wanted.title}")
            previous = None
            if wanted.needs_previous:
                before = self.pretraining.checkpoint(self.folder, self.number - 1)
                previous = self.pretraining.kind.from_checkpoint(str(before)).freeze().to(self.device)
            source = TargetSource(
                utterances, upstream.downsample_rate, previous, self.pretraining.seed, torch.device(self.device)
            )
            found = wanted.make(source)
            save_targets(work / "targets.safetensors", found, digest)
        quality = ", ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in found.quality.items())
        advance(0.0, f"{self._name}: {wanted.title}, {quality}")
        return found

    def _notes(self, digest: str, state: TrainingState, targets: Targets | None) -> dict[str, Any]:
        notes = {
            "pretraining": digest,
            "size": self.pretraining.size,
            "iteration": self.number,
            "last": self.number == len(self.pretraining.recipes),
            "recipe": asdict(self._recipe),
            "seed": self.pretraining.seed,
            "mixed_precision": self.pretraining.mixed_precision,
            "corpus": {"name": self.manifest.name, "digest": self.manifest.digest},
            "steps": state.step,
            "audio_seconds": round(state.audio_seconds, 1),
            "wall_seconds": round(state.seconds, 1),
            "loss_curve": [round(entry["loss"], 5) for entry in state.curve],
            "figures": {name: float(f"{value:.5g}") for name, value in state.curve[-1].items()},
            "evaluations": state.evaluations,
            "warnings": state.warnings,
            "log_every": LOG_EVERY,
        }
        if self.settings.recordings is not None:
            notes[KEY] = self.settings.recordings
        return notes if targets is None else {**notes, "targets": dict(targets.quality)}
