"""SIGKILL at random moments, then the same command: the records are those of an undisturbed run.

FROSTBENCH_KILLS says how often; two in the suite, ten for the whole proof.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.digest import file_digest
from core.records import RecordStore

ROOT = Path(__file__).parent.parent
KILLS = int(os.environ.get("FROSTBENCH_KILLS", "2"))
MOST_SECONDS = 280


@contextlib.contextmanager
def started(folder: Path, corpus: Path, tasks_file: Path) -> Iterator[subprocess.Popen[bytes]]:
    options = ["--corpus", corpus, "--output", folder / "results", "--cache", folder / "cache", "--workers", "2"]
    for flag, values in (
        ("--upstream", ("fbank", "mfcc")),
        ("--task", (f"{tasks_file}:KS", f"{tasks_file}:ASR")),
    ):
        options += [part for value in values for part in (flag, value)]
    command = [sys.executable, ROOT / "run_benchmark.py", "run", "--device", "cpu", *options]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def finish(folder: Path, corpus: Path, tasks_file: Path) -> None:
    with started(folder, corpus, tasks_file) as process:
        _, errors = process.communicate(timeout=MOST_SECONDS)
        assert process.returncode == 0, errors.decode()


def count_files(folder: Path) -> int:
    """Files in place, and such as are being written."""
    return sum(len(names) for _, _, names in os.walk(folder))


@pytest.mark.timeout(600 + 60 * KILLS)
def test_killed_runs_give_the_records_of_an_undisturbed_one(corpus_folder, tasks_file, tmp_path):
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    finish(straight, corpus_folder, tasks_file)
    files = count_files(straight)
    chance = random.Random(0)
    # Moments are told by how much is written, so that they fall into the work on a fast and on a slow machine.
    moments = sorted(chance.randrange(files - 5) for _ in range(KILLS))
    for moment in moments:
        with started(broken, corpus_folder, tasks_file) as process:
            until = time.monotonic() + MOST_SECONDS
            while count_files(broken) < moment and process.poll() is None and time.monotonic() < until:
                time.sleep(0.001)
            time.sleep(chance.random() * 0.1)
            process.send_signal(signal.SIGKILL)
            process.communicate()
            assert process.returncode == -signal.SIGKILL, f"it ended before {moment} of {files} files were written"
    finish(broken, corpus_folder, tasks_file)

    expected, found = (RecordStore(folder / "results") for folder in (straight, broken))
    assert len(expected.all()) == 4
    assert [record.result() for record in found.all()] == [record.result() for record in expected.all()]
    for record in found.all():
        folder = found.run_folder(record.run)
        assert {name: file_digest(folder / name) for name in record.artifacts} == record.artifacts
