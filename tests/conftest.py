"""What all tests share: a generated corpus of seconds, the command line in this process, no network, one thread."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["COLUMNS"] = "200"  # of the tables

import hypothesis
import numpy as np
import pytest
import soundfile
import torch

from core.audio import SAMPLE_RATE
from core.extras import EXTRAS
from core.manifest import Manifest, read_manifest
from core.metrics import METRICS
from downstreams._base import HEADS
from frostbench.jobs.progress import Watcher
from tasks._base import TASKS
from tasks.corpora._base import CORPORA
from upstreams._base import UPSTREAMS

torch.set_num_threads(1)
hypothesis.settings.register_profile("suite", deadline=None, max_examples=50, derandomize=True)
hypothesis.settings.load_profile("suite")
# Examples of each fuzz test, drawn anew; 0 are a few, always the same.
FUZZ = int(os.environ.get("FROSTBENCH_FUZZ", "0"))


def skip_without_extra(metric: str) -> None:
    """Skips where a metric needs an extra that `make` does not install."""
    extra = METRICS.get(metric).extra
    if extra is not None:
        pytest.importorskip(EXTRAS[extra][0], reason=f"the extra {extra} is not installed")


def fuzzed(examples: int) -> hypothesis.settings:
    """Settings of a test that draws files, rows or arguments: so many examples, or what FROSTBENCH_FUZZ says."""
    checks = [hypothesis.HealthCheck.function_scoped_fixture, hypothesis.HealthCheck.too_slow]
    return hypothesis.settings(
        max_examples=FUZZ or examples, derandomize=not FUZZ, deadline=None, suppress_health_check=checks, database=None
    )


WORDS = {"ba": 25, "di": 12, "go": 7}  # word -> half period of its tone, in samples at 16 kHz
PHONES = {"ba": "B AA", "di": "D IY", "go": "G OW"}
TRANSLATED = {"ba": "Bach an", "di": "dies da", "go": "geh hin"}  # each into two words, the last one first
TEXTS = ("ba di", "di go", "go ba", "ba go", "di ba", "go di")
FORMATS = ((16_000, 1, "wav"), (8_000, 1, "wav"), (48_000, 2, "wav"), (16_000, 1, "au"), (32_000, 3, "aiff"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write tests/golden anew; review the difference")


def tones(text: str, voice: int, rate: int, rng: np.random.Generator) -> np.ndarray:
    """int16 (samples,): a square wave a word, the voice in level and pauses. Whole numbers: the same bits anywhere."""
    parts = []
    for word in text.split():
        half = WORDS[word] * rate // SAMPLE_RATE
        samples = np.arange((2_400 + 400 * int(rng.integers(3))) * rate // SAMPLE_RATE)
        level = 2_000 + 1_500 * voice
        parts.append(np.where(samples // max(1, half) % 2 == 0, level, -level))
        parts.append(np.zeros((400 + 100 * voice) * rate // SAMPLE_RATE, dtype=np.int64))
    wav = np.concatenate(parts)
    return (wav + rng.integers(-300, 300, len(wav))).astype(np.int16)


def write_corpus(folder: Path) -> Path:
    """Rows for all tasks but SID whose voices are in one split only, and rows for SID whose texts are."""
    rng = np.random.default_rng(0)
    rows = []
    for split, voices in (("train", (0, 1, 2, 3)), ("valid", (4, 5)), ("test", (6, 7))):
        for voice in voices:
            for number, text in enumerate(TEXTS):
                first, second = text.split()
                row = {"keyword": first, "intent": {"action": first, "object": second}, "text": text}
                row |= {"voice": f"v{voice}", "speaker_to_verify": f"v{voice}"}
                slot = "low" if second == "ba" else "high"
                row |= {"phones": f"{PHONES[first]} {PHONES[second]}", "marked": f"{first} B-{slot} {second} E-{slot}"}
                row |= {"translation": f"{TRANSLATED[second]} {TRANSLATED[first]}"}
                row |= {"emotion": second, "session": f"session {voice % 3}"}
                row |= {"turns": [first, second]}  # who speaks, until the length is known
                if split != "train":
                    row |= {"contains": [text], **({"query": text} if number < 3 else {})}
                rows.append((f"{split}_{voice}_{number}", split, voice, text, row))
        share = TEXTS[:3] if split == "train" else TEXTS[3:5] if split == "valid" else TEXTS[4:]
        for voice in range(4):
            for number, text in enumerate(share):
                rows.append((f"sid_{split}_{voice}_{number}", split, 3 * voice, text, {"speaker": f"s{voice}"}))
    (folder / "audio").mkdir(parents=True)
    lines = []
    for number, (identifier, split, voice, text, labels) in enumerate(rows):
        rate, channels, suffix = FORMATS[number % len(FORMATS)]
        wav = tones(text, voice, rate, rng)
        if "turns" in labels:
            half = round(len(wav) / rate / 2, 2)
            labels["turns"] = [
                {"start": place * half, "stop": (place + 1) * half, "speaker": word}
                for place, word in enumerate(labels["turns"])
            ]
        name = f"audio/{identifier}.{suffix}"
        soundfile.write(folder / name, np.stack([wav] * channels, axis=1), rate, subtype="PCM_16")
        lines.append(json.dumps({"file_name": name, "id": identifier, "split": split, **labels}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@contextlib.contextmanager
def as_registered_before() -> Iterator[None]:
    """What is registered inside is gone after it."""
    with pytest.MonkeyPatch.context() as patch:
        for registry in (UPSTREAMS, HEADS, TASKS, CORPORA, METRICS):
            registry.names()
            patch.setattr(registry, "_entries", dict(registry._entries))
        yield


@pytest.fixture(autouse=True, scope="module")
def module_registries() -> Iterator[None]:
    """What the fixtures of a module register, which begin before any of a test's, is gone after the module."""
    with as_registered_before():
        yield


@pytest.fixture(autouse=True)
def registries(module_registries) -> Iterator[None]:
    """What a test's plug-ins register is gone after it."""
    with as_registered_before():
        yield


@pytest.fixture(scope="session")
def corpus_folder(tmp_path_factory) -> Path:
    """Written once; tests leave it as it is."""
    return write_corpus(tmp_path_factory.mktemp("corpus") / "tiny")


@pytest.fixture(scope="session")
def corpus(corpus_folder) -> Manifest:
    return read_manifest(corpus_folder)


@pytest.fixture(scope="session")
def tasks_file() -> Path:
    """Tasks whose recipes take a second."""
    return Path(__file__).parent / "tiny_tasks.py"


class Said(Watcher):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@dataclass(frozen=True)
class Called:
    code: int
    out: str
    err: str


def call(*arguments: object) -> Called:
    """The command line as `run_benchmark.py ARGUMENTS`, in this process."""
    import run_benchmark

    out, err = io.StringIO(), io.StringIO()
    with _arguments(arguments), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            run_benchmark.main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
    return Called(code, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def _arguments(arguments: tuple[object, ...]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["run_benchmark.py", *map(str, arguments)])
        yield
