"""A grid that is far from perfect, against stored numbers: losses of looks at valid, and scores on test.

The corpus is made here, of whole numbers, so that it has the same bits anywhere. Its words drown in noise: no score is
near 0 or 100 %, and none depends on a handful of utterances. Losses say more than scores: they change with the first
weights, the order of the batches, the schedule and each feature. Other instruction sets, and relative noise of 1e-5 on
the features, change a loss of the linear heads by 2e-5 at most. An LSTM multiplies rounding errors with each update:
only its first look at valid is compared closely.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import call

from core.audio import SAMPLE_RATE
from core.records import RecordStore

GOLDEN = Path(__file__).parent / "golden" / "noisy_grid.json"
LOSS_TOLERANCE = 5e-4  # relative
SCORE_TOLERANCE = {"ks": 1.6, "sid": 1.6, "ic": 1.6, "asr": 8.0}  # percentage points: 3 of 192 decisions; see above
HALF_PERIODS = (40, 30, 22, 16, 11)  # samples at 16 kHz of the words' square waves: 200 to 730 Hz
NAMES = ("ba", "di", "go", "ku", "le")
NOISE = 5_000
SIZES = {"train": 96, "valid": 64, "test": 96}
TASKS = """
from dataclasses import replace
from downstreams._recipe import Recipe
from tasks._base import TASKS

CLASSIFY = Recipe("noisy", steps=80, batch_size=16, learning_rates=(2e-3, 5e-4), eval_every=20)
DECAY = replace(CLASSIFY, schedule="linear", learning_rates=(5e-3,))
TRANSCRIBE = Recipe(
    "noisy", steps=360, batch_size=8, learning_rates=(5e-3,), eval_every=90, schedule="linear",
    head={"projector_size": 32, "lstm_size": 32, "frame_samples": 320, "dropout": 0.0},
)
KS = replace(TASKS.get("ks"), recipes={"noisy": CLASSIFY})
SID = replace(TASKS.get("sid"), recipes={"noisy": CLASSIFY})
IC = replace(TASKS.get("ic"), recipes={"noisy": DECAY})
ASR = replace(TASKS.get("asr"), recipes={"noisy": TRANSCRIBE})
"""


def square_wave(half_period: int, samples: int) -> np.ndarray:
    return np.where(np.arange(samples) // half_period % 2 == 0, 1, -1)


def noisy_words(words: list[int], level: int, hum: int, rng: np.random.Generator) -> np.ndarray:
    """int16 (samples,): a square wave a word between pauses, the speaker's hum, and noise above all of it."""
    parts = []
    for word in words:
        tone = square_wave(HALF_PERIODS[word], 1_600 + 160 * int(rng.integers(6)))
        parts += [level * tone, np.zeros(320, dtype=np.int64)]
    wav = np.concatenate(parts)
    noise = rng.integers(-NOISE, NOISE, len(wav))
    return (wav + 1_000 * square_wave(hum, len(wav)) + noise).astype(np.int16)


def rows_of(split: str, count: int, rng: np.random.Generator) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    for number in range(count):
        first, second = (int(word) for word in rng.integers(len(NAMES), size=2))
        voice = int(rng.integers(100))  # nobody's
        labels: dict[str, Any] = {
            "keyword": NAMES[first],
            "intent": {"action": NAMES[first % 3], "object": NAMES[second % 4]},
            "text": f"{NAMES[first][0]} {NAMES[second][0]}",
        }
        yield {"id": f"{split}_{number}", **labels}, noisy_words([first, second], 1_500, 50 + voice, rng)
        speaker = number % 6
        words = [int(word) for word in rng.integers(len(NAMES), size=2)]
        yield (
            {"id": f"sid_{split}_{number}", "speaker": f"s{speaker}"},
            noisy_words(words, 1_500, 50 + 10 * speaker, rng),
        )


def write_noisy_corpus(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    (folder / "audio").mkdir(parents=True)
    lines = []
    for split, count in SIZES.items():
        for row, wav in rows_of(split, count, rng):
            name = f"audio/{row['id']}.wav"
            soundfile.write(folder / name, wav, SAMPLE_RATE, subtype="PCM_16")
            lines.append(json.dumps({"file_name": name, "split": split, **row}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def noisy_grid(tmp_path_factory) -> SimpleNamespace:
    folder = tmp_path_factory.mktemp("noisy")
    corpus = write_noisy_corpus(folder / "noisy")
    (folder / "noisy_tasks.py").write_text(TASKS)
    tasks = [part for name in ("KS", "SID", "IC", "ASR") for part in ("--task", f"{folder / 'noisy_tasks.py'}:{name}")]
    where = ("--output", folder / "results", "--cache", folder / "cache", "--workers", 1, "--device", "cpu")
    ran = call("run", "--upstream", "fbank", *tasks, "--corpus", corpus, "--seed", 0, "--seed", 1, *where)
    assert ran.code == 0, ran.err
    return SimpleNamespace(store=RecordStore(folder / "results"))


def numbers_of(store: RecordStore) -> dict[str, Any]:
    """Score of each task over seeds, and the losses of the looks at valid of every run."""
    found: dict[str, Any] = {"scores": {}, "losses": {}}
    records = sorted(store.all(), key=lambda record: (record.task["name"], record.seed))
    for record in records:
        name = record.task["name"]
        values = [each.value for each in records if each.task["name"] == name]
        found["scores"][name] = sum(values) / len(values)
        looks = 1 if name == "asr" else None
        for each in json.loads((store.run_folder(record.run) / "history.json").read_text()):
            found["losses"][f"{name}, seed {record.seed}, learning rate {each['learning_rate']:g}"] = {
                kind: [float(f"{look[kind]:.5g}") for look in each["history"][:looks]]
                for kind in ("train_loss", "valid_loss")
            }
    return found


def test_the_noisy_grid_is_as_it_was(noisy_grid, request):
    found = numbers_of(noisy_grid.store)
    if request.config.getoption("--update-golden"):
        GOLDEN.write_text(json.dumps(found, indent=1) + "\n")
    stored = json.loads(GOLDEN.read_text())
    assert list(found["losses"]) == list(stored["losses"])
    for run, losses in stored["losses"].items():
        for kind, values in losses.items():
            assert found["losses"][run][kind] == pytest.approx(values, rel=LOSS_TOLERANCE), f"{run}: {kind}"
    assert list(found["scores"]) == list(stored["scores"]) == ["asr", "ic", "ks", "sid"]
    for task, score in stored["scores"].items():
        assert found["scores"][task] == pytest.approx(score, abs=SCORE_TOLERANCE[task]), task


def test_the_noisy_grid_has_room_at_both_ends(noisy_grid):
    for task, score in numbers_of(noisy_grid.store)["scores"].items():
        assert 20 < score < 90, f"{task}: a score near its end shows no bug"
