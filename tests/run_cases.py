"""Runs small inputs that failed once, and prints for each case its exit code and a verdict.

    .venv/bin/python tests/run_cases.py FOLDER [CASE ...]

FOLDER holds one folder a case, as written down in CASES: the commands, the exit code that is right, what the output has
to say and must not say. Each case runs in a copy of its folder, with its own cache and results.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PYTHON, PROGRAM = sys.executable, str(ROOT / "run_benchmark.py")
KS = "run --corpus . --upstream fbank --task ks --device cpu --workers 1"
ASR = "run --corpus . --upstream fbank --task asr --device cpu --workers 1"
MINI = "run --corpus mini --limit 40 --upstream fbank --task ks --device cpu --workers 1"
SID = "run --corpus . --upstream fbank --task crop_task.py:sid --device cpu --workers 1"
PRETRAIN = "pretrain apc --corpus {} --device cpu --workers 1 --looks 0"
TRACEBACK = "Traceback \\(most recent"


@dataclass(frozen=True)
class Case:
    """What to do and what is right.

    Attributes:
        commands: of the program, one after the other; `!` begins a command of the shell.
        code: exit code of the last command, several where both are right.
        says: patterns that the output of all commands together has to match, each.
        never: patterns that it must not match.
        environment: additional variables.
        answers: what is typed.
    """

    commands: tuple[str, ...]
    code: tuple[int, ...] = (0,)
    says: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    answers: str = ""


MADE = "!{python} make.py m"
MP3_LENGTH = """
from pathlib import Path
from core.audio import read_audio
assert abs(len(read_audio(Path("a/u0.mp3"))) - 48_000) < 2_000
"""
COMPOSED = """
from core.metrics import get_metric
assert get_metric("wer").statistics("caf\\u00e9", "cafe\\u0301")[0] == 0
"""
COPY = '!for file in results/records/*.json; do cp "$file" "${file%.json} (1).json"; done'
CASES = {
    "csv-null-labels": Case(("prepare hf:.",), says=(r"keyword │ 4 +│ 2 +│ 2",)),
    "file-name-empty": Case(("prepare .",), (2,), ("line 1: file_name is empty",)),
    "flac-length-unknown": Case(("prepare .",), says=("8 recordings",)),
    "hf-git-lfs-pointer": Case((MADE, "check hf:m"), (2,), (r"git[- ]lfs",), ("header too large",)),
    "hf-hubert-batch-norm": Case((MADE, "check hf:m"), never=("FAILED",)),
    "hf-rate-24000": Case((MADE, "check hf:m"), (2,), (r"24[,.]?000",)),
    "hf-remote-code": Case(
        (MADE, "check hf:m", "!test ! -e RAN"), says=("code",), never=("Do you wish",), answers="y\ny\n"
    ),
    "hf-weights-left-out": Case((MADE, "check hf:m"), (0, 2), ("bias",)),
    "id-null": Case(("prepare .",)),
    "intent-empty-object": Case(("prepare .",), (2,), (r"line \d+.*no slots",)),
    "label-nan": Case(("prepare .",), (2,), ("line 2", "line 4", "line 6")),
    "label-nfc-nfd": Case((KS,), says=(r"100\.0",)),
    "mac-litter-folder": Case((PRETRAIN.format("audio") + " --steps 5",)),
    "manifest-bom": Case(("prepare .",)),
    "manifest-csv": Case(("prepare .", "prepare metadata.csv", "prepare hf:."), says=(r"keyword │ 4 +│ 2 +│ 2",)),
    "manifest-from-windows": Case(("prepare .",)),
    "mp3-header-too-long": Case((SID, PRETRAIN.format("audio_only") + " --steps 40 --set crop_seconds=2")),
    "mp3-header-too-short": Case(("prepare .", f"!{{python}} -c {shlex.quote(MP3_LENGTH)}")),
    "note-lone-surrogate": Case((KS,), (0, 2)),
    "one-class": Case((KS,), (0, 2), ("yes",)),
    "output-encoding-latin-1": Case(
        (MINI, "report --custom"),
        environment=(("PYTHONIOENCODING", "latin-1"),),
    ),
    "output-is-a-file": Case(("!touch f", MINI + " --output f"), (2,), never=("extracting", "training heads")),
    "rate-11127": Case(("!ulimit -v 12000000; {python} {program} prepare .",)),
    "record-copied-by-dropbox": Case(
        (MINI,
         COPY, "report --custom --format csv"),
        (0, 2), never=(r"fbank,ks.*0\.0000,2,",),
    ),
    "same-audio-in-train-and-test": Case(("prepare .", KS), (0, 2), ("u6", "u0")),
    "text-longer-than-frames": Case((ASR,), (0, 1, 2), ("longer than",)),
    "text-nfc-nfd": Case((f"!{{python}} -c {shlex.quote(COMPOSED)}",)),
    "text-without-characters": Case((ASR,), (2,), ("character",)),
    "three-too-short": Case((KS + " --upstream mfcc",), (0, 1, 2), ("u0", "u1", "u2")),
    "wav-cut-off": Case(("prepare .",), (0, 2), (r"u0c?\.wav.*cut off",)),
    "whisper-128-mels-80-extractor": Case((MADE, "check hf:m"), (2,), ("128", "80")),
    "whisper-other-extractor": Case((MADE, "check hf:m"), (2,), ("Wav2Vec2FeatureExtractor",)),
}  # fmt: skip


def run(case: Case, folder: Path) -> tuple[int, str]:
    """Exit code of the last command, and what all of them printed."""
    path = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    environment = {**os.environ, "PYTHONPATH": path, "COLUMNS": "120", **dict(case.environment)}
    code, output = 0, ""
    for command in case.commands:
        line = command[1:] if command.startswith("!") else f"{{python}} {{program}} {command}"
        line = line.replace("{python}", PYTHON).replace("{program}", PROGRAM)
        done = subprocess.run(["bash", "-c", line], cwd=folder, env=environment, input=case.answers.encode(),
                              capture_output=True, timeout=900)  # fmt: skip
        code = done.returncode
        output += (done.stdout + done.stderr).decode(errors="replace")
        if command.startswith("!") and code:
            return -1, output
    return code, output


def verdict(case: Case, code: int, output: str) -> str:
    """`right`, or what is wrong."""
    if code not in case.code:
        return f"exit code {code}, must be {' or '.join(map(str, case.code))}"
    lacking = [pattern for pattern in case.says if not re.search(pattern, output)]
    found = [pattern for pattern in (*case.never, TRACEBACK) if re.search(pattern, output)]
    return f"lacks {lacking}" if lacking else f"says {found}" if found else "right"


def main() -> None:
    """Runs the cases that are named, or all; ends with 1 where one is wrong."""
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    wrong = 0
    for name in sys.argv[2:] or sorted(CASES):
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / name
            shutil.copytree(Path(sys.argv[1]) / name, folder)
            for path in (folder, *folder.rglob("*")):
                path.chmod(0o755 if path.is_dir() else 0o644)
            code, output = run(CASES[name], folder)
        found = verdict(CASES[name], code, output)
        wrong += found != "right"
        print(f"{name:32} {code:3}  {found}", flush=True)
        if found != "right":
            print("\n".join(f"    {line[:300]}" for line in output.strip().splitlines()[-6:]))
    print(f"{len(sys.argv[2:] or CASES) - wrong} of {len(sys.argv[2:] or CASES)} right")
    raise SystemExit(wrong > 0)


if __name__ == "__main__":
    main()
