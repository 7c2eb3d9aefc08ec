"""Who speaks when: the head, errors in seconds, and runs from end to end on mixtures."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import call
from hypothesis import given, settings
from hypothesis import strategies as st

import frostbench as fb
from core.errors import ManifestError
from core.manifest import Manifest, read_manifest
from core.metrics import get_metric
from core.records import RecordStore
from downstreams._base import FeatureShape
from downstreams.frame_activity import FrameActivity, FrameActivityOptions, _majority
from downstreams.labels._base import LabelContext
from downstreams.labels.activities import ActivityLabels
from frostbench.grid.cell_jobs import Folders
from frostbench.grid.plan import Grid
from frostbench.grid.run import run_grid
from frostbench.jobs.local import LocalExecutor
from leaderboard.aggregate import leaderboard
from leaderboard.verification import verify
from tasks._base import TASKS
from tasks._rows import read_rows, task_rows

ORACLES = Path(os.environ.get("FROSTBENCH_ORACLES") or Path(__file__).parents[2] / "shared" / "oracles") / "tasks"


def turns(*rows: tuple[float, float, str]) -> list[dict[str, object]]:
    return [{"start": start, "stop": stop, "speaker": speaker} for start, stop, speaker in rows]


def errors(prediction: list[dict[str, object]], reference: list[dict[str, object]]) -> tuple[float, ...]:
    return get_metric("der").statistics(prediction, reference)


def test_errors_by_hand():
    """Missed, false alarm and confusion in seconds; both speakers of an overlap count."""
    reference = turns((0, 4, "anna"), (2, 6, "ben"))
    assert errors(turns((0, 4, "0"), (2, 6, "1")), reference) == (0, 8)
    assert errors(turns((0, 4, "1"), (2, 6, "0")), reference) == (0, 8), "whatever they are called"
    assert errors([], reference) == (8, 8)
    assert errors(turns((0, 6, "0")), reference) == (2 + 2, 8), "one speaker all the time: misses and takes one for two"
    assert errors(turns((0, 4, "0"), (2, 7, "1")), reference) == (1, 8), "a false alarm behind the end"
    assert errors(turns((0, 4, "0"), (2, 4, "1"), (4, 6, "2")), reference) == (2, 8), "a third speaker is confusion"
    assert errors(turns((0, 1, "0")), []) == (1, 0)
    assert errors([], []) == (0, 0)
    assert errors(turns((0, 3, "0"), (1, 4, "0")), turns((0, 4, "a"))) == (0, 4), "turns of one speaker may overlap"


def slow_errors(prediction: list[dict[str, object]], reference: list[dict[str, object]], ticks: int) -> tuple[int, int]:
    """Tick by tick, with every way to lay speakers beside each other."""

    def active(rows: list[dict[str, object]]) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        for row in rows:
            found.setdefault(row["speaker"], np.zeros(ticks, dtype=bool))[int(row["start"]) : int(row["stop"])] = True
        return found

    ours, theirs = active(prediction), active(reference)
    names = [*ours, *[None] * len(theirs)]
    most = max(
        sum(int((ours[name] & theirs[other]).sum()) for name, other in zip(order, theirs, strict=False) if name)
        for order in permutations(names, len(theirs))
    )
    found, meant = (sum(rows.values(), np.zeros(ticks, dtype=int)) for rows in (ours, theirs))
    return int(np.maximum(found, meant).sum()) - most, int(meant.sum())


TURNS = st.lists(
    st.tuples(st.integers(0, 8), st.integers(1, 4), st.sampled_from("abc")).map(lambda t: (t[0], t[0] + t[1], t[2])),
    max_size=5,
)


@settings(max_examples=80, deadline=None)
@given(TURNS, TURNS)
def test_errors_are_those_of_the_best_mapping(prediction, reference):
    rows = turns(*prediction), turns(*reference)
    assert errors(*rows) == slow_errors(*rows, 12)


def test_errors_are_dscores():
    """NIST's md-eval-22 as dscore calls it: no collar, overlaps scored; seconds are rounded to 0.01 there."""
    if not (ORACLES / "der.json").is_file():
        pytest.skip(f"no der.json in {ORACLES}: name the folder above it with FROSTBENCH_ORACLES to prove parity")
    cases = json.loads((ORACLES / "der.json").read_text())["cases"]
    for case in cases:
        named = [name for name in case["dscore"] if name != "OVERALL"]
        rows = {
            name: [turns(*(tuple(row[1:]) for row in case[which] if row[0] == name))
                   for which in ("hypothesis", "reference")]
            for name in named
        }  # fmt: skip
        for name in named:
            known = case["dscore"][name]
            wrong = known["miss"] + known["false_alarm"] + known["error"]
            assert errors(*rows[name]) == pytest.approx((wrong, known["scored"]), abs=1e-6)
        value = get_metric("der").compute(*zip(*rows.values(), strict=True))
        assert value == pytest.approx(case["dscore"]["OVERALL"]["der"], abs=0.006)


def test_the_head_is_s3prls():
    """Logits of every valid frame, loss in the best order of each item, and which it is."""
    if not (ORACLES / "sd.npz").is_file():
        pytest.skip(f"no sd.npz in {ORACLES}: name the folder above it with FROSTBENCH_ORACLES to prove parity")
    known = {name: torch.from_numpy(value) for name, value in np.load(ORACLES / "sd.npz").items()}
    width, size = known["x"].shape[2], known["model.linear.weight"].shape[1]
    head = FrameActivity(FeatureShape(width, 160), ActivityLabels(2), FrameActivityOptions(lstm_size=size))
    names = {"lstm": "model.rnn", "classifier": "model.linear"}
    head.load_state_dict({
        name: known[f"{names[name.partition('.')[0]]}.{name.partition('.')[2]}"] for name in head.state_dict()
    })  # fmt: skip
    logits, lengths = head(known["x"], known["lens"]), known["lens"]
    targets = [known["activity"][row, :length] for row, length in enumerate(lengths)]
    for row, length in enumerate(lengths):
        torch.testing.assert_close(logits[row, :length], known["logits"][row, :length], rtol=0, atol=1e-5)
    torch.testing.assert_close(head.loss(logits, lengths, targets), known["loss"], rtol=1e-5, atol=0)
    swapped = [target[:, [1, 0]] for target in targets]
    torch.testing.assert_close(head.loss(logits, lengths, swapped), known["loss"], rtol=1e-5, atol=0)
    assert len(set(known["permutation"].tolist())) > 1, "it matters which"


def test_the_head_has_the_published_parameters():
    with torch.device("meta"):
        head = FrameActivity(FeatureShape(768, 320), ActivityLabels(2), FrameActivityOptions())
    assert sum(parameter.numel() for parameter in head.parameters()) == 2_626_562


def test_a_median_fills_gaps_and_drops_bursts():
    said = torch.tensor([[0, 1, 1, 1, 0, 1, 1, 0, 0, 0, 1, 0, 0]]).bool().T
    assert _majority(said, 1)[:, 0].tolist() == said[:, 0].tolist()
    assert _majority(said, 3)[:, 0].int().tolist() == [0, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0]


def test_frames_become_turns_at_the_heads_rate():
    head = FrameActivity(FeatureShape(4, 160), ActivityLabels(2), FrameActivityOptions(8, 320, median_frames=1))
    logits = torch.full((1, 10, 2), -9.0)
    logits[0, 2:5, 0] = logits[0, 4:8, 1] = 9.0
    assert head.predict(logits, torch.tensor([13])) == [turns((0.04, 0.1, "0"), (0.08, 0.14, "1"))]
    encoded = head.labels.encode(turns((0.04, 0.1, "a")), LabelContext(13, 160))
    assert encoded[:, 0].tolist() == [0] * 4 + [1] * 6 + [0] * 3, "the same times at twice as many frames"


@pytest.fixture(scope="module")
def mixed(corpus_folder, tmp_path_factory) -> Manifest:
    """Two recordings of the tiny corpus at a time, the second one from the middle of the first."""
    folder = tmp_path_factory.mktemp("mixed")
    lines = []
    known = [json.loads(line) for line in (corpus_folder / "metadata.jsonl").read_text().splitlines()]
    for split in ("train", "valid", "test"):
        rows = [row for row in known if row["split"] == split and "text" in row]
        for number, (one, other) in enumerate(zip(rows, rows[6:], strict=False)):
            if one["voice"] == other["voice"]:
                continue
            length = one["turns"][-1]["stop"]
            offset = round(length / 2, 2)
            lines.append({
                "id": f"{split}-{number}",
                "split": split,
                "mixture": [
                    {"file_name": str(corpus_folder / one["file_name"])},
                    {"file_name": str(corpus_folder / other["file_name"]), "offset": round(offset * 16_000)},
                ],
                "voice": [one["voice"], other["voice"]],
                "turns": turns((0, length, one["voice"]), (offset, offset + length, other["voice"])),
            })  # fmt: skip
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return read_manifest(folder)


def voices(mixed: Manifest) -> set[str]:
    return {voice for row in mixed.utterances for voice in row.labels["voice"]}


@pytest.fixture(scope="module")
def ran(mixed, tmp_path_factory) -> tuple[Path, list]:
    folder = tmp_path_factory.mktemp("diarised")
    task = TASKS.get("sd")
    recipe = replace(task.recipe("fast"), steps=40, eval_every=20, head={"lstm_size": 16, "frame_samples": 320})
    folders = Folders(folder / "cache", folder / "results")
    grid = Grid(("fbank", "mfcc"), (replace(task, recipes={"fast": recipe}),), (0,))
    report = run_grid(grid, mixed, folders, LocalExecutor("cpu", 1))
    assert (report.failures, report.computed) == ([], 2)
    return folder, RecordStore(folders.results).all()


def test_a_run_says_who_speaks_when(ran, mixed):
    folder, records = ran
    known = {row.id: row.labels for row in mixed.utterances}
    for record in records:
        path = folder / "results" / "runs" / record.run[:16] / "predictions.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row in rows:
            assert row["speaker"] == sorted(known[row["id"]]["voice"])
            assert {turn["speaker"] for turn in row["reference"]} == set(row["speaker"])
            assert {turn["speaker"] for turn in row["prediction"]} <= {"0", "1"}
            assert tuple(row["statistics"]["der"]) == errors(row["prediction"], row["reference"])
        value = get_metric("der").compute([row["prediction"] for row in rows], [row["reference"] for row in rows])
        assert record.value == value < 100
        assert record.inputs_digest() == record.run
    store = RecordStore(folder / "results")
    assert verify(store) == []
    (board,) = leaderboard(store, custom=True).boards
    assert all(row.cells["sd"].interval is not None and row.cells["sd"].speakers == 2 for row in board.rows)
    for row in board.rows:
        worst = row.cells["sd"].worst_turns
        assert len(worst) > 1 and {turn.speaker for each in worst for turn in each.prediction} <= {"", *voices(mixed)}
        shares = [each.errors / each.total for each in worst]
        assert shares == sorted(shares, reverse=True)


def test_predict_prints_turns(ran, mixed):
    folder, records = ran
    file = next(row.path for row in mixed.split("test"))
    (found,) = fb.predict(file, records[0].run, output=folder / "results", device="cpu")
    shown = call("predict", file, "--run", records[0].run, "--output", folder / "results", "--device", "cpu")
    assert shown.code == 0 and shown.out.count("start: ") == len(found)


def test_every_voice_of_a_list_counts(mixed, tmp_path):
    rows = task_rows(mixed, TASKS.get("sd"))
    assert {example.speaker for example in rows.examples["test"]} == {("v6", "v7")}
    assert read_rows(rows.kept_in(tmp_path).path).examples == rows.examples
    torn = replace(mixed.split("test")[0], split="train", id="torn")
    with pytest.raises(ManifestError, match="voice 'v6' is in test, but in train"):
        task_rows(replace(mixed, utterances=(torn, *mixed.utterances)), TASKS.get("sd"))
