"""Entries that were registered by modules of the user's: worker processes have to import those as well."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from core.code import has_file, is_ours
from core.metrics import METRICS
from core.registry import Registry, is_loaded_by_path, load_module
from downstreams._base import HEADS
from downstreams.labels._base import LABELS
from frostbench.jobs.base import Advance, Done, Executor, Follow, Job, Outcome, Say, ignore_line, ignore_progress
from upstreams._base import UPSTREAMS


class PluginModules(NamedTuple):
    """Where entries come from that no installed package brings.

    Attributes:
        here: names of entries that only this process can have: of a notebook, or of the script that was started.
        elsewhere: modules to import, by name, or files to load.
    """

    here: list[str]
    elsewhere: list[str | Path]


def plugin_modules() -> PluginModules:
    """The modules behind all entries that are registered now."""
    found = PluginModules([], [])
    for name, module in _registered():
        if is_ours(module):
            continue
        if module == "__main__" or not has_file(module):
            found.here.append(name)
            continue
        place = Path(str(sys.modules[module].__file__)).resolve() if is_loaded_by_path(module) else module
        if place not in found.elsewhere:
            found.elsewhere.append(place)
    return found


def _registered() -> Iterator[tuple[str, str]]:
    registries: tuple[Registry[Any], ...] = (HEADS, UPSTREAMS, LABELS)
    for registry in registries:
        yield from ((name, registry.get(name).__module__) for name in registry.names())
    yield from ((metric.name, metric.statistics.__module__) for metric in METRICS)  # an object's is its class's


class WithPlugins:
    """An executor whose workers import modules before each job; once imported, that costs nothing.

    Args:
        executor: what runs the jobs.
        modules: names, and files.
    """

    def __init__(self, executor: Executor, modules: Sequence[str | Path]) -> None:
        self.executor, self.modules = executor, tuple(modules)
        self.workers = executor.workers

    def __enter__(self) -> Self:
        self.executor.__enter__()
        self.workers = self.executor.workers
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.executor.__exit__(kind, error, trace)

    def run(
        self,
        jobs: Sequence[Job],
        advance: Advance,
        done: Done = lambda outcome: None,
        say: Say = ignore_line,
        follow: Follow = ignore_progress,
    ) -> list[Outcome]:
        """See Executor.run."""
        wrapped = [Job(job.name, _with_modules, (self.modules, job)) for job in jobs]
        outcomes = self.executor.run(wrapped, advance, lambda outcome: done(_unwrapped(outcome)), say, follow)
        return [_unwrapped(outcome) for outcome in outcomes]


def _with_modules(modules: Sequence[str | Path], job: Job, **options: Any) -> Any:
    for module in modules:
        if isinstance(module, Path):
            load_module(module)
        else:
            importlib.import_module(module)
    return job.function(*job.arguments, **options)


def _unwrapped(outcome: Outcome) -> Outcome:
    return replace(outcome, job=outcome.job.arguments[1])
