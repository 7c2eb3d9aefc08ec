"""Probes (`run --probe`): heads that are not trained, their metrics, and what they say of the heads' order."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import tiny_tasks
import torch
from conftest import call

import frostbench as fb
from core.errors import ContractError
from core.metrics import get_metric
from core.records import RecordStore
from downstreams._base import FeatureShape
from downstreams.clusters import Clusters, ClustersOptions
from downstreams.labels.slots import SlotLabels
from downstreams.nearest_neighbours import NearestNeighbours, NeighboursOptions
from downstreams.retrieval import Retrieval, average_precisions
from frostbench.probes import probes_of, with_probes
from leaderboard.board import Column
from leaderboard.head_comparison import comparisons
from tasks._base import TASKS

PROBES = ["clusters", "nearest_neighbours", "retrieval"]
LABELS = SlotLabels.from_train(["a", "b"], "keyword")
SHAPE = FeatureShape(2, 160)


def fitted(kind, options, points, labels, seed=0):
    head = kind(SHAPE, LABELS, options)
    head.fit(torch.tensor(points), torch.stack([LABELS.encode(label) for label in labels]), seed)
    return head


def answers(head, points):
    lengths = torch.ones(len(points), dtype=torch.int64)
    return head.predict(head(torch.tensor(points)[:, None], lengths), lengths)


def test_near_neighbours_count_more_than_many():
    """One at the same place against two that are further away, of which the temperature makes more or less."""
    points = [[1.0, 1.0], [1.0, -0.5], [1.0, -0.4], [-3.0, -0.1]]
    one, three = (fitted(NearestNeighbours, NeighboursOptions(count), points, "abbb") for count in (1, 3))
    assert answers(one, [[1.0, 1.0], [1.0, -0.5]]) == ["a", "b"]
    assert answers(three, [[1.0, 1.0]]) == ["a"]
    warm = fitted(NearestNeighbours, NeighboursOptions(4, temperature=100.0), points, "abbb")
    assert answers(warm, [[1.0, 1.0]]) == ["b"]


def test_a_dimension_of_large_values_does_not_decide_alone():
    """The label is in the small one; before standardising all directions are that of the large one."""
    points = [[1000.0, 1.0], [1001.0, 1.0], [1000.0, -1.0], [1001.0, -1.0]]
    head = fitted(NearestNeighbours, NeighboursOptions(1), points, "aabb")
    assert answers(head, [[1000.4, 0.9], [1000.4, -0.9]]) == ["a", "b"]
    flat = fitted(NearestNeighbours, NeighboursOptions(1), [[5.0, 1.0], [5.0, -1.0]], "ab")
    assert answers(flat, [[5.0, 0.5]]) == ["a"], "a dimension without spread says nothing"


def slow_average_precision(ranked: list[int], label: int, relevant: int) -> float:
    hits, total = 0, 0.0
    for rank, found in enumerate(ranked[:relevant], start=1):
        if found == label:
            hits += 1
            total += hits / rank
    return total / relevant


def test_average_precision_equals_its_definition():
    rng = np.random.default_rng(0)
    members = rng.integers(0, 5, 40)
    sizes = np.bincount(members, minlength=5)
    rankings = [rng.permutation(members).tolist() for _ in range(20)]
    found = average_precisions(torch.tensor([ranked[: sizes.max()] for ranked in rankings]), torch.from_numpy(sizes))
    expected = [[slow_average_precision(ranked, label, sizes[label]) for label in range(5)] for ranked in rankings]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


def test_retrieval_says_what_each_label_would_have_had():
    """Ranked by cosine: a, b, a, b; of two a the first rank holds one: 1 / 2; of two b the second: (1 / 2) / 2."""
    head = fitted(Retrieval, Retrieval.options_type(), [[1.0, 0.1], [1.0, 1.0], [-0.5, 1.0], [-1.0, -1.0]], "abab")
    (found,) = answers(head, [[2.0, 0.2]])
    assert found == {"a": 0.5, "b": 0.25}
    metric = get_metric("map_r")
    assert metric.statistics(found, "a") == (0.5,)
    assert metric.statistics(found, "c") == (0.0,), "train has no such label"
    assert metric.compute([found, found], ["a", "b"]) == 37.5


def test_labels_of_several_slots_are_found_by_all_of_them():
    metric = get_metric("map_r")
    found = {'{"action":"on","object":"lamp"}': 0.75}
    assert metric.statistics(found, {"object": "lamp", "action": "on"}) == (0.75,)
    assert metric.statistics(found, {"object": "lamp", "action": "off"}) == (0.0,)


def test_clusters_are_the_groups_there_are_and_follow_from_the_seed():
    rng = np.random.default_rng(1)
    points = np.concatenate([rng.normal(centre, 0.05, (30, 2)) for centre in ((1.0, 1.0), (-1.0, 0.5))])
    first, again = (
        fitted(Clusters, ClustersOptions(), points.astype(np.float32), 30 * "a" + 30 * "b", 7) for _ in "ab"
    )
    assert torch.equal(first.points, again.points)
    found = answers(first, points.astype(np.float32))
    assert set(found) == {0, 1} and len(set(found[:30])) == len(set(found[30:])) == 1
    assert get_metric("v_measure").compute(found, [*(30 * "a"), *(30 * "b")]) == 100.0


def test_v_measure_equals_scikit_learns():
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(2)
    metric = get_metric("v_measure")
    for clusters, classes in ((4, 4), (2, 7), (9, 3)):
        found, meant = rng.integers(0, clusters, 60).tolist(), rng.integers(0, classes, 60).tolist()
        named = [f"class {each}" for each in meant]
        expected = 100 * sklearn.v_measure_score(meant, found)
        assert metric.compute(found, named) == pytest.approx(expected, abs=1e-6)
        rows = np.array([metric.statistics(*each) for each in zip(found, named, strict=True)])
        weights = rng.integers(0, 3, (5, 60)).astype(float)
        drawn = [100 * sklearn.v_measure_score(np.repeat(meant, times.astype(int)), np.repeat(found, times.astype(int)))
                 for times in weights]  # fmt: skip
        np.testing.assert_allclose(metric.weighted(rows, np.ones(60), weights), drawn, atol=1e-6)


@pytest.mark.parametrize(
    ("found", "expected"),
    [([0, 0, 1, 1], 100.0), ([5, 5, 2, 2], 100.0), ([0, 0, 0, 0], 0.0), ([0, 1, 0, 1], 0.0), ([0, 1, 2, 3], 200 / 3)],
)
def test_v_measure_by_hand(found, expected):
    assert get_metric("v_measure").compute(found, list("aabb")) == pytest.approx(expected)


@pytest.fixture(scope="module")
def probed(corpus_folder, tmp_path_factory) -> fb.Results:
    folder = tmp_path_factory.mktemp("probed")
    return fb.evaluate(
        ["fbank", "mfcc", "apc"], [tiny_tasks.KS, tiny_tasks.IC, tiny_tasks.ASR], corpus=corpus_folder, probes="all",
        layers="each", output=folder / "results", cache=folder / "cache",
    )  # fmt: skip


def test_a_probe_is_a_board_beside_the_leaderboard_compared_with_the_heads(probed):
    (board,) = probed.board.boards
    assert {column.task for column in board.columns} == {"ks", "ic", "asr"}
    headings = {(column.task, column.head, column.metric) for each in probed.board.variants for column in each.columns}
    assert headings == {
        (task, head, metric)
        for task in ("ks", "ic")
        for head, metric in (("clusters", "v_measure"), ("nearest_neighbours", "accuracy"), ("retrieval", "map_r"))
    }
    compared = {(each.task, each.head): each for each in board.heads}
    assert set(compared) == {(task, head) for task in ("ks", "ic") for head in PROBES}
    for each in compared.values():
        assert each.upstreams and -1 <= (each.tau or 0) <= 1
        assert None not in each.intervals
    records = [record for record in probed.records if record.task["head"] in PROBES]
    assert {record.recipe["steps"] for record in records} == {0}
    assert {record.recipe["layers"] for record in records} == {"single"}


def test_the_layer_that_is_best_on_valid_is_taken_and_each_has_a_value(probed):
    rows = probed.layers()
    by_probe = rows[rows["upstream"] == "apc"]
    assert by_probe["value"].notna().sum() == 3 * 4 * 2  # layers, own head and probes, tasks
    record = next(r for r in probed.records if r.task["head"] == "retrieval" and r.upstream["name"] == "apc"
                  and r.layer is None and r.task["name"] == "ks")  # fmt: skip
    assert len(record.learning_rates) == 3
    best = max(record.learning_rates, key=lambda tried: tried["valid"])
    assert record.layer_weights[best["layer"]] == 1


def test_everything_of_a_probe_is_verified_and_predicts(probed, corpus_folder):
    checked = call("verify", "--output", probed.folder)
    assert checked.code == 0, checked.err
    store = RecordStore(probed.folder)
    recording = next((corpus_folder / "audio").glob("test_*"))
    for record in probed.records:
        if record.task["head"] not in PROBES or record.layer is not None or record.upstream["name"] != "fbank":
            continue
        row = next(
            row
            for row in map(json.loads, (store.run_folder(record.run) / "predictions.jsonl").read_text().splitlines())
            if row["id"] == recording.stem
        )
        (said,) = fb.predict(recording, record.run, output=probed.folder)
        assert said == row["prediction"] or said == pytest.approx(row["prediction"], abs=1e-3)


def test_the_command_asks_probes_beside_the_heads(corpus_folder, tasks_file, tmp_path):
    places = ("--corpus", corpus_folder, "--output", tmp_path / "results", "--cache", tmp_path / "cache")
    command = ("run", "--upstream", "fbank", "--upstream", "mfcc", *places, "--workers", 1)
    done = call(*command, "--task", f"{tasks_file}:KS", "--task", f"{tasks_file}:ASR", "--probe", "retrieval", "--plan")
    assert done.code == 0, done.err
    assert done.out.startswith("plan: 6 cells")
    ran = call(*command, "--task", f"{tasks_file}:KS", "--probe", "nearest_neighbours", "--budget", "10%,all")
    assert ran.code == 0, ran.err
    assert "head nearest_neighbours" in ran.out
    assert "KS with head nearest_neighbours instead of utterance_linear" in " ".join(ran.out.split())
    budgets = [record for record in RecordStore(tmp_path / "results").all() if record.drawn is not None]
    assert {record.task["head"] for record in budgets} == {"utterance_linear", "nearest_neighbours"}


@pytest.mark.parametrize(
    ("task", "asked", "message"),
    [
        ("KS", ("--probe", "utterance_attention"), "probes are clusters, nearest_neighbours, retrieval"),
        ("KS", ("--probe", "neighbours"), "unknown head 'neighbours'"),
        ("ASR", ("--probe", "all"), "asr is not asked of clusters, nearest_neighbours, retrieval: its labels are text"),
        ("KS", ("--head", "clusters", "--probe", "retrieval"), "begin with its own head"),
        ("KS", ("--finetune", "full", "--probe", "clusters"), "nothing is trained, so nothing can be fine-tuned"),
    ],
)
def test_what_no_probe_can_do_is_refused_in_words(corpus_folder, tasks_file, tmp_path, task, asked, message):
    places = ("--corpus", corpus_folder, "--output", tmp_path / "results", "--cache", tmp_path / "cache")
    refused = call("run", "--upstream", "fbank", "--task", f"{tasks_file}:{task}", *places, *asked)
    assert refused.code == 2
    assert message in refused.err


def test_tasks_that_no_probe_takes_are_left_out_with_a_note():
    found = with_probes([TASKS.get("ks"), TASKS.get("pr")], probes_of(["all"]))
    assert [(task.name, task.head) for task in found.tasks] == [
        ("ks", "utterance_linear"), *(("ks", probe) for probe in PROBES), ("pr", "ctc"),
    ]  # fmt: skip
    (note,) = found.notes
    assert note.startswith("pr is not asked of clusters")
    assert with_probes([TASKS.get("pr")], []) == ([TASKS.get("pr")], ())


def test_a_probe_has_its_own_recipe_under_the_tasks_names_and_is_not_custom():
    task = TASKS.get("sid").with_head("retrieval")
    assert set(task.recipes) == set(TASKS.get("sid").recipes)
    for name, recipe in task.recipes.items():
        assert not task.is_custom(recipe)
        assert recipe.normalise == TASKS.get("sid").recipes[name].normalise
        assert task.audio_of(recipe) == TASKS.get("sid").audio_of(TASKS.get("sid").recipes[name])
    assert (task.metrics, task.shown) == (("map_r",), "sid by retrieval")
    with pytest.raises(ContractError, match="begin with its own head"):
        task.with_head("utterance_attention")


def test_the_order_is_compared_in_the_direction_of_each_metric(probed):
    """An error rate that falls while accuracy rises is the same order."""
    board, variants = probed.board.boards[0], probed.board.variants
    (variant,) = [each for each in variants if each.columns[0].head == "nearest_neighbours"]
    columns = tuple(replace(column, direction="lower") for column in variant.columns)
    assert all(isinstance(column, Column) for column in columns)
    there = {each.task: each.tau for each in comparisons(board, [variant])}
    turned = {each.task: each.tau for each in comparisons(board, [replace(variant, columns=columns)])}
    assert any(there.values()), "there is an order to turn"
    assert turned == {task: None if tau is None else -tau for task, tau in there.items()}
