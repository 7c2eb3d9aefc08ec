"""The training loop, on accelerate: one process or several, taken up again where it was, bit for bit on a CPU."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from core.errors import TrainingError
from core.lengths import unpad
from core.memory import release_memory
from upstreams._pretraining.contract import PretrainRecipe, TrainableUpstream, TrainingBatch
from upstreams._pretraining.data import TrainingData, Update, seed_of
from upstreams._pretraining.optimisers import build_optimiser, rate_factor
from upstreams._pretraining.processes import gathered, open_accelerator
from upstreams._pretraining.state import TrainerSettings, TrainingState, read_state, write_state

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch.utils.tensorboard import SummaryWriter

LOG_EVERY = 20  # updates
LINE_SECONDS = 15.0  # between two lines for people
CONSTANT = 0.01  # of the frames' energy: below it, what differs between frames is next to nothing
Tensors = Mapping[str, torch.Tensor]


class _Loss(nn.Module):
    """Several processes synchronise gradients around `forward`, so the loss has to be one."""

    def __init__(self, upstream: TrainableUpstream) -> None:
        super().__init__()
        self.upstream = upstream

    def forward(self, batch: TrainingBatch, seed: int) -> tuple[torch.Tensor, Tensors, Tensors]:
        found = self.upstream.pretrain_loss(batch, torch.Generator().manual_seed(seed))
        figures, kept = ({name: each.detach() for name, each in part.items()} for part in (found.figures, found.kept))
        return found.loss, figures, kept


class Trainer:
    """Trains one upstream by one recipe.

    Args:
        upstream: with fresh weights, prepared; trained in place.
        recipe: how.
        data: what it is trained on.
        settings: everything else.
    """

    def __init__(
        self, upstream: TrainableUpstream, recipe: PretrainRecipe, data: TrainingData, settings: TrainerSettings
    ) -> None:
        self.upstream, self.recipe, self.data, self.settings = upstream, recipe, data, settings
        self.progress = TrainingState()
        self._reported = time.monotonic()
        self._accelerator = open_accelerator(
            settings.name, settings.device, settings.mixed_precision, upstream.skips_layers
        )
        processes = self._accelerator.num_processes
        if recipe.micro_batches % processes:
            raise TrainingError(
                f"pretraining {settings.name}: {processes} processes can't share the {recipe.micro_batches} "
                f"micro-batches of an update evenly; set micro_batches to a multiple of {processes}"
            )
        self._optimizer = build_optimiser(upstream.to(self._accelerator.device).parameters(), recipe)
        self._resume()
        self._module, self._optimizer = self._accelerator.prepare(_Loss(upstream), self._optimizer)

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes."""
        return bool(self._accelerator.is_main_process)

    def wait(self) -> None:
        """Returns when all processes are here."""
        self._accelerator.wait_for_everyone()

    def train(self) -> TrainingState:
        """Trains to the end.

        Returns: how it went.
        Raises: TrainingError: the loss is no longer finite.
        """
        progress, accelerator = self.progress, self._accelerator
        before, started = progress.seconds, time.monotonic()
        saved, audio_before = started, progress.audio_seconds
        self.upstream.train()
        with torch.random.fork_rng(devices=[]), _writer(self.settings, accelerator, progress.step) as writer:
            updates = self.data.updates(
                progress.step + 1, progress.position, accelerator.process_index, accelerator.num_processes
            )
            while (done := self._done()) < 1:
                update = next(updates)
                self._take(update, self._update(update.batches, done))
                progress.seconds = self._agreed(before + time.monotonic() - started)
                rate = (progress.audio_seconds - audio_before) / (progress.seconds - before)
                if int(self._done() * self.settings.evaluations) > len(progress.evaluations):
                    evaluating = time.monotonic()
                    self._evaluate(writer, next(iter(update.batches.values())))
                    started += time.monotonic() - evaluating
                if progress.step % LOG_EVERY == 0 or self._done() >= 1:
                    self._log(writer, rate)
                if accelerator.is_main_process and time.monotonic() - saved > self.settings.save_seconds:
                    self._save()
                    saved = time.monotonic()
        accelerator.wait_for_everyone()
        self.upstream.eval()
        return progress

    def _take(self, update: Update, figures: dict[str, float]) -> None:
        self.progress.step += 1
        self.progress.position = update.after
        self.progress.audio_seconds += self._over_processes(torch.tensor(update.seconds), "sum")
        self.progress.pending.append(figures)

    def _update(self, batches: Mapping[int, TrainingBatch], done: float) -> dict[str, float]:
        """One update of the weights; the mean figures over all micro-batches, of all processes."""
        accelerator, step = self._accelerator, self.progress.step + 1
        share = len(batches)
        sums: dict[str, torch.Tensor] = {}
        kept: dict[int, Tensors] = {}
        for number, batch in batches.items():
            is_last = number == max(batches)
            seed = seed_of(self.data.seed, step, number)
            torch.manual_seed(seed)  # of dropout: the same whichever process computes it
            with nullcontext() if is_last else accelerator.no_sync(self._module):
                with accelerator.autocast():
                    placed = batch._replace(done=done).to(accelerator.device)
                    loss, figures, kept[number] = self._module(placed, seed)
                accelerator.backward(loss / share)
            for name, figure in {"loss": loss.detach(), **figures}.items():
                sums[name] = sums.get(name, torch.zeros((), device=figure.device)) + figure.float() / share
        means = {name: self._over_processes(total, "mean") for name, total in sums.items()}
        self._require_finite(means["loss"])
        norm = accelerator.clip_grad_norm_(self._module.parameters(), self.recipe.clip or float("inf"))
        rate = self._learning_rate(done)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._change_state(kept, done)
        return {**means, "gradient_norm": float(norm), "learning_rate": rate}

    def _change_state(self, kept: Mapping[int, Tensors], done: float) -> None:
        """What the upstream does between two updates, where it does anything: the same in every process."""
        if type(self.upstream).after_update is TrainableUpstream.after_update:
            return
        parts = gathered(kept, self._accelerator.num_processes)
        names = dict.fromkeys(name for part in parts for name in part)
        joined = {name: torch.cat([part[name] for part in parts if name in part]) for name in names}
        with torch.no_grad():
            self.upstream.after_update(
                {name: tensor.to(self._accelerator.device) for name, tensor in joined.items()}, done
            )

    def _require_finite(self, loss: float) -> None:
        if torch.isfinite(torch.tensor(loss)):
            return
        self.settings.state.unlink(missing_ok=True)  # it would come to the same end
        raise TrainingError(
            f"pretraining {self.settings.name}: the loss is {loss} at step {self.progress.step + 1}; "
            f"lower the learning rate ({self.recipe.learning_rate:g}) or look for damaged recordings"
        )

    def _learning_rate(self, done: float) -> float:
        recipe = self.recipe
        return recipe.learning_rate * rate_factor(recipe.schedule, done, self._next_done(done), recipe.warmup)

    def _done(self) -> float:
        """Which proportion of the training is done."""
        if self.recipe.minutes > 0:
            return self.progress.seconds / (60 * self.recipe.minutes)
        return self.progress.step / self.recipe.steps

    def _next_done(self, done: float) -> float:
        """The proportion after the update that is under way, as far as can be foreseen."""
        return done * (1 + 1 / self.progress.step) if self.progress.step else done + 1 / self.recipe.steps

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

    def _evaluate(self, writer: SummaryWriter | None, batch: TrainingBatch) -> None:
        """Whether frames still differ, and what `evaluate` finds."""
        progress = self.progress
        found: dict[str, float] = {"step": progress.step}
        if self._accelerator.is_main_process:  # the others wait for its next update
            self.upstream.eval()
            batch = batch.to(self._accelerator.device)
            states = self.upstream.extract(batch.wavs, batch.wav_lengths)
            found["variation"] = variation(torch.cat(unpad(states.layers[-1], states.lengths)))
            found |= self.settings.evaluate(self.upstream) if self.settings.evaluate is not None else {}
            self.upstream.train()
        progress.evaluations.append(found)
        if self.upstream.frames_differ and found.get("variation", 1.0) < CONSTANT:
            progress.warn(
                f"constant representation: {100 * found['variation']:.2f} % of the last layer's energy differs between "
                f"frames, at update {progress.step}"
            )
        for name, value in found.items():
            if writer is not None and name != "step":
                writer.add_scalar(f"evaluation/{name}", value, progress.step)

    def _log(self, writer: SummaryWriter | None, rate: float) -> None:
        progress = self.progress
        names = progress.pending[-1]
        means = {name: sum(each[name] for each in progress.pending) / len(progress.pending) for name in names}
        progress.pending.clear()
        progress.curve.append({"step": progress.step, **means})
        warming = self._done() < 2 * self.recipe.warmup  # nothing is learned yet
        problem = None if warming else self.upstream.collapsed(means, min(1.0, self._done()))
        if problem is not None:
            progress.warn(f"{problem}, at update {progress.step}")
        for name, value in {**means, "audio_seconds_per_second": rate}.items():
            if writer is not None:
                writer.add_scalar(f"train/{name}", value, progress.step)
        if self._accelerator.is_main_process:
            self._report(means["loss"], rate)
        release_memory()

    def _report(self, loss: float, rate: float) -> None:
        progress, done = self.progress, min(1.0, self._done())
        line = ""
        if done == 1 or time.monotonic() - self._reported > LINE_SECONDS:
            self._reported = time.monotonic()
            left = progress.seconds * (1 / done - 1)
            parts = [f"update {progress.step}", f"loss {loss:.3f}", f"{rate:.0f} audio-s/s", f"about {left:.0f} s left"]
            last = progress.evaluations[-1] if progress.evaluations else {}
            parts += [f"{name} {value:.1f}" for name, value in last.items() if name not in {"step", "variation"}]
            line = f"{self.settings.name}: {', '.join(parts)}"
        self.settings.report(done - progress.reported, line)
        progress.reported = done

    def _save(self) -> None:
        scaler = self._accelerator.scaler
        content = {
            "digest": self.settings.digest,
            "progress": self.progress.to_plain(),
            "weights": self.upstream.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": scaler.state_dict() if scaler is not None else {},
        }
        write_state(self.settings.state, content)

    def _resume(self) -> None:
        content = read_state(self.settings.state, self.settings.digest)
        if content is None:
            shutil.rmtree(self.settings.logs, ignore_errors=True)  # of a training that is done anew
            return
        self.upstream.load_state_dict(content["weights"])
        self._optimizer.load_state_dict(content["optimizer"])
        if content["scaler"] and self._accelerator.scaler is not None:
            self._accelerator.scaler.load_state_dict(content["scaler"])
        self.progress = TrainingState.from_plain(content["progress"])
        line = f"{self.settings.name}: goes on at update {self.progress.step}"
        self.settings.report(self.progress.reported, line)


@contextmanager
def _writer(settings: TrainerSettings, accelerator: Accelerator, step: int) -> Iterator[SummaryWriter | None]:
    if not accelerator.is_main_process:
        yield None
        return
    from torch.utils.tensorboard import SummaryWriter  # imported here: it takes a second

    # What an interrupted training logged behind its last state is done, and logged, again.
    with SummaryWriter(str(settings.logs), purge_step=step + 1 if step else None) as writer:
        yield writer


def variation(frames: torch.Tensor) -> float:
    """Which part of the energy of frames (count, size) is not their mean's: 0 where all are the same."""
    energy = frames.square().sum(dim=1).mean()
    return float((frames - frames.mean(dim=0)).square().sum(dim=1).mean() / energy) if energy > 0 else 0.0
