"""Nothing of ours needs, to be imported, what Python lacks on Windows. Run on Linux, with all that taken away."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
# Others' packages first: they look after themselves. Ours then find what Python on Windows has.
ON_WINDOWS = """
import importlib, os, pkgutil, signal, sys
import accelerate, datasets, portalocker, scipy.stats, sklearn.cluster, statsmodels.stats.multitest
import torch, torchaudio.compliance.kaldi, torchaudio.datasets, transformers
import multiprocessing.popen_spawn_posix, concurrent.futures.process
for name in ("fcntl", "grp", "pwd", "resource", "syslog", "termios", "tty"):
    sys.modules[name] = None
posix_only = {signal: ("pthread_sigmask", "SIGKILL", "SIGALRM", "SIG_BLOCK"), os: ("fork", "wait4", "getuid")}
for module, names in posix_only.items():
    for name in names:
        delattr(module, name)
import run_benchmark
for package in ("core", "downstreams", "frostbench", "leaderboard", "tasks", "upstreams"):
    root = importlib.import_module(package)
    for found in pkgutil.walk_packages(root.__path__, f"{package}."):
        if found.name not in ("frostbench.jobs.ray_cluster", "tasks.corpora._mini.build"):
            importlib.import_module(found.name)
from frostbench.jobs.local import _out_of_reach_of_ctrl_c
with _out_of_reach_of_ctrl_c():
    print("imported")
"""


def test_every_module_imports_without_what_windows_lacks():
    done = subprocess.run([sys.executable, "-c", ON_WINDOWS], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "imported\n", done.stderr
