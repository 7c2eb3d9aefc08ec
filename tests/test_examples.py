"""What README promises, run as it stands: the notebook of `examples/`, from the built wheel, outside the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
QUICK = {"FROSTBENCH_EXAMPLE_UPSTREAMS": "fbank", "FROSTBENCH_EXAMPLE_LIMIT": "12", "OMP_NUM_THREADS": "1",
         "HF_HUB_OFFLINE": "1"}  # fmt: skip


@pytest.mark.timeout(600)
def test_the_notebook_runs_from_the_wheel(tmp_path):
    """Installed beside the packages of this environment, outside the checkout, with nothing of it on the path."""
    source = tmp_path / "source"  # setuptools leaves a build folder behind
    ignored = shutil.ignore_patterns(".venv", ".git", "build", "*.egg-info", "__pycache__", "cache", "results", "docs")
    shutil.copytree(ROOT, source, ignore=ignored)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    built = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, source]
    subprocess.run([*pip, *built], check=True, capture_output=True, env=dict(os.environ))
    (wheel,) = tmp_path.glob("*.whl")
    fresh = tmp_path / "fresh"
    venv.create(fresh, system_site_packages=True)
    python = fresh / "bin" / "python"
    paths = sysconfig.get_paths(vars={"base": str(fresh), "platbase": str(fresh)})
    site = Path(paths["purelib"])
    # After the fresh environment's own packages, and without the .pth files there: they would point to the checkout.
    (site / "neighbours.pth").write_text(sysconfig.get_path("purelib") + "\n")
    subprocess.run([*pip, "--python", python, "install", "--no-deps", "--no-index", wheel], check=True)
    place = tmp_path / "elsewhere"
    place.mkdir()
    where = "import frostbench, core.records; print(frostbench.__file__, core.records.__file__)"
    files = subprocess.run([python, "-c", where], cwd=place, env={}, capture_output=True, text=True, check=True).stdout
    assert all(Path(file).is_relative_to(site) for file in files.split())
    for example in (ROOT / "examples").glob("*.py"):
        shutil.copy(example, place)
    told = subprocess.run([python, "evaluate.py"], cwd=place, env=QUICK, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    assert "loudness" in told.stdout
    assert "1 layers of (2, 98, 240) with [98, 73] valid frames" in told.stdout
    assert (place / "leaderboard.html").stat().st_size > 10_000
    assert len(list((place / "results" / "records").iterdir())) == 7
    shown = subprocess.run([fresh / "bin" / "frostbench", "report", "--custom"], cwd=place, env={"COLUMNS": "200"},
                           capture_output=True, text=True, check=True)  # fmt: skip
    assert "fbank" in shown.stdout
