"""Where and with what a result was made: versions, commit, machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import time
from functools import cache
from pathlib import Path
from typing import Any

PACKAGES = ("frostbench", "torch", "torchaudio", "transformers", "numpy", "soundfile", "jiwer")
ROOT = Path(__file__).parent.parent


@cache
def versions() -> dict[str, str]:
    """Package -> version, Python's included."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


@cache
def git_state() -> dict[str, Any]:
    """Commit of Frostbench's own checkout, and whether files differ from it; None where it is installed without one.

    An installed copy may lie in the environment of somebody else's repository: that one's commit says nothing.
    """
    own = _git("ls-files", "--error-unmatch", "run_benchmark.py") is not None  # tracked in this very folder
    commit = _git("rev-parse", "HEAD") if own else None
    return {"commit": commit, "dirty": None if commit is None else bool(_git("status", "--porcelain"))}


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def circumstances(device: str, wall_seconds: dict[str, float]) -> dict[str, Any]:
    """Everything about a run that is not part of its result."""
    return {
        "wall_seconds": {stage: round(seconds, 2) for stage, seconds in wall_seconds.items()},
        "device": device,
        "machine": {"system": platform.platform(), "processor": _processor(), "cores": os.cpu_count()},
        "versions": versions(),
        "git": git_state(),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


@cache
def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
