"""The training loop, on accelerate: one process or several, taken up again where it was, bit for bit on a CPU."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from core.digest import written_then_renamed
from core.errors import CheckpointError, TrainingError
from core.lengths import unpad
from upstreams._memory import release_memory
from upstreams._pretraining.contract import PretrainRecipe, TrainableUpstream, TrainingBatch
from upstreams._pretraining.data import Position, TrainingData, seed_of
from upstreams._pretraining.processes import Mixed, open_accelerator

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch.utils.tensorboard import SummaryWriter

LOG_EVERY = 20  # updates
LINE_SECONDS = 15.0  # between two lines for people
CONSTANT = 0.01  # of the frames' energy: below it, what differs between frames is next to nothing
Watch = Callable[[TrainableUpstream], Mapping[str, float]]
Tell = Callable[[float, str], None]
START = Position()


@dataclass(frozen=True)
class Conduct:
    """How a training is run, as opposed to what it computes.

    Attributes:
        name: for messages.
        digest: of all that decides the outcome; a state of another one is not taken up.
        state: file to go on from after an interruption.
        logs: folder for TensorBoard.
        device: where to train; of several processes each takes its own.
        mixed_precision: of forward and backward; weights and optimiser stay float32.
        save_seconds: between two states.
        watch: looks at the upstream while it learns, such as by a downstream task.
        looks: how often it does, the last time at the end.
        tell: called with the proportion done since the last call, and a line on how it goes.
    """

    name: str
    digest: str
    state: Path
    logs: Path
    device: str = "cpu"
    mixed_precision: Mixed = "no"
    save_seconds: float = 120.0
    watch: Watch | None = None
    looks: int = 4
    tell: Tell = lambda share, line: None


@dataclass
class Course:
    """How a training went so far.

    Attributes:
        step: updates done.
        position: of the next update in the data.
        seconds: of training; interruptions and looks do not count.
        audio_seconds: heard.
        pending: figures of each update since the last entry of the curve.
        curve: mean figures of every LOG_EVERY updates, "step" and "loss" among them.
        looks: what `watch` found, with "step".
        warnings: what went wrong without stopping it.
        told: proportion that was told.
    """

    step: int = 0
    position: Position = START
    seconds: float = 0.0
    audio_seconds: float = 0.0
    pending: list[dict[str, float]] = field(default_factory=list)
    curve: list[dict[str, float]] = field(default_factory=list)
    looks: list[dict[str, float]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    told: float = 0.0

    def warn(self, line: str) -> None:
        """Notes a warning, of each kind (what stands before its colon) the first."""
        kind = line.split(":")[0]
        if not any(warning.startswith(f"{kind}:") for warning in self.warnings):
            self.warnings.append(line)


class _Loss(nn.Module):
    """Several processes synchronise gradients around `forward`, so the loss has to be one."""

    def __init__(self, upstream: TrainableUpstream) -> None:
        super().__init__()
        self.upstream = upstream

    def forward(self, batch: TrainingBatch, seed: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        loss, figures = self.upstream.pretrain_loss(batch, torch.Generator().manual_seed(seed))
        return loss, {name: figure.detach() for name, figure in figures.items()}


class Trainer:
    """Trains one upstream by one recipe.

    Args:
        upstream: with fresh weights; trained in place.
        recipe: how.
        data: what is heard.
        conduct: everything else.
    """

    def __init__(
        self, upstream: TrainableUpstream, recipe: PretrainRecipe, data: TrainingData, conduct: Conduct
    ) -> None:
        self.upstream, self.recipe, self.data, self.conduct = upstream, recipe, data, conduct
        self.course = Course()
        self._said = time.monotonic()
        self._accelerator = open_accelerator(
            conduct.name, conduct.device, conduct.mixed_precision, upstream.skips_layers
        )
        processes = self._accelerator.num_processes
        if recipe.micro_batches % processes:
            raise TrainingError(
                f"pretraining {conduct.name}: {processes} processes can't share the {recipe.micro_batches} "
                f"micro-batches of an update evenly; set micro_batches to a multiple of {processes}"
            )
        self._optimizer = torch.optim.AdamW(
            upstream.to(self._accelerator.device).parameters(),
            recipe.learning_rate,
            betas=recipe.betas,
            eps=recipe.epsilon,
            weight_decay=recipe.weight_decay,
            fused=True,
        )
        self._resume()
        self._module, self._optimizer = self._accelerator.prepare(_Loss(upstream), self._optimizer)

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes."""
        return bool(self._accelerator.is_main_process)

    def wait(self) -> None:
        """Until all processes are here."""
        self._accelerator.wait_for_everyone()

    def train(self) -> Course:
        """Trains to the end.

        Returns: how it went.
        Raises: TrainingError: the loss is no longer finite.
        """
        course, accelerator = self.course, self._accelerator
        before, started = course.seconds, time.monotonic()
        saved = started
        heard_before = course.audio_seconds
        self.upstream.train()
        with torch.random.fork_rng(devices=[]), _writer(self.conduct, accelerator, course.step) as writer:
            updates = self.data.updates(
                course.step + 1, course.position, accelerator.process_index, accelerator.num_processes
            )
            while (done := self._done()) < 1:
                update = next(updates)
                figures = self._update(update.batches, done)
                heard = self._over_processes(torch.tensor(update.seconds), "sum")
                course.step += 1
                course.position = update.after
                course.audio_seconds += heard
                course.pending.append(figures)
                course.seconds = self._agreed(before + time.monotonic() - started)
                rate = (course.audio_seconds - heard_before) / (course.seconds - before)
                if int(self._done() * self.conduct.looks) > len(course.looks):
                    looking = time.monotonic()
                    self._look(writer, next(iter(update.batches.values())))
                    started += time.monotonic() - looking
                if course.step % LOG_EVERY == 0 or self._done() >= 1:
                    self._log(writer, rate)
                if accelerator.is_main_process and time.monotonic() - saved > self.conduct.save_seconds:
                    self._save()
                    saved = time.monotonic()
        accelerator.wait_for_everyone()
        self.upstream.eval()
        return course

    def _update(self, batches: Mapping[int, TrainingBatch], done: float) -> dict[str, float]:
        """One update of the weights; the mean figures over all micro-batches, of all processes."""
        accelerator, step = self._accelerator, self.course.step + 1
        share = len(batches)
        sums: dict[str, torch.Tensor] = {}
        for number, batch in batches.items():
            is_last = number == max(batches)
            seed = seed_of(self.data.seed, step, number)
            torch.manual_seed(seed)  # of dropout: the same whichever process computes it
            with nullcontext() if is_last else accelerator.no_sync(self._module):
                with accelerator.autocast():
                    loss, figures = self._module(_on(batch, accelerator.device), seed)
                accelerator.backward(loss / share)
            for name, figure in {"loss": loss.detach(), **figures}.items():
                sums[name] = sums.get(name, torch.zeros((), device=figure.device)) + figure.float() / share
        means = {name: self._over_processes(total, "mean") for name, total in sums.items()}
        if not torch.isfinite(torch.tensor(means["loss"])):
            self.conduct.state.unlink(missing_ok=True)  # it would come to the same end
            raise TrainingError(
                f"pretraining {self.conduct.name}: the loss is {means['loss']} at step {step}; "
                f"lower the learning rate ({self.recipe.learning_rate:g}) or look for damaged recordings"
            )
        norm = accelerator.clip_grad_norm_(self._module.parameters(), self.recipe.clip or float("inf"))
        rate = self.recipe.learning_rate * schedule(done, self._next_done(done), self.recipe.warmup)
        self._optimizer.param_groups[0]["lr"] = rate
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return {**means, "gradient_norm": float(norm), "learning_rate": rate}

    def _done(self) -> float:
        """Which proportion of the training is done."""
        if self.recipe.minutes > 0:
            return self.course.seconds / (60 * self.recipe.minutes)
        return self.course.step / self.recipe.steps

    def _next_done(self, done: float) -> float:
        """The proportion after the update that is under way, as far as can be told."""
        return done * (1 + 1 / self.course.step) if self.course.step else done + 1 / self.recipe.steps

    def _over_processes(self, value: torch.Tensor, how: Literal["sum", "mean"]) -> float:
        if self._accelerator.num_processes == 1:
            return float(value)
        return float(self._accelerator.reduce(value.to(self._accelerator.device), how))

    def _agreed(self, seconds: float) -> float:
        """The clock of the first process: all have to stop at the same update."""
        if self._accelerator.num_processes == 1:
            return seconds
        from accelerate.utils import broadcast

        return float(broadcast(torch.tensor(seconds, dtype=torch.float64, device=self._accelerator.device)))

    def _look(self, writer: SummaryWriter | None, batch: TrainingBatch) -> None:
        """Whether frames still differ, and what `watch` finds."""
        course = self.course
        look: dict[str, float] = {"step": course.step}
        if self._accelerator.is_main_process:  # the others wait for its next update
            self.upstream.eval()
            batch = _on(batch, self._accelerator.device)
            states = self.upstream.extract(batch.wavs, batch.wav_lengths)
            look["variation"] = variation(torch.cat(unpad(states.layers[-1], states.lengths)))
            look |= self.conduct.watch(self.upstream) if self.conduct.watch is not None else {}
            self.upstream.train()
        course.looks.append(look)
        if look.get("variation", 1.0) < CONSTANT:
            course.warn(
                f"constant representation: {100 * look['variation']:.2f} % of the last layer's energy differs between "
                f"frames, at update {course.step}"
            )
        for name, value in look.items():
            if writer is not None and name != "step":
                writer.add_scalar(f"look/{name}", value, course.step)

    def _log(self, writer: SummaryWriter | None, rate: float) -> None:
        course = self.course
        names = course.pending[-1]
        means = {name: sum(each[name] for each in course.pending) / len(course.pending) for name in names}
        course.pending.clear()
        course.curve.append({"step": course.step, **means})
        warming = self._done() < 2 * self.recipe.warmup  # nothing is learned yet
        problem = None if warming else self.upstream.collapsed(means)
        if problem is not None:
            course.warn(f"{problem}, at update {course.step}")
        for name, value in {**means, "audio_seconds_per_second": rate}.items():
            if writer is not None:
                writer.add_scalar(f"train/{name}", value, course.step)
        if self._accelerator.is_main_process:
            self._tell(means["loss"], rate)

        release_memory()

    def _tell(self, loss: float, rate: float) -> None:
        course, done = self.course, min(1.0, self._done())
        line = ""
        if done == 1 or time.monotonic() - self._said > LINE_SECONDS:
            self._said = time.monotonic()
            left = course.seconds * (1 / done - 1)
            parts = [f"update {course.step}", f"loss {loss:.3f}", f"{rate:.0f} audio-s/s", f"about {left:.0f} s left"]
            looks = course.looks[-1] if course.looks else {}
            parts += [f"{name} {value:.1f}" for name, value in looks.items() if name not in {"step", "variation"}]
            line = f"{self.conduct.name}: {', '.join(parts)}"
        self.conduct.tell(done - course.told, line)
        course.told = done

    def _save(self) -> None:
        content = {
            "digest": self.conduct.digest,
            "course": {**asdict(self.course), "position": list(self.course.position)},
            "weights": self.upstream.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._accelerator.scaler.state_dict() if self._accelerator.scaler is not None else {},
        }
        with written_then_renamed(self.conduct.state) as temporary:
            torch.save(content, temporary)

    def _resume(self) -> None:
        content = read_state(self.conduct.state, self.conduct.digest)
        if content is None:
            shutil.rmtree(self.conduct.logs, ignore_errors=True)  # of a training that is done anew
            return
        self.upstream.load_state_dict(content["weights"])
        self._optimizer.load_state_dict(content["optimizer"])
        if content["scaler"] and self._accelerator.scaler is not None:
            self._accelerator.scaler.load_state_dict(content["scaler"])
        course = content["course"]
        self.course = Course(**{**course, "position": Position(*course["position"])})
        self.conduct.tell(self.course.told, f"{self.conduct.name}: goes on at update {self.course.step}")


def read_state(path: Path, digest: str) -> dict[str, Any] | None:
    """What an interrupted training left; None where there is nothing.

    Raises: CheckpointError: it is another training's, which is not overwritten.
    """
    if not path.exists():
        return None
    content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    if content["digest"] != digest:
        raise CheckpointError(
            f"{path}: is the state of an interrupted training with other settings or data; "
            f"repeat that one, name another --output, or delete the file"
        )
    return content


def schedule(done: float, then: float, warmup: float) -> float:
    """The learning rate of an update as a factor of the peak: linear warm-up, then linear decay to zero.

    Args:
        done: proportion of the training before the update.
        then: after it.
        warmup: proportion of the warm-up.
    """
    rising = then / warmup if warmup else 1.0
    return max(0.0, min(1.0, rising, (1 - done) / (1 - warmup)))


@contextmanager
def _writer(conduct: Conduct, accelerator: Accelerator, step: int) -> Iterator[SummaryWriter | None]:
    if not accelerator.is_main_process:
        yield None
        return
    from torch.utils.tensorboard import SummaryWriter  # imported here: it takes a second

    # What an interrupted training logged behind its last state is done, and logged, again.
    with SummaryWriter(str(conduct.logs), purge_step=step + 1 if step else None) as writer:
        yield writer


def _on(batch: TrainingBatch, device: torch.device) -> TrainingBatch:
    targets = None if batch.targets is None else [each.to(device) for each in batch.targets]
    return batch._replace(wavs=batch.wavs.to(device), wav_lengths=batch.wav_lengths.to(device), targets=targets)


def variation(frames: torch.Tensor) -> float:
    """Which part of the energy of frames (count, size) is not their mean's: 0 where all are the same."""
    energy = frames.square().sum(dim=1).mean()
    return float((frames - frames.mean(dim=0)).square().sum(dim=1).mean() / energy) if energy > 0 else 0.0
