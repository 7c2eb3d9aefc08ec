"""Several pretrainings: side by side on an executor, or one after the other by processes that train together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from core.errors import BenchmarkError, ManifestError
from core.extras import require_extra
from core.fingerprints import Fingerprint, copies
from core.manifest import Manifest
from frostbench.jobs.base import Executor, Job, Outcome, ProgressCounter, run_job, set_up_worker
from frostbench.jobs.forecast import Forecast
from frostbench.jobs.local import devices_here
from frostbench.jobs.progress import Watcher
from frostbench.preparation import fingerprints_of, line_of_copies
from frostbench.pretraining.duration import stages_of
from tasks.corpora._audio_folder import is_audio_folder, read_audio_folder
from tasks.corpora._base import CORPORA, open_corpus
from upstreams._encoders.notes import recordings_note
from upstreams._pretraining.options import parse_options
from upstreams._pretraining.plan import (
    Pretraining,
    PretrainingSettings,
    is_done,
    planned,
    pretrain,
    summary,
)
from upstreams._pretraining.processes import Mixed, is_first_process, many_processes


def open_recordings(spec: str, root: Path | None, columns: str | None) -> Manifest:
    """What can be trained on: a corpus as `run` takes it, or else a folder of recordings without a manifest.

    Raises: ManifestError: neither.
    """
    folder = Path(spec)
    if root is None and columns is None and spec not in CORPORA.names() and is_audio_folder(folder):
        return read_audio_folder(folder)
    return open_corpus(spec, root, columns)


def plans_of(
    upstreams: Sequence[str],
    size: str,
    seed: int,
    steps: int | None,
    minutes: float | None,
    options: Sequence[str],
    mixed_precision: Mixed,
) -> list[Pretraining]:
    """A plan for each upstream, each once.

    Raises: BenchmarkError: an unknown upstream, size or option, or two ends for one training.
    """
    if steps is not None and minutes is not None:
        raise BenchmarkError("--steps and --minutes: a training ends by one of them; leave the other out")
    return [
        planned(name, size, seed, steps, minutes, parse_options(options), mixed_precision)
        for name in dict.fromkeys(upstreams)
    ]


def unfinished(plans: Sequence[Pretraining], manifest: Manifest, folder: Path) -> list[Pretraining]:
    """Those whose checkpoint is not there yet.

    Raises: CheckpointError: the checkpoint of another training has that name.
    """
    return [plan for plan in plans if not is_done(plan.checkpoint(folder), plan, manifest)]


def summaries(outcomes: Sequence[Outcome], folder: Path) -> Iterator[str]:
    """What is to be said of the trainings that ended well."""
    for outcome in outcomes:
        if outcome.error is None:
            yield from summary(outcome.job.arguments[0].checkpoint(folder), outcome.value)


def pretrain_all(
    plans: Sequence[Pretraining],
    manifest: Manifest,
    folder: Path,
    settings: PretrainingSettings,
    runner: Executor,
    watcher: Watcher,
) -> list[Outcome]:
    """Trains upstreams on an executor, several at a time; one that fails does not stop the others.

    Args:
        plans: what to train.
        manifest: its train split is heard.
        folder: of the checkpoints.
        settings: states and evaluations.
        runner: not yet entered.
        watcher: is told how it goes.

    Raises: ManifestError: recordings that can't be read; names all of them.
    """
    require_extra("pretrain", "pretrain")
    with runner:
        forecast, recordings = _begin(plans, manifest, watcher, runner.workers)
        jobs = [_job(plan, manifest, folder, replace(settings, recordings=recordings)) for plan in plans]
        numbers = {id(job): number for number, job in enumerate(jobs)}

        def done(outcome: Outcome) -> None:
            forecast.ended(numbers[id(outcome.job)], failed=outcome.error is not None)
            watcher.done(outcome)

        outcomes = runner.run(jobs, watcher.advance, done, watcher.say, forecast.follow)
        forecast.end()
        return outcomes


def pretrain_together(
    plans: Sequence[Pretraining],
    manifest: Manifest,
    folder: Path,
    settings: PretrainingSettings,
    device: str | None,
    watcher: Watcher,
) -> list[Outcome]:
    """The same in one of several processes that `accelerate launch` or `torchrun` started: they share each training.

    Whatever fails is raised, so that this process ends, and the launcher ends the others, who would wait for ever.
    """
    require_extra("pretrain", "pretrain")
    set_up_worker(1)
    forecast, recordings = _begin(plans, manifest, watcher, 1) if is_first_process() else (None, None)
    settings = replace(settings, recordings=recordings)  # the first process writes the checkpoint
    counter = ProgressCounter(watcher.advance, watcher.say, None if forecast is None else forecast.follow)
    outcomes = []
    for number, plan in enumerate(plans):
        job = _job(plan, manifest, folder, settings)
        outcomes.append(
            Outcome(job, run_job(number, job, devices_here(device)[0], lambda message: counter.take(*message)))
        )
        if forecast is not None:
            forecast.ended(number)
    if forecast is not None:
        forecast.end()
    return outcomes


def require_processes_that_fit(workers: int | None, is_ray: bool) -> bool:
    """Whether this is one of several processes that train together.

    Raises: BenchmarkError: it is, and options ask for other ones.
    """
    if many_processes() and (workers is not None or is_ray):
        raise BenchmarkError("--workers and --executor are for one process; a launcher started several: leave them out")
    return many_processes()


def _job(plan: Pretraining, manifest: Manifest, folder: Path, settings: PretrainingSettings) -> Job:
    return Job(f"pretraining {plan.upstream}", pretrain, (plan, manifest, folder, settings))


def _begin(
    plans: Sequence[Pretraining], manifest: Manifest, watcher: Watcher, workers: int
) -> tuple[Forecast, dict[str, Any]]:
    """Looks at every recording, and tells how much is to be done.

    Returns: the forecast of what comes, and what checkpoints note of the recordings.
    """
    heard = replace(manifest, utterances=manifest.recordings("train"))
    stages = checking, pretraining = stages_of(plans, len(heard.utterances))
    forecast = Forecast(stages, workers)
    watcher.follow(forecast)
    forecast.begin(checking.title, checking.works, 1)
    watcher.stage(checking.title, len(heard.utterances), "recordings")
    forecast.follow(0, None)

    def advance() -> None:
        forecast.follow(0, 1)
        watcher.advance(1)

    prints = fingerprints_of(heard, advance=advance)
    _warn_of_test(manifest, prints, watcher)
    forecast.ended(0)
    forecast.begin(pretraining.title, pretraining.works, workers)
    unit = "seconds" if plans[0].recipes[0].minutes else "audio-seconds"
    watcher.stage(pretraining.title, sum(work.amount for work in pretraining.works), unit)
    return forecast, recordings_note(list(prints.values()))


def _warn_of_test(manifest: Manifest, prints: Mapping[str, Fingerprint], watcher: Watcher) -> None:
    """Says which recordings of train are in test as well: what is trained on them has heard the questions."""
    test = tuple(row for row in manifest.utterances if row.split == "test" and row.mixture is None)
    with suppress(ManifestError):  # test may be unfit: nothing of it is trained on
        found = list(copies(fingerprints_of(replace(manifest, utterances=test)), prints))
        if found:
            split_of = {row.id: row.split for row in manifest.utterances}
            watcher.say(f"note: {line_of_copies(found, split_of)}: an upstream that is trained on it, too")
