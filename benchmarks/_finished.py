"""The folders that `make benchmark` leaves, made in minutes: real features, records of two updates.

Nothing that comes after asks how long anything was trained: the digests are those of the full recipes.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks._measure import ROOT
from downstreams._recipe import Recipe
from frostbench.grid import cell_jobs

UPDATES = 2


def commands(folder: Path) -> list[list[str]]:
    """The arguments of every command that `make benchmark` runs, without the program."""
    lines = subprocess.run(make(folder, "--dry-run"), capture_output=True, text=True, check=True).stdout.splitlines()
    program = str(ROOT / "run_benchmark.py")
    calls = [shlex.split(line) for line in lines if program in line]
    return [words[words.index(program) + 1 :] for words in calls]


def make(folder: Path, *options: str) -> list[str]:
    """`make benchmark` in another folder than the repository's, with this Python."""
    program = f"{sys.executable} {ROOT / 'run_benchmark.py'}"
    return [
        "make",
        "--no-print-directory",
        "-C",
        str(folder),
        "-f",
        str(ROOT / "Makefile"),
        *options,
        f"RUN={program}",
        "benchmark",
    ]


def finish(folder: Path) -> None:
    """Leaves in a folder what `make benchmark` leaves there."""
    for name in ("pyproject.toml", "constraints.txt", ".venv/installed"):  # in this order, so that nothing is installed
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    *runs, _ = commands(folder)
    with _inside(folder), _short_trainings():
        from run_benchmark import app

        for arguments in runs:
            app([*arguments, "--workers", "1"], standalone_mode=False)


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@contextmanager
def _short_trainings() -> Iterator[None]:
    real = cell_jobs.train_together

    def short(models: Any, data: Any, score: Any, sign: int, recipe: Recipe, *rest: Any) -> Any:
        return real(
            models, data, score, sign, replace(recipe, steps=UPDATES, eval_every=UPDATES, search_steps=0), *rest
        )

    cell_jobs.train_together = short
    try:
        yield
    finally:
        cell_jobs.train_together = real
