"""Heads on a part of train (`run --budget`): nested, stratified, seeded, and a curve beside the rows."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_tasks
from conftest import Said, call
from hypothesis import given
from hypothesis import strategies as st
from made_boards import board, leaderboard, with_budgets
from test_layer_panels import parts, whiskers

import frostbench as fb
from core.digest import digest_of
from core.errors import BenchmarkError, ContractError, ManifestError
from core.metrics import get_metric
from core.records import RecordStore
from frostbench.grid.plan import Grid, make_cells
from leaderboard.figures import figures_of
from leaderboard.page import page
from leaderboard.statistics import Trials, interval, resample
from leaderboard.tables import to_markdown
from leaderboard.verification import verify
from tasks._audio import samples_of
from tasks._base import TASKS
from tasks._budgets import Budget, asked_budgets, drawing_order, train_seconds, within
from tasks._rows import Example, TaskRows, read_rows, task_rows

BUDGETS = "2s,50%,all"


@pytest.mark.parametrize(
    ("text", "budget", "shown"),
    [
        ("30s", Budget(seconds=30), "30s"),
        ("90s", Budget(seconds=90), "1.5min"),
        ("60s", Budget(seconds=60), "1min"),
        ("10 min", Budget(seconds=600), "10min"),
        ("1.5h", Budget(seconds=5400), "1.5h"),
        ("0.5%", Budget(share=0.005), "0.5%"),
        ("all", None, "None"),
        ("100%", None, "None"),
    ],
)
def test_what_is_asked_for(text, budget, shown):
    assert Budget.from_text(text) == budget
    assert str(budget) == shown
    assert budget is None or Budget.from_text(str(budget)) == budget


@pytest.mark.parametrize("text", ["", "10", "0s", "0%", "101%", "-1min", "ten minutes", "1min5s"])
def test_what_is_no_budget_is_refused(text):
    with pytest.raises(BenchmarkError, match="such as 30s, 10min, 1h, 10% or all"):
        Budget.from_text(text)


def test_each_budget_is_asked_for_once():
    assert asked_budgets("1min,60s,all,100%") == asked_budgets(["1min", "all"]) == (Budget(seconds=60), None)
    with pytest.raises(BenchmarkError, match="at least one, or all"):
        asked_budgets([])


CLASSES = st.lists(st.sampled_from("abcde"), min_size=1, max_size=60)


def examples_of(classes: list[str]) -> list[Example]:
    return [Example(f"row {place}", (), label) for place, label in enumerate(classes)]


@given(classes=CLASSES, seed=st.integers(0, 5))
def test_every_beginning_has_the_classes_in_the_proportions_of_the_whole(classes, seed):
    order = drawing_order(examples_of(classes), classes, seed)
    assert sorted(order) == list(range(len(classes)))
    whole = Counter(classes)
    assert len({classes[place] for place in order[: len(whole)]}) == len(whole), "first each class once"
    assert [whole[classes[place]] for place in order[: len(whole)]] == sorted(whole.values(), reverse=True)
    for size in range(len(whole), len(order) + 1):
        found = Counter(classes[place] for place in order[:size])
        # One a class stands in front; of the others each class is within one of its share.
        share = (size - len(whole)) / max(1, len(order) - len(whole))
        assert all(abs(found[name] - 1 - share * (count - 1)) <= 2 for name, count in whole.items())


@given(classes=CLASSES, data=st.data())
def test_what_is_drawn_depends_on_ids_and_the_seed_alone(classes, data):
    examples = examples_of(classes)
    ids = [examples[place].id for place in drawing_order(examples, classes, 3)]
    shuffled = data.draw(st.permutations(examples))
    labels = [example.label for example in shuffled]
    assert [shuffled[place].id for place in drawing_order(shuffled, labels, 3)] == ids


def test_another_seed_draws_others():
    classes = ["a", "b"] * 50
    first, second = (drawing_order(examples_of(classes), classes, seed) for seed in (0, 1))
    assert set(first[:50]) != set(second[:50])


@pytest.fixture(scope="module")
def rows(corpus) -> TaskRows:
    return task_rows(corpus, tiny_tasks.KS)


def ids_of(rows: TaskRows) -> list[str]:
    return [example.id for example in rows.examples["train"]]


def test_smaller_parts_are_within_larger_ones_and_as_long_as_fits(rows):
    seconds = train_seconds(rows)
    found = [within(rows, tiny_tasks.KS, budget, 0) for budget in (Budget(2.0), Budget(4.0), Budget(share=0.9))]
    for smaller, larger in zip(found, [*found[1:], rows], strict=True):
        assert set(ids_of(smaller)) < set(ids_of(larger))
    for part, most in zip(found, (2.0, 4.0, 0.9 * seconds), strict=True):
        assert part.drawn is not None
        assert part.drawn.seconds == pytest.approx(train_seconds(part), abs=1e-3)
        longest = max(map(samples_of, rows.recordings["train"])) / 16_000
        assert most - longest < train_seconds(part) <= most
        assert part.drawn.whole_seconds == pytest.approx(seconds, abs=1e-3)
        assert (part.drawn.whole, part.drawn.whole_train) == (rows.digest, len(ids_of(rows)))
        assert [example.keys[0] for example in part.examples["train"]] == [
            clip.key for clip in part.recordings["train"]
        ]
        assert ids_of(part) == [name for name in ids_of(rows) if name in set(ids_of(part))], "in the corpus' order"
        for split in ("valid", "test"):
            assert part.examples[split] == rows.examples[split]
    assert len({part.digest for part in found} | {rows.digest}) == 4
    classes = Counter(example.label for example in found[1].examples["train"])
    assert max(classes.values()) - min(classes.values()) <= 1, "the corpus has as many of each"


def test_a_part_survives_the_file_that_jobs_read(rows, tmp_path):
    part = within(rows, tiny_tasks.KS, Budget(2.0), 0).kept_in(tmp_path)
    assert part.path is not None
    read = read_rows(part.path)
    assert (read.drawn, read.digest, read.examples, read.known_labels) == (
        part.drawn, part.digest, part.examples, part.known_labels,
    )  # fmt: skip
    whole = rows.kept_in(tmp_path)
    assert whole.path is not None and read_rows(whole.path).drawn is None


def test_classes_without_an_example_are_said_and_still_known(corpus):
    wide = task_rows(corpus, tiny_tasks.IC)
    classes = {str(example.label) for example in wide.examples["train"]}
    part = within(wide, tiny_tasks.IC, Budget(2.0), 0)
    there = {str(example.label) for example in part.examples["train"]}
    assert len(there) < len(classes)
    assert {str(label) for label in part.known_labels} == classes
    (said,) = [line for line in part.doubts if line not in wide.doubts]
    assert (
        f"ic, budget 2s, seed 0: {len(classes - there)} of {len(classes)} classes of intent have no example (" in said
    )
    assert "{" not in said, "slots are written out"


@pytest.mark.parametrize(
    ("seconds", "why"), [(0.1, "no recording of train fits into it"), (0.6, "it holds one class of train alone")]
)
def test_parts_with_nothing_to_learn_are_refused(rows, seconds, why):
    with pytest.raises(ManifestError, match=f"ks, budget {seconds:g}s: {why}"):
        within(rows, tiny_tasks.KS, Budget(seconds), 0)


def cells_of(corpus, *tasks, budgets="all", seeds=(0,)):
    return make_cells(Grid(("fbank",), tasks, seeds, budgets=asked_budgets(budgets)), corpus)


def test_all_of_train_is_the_run_that_it_was_and_a_part_is_another_one(corpus):
    (whole,) = make_cells(Grid(("fbank",), (TASKS.get("ks"),), (0,)), corpus).cells
    small, half, same = cells_of(corpus, TASKS.get("ks"), budgets=BUDGETS).cells
    assert (same.run, same.name) == (whole.run, whole.name)
    assert len({whole.run, small.run, half.run}) == 3
    assert small.rows.drawn is not None and small.rows.drawn.budget == "2s"
    assert not (small.custom or whole.custom)
    assert small.name == "fbank / ks / 2s of train / seed 0"
    renamed = replace(small, rows=replace(small.rows, drawn=replace(small.rows.drawn, budget="3s")))
    assert renamed.run != small.run, "what was asked for counts, also where it draws the same"


def test_every_seed_has_a_draw_that_all_upstreams_share(corpus):
    grid = Grid(("fbank", "mfcc"), (tiny_tasks.KS,), (0, 1), budgets=(Budget(share=0.5),))
    drawn = {(cell.upstream.name, cell.seed): ids_of(cell.rows) for cell in make_cells(grid, corpus).cells}
    assert drawn["fbank", 0] == drawn["mfcc", 0]
    assert drawn["fbank", 0] != drawn["fbank", 1]


def test_what_is_no_part_of_train_is_left_out_and_said(corpus):
    plan = cells_of(corpus, tiny_tasks.KS, TASKS.get("qbe"), budgets="2s,1h,all")
    assert [(cell.task.name, cell.rows.drawn and cell.rows.drawn.budget) for cell in plan.cells] == [
        ("ks", "2s"), ("ks", None), ("qbe", None),
    ]  # fmt: skip
    said = "\n".join(plan.notes)
    assert re.search(r"ks has no budget 1h: train has 0\.\d min, which is no more; that is the budget all", said)
    assert "qbe has no budget 2s: nothing is learned from train" in said
    with pytest.raises(ContractError, match="ks has no budget 1h"):
        cells_of(corpus, tiny_tasks.KS, budgets="1h")
    with pytest.raises(ContractError, match="one at a time"):
        make_cells(Grid(("fbank",), (tiny_tasks.KS,), (0,), layers=(0,), budgets=(Budget(2.0),)), corpus)


def test_text_learns_from_a_part_as_well(corpus):
    small, _ = cells_of(corpus, tiny_tasks.ASR, budgets="50%,all").cells
    assert small.rows.drawn is not None and small.rows.drawn.labels == ()
    assert small.rows.known_labels == [example.label for example in small.examples["train"]]


def evaluated(corpus_folder: Path, place: Path, **asked) -> fb.Results:
    asked = {"seeds": (0, 1), **asked}
    tasks = (tiny_tasks.KS, tiny_tasks.IC)
    return fb.evaluate("fbank", tasks, corpus=corpus_folder, output=place / "results", cache=place / "cache", **asked)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("budgets")


@pytest.fixture(scope="module")
def ran(corpus_folder, place) -> tuple[fb.Results, list[str]]:
    said = Said()
    return evaluated(corpus_folder, place, budgets=BUDGETS, progress=said), said.lines


def test_the_curve_is_told_by_frames(ran):
    results, said = ran
    found = results.budgets()
    assert (results.computed, len(found)) == (12, 12)
    for _, each in found.groupby(["task", "seed"]):
        assert each["budget"].tolist() == ["2s", "50%", "all"]
        assert each["seconds"].is_monotonic_increasing and each["train"].is_monotonic_increasing
    runs = results.runs().set_index("run")
    for row in found.to_dict("records"):
        record = runs.loc[row["run"]]
        assert (record["value"], record["train"]) == (row["value"], row["train"])
        assert record["budget"] == row["budget"] or row["budget"] == "all"
    assert len(set(runs["corpus"])) == 1, "parts are of the corpus that the whole is of"
    assert any("ic, budget 2s, seed 1:" in line for line in said)


def test_the_leaderboard_and_the_passes_are_what_they_are_without(ran, corpus_folder, tmp_path):
    results, _ = ran
    alone = evaluated(corpus_folder, tmp_path)
    assert results.passed == alone.passed
    assert alone.cells().equals(results.cells())
    assert fb.load(results.folder, custom=True).cells().equals(alone.cells())
    assert set(alone.runs()["run"]) == set(results.budgets().query("budget == 'all'")["run"])
    assert alone.budgets().empty
    assert "labelled speech" not in to_markdown(alone.board)
    again = evaluated(corpus_folder, results.folder.parent, budgets=BUDGETS)
    assert (again.computed, again.skipped) == (0, 12)


def test_the_cell_has_the_curve_with_intervals(ran):
    results, _ = ran
    (made,) = results.board.boards
    cell = made.rows[0].cells["ks"]
    small, half, whole = cell.budgets
    assert [each.budget for each in cell.budgets] == ["2s", "50%", "all"]
    assert (whole.mean, whole.interval, whole.train) == (cell.mean, cell.interval, 24)
    found = results.budgets().query("task == 'ks'")
    predictions = results.predictions().set_index("run")
    for score in (small, half):
        mine = found[found["budget"] == score.budget]
        assert score.mean == pytest.approx(mine["value"].mean())
        assert score.seconds == pytest.approx(mine["seconds"].mean())
        judged = [predictions.loc[run] for run in mine["run"]]
        statistics = np.array([[each["accuracy"] for each in seed["statistics"]] for seed in judged], dtype=float)
        draws = resample(Trials(get_metric("accuracy"), [statistics], list(judged[0]["speaker"])))
        assert score.interval == interval(draws, 0)


def test_a_part_has_no_row_where_all_of_train_was_not_run(corpus_folder, place, ran):
    alone = evaluated(corpus_folder, place, budgets="2s")
    assert (alone.computed, alone.skipped) == (0, 4)
    assert alone.cells().empty and set(alone.budgets()["budget"]) == {"2s"}


def test_every_record_of_a_part_is_verified_and_its_budget_with_it(ran, tmp_path):
    store = RecordStore(ran[0].folder)
    assert verify(store) == []
    record = next(record for record in store.all() if record.drawn is not None)
    assert not record.has_row
    assert record.run_of_all() in {each.run for each in store.all() if each.has_row}
    content = json.loads(store.path(record.run).read_text(encoding="utf-8"))
    content["corpus"]["drawn"]["budget"] = "1s"
    content["digest"] = digest_of({key: value for key, value in content.items() if key != "digest"})
    changed = RecordStore(tmp_path)
    changed.path(record.run).parent.mkdir(parents=True)
    changed.path(record.run).write_text(json.dumps(content), encoding="utf-8")
    assert any("its run is not the digest of the inputs" in finding.problem for finding in verify(changed))


def test_the_command_prints_the_curve_and_reports_it(corpus_folder, tasks_file, tmp_path):
    places = ("--output", tmp_path / "results", "--cache", tmp_path / "cache", "--workers", 1)
    command = ("run", "--upstream", "fbank", "--task", f"{tasks_file}:KS", "--corpus", corpus_folder, *places)
    done = call(*command, "--budget", "2s,all")
    assert done.code == 0, done.err
    assert "ks: accuracy by labelled speech of train" in " ".join(done.out.split())
    shown = " ".join(call("report", "--custom", "--output", tmp_path / "results").out.split())
    assert "KS Acc % ↑ by labelled speech of train" in shown
    assert "budget 'some': must be such as" in " ".join(call(*command, "--budget", "some").err.split())


def test_the_figure_has_a_panel_a_task_and_a_line_an_upstream():
    made = with_budgets(board(tasks=3), "apc", "mfcc")
    (figure,) = [figure for figure in figures_of(made) if figure.name == "budgets"]
    assert [panel.label.split(":")[0] for panel in figure.panels] == ["ASR", "IC", "KS"]
    for panel in figure.panels:
        curves = [each for each in parts(panel, "path", "line") if "V" not in each.get("d", "")]
        assert len(curves) == 2
        for curve in curves:  # better is higher up, whatever the metric
            places = [tuple(map(float, point.split(","))) for point in curve.get("d", "")[1:].split()]
            heights = [y for _, y in places]
            assert heights == sorted(heights, reverse=True) and len(set(heights)) == 3
            assert [x for x, _ in places] == sorted(x for x, _ in places)
        assert len(whiskers(panel)) == 6, "a whisker a point"
        names = [each.text for each in parts(panel, "text", "tick") if each.get("text-anchor") == "middle"]
        assert names[::-1] == ["1min", "10min", "all"]
    tips = re.findall(r'data-tip="([^"]*)"', figure.panels[2].body)
    cell = next(row for row in made.rows if row.name == "apc").cells["ks"]
    assert tips[2].split("\n") == [
        "apc, 1min of train", f"Acc\t{cell.mean - 20:.1f} %",
        f"95 % interval\t{cell.mean - 23:.1f} to {cell.mean - 18:.1f}", "Drawn\t1.0 min, 20 recordings", "Seeds\t0, 1",
    ]  # fmt: skip


def test_names_of_budgets_do_not_touch():
    made = with_budgets(board(upstreams=2, tasks=1), "mfcc")
    row = made.rows[1]
    near = tuple(score._replace(seconds=3000.0) if score.budget == "10min" else score
                 for score in row.cells["asr"].budgets)  # fmt: skip
    close = replace(row, cells={"asr": replace(row.cells["asr"], budgets=near)})
    (figure,) = [each for each in figures_of(replace(made, rows=(made.rows[0], close))) if each.name == "budgets"]
    names = [each.text for each in parts(figure.panels[0], "text", "tick") if each.get("text-anchor") == "middle"]
    assert names == ["all", "1min"], "the one beside all is left out"


def test_the_page_and_the_tables_have_them_only_where_they_were_run():
    made = with_budgets(board(tasks=3), "apc")
    assert 'id="b0-budgets"' in page(leaderboard(made))
    assert 'id="b0-budgets"' not in page(leaderboard(board(tasks=3)))
    written = to_markdown(leaderboard(made))
    cell = next(row for row in made.rows if row.name == "apc").cells["ks"]
    assert "**KS Acc % ↑ by labelled speech of train**" in written
    small = rf"{cell.mean - 20:.1f} \[{cell.mean - 23:.0f}, {cell.mean - 18:.0f}\]"
    assert re.search(rf"\| apc +\| +{small} \|", written)
