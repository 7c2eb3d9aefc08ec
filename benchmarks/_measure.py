"""What the scripts share: sides measured by turns, child processes with their memory, a table, one JSON line."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parent.parent
MEASURED = ROOT / "benchmarks" / "measured.jsonl"
PACKAGES = ("torch", "torchaudio", "transformers", "numpy", "soundfile")


@dataclass(frozen=True)
class Ratio:
    """One line of the table: a quotient of two measurements, and what it should be.

    Attributes:
        name: what is divided by what.
        value: the measured quotient.
        target: the bound; None where the line only informs.
        bound: "at least" or "at most" the target.
        detail: the two measurements in words.
    """

    name: str
    value: float
    target: float | None = None
    bound: Literal["at least", "at most"] = "at most"
    detail: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is kept; None without one."""
        if self.target is None:
            return None
        return self.value >= self.target if self.bound == "at least" else self.value <= self.target


@dataclass(frozen=True)
class Finished:
    """A child process that ended well.

    Attributes:
        seconds: from start to end, imports included.
        peak_bytes: largest resident memory of the process, or of one of its own children.
        cpu_seconds: computed by the process and its own children, in all cores.
        output: what it wrote to standard output.
    """

    seconds: float
    peak_bytes: int
    cpu_seconds: float
    output: str


@dataclass
class Report:
    """The outcome of a script.

    Attributes:
        script: its name.
        quick: whether it was a smoke run, whose numbers mean little.
        ratios: lines of the table.
        facts: what else is worth keeping in the JSON line.
    """

    script: str
    quick: bool
    ratios: list[Ratio] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def show(self, output: Path | None = MEASURED) -> None:
        """Prints the table and appends the JSON line."""
        console = Console(width=None if sys.stdout.isatty() else 160)
        machine = machine_facts()
        if self.quick:
            console.print("QUICK RUN: shows that the script works; its ratios mean nothing.", style="bold yellow")
        table = Table("ratio", "measured", "target", "", "", title=self.script, title_justify="left")
        for ratio in self.ratios:
            target = "" if ratio.target is None else f"{ratio.bound} {ratio.target:g}"
            verdict = {None: "", True: "[green]met[/]", False: "[red]NOT met[/]"}[None if self.quick else ratio.met]
            table.add_row(ratio.name, f"{ratio.value:.3g}", target, verdict, ratio.detail)
        console.print(table)
        console.print(", ".join(f"{key} {value}" for key, value in machine.items()), highlight=False, soft_wrap=True)
        if output is not None:
            lines = [{**asdict(ratio), "met": ratio.met} for ratio in self.ratios]
            content = {"script": self.script, "quick": self.quick, "ratios": lines, "facts": self.facts, **machine}
            with output.open("a", encoding="utf-8") as file:
                file.write(json.dumps(content, default=str) + "\n")


def parser(doc: str | None) -> argparse.ArgumentParser:
    """The options every script has."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--quick", action="store_true", help="a smoke run of about a minute; its ratios mean nothing")
    made.add_argument("--repeats", type=int, default=3, help="measurements of each side; the median counts")
    return made


def by_turns(
    sides: Mapping[str, Callable[[], Any]],
    repeats: int,
    counts: Mapping[str, int] | None = None,
    before: Callable[[], Any] = lambda: None,
) -> dict[str, list[float]]:
    """Seconds of each side, measured by turns so that a busy minute hits all alike.

    Args:
        sides: name -> what to time.
        repeats: rounds.
        counts: rounds of a side that shall have fewer.
        before: done before each measurement, not timed.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(repeats):
        for name, side in sides.items():
            if turn < (counts or {}).get(name, repeats):
                before()
                started = time.perf_counter()
                side()
                seconds[name].append(time.perf_counter() - started)
    return seconds


def medians(seconds: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """The median of each side."""
    return {name: median(values) for name, values in seconds.items()}


def mean_and_deviation(values: Sequence[float]) -> str:
    """As a text; of a single value itself."""
    return f"{mean(values):.1f} ± {stdev(values):.1f}" if len(values) > 1 else f"{values[0]:.1f}"


def run(command: Sequence[str | Path], threads: int | None = None) -> Finished:
    """Runs a child process from the repository's root.

    Args:
        command: program and arguments.
        threads: OMP_NUM_THREADS of the child; None leaves it to the child.

    Raises: SystemExit: it failed; what it wrote is shown.
    """
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    started = time.perf_counter()
    with subprocess.Popen(
        [str(part) for part in command], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as child:
        assert child.stdout is not None, "it is piped"
        output = child.stdout.read().decode(errors="replace")
        _, status, usage = os.wait4(child.pid, 0)  # of this child alone, other than resource.RUSAGE_CHILDREN
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"{' '.join(map(str, command))}\nfailed with exit code {child.returncode}:\n{output}")
    cpu_seconds = usage.ru_utime + usage.ru_stime
    return Finished(time.perf_counter() - started, usage.ru_maxrss * 1024, cpu_seconds, output)


def python(*arguments: str | Path, threads: int | None = None) -> Finished:
    """Runs this Python; see `run`."""
    return run([sys.executable, *arguments], threads)


def frostbench(*arguments: str | Path) -> Finished:
    """Runs the command line."""
    return python("run_benchmark.py", *arguments)


def machine_facts() -> dict[str, str]:
    """Date, processor, versions and commit."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        "processor": _processor(),
        "python": platform.python_version(),
        **{name: found for name in PACKAGES if (found := installed(name))},
        "commit": _commit(),
    }


def installed(name: str) -> str | None:
    """Version of an installed package."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return f"{platform.processor()} x {os.cpu_count()}"
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    named = {key.strip(): value.strip() for key, value in fields.items()}
    model = f"family {named.get('cpu family', '?')} model {named.get('model', '?')}"
    return f"{named.get('model name', platform.machine())} ({model}) x {os.cpu_count()}"


def _commit() -> str:
    try:
        asked = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    except OSError:  # no git here
        return "unknown"
    return asked.stdout.strip() or "unknown"
