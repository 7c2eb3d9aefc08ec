"""Searching recordings for what another one says: which are searched, how they are scored, and runs from end to end."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import call
from hypothesis import given, settings
from hypothesis import strategies as st

import frostbench as fb
from core.errors import ManifestError
from core.manifest import Manifest, Utterance
from core.metrics import FALSE_ALARM, get_metric
from core.records import RecordStore
from downstreams._recipe import Recipe
from frostbench.grid.cell_jobs import Folders
from frostbench.grid.plan import Grid
from frostbench.grid.run import run_grid
from frostbench.jobs.local import LocalExecutor
from leaderboard.aggregate import leaderboard
from leaderboard.verification import verify
from tasks import _checks, _scorers
from tasks._base import TASKS
from tasks._rows import task_rows
from tasks._scorers import scores, standardised
from tasks._trials import searches_of

ORACLES = Path(os.environ.get("FROSTBENCH_ORACLES") or Path(__file__).parents[2] / "shared" / "oracles")
GOLDEN = json.loads((Path(__file__).parent / "golden" / "subsequence_dtw.json").read_text())


def made(*rows: dict[str, object]) -> Manifest:
    """A split test of recordings `0`, `1`, ... with these labels."""
    return Manifest(
        "made", Path("made"), tuple(Utterance(str(n), Path("x"), "test", row) for n, row in enumerate(rows))
    )


def of(*rows: dict[str, object]) -> list[tuple[int, int, bool]]:
    manifest = made(*rows)
    return [tuple(trial) for trial in searches_of(manifest, manifest.utterances, "query", "contains")]


def test_every_query_is_searched_in_every_recording_of_another_voice():
    query = {"query": "yes", "contains": ["yes"], "voice": "a"}
    own, others = {"contains": ["yes"], "voice": "a"}, {"contains": ["no", "yes"], "voice": "b"}
    nobody = {"contains": []}
    assert of(query, own, others, nobody, {"text": "yes"}) == [(0, 2, True), (0, 3, False)]
    assert of({"query": 7}, {"contains": [7]}, {"contains": ["8"]}) == [(0, 1, True), (0, 2, False)]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (({"query": "yes"}, {"contains": "yes"}), "utterance '1': contains must be a list of what is said there"),
        (
            ({"query": "yes"}, {"contains": ["no"]}),
            r"is nowhere in split 'test' \(contains\), so nothing can be judged",
        ),
        (({"query": "yes"}, {"contains": ["yes"]}), "is everywhere in split 'test'"),
        (({"query": "yes", "contains": ["yes"]},), "is nowhere in split 'test'"),
    ],
)
def test_searches_that_can_not_be_are_named(rows, said):
    with pytest.raises(ManifestError, match=said):
        of(*rows)


def of_golden() -> tuple[list[object], list[tuple[int, int]], np.ndarray]:
    queries, documents = GOLDEN["queries"], GOLDEN["documents"]
    pairs = [(query, len(queries) + document) for query in range(len(queries)) for document in range(len(documents))]
    return [*map(np.array, (*queries, *documents))], pairs, np.array(GOLDEN["scores"]).ravel()


def test_scores_are_those_of_dtw_python():
    frames, pairs, known = of_golden()
    np.testing.assert_allclose(scores("dtw", frames, pairs), known, atol=1e-6)
    assert np.argmax(known.reshape(3, -1)[1]) == 3, "it finds what is hidden there at half the pace"


@pytest.mark.parametrize("batch", [1, 30, 60, 1_000])
def test_scores_do_not_depend_on_batches_or_the_order_of_pairs(batch, monkeypatch):
    monkeypatch.setattr(_scorers, "BATCH_FRAMES", batch)
    frames, pairs, known = of_golden()
    order = np.random.default_rng(0).permutation(len(pairs))
    found = scores("dtw", frames, [pairs[place] for place in order])
    np.testing.assert_allclose(found, known[order], atol=1e-6)


def test_short_queries_score_nothing():
    frames, pairs, _ = of_golden()
    frames[0] = frames[0][:4]
    found = scores("dtw", frames, pairs)
    assert found[:4] == [0] * 4 and all(found[4:])
    assert scores("dtw", frames, [(0, 3), (1, 3)])[0] == 0


def test_what_can_not_differ_has_no_distance():
    """Silence of one value in every frame: no deviation, no length and no range."""
    same = [np.zeros((6, 3), dtype=np.float32)] * 3
    assert scores("dtw", same, [(0, 1), (0, 2)]) == [0, 0]
    assert standardised([0.0, 0.0], [0, 0]) == [0, 0]


def test_scores_are_s3prls():
    """Of random features: raw, and set off against those of the same query; MTWV by the published formula."""
    if not (ORACLES / "tasks" / "qbe.npz").is_file():
        pytest.skip(f"no qbe.npz in {ORACLES}: name the folder above it with FROSTBENCH_ORACLES to prove parity")
    known = dict(np.load(ORACLES / "tasks" / "qbe.npz"))
    meta = json.loads((ORACLES / "tasks" / "meta.json").read_text())["qbe"]
    queries = [known[name] for name in sorted(known) if name.startswith("query")]
    documents = [known[name] for name in sorted(known) if name.startswith("document")]
    pairs = [(one, len(queries) + other) for one in range(len(queries)) for other in range(len(documents))]
    found = scores("dtw", [*queries, *documents], pairs)
    np.testing.assert_allclose(found, known["scores"].ravel(), atol=1e-6)
    made = standardised(found, [query for query, _ in pairs])
    np.testing.assert_allclose(made, known["normalised_scores"].ravel(), atol=1e-5)
    references = [
        {"search": query, "holds": bool(truth)} for (query, _), truth in zip(pairs, known["truth"].ravel(), strict=True)
    ]
    value = get_metric("mtwv").compute(made, references)
    assert value == pytest.approx(100 * meta["mtwv_own_formula"]) and pytest.approx(meta["beta"]) == FALSE_ALARM


def mtwv(*searches: list[tuple[float, bool]]) -> float:
    """Of searches: (score, whether it holds it)."""
    items = [(score, {"search": n, "holds": holds}) for n, each in enumerate(searches) for score, holds in each]
    return get_metric("mtwv").compute(*map(list, zip(*items, strict=True)))


def test_the_term_weighted_value_by_hand():
    """A miss costs its share of what there is, a false alarm 12.49 times its share; searches are averaged."""
    others = [(-1.0, False)] * 99
    assert mtwv([(3.0, True), *others]) == 100
    assert mtwv([(-2.0, True), *others]) == 0, "to accept nothing costs nothing"
    assert mtwv([(3.0, True), (-2.0, True), *others]) == 50
    assert mtwv([(3.0, True), (4.0, False), *others]) == pytest.approx(100 * (1 - 12.49 / 100))
    assert mtwv([(3.0, True), *others], [(-2.0, True), *others]) == 50
    assert mtwv([(3.0, True), *others], [(5.0, False), *others]) == 100, "a search for nothing does not count"
    assert mtwv([(3.0, True), *others], [(3.0, True), (5.0, False), *others[1:]]) == pytest.approx(
        100 * (1 - 12.49 / 99 / 2)
    ), "one threshold for all"
    assert mtwv([(3.0, True), (3.0, False), *others]) == pytest.approx(100 - 12.49), "of ties all are accepted"


def slow_mtwv(scored: np.ndarray, holds: np.ndarray, search: np.ndarray) -> float:
    best = 0.0
    for threshold in scored:
        accepted = scored >= threshold
        losses = []
        for number in set(search[holds]):
            own = search == number
            misses, alarms = (~accepted[own & holds]).mean(), accepted[own & ~holds]
            losses.append(misses + FALSE_ALARM * (alarms.mean() if len(alarms) else 0))
        best = max(best, 1 - float(np.mean(losses)))
    return 100 * best


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=6, max_size=6), min_size=1, max_size=5))
def test_the_term_weighted_value_is_the_published_one_where_all_is_searched(searches):
    flat = [(score, holds, number) for number, each in enumerate(searches) for score, holds in each]
    scored, holds, search = (np.array(column) for column in zip(*flat, strict=True))
    if holds.any():
        assert mtwv(*searches) == pytest.approx(slow_mtwv(scored.astype(float), holds, search), abs=1e-6)


def test_draws_count_voices_that_are_drawn_again():
    """A weight is a repetition; where nothing is left to be found there is no value."""
    rows = np.array([(3.0, 1, 0), (-1.0, 0, 0), (1.0, 1, 1), (2.0, 0, 1)])
    weights = np.array([[1, 1, 1, 1], [0, 2, 0, 2], [1, 1, 0, 1], [2, 2, 1, 1]], dtype=float)
    value = get_metric("mtwv").weighted(rows, np.ones(4), weights)
    assert value[0] == 50 and np.isnan(value[1]) and value[2] == 100
    assert value[3] == pytest.approx(100 * 4 / 6), "twice as much is searched for the first"


def test_a_key_to_search_needs_a_scorer_and_a_head_that_learns_nothing():
    task = TASKS.get("qbe")
    for changed in (replace(task, scorer=None), replace(task, head="xvector"), replace(task, head="ctc")):
        assert _checks.run_check(_checks.check_names_resolve, changed).error is not None
    error = _checks.run_check(_checks.check_names_resolve, replace(task, head="xvector")).error
    assert "against is 'contains': what is searched needs a scorer, and a head that learns nothing" in error


@pytest.fixture(scope="module")
def ran(corpus, tmp_path_factory) -> tuple[Path, list]:
    folder = tmp_path_factory.mktemp("searched")
    folders = Folders(folder / "cache", folder / "results")
    grid = Grid(("fbank", "mfcc"), (TASKS.get("qbe"),), (0,))
    report = run_grid(grid, corpus, folders, LocalExecutor("cpu", 1))
    assert (report.failures, report.computed) == ([], 2)
    assert report.passed == {"fbank": 24, "mfcc": 24}, "no recording of train"
    assert run_grid(grid, corpus, folders, LocalExecutor("cpu", 1)).computed == 0
    return folder, RecordStore(folders.results).all()


def rows_of(folder: Path, run: str) -> list[dict[str, object]]:
    path = folder / "results" / "runs" / run[:16] / "predictions.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_run_scores_every_query_in_every_document(ran, corpus):
    folder, records = ran
    known = {row.id: row.labels for row in corpus.utterances}
    for record in records:
        assert record.counts == {"train": 0, "valid": 12, "test": 12, "trials": 36}
        assert record.task["against"] == "contains" and record.inputs_digest() == record.run
        assert [each["step"] for each in record.learning_rates] == [0] and record.layer_weights == [1]
        rows = rows_of(folder, record.run)
        for row in rows:
            query, document = (known[name] for name in row["id"].split("|"))
            assert row["reference"]["holds"] is (query["query"] in document["contains"])
            assert query["voice"] != document["voice"] and row["speaker"] == sorted({query["voice"], document["voice"]})
        searches = {row["reference"]["search"] for row in rows}
        assert len(searches) == 6
        for search in searches:
            found = [row["prediction"] for row in rows if row["reference"]["search"] == search]
            assert np.mean(found) == pytest.approx(0, abs=1e-9) and np.std(found) == pytest.approx(1)
        assert record.value == get_metric("mtwv").compute(
            [row["prediction"] for row in rows], [row["reference"] for row in rows]
        )
    assert max(record.value for record in records) > 50, "tones are found again"


def test_a_board_shows_it_and_verify_computes_it_again(ran):
    folder, _ = ran
    store = RecordStore(folder / "results")
    (board,) = leaderboard(store).boards
    for row in board.rows:
        cell = row.cells["qbe"]
        assert cell.interval is not None and cell.speakers == 2
        assert cell.detection.targets + cell.detection.others == 36
    assert verify(store) == []
    shown = call("report", "--output", folder / "results", "--html", folder / "page.html")
    assert shown.code == 0 and "MTWV" in shown.out
    assert len(fb.load(folder / "results").predictions()) == 2 * 36


def test_predict_says_how_well_one_recording_fits_into_another(ran, corpus):
    folder, records = ran
    rows = {row.id: row for row in corpus.with_label("contains").split("test")}
    query = next(row for row in rows.values() if "query" in row.labels)
    there, not_there = (
        next(row for row in rows.values() if row.labels["voice"] != query.labels["voice"]
             and (query.labels["query"] in row.labels["contains"]) is holds)
        for holds in (True, False)
    )  # fmt: skip
    files = [query.path, there.path, query.path, not_there.path]
    first, second = fb.predict(files, records[0].run, output=folder / "results", device="cpu")
    assert set(first) == {"score"} and first["score"] > second["score"]


def test_where_voices_are_unknown_intervals_draw_recordings(corpus, tmp_path):
    rows = tuple(
        replace(row, labels={key: row.labels[key] for key in ("query", "contains") if key in row.labels})
        for row in corpus.utterances
    )
    folders = Folders(tmp_path / "cache", tmp_path / "results")
    grid = Grid(("fbank",), (TASKS.get("qbe"),), (0,))
    assert run_grid(grid, replace(corpus, utterances=rows), folders, LocalExecutor("cpu", 1)).failures == []
    (record,) = RecordStore(folders.results).all()
    assert record.counts["trials"] == 6 * 11
    for row in rows_of(tmp_path, record.run):
        assert row["speaker"] == sorted(row["id"].split("|"))


def test_a_limit_leaves_what_fits_together(corpus):
    rows = task_rows(corpus, TASKS.get("qbe"), limit=10)
    assert [len(rows.examples[split]) for split in ("train", "valid", "test")] == [0, 10, 10]
    assert {trial.target for trial in rows.trials["test"]} == {True, False}


def test_an_upstream_of_several_layers_is_asked_of_each(corpus, tmp_path):
    recipe = Recipe("fast", 0, 1, (0.0,), 1, layers="single")
    folders = Folders(tmp_path / "cache", tmp_path / "results")
    task = replace(TASKS.get("qbe"), recipes={"fast": recipe})
    assert run_grid(Grid(("apc",), (task,), (0,)), corpus, folders, LocalExecutor("cpu", 1)).failures == []
    (record,) = RecordStore(folders.results).all()
    tried = record.learning_rates
    assert [each["layer"] for each in tried] == list(range(len(record.layer_weights)))
    best = max(tried, key=lambda each: each["valid"])
    assert record.layer_weights == [float(each["layer"] == best["layer"]) for each in tried]
