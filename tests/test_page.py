"""The page in a real browser: it renders, sorts, filters and speaks on touch, asks for nothing, and is accessible."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import call
from made_boards import (
    board,
    in_families,
    leaderboard,
    with_budgets,
    with_checkpoints,
    with_conditions,
    with_detection,
    with_published,
    with_single_layers,
    with_turns,
)
from test_figures import HOSTILE
from test_records import record

from core.records import RecordStore
from leaderboard.board import Board, Leaderboard
from leaderboard.families import FAMILIES as ORDER
from leaderboard.page import duration, page

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
QUIET = (  # of itself Chromium asks for updates and lists, which is not the page's doing
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
MOST_BYTES = 6_000_000
Opened = Callable[..., "object"]


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install -e '.[dev]'")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("needs a Chromium on the PATH: apt-get install chromium")
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=found, args=list(QUIET))
        yield launched
        launched.close()


@pytest.fixture
def opened(browser, tmp_path) -> Iterator[Opened]:
    """Opens boards as a page; at the end nothing may have been logged, asked for, or popped up."""
    troubles: list[str] = []
    contexts = []

    def open_boards(*boards: Board, **options: object):
        path = tmp_path / "leaderboard.html"
        path.write_text(page(leaderboard(*boards)), encoding="utf-8")
        context = browser.new_context(**{"viewport": DESK, "accept_downloads": True, **options})
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda message: troubles.append(f"console: {message.text}"))
        tab.on("pageerror", lambda error: troubles.append(f"error: {error}"))
        tab.on("dialog", lambda dialog: (troubles.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        tab.on("request", lambda request: troubles.append(f"request: {request.url}"))
        tab.goto(path.as_uri())
        assert troubles.pop(0) == f"request: {path.as_uri()}"
        return tab

    yield open_boards
    for context in contexts:
        context.close()
    assert [line for line in troubles if "blob:" not in line] == []


def order(tab) -> list[str]:
    return tab.locator(".board tbody tr[data-u]:visible bdi").all_inner_texts()


def background(tab) -> str:
    return tab.evaluate("getComputedStyle(document.body).backgroundColor")


def overflow(tab) -> int:
    return tab.evaluate("document.documentElement.scrollWidth - innerWidth")


def violations(tab) -> list[str]:
    from axe_playwright_python.sync_playwright import Axe

    tab.evaluate("for (const each of document.querySelectorAll('details:first-of-type')) each.open = true")
    found = Axe().run(tab).response["violations"]
    return [f"{each['id']}: {each['nodes'][0]['html'][:200]}" for each in found if each["impact"] != "minor"]


def test_the_page_shows_every_section(opened):
    tab = opened(with_published(board(tasks=6)))
    assert tab.title() == "Frostbench leaderboard: tiny, recipe fast"
    assert tab.locator(".sections a").all_inner_texts() == [
        "Cost", "Profile", "Layers", "Learning rates", "Confusions", "Transcripts", "Heads", "Provenance",
    ]  # fmt: skip
    assert order(tab) == ["WavLM", "fbank", "mfcc", "apc", "mockingjay"]  # by score, published ones among them
    assert tab.locator("tr.published").inner_text().split()[:2] == ["WavLM", "published"]
    best = tab.locator('tr[data-u="m0"] td[data-task="ks"]')
    assert best.inner_text().split() == ["80.0a", "best", "±", "1.0"]
    assert "best" in best.get_attribute("class")
    assert "tied" in tab.locator('tr[data-u="m1"] td[data-task="ks"]').get_attribute("class")
    assert "Δ −3.0" in tab.locator('tr[data-u="m0"] td[data-task="asr"]').inner_text()


def test_sections_without_anything_in_them_are_not_there(opened):
    tab = opened(board(upstreams=1, tasks=1))
    assert tab.locator(".sections a").all_inner_texts() == ["Learning rates", "Transcripts", "Provenance"]
    assert tab.locator("td.best, td.tied").count() == 0
    only_keywords = board(tasks=3)
    keywords = replace(only_keywords, columns=only_keywords.columns[2:], rows=tuple(
        replace(row, score=None, cells={"ks": row.cells["ks"]}) for row in only_keywords.rows
    ))  # fmt: skip
    tab = opened(keywords)
    assert tab.locator(".sections a").all_inner_texts() == [
        "Cost", "Layers", "Learning rates", "Confusions", "Provenance",
    ]  # fmt: skip
    assert tab.locator(".board thead th").count() == 4


@pytest.mark.parametrize("task", ["asr", "ks"])
def test_whiskers_have_the_better_on_the_right(opened, task):
    made = board(upstreams=2, tasks=3)
    tab = opened(made)
    whiskers = tab.locator(f'td[data-task="{task}"] .whisker')
    styles = whiskers.evaluate_all("all => all.map(each => each.getAttribute('style'))")
    places = [[float(each) for each in re.findall(r":([\d.]+)%", style)] for style in styles]
    # accuracies of 80 [77.5, 82] and 77 [74.5, 79] span 7.5; error rates of 20 [17.5, 22] and 23 [20.5, 25], too
    worst, best = sorted(places)
    assert best == pytest.approx([40.0, 73.3, 100.0] if task == "ks" else [40.0, 66.7, 100.0], abs=0.1)
    assert worst == pytest.approx([0.0, 33.3, 60.0] if task == "ks" else [0.0, 26.7, 60.0], abs=0.1)
    assert best == places[0]


def test_headings_sort_and_gaps_stay_below(opened):
    made = board(upstreams=4, tasks=3)
    first, second, third, fourth = made.rows
    gap = replace(second, cells={task: second.cells[task] for task in ("asr", "ic")})
    tab = opened(replace(made, rows=(first, gap, third, fourth)))
    heading = tab.locator('th[data-task="ks"]')
    heading.locator("button").click()
    assert (order(tab), heading.get_attribute("aria-sort")) == (["fbank", "apc", "mockingjay", "mfcc"], "descending")
    heading.locator("button").press("Enter")
    assert (order(tab), heading.get_attribute("aria-sort")) == (["mockingjay", "apc", "fbank", "mfcc"], "ascending")
    tab.locator('th[data-task="asr"] button').click()  # fewer errors are better
    assert order(tab) == ["fbank", "mfcc", "apc", "mockingjay"]
    assert tab.locator("[aria-sort]").count() == 1
    tab.locator(".board thead th").first.locator("button").click()
    assert order(tab) == ["apc", "fbank", "mfcc", "mockingjay"]


def test_filters_reach_table_and_figures(opened):
    tab = opened(board(tasks=4))
    panels = tab.locator("#b0-layers .panel:visible h4")
    assert panels.all_inner_texts() == ["mfcc", "apc", "mockingjay"]
    tab.locator("[data-filter]").fill("AP")
    assert order(tab) == ["apc"]
    assert panels.all_inner_texts() == ["apc"]
    assert tab.locator('#b0-trade-off svg.chart g[data-u="m1"]:visible').count() == 0
    assert tab.locator('#b0-trade-off svg.chart g[data-u="m2"]:visible').count() == 2
    tab.locator("[data-filter]").fill("nobody")
    assert order(tab) == []
    assert tab.locator(".nothing").is_visible()
    tab.locator("[data-filter]").fill("")
    assert len(order(tab)) == 4
    assert not tab.locator(".nothing").is_visible()
    tab.locator('[data-column="ks"]').uncheck()
    assert tab.locator('th[data-task="ks"]').is_hidden()
    assert tab.locator('td[data-task="ks"]:visible').count() == 0
    assert tab.locator('td[data-task="asr"]:visible').count() == 4


def test_a_value_tells_its_story_by_mouse(opened):
    tab = opened(with_published(board()))
    tip = tab.locator("#tip")
    assert tip.is_hidden()
    tab.hover('tr[data-u="m0"] td[data-task="asr"]')
    assert tip.inner_text().split("\n") == [
        "fbank, task asr", "WER", "20.00 %", "95 % interval", "17.5 to 22.0", "Rank", "1, the best mean", "Letters",
        "a", "Seeds", "0: 19.0, 1: 20.0, 2: 21.0 (± 1.00)", "Learning rate", "0.1", "Test",
        "60 utterances of 8 speakers", "Wall time", "39 s", "Published", "23.0 %, here −3.0", "Source", "a paper",
    ]  # fmt: skip
    tab.keyboard.press("Escape")
    assert tip.is_hidden()
    tab.hover("h2")
    assert tip.is_hidden()


def test_a_value_tells_its_story_by_keyboard(opened):
    tab = opened(board(tasks=3))
    tip = tab.locator("#tip")
    tab.locator(".board thead button").last.focus()
    tab.keyboard.press("Tab")
    assert tip.inner_text().startswith("fbank, task asr")
    for key, said in (("ArrowRight", "fbank, task ic"), ("ArrowDown", "mfcc, task ic"), ("ArrowLeft", "mfcc, task asr"),
                      ("ArrowLeft", "mfcc, task asr"), ("ArrowUp", "fbank, task asr")):  # fmt: skip
        tab.keyboard.press(key)
        assert tip.inner_text().startswith(said)
    tab.keyboard.press("Tab")
    assert tip.is_hidden()
    assert tab.locator(".board td[tabindex='0']").count() == 1


def test_a_value_tells_its_story_by_tap(opened):
    tab = opened(board(), viewport=PHONE, has_touch=True, is_mobile=True)
    tab.tap('tr[data-u="m1"] td[data-task="asr"]')
    assert tab.locator("#tip").inner_text().startswith("mfcc, task asr")
    box = tab.locator("#tip").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= PHONE["width"]


def test_figures_speak_and_light_up(opened):
    tab = opened(board())
    tip = tab.locator("#tip")
    tab.hover("#b0-trade-off svg.chart >> nth=0 >> g[data-u='m2']")
    assert tip.inner_text().split("\n") == ["apc", "score", "48.0", "Parameters", "2,000,000", "Compute",
                                            "2.1 GFLOP for a second of audio"]  # fmt: skip
    lit = tab.locator("#b0-profile .lit").first
    assert lit.get_attribute("data-u") == "m2"
    chart = tab.locator("#b0-rates svg.chart").first
    chart.focus()
    tab.keyboard.press("ArrowRight")
    first = tip.inner_text()
    tab.keyboard.press("ArrowRight")
    assert first.startswith("fbank\nLearning rate") and tip.inner_text() != first
    tab.locator("#b0-confusions svg.chart:visible").first.focus()
    for key in ("ArrowRight", "ArrowDown"):
        tab.keyboard.press(key)
    assert tip.inner_text().split("\n") == ["reference go, heard as down", "Share", "14.3 %"]  # one of seven
    tab.keyboard.press("ArrowRight")
    assert tip.inner_text() == "reference go, heard as go\nShare\nnone"
    tab.hover("#b0-layers .cells >> nth=0", position={"x": 3, "y": 3})
    assert tip.inner_text().startswith("task ASR, layer 0\nWeight\n0.")


def test_choices_show_one_of_several(opened):
    tab = opened(board())
    shown = tab.locator("#b0-confusions .panel:visible h4")
    assert shown.all_inner_texts() == ["IC: fbank", "KS: fbank"]
    tab.locator("#b0-confusions select").select_option(label="apc")
    assert shown.all_inner_texts() == ["IC: apc", "KS: apc"]
    assert tab.locator("#b0-transcripts h4:visible").all_inner_texts() == ["fbank"]
    tab.locator("#b0-transcripts select").select_option(label="mfcc")
    assert tab.locator("#b0-transcripts h4:visible").all_inner_texts() == ["mfcc"]
    before = tab.locator("#b0-layers figcaption:visible").all_inner_texts()
    tab.get_by_label("corrected for norms").check()
    after = tab.locator("#b0-layers figcaption:visible").all_inner_texts()
    assert len(before) == len(after) == 3 and before != after


FAMILIES = ("spectral", "contrastive", "", "contrastive")


def lanes(tab) -> list[str]:
    return tab.locator(".board tr.lane:visible").all_inner_texts()


def test_families_are_a_section_and_stand_beside_the_names(opened):
    tab = opened(with_published(in_families(board(tasks=3), *FAMILIES)))
    assert "Families" in tab.locator(".sections a").all_inner_texts()
    assert tab.locator("#b0-by-family h4").all_inner_texts() == ["ASR: Task asr", "IC: Task ic", "KS: Task ks"]
    assert tab.locator("#b0-by-family .legend li").all_inner_texts() == ["spectral", "contrastive", "unknown"]
    tab.hover("#b0-by-family svg.chart >> nth=0 >> g[data-u='m1'] >> path")
    assert tab.locator("#tip").inner_text().split("\n") == [
        "mfcc", "WER", "23.0 %", "95 % interval", "20.5 to 25.0", "Family", "contrastive", "Rank", "1",
    ]  # fmt: skip
    chart = tab.locator("#b0-by-family svg.chart").first
    assert chart.get_attribute("aria-label").startswith("ASR: Task asr: Best of each family: spectral fbank 20.0, ")
    chart.focus()
    tab.keyboard.press("ArrowRight")
    assert tab.locator("#tip b").inner_text() == "fbank"
    assert tab.locator('tr[data-u="m1"] .family').inner_text() == "contrastive"
    assert tab.locator(".family").count() == 3
    plain = opened(board())
    assert plain.locator(".family, [data-grouped], [data-family]").count() == 0
    one = opened(in_families(board(), *["contrastive"] * 4))
    assert one.locator("[data-grouped], #b0-by-family").count() == 0
    assert one.locator(".family").count() == 4


def test_rows_are_grouped_by_family(opened):
    tab = opened(with_published(in_families(board(tasks=3), *FAMILIES)))
    by_score = ["WavLM", "fbank", "mfcc", "apc", "mockingjay"]
    assert (order(tab), lanes(tab)) == (by_score, [])
    tab.get_by_label("grouped by family").check()
    assert order(tab) == ["fbank", "mfcc", "mockingjay", "WavLM", "apc"]
    assert lanes(tab) == ["spectral 1", "contrastive 2", "family not recorded 2"]
    tab.locator('th[data-task="asr"] button').click()  # the worst first at the second press
    tab.locator('th[data-task="asr"] button').click()
    assert order(tab) == ["fbank", "mockingjay", "mfcc", "apc", "WavLM"]
    tab.locator("[data-filter]").fill("m")
    assert order(tab) == ["mockingjay", "mfcc", "WavLM"]
    assert lanes(tab) == ["contrastive 2", "family not recorded 1"]
    tab.locator('tr[data-u="m1"] td[data-task="asr"]').focus()
    tab.keyboard.press("ArrowUp")
    assert tab.locator("#tip b").inner_text() == "mockingjay, task asr"
    tab.locator("[data-filter]").fill("")
    tab.get_by_label("grouped by family").uncheck()
    assert (order(tab), lanes(tab)) == (["mockingjay", "apc", "mfcc", "fbank", "WavLM"], [])
    assert tab.locator("tr.lane").count() == 0


def test_a_grouped_table_is_saved_with_its_families(opened):
    tab = opened(in_families(board(upstreams=3, tasks=1), "generative", "spectral", ""))
    tab.get_by_label("grouped by family").check()
    with tab.expect_download() as download:
        tab.locator("[data-csv]").click()
    rows = list(csv.reader(Path(download.value.path()).read_text(encoding="utf-8").splitlines()))
    assert [row[:3] for row in rows] == [
        ["Upstream", "Family", "score ↑"], ["mfcc", "spectral", "49.0"], ["fbank", "generative", "50.0"],
        ["apc", "", "48.0"],
    ]  # fmt: skip


def test_grouping_one_board_leaves_the_others(opened):
    one = in_families(board(tasks=1), *FAMILIES)
    tab = opened(one, replace(one, title="other"))
    tab.get_by_label("grouped by family").first.check()
    tab.get_by_role("button", name="other").click()
    assert (order(tab), lanes(tab)) == (["fbank", "mfcc", "apc", "mockingjay"], [])


def test_single_layers_have_curves_of_one_task_at_a_time(opened):
    tab = opened(with_single_layers(board(tasks=3), "apc", "mfcc"))
    section = tab.locator("#b0-single-layers")
    assert "Single layers" in tab.locator(".sections a").all_inner_texts()
    assert section.locator("h4:visible").all_inner_texts() == ["ASR: Task asr, one layer alone", "mfcc", "apc"]
    section.locator("select").select_option(label="KS: Task ks, one layer alone")
    assert section.locator("h4:visible").all_inner_texts() == ["KS: Task ks, one layer alone", "mfcc", "apc"]
    tip = tab.locator("#tip")
    chart = section.locator("svg.chart:visible").last
    chart.locator(".hit").last.hover()
    assert tip.inner_text().startswith("apc, layer 0\nAcc\n74.0 %\n95 % interval\n71.0 to 76.0\nWeight in the sum\n0.")
    chart.focus()
    for layer in (0, 1):
        tab.keyboard.press("ArrowRight")
        assert tip.locator("b").inner_text() == f"apc, layer {layer}"
    tab.locator("[data-filter]").fill("mf")
    assert section.locator("h4:visible").all_inner_texts()[1:] == ["mfcc"]
    assert opened(board()).locator("#b0-single-layers").count() == 0


def test_detection_errors_have_a_curve_an_upstream(opened):
    tab = opened(with_detection(board(), "sid", 20.0, 10.0))
    section = tab.locator("#b0-detection")
    assert "Detection errors" in tab.locator(".sections a").all_inner_texts()
    assert section.locator("h4").all_inner_texts() == ["SID: Task sid"]
    chart = section.locator("svg.chart")
    chart.focus()
    tab.keyboard.press("ArrowRight")
    assert tab.locator("#tip").inner_text().split("\n") == [
        "mfcc", "Equal error rate", "10.0 %", "Seed", "1", "Acc, all seeds", "77.0 % [74.5, 79.0]", "Pairs",
        "300 targets, 4,500 others",
    ]  # fmt: skip
    assert chart.locator("svg[viewBox] path").count() == 2


def test_turns_are_those_of_one_upstream_at_a_time(opened):
    tab = opened(with_turns(board(), "sid"))
    section = tab.locator("#b0-turns")
    shown = section.locator(".panel:visible h4")
    assert shown.all_inner_texts() == ["SID mix-3: fbank"]
    section.locator("select").select_option(label="apc")
    assert shown.all_inner_texts() == ["SID mix-3: apc"]
    section.locator("g[data-tip]:visible").first.locator("rect").first.hover()
    assert tab.locator("#tip").inner_text().split("\n") == ["anna", "Speaks", "9.0 s", "Was found to", "7.8 s"]


def test_curves_over_budgets_conditions_and_steps_answer_to_the_keys(opened):
    curved = with_conditions(with_budgets(board(tasks=1), "apc", "mfcc"), "apc", "mfcc")
    tab = opened(with_checkpoints(curved, 2))
    assert {"Label budgets", "Conditions", "Checkpoints"} <= set(tab.locator(".sections a").all_inner_texts())
    tip = tab.locator("#tip")
    for section, first in (
        ("budgets", "mfcc, 1min of train"),
        ("conditions", "mfcc, clean"),
        ("checkpoints", "mockingjay"),
    ):
        chart = tab.locator(f"#b0-{section} svg.chart").first
        chart.focus()
        tab.keyboard.press("ArrowRight")
        assert tip.locator("b").inner_text() == first
    assert opened(board()).locator("#b0-budgets, #b0-conditions, #b0-checkpoints").count() == 0


def test_other_heads_flip_the_order(opened):
    tab = opened(with_published(board()))
    panel = tab.locator("#b0-heads .panel")
    assert panel.locator("h4").inner_text() == "ASR: Kendall's tau −1.00"
    assert panel.locator("figcaption").inner_text() == (
        "Ranks of 4 upstreams by utterance_linear, utterance_attention; in another order: fbank and mfcc"
    )
    left, right = panel.locator("svg > g[text-anchor]").all()
    assert left.locator("text").all_text_contents() == ["fbank", "mfcc", "apc", "mockingjay"]
    assert right.locator("text").all_text_contents() == ["mockingjay", "apc", "mfcc", "fbank"]
    panel.locator("[data-u=m1][data-tip] path").last.hover()
    assert tab.locator("#tip").inner_text().split("\n") == [
        "mfcc", "utterance_linear", "23.0 %, rank 2", "utterance_attention", "26.0 %, rank 3",
    ]  # fmt: skip


def test_words_are_aligned(opened):
    tab = opened(board())
    words = tab.locator("#b0-transcripts .aligned:visible span")
    shown = [(word.get_attribute("class"), word.inner_text().split("\n")) for word in words.all()]
    assert shown == [("equal", ["bring"]), ("substitute", ["me tea", "many"]), ("delete", ["now"]),
                     ("insert", ["please"])]  # fmt: skip
    assert "3 of 5 wrong asr-7, speaker anna" in tab.locator("#b0-transcripts .said:visible").inner_text()


def test_provenance_names_everything(opened):
    tab = opened(board(upstreams=2, tasks=2))
    section = tab.locator("#b0-provenance")
    assert "frostbench 0.1.0, torch 2.14.1" in section.inner_text()
    assert "commit " + "f" * 40 in section.inner_text()
    section.locator("summary").first.click()
    runs = section.locator("details").first.locator("tbody tr")
    assert runs.count() == 2 * 3
    assert runs.first.inner_text().split("\t")[:7] == ["ASR", "0", "19.00", "0.1", "13 s", "2026-11-23T08:07:01Z", "1"]
    assert f"{0:064x}" in section.locator("details").first.inner_text()


def test_the_theme_follows_the_system_and_the_button(opened):
    light, dark = "rgb(255, 255, 255)", "rgb(21, 23, 28)"
    tab = opened(board(upstreams=1, tasks=1), color_scheme="dark")
    button = tab.locator("#theme")
    assert (background(tab), button.inner_text()) == (dark, "Light theme")
    button.click()
    assert (background(tab), button.inner_text()) == (light, "Dark theme")
    tab.emulate_media(color_scheme="light")
    button.click()
    assert background(tab) == dark
    assert background(opened(board(upstreams=1, tasks=1), color_scheme="light")) == light


def test_of_several_boards_one_is_shown(opened):
    one = board(upstreams=2, tasks=1)
    tab = opened(one, replace(one, title="other, recipe superb"))
    assert tab.locator("h2:visible").all_inner_texts() == ["tiny, recipe fast"]
    tab.get_by_role("button", name="other, recipe superb").click()
    assert tab.locator("h2:visible").all_inner_texts() == ["other, recipe superb"]


def test_published_rows_alone_make_a_board(opened):
    made = with_published(board(tasks=3))
    rows = tuple(replace(made.published[0], name=name, score=score, values={column.task: score / 20 for column in
                 made.columns}) for name, score in (("good", 900.0), ("poor", 20.0)))  # fmt: skip
    tab = opened(replace(made, rows=(), heads=(), published=rows))
    assert order(tab) == ["good", "poor"]
    assert tab.locator(".sections a").all_inner_texts() == ["Cost", "Profile"]
    assert "best" not in tab.locator(".key").inner_text()
    assert "Not measured here: a paper." in tab.locator(".notes").inner_text()
    tab.hover("tr.published td[data-tip] >> nth=0")
    assert tab.locator("#tip").inner_text() == "good, task asr\nPublished\n45.00 %\nSource\na paper"


def test_boards_of_other_heads_are_there(browser, tmp_path):
    path = tmp_path / "variants.html"
    variant = replace(board(upstreams=2, tasks=1), title="tiny, head utterance_attention")
    path.write_text(page(Leaderboard((board(upstreams=2, tasks=1),), (variant,), 3)), encoding="utf-8")
    tab = browser.new_page()
    tab.goto(path.as_uri())
    tab.get_by_role("button", name="tiny, head utterance_attention").click()
    assert tab.locator("h2:visible").all_inner_texts() == ["tiny, head utterance_attention"]
    assert "3 runs with limited data or a changed recipe are not shown." in tab.locator("footer").inner_text()
    tab.close()


def test_the_table_is_saved_as_it_is_shown(opened):
    tab = opened(board(upstreams=3, tasks=2, names=('a,"b"', "mfcc", "apc")))
    tab.locator("[data-column='ic']").uncheck()
    tab.locator("[data-filter]").fill("a")
    with tab.expect_download() as download:
        tab.locator("[data-csv]").click()
    assert download.value.suggested_filename == "tiny-recipe-fast.csv"
    rows = list(csv.reader(Path(download.value.path()).read_text(encoding="utf-8").splitlines()))
    assert rows == [
        ["Upstream", "score ↑", "ASR WER % ↓", "Params", "GFLOP a second of audio"],
        ['a,"b"', "50.0", "20.0", "0", "0.1"],
        ["apc", "48.0", "26.0", "2000000", "2.1"],
    ]


def test_without_scripts_everything_is_readable(opened):
    made = with_single_layers(with_published(in_families(board(), *FAMILIES)), "apc")
    tab = opened(made, java_script_enabled=False)
    assert tab.locator("#b0-single-layers .panel").locator("visible=true").count() == 4
    assert tab.locator("select, input, #theme").locator("visible=true").count() == 0
    assert order(tab) == ["WavLM", "fbank", "mfcc", "apc", "mockingjay"]
    assert tab.locator(".family").locator("visible=true").count() == 3
    assert tab.locator("#b0-confusions .panel").locator("visible=true").count() == 2 * 4


@pytest.mark.parametrize(
    "hostile", [*HOSTILE, "</script><script>alert(2)</script>", "</style><b>", "--><!--", "x" * 300]
)
def test_names_are_text_whatever_they_hold(opened, hostile):
    named = with_single_layers(board(upstreams=3, tasks=3, names=(hostile, f"{hostile}!", "plain")), f"{hostile}!")
    named = with_checkpoints(with_conditions(with_budgets(named, hostile), f"{hostile}!"), 1, hostile)
    made = with_published(in_families(named, hostile, "spectral", f"{hostile}!"))
    columns = tuple(replace(each, title=hostile, corpus=hostile, head=hostile) for each in made.columns)
    score = replace(made.score, name=hostile, explanation=hostile)
    tab = opened(replace(made, title=hostile, columns=columns, score=score, interval_note=hostile))
    shown = hostile.replace("\x00", "\ufffd").replace("\ud800", "\ufffd")
    assert tab.locator('tr[data-u="m0"] bdi').text_content() == shown
    assert tab.locator("script").count() == 1
    assert tab.locator("img, article b b").count() == 0
    assert tab.locator(".view > section").count() == 13
    assert tab.locator('tr[data-u="m0"] .family').text_content() == shown
    tab.get_by_label("grouped by family").check()
    assert tab.locator("tr.lane span").nth(1).text_content() == f"{shown} 1"
    tab.hover('tr[data-u="m0"] td[data-task="ks"]')
    assert tab.locator("#tip b").text_content().startswith(shown)
    tab.set_viewport_size(PHONE)
    assert overflow(tab) == 0


@pytest.mark.parametrize(("scheme", "viewport"), [("light", DESK), ("dark", PHONE)], ids=["light desk", "dark phone"])
def test_axe_has_nothing_serious_to_say(opened, scheme, viewport):
    pytest.importorskip("axe_playwright_python", reason="needs axe: pip install -e '.[dev]'")
    judged = with_turns(with_detection(board(tasks=3), "ks", 20.0, 10.0), "ic")
    judged = with_checkpoints(with_conditions(with_budgets(judged, "apc", "mfcc"), "apc", "mfcc"), 1)
    two = (with_single_layers(with_published(in_families(judged, *FAMILIES)), "apc", "mfcc"),
           replace(board(upstreams=31, tasks=1, layers=1), title="other"))  # fmt: skip
    tab = opened(*two, color_scheme=scheme, viewport=viewport)
    tab.get_by_label("grouped by family").check()
    assert violations(tab) == []
    tab.get_by_role("button", name="other").click()
    assert violations(tab) == []


@pytest.mark.parametrize(("upstreams", "tasks", "layers"), [(1, 1, 1), (5, 4, 13), (60, 10, 25)])
def test_any_size_fits_a_phone_and_a_mail(opened, upstreams, tasks, layers):
    made = with_published(board(upstreams, tasks, layers))
    made = with_single_layers(made, *(row.name for row in made.rows), tasks=4)  # SUPERB has four with heads on means
    some = [row.name for row in made.rows[:5]]
    made = with_checkpoints(with_conditions(with_budgets(made, *some), *some), upstreams - 8)
    made = in_families(made, *[ORDER[i % len(ORDER)] for i in range(upstreams)])
    assert len(page(leaderboard(made)).encode()) < MOST_BYTES
    tab = opened(made, viewport=PHONE)
    assert overflow(tab) == 0
    assert tab.locator("tr[data-u]").count() == upstreams + 1


@pytest.fixture
def results(tmp_path) -> Path:
    store = RecordStore(tmp_path / "results")
    store.add(record("1", 60.0))
    store.add(record("2", 70.0, upstream={**record().upstream, "name": "<i>apc</i>", "digest": "a"}))
    return store.folder


def test_the_command_writes_page_and_figures(results, tmp_path):
    html, figures = tmp_path / "new" / "page.html", tmp_path / "figures"
    done = call("report", "--output", results, "--html", html, "--figures", figures)
    assert done.code == 0
    assert f"page: {html}" in done.out.replace("\n", "")
    assert f"figures: {len(list(figures.iterdir()))} files in {figures}" in done.out.replace("\n", "")
    assert "&lt;i&gt;apc&lt;/i&gt;" in html.read_text(encoding="utf-8")
    quiet = call("report", "--output", results, "--html", html, "--format", "json")
    assert json.loads(quiet.out)
    assert "page:" in quiet.err


def test_a_page_that_cannot_be_written_is_named(results, tmp_path):
    done = call("report", "--output", results, "--html", tmp_path)
    assert (done.code, done.err.startswith(f"error: {tmp_path}: Is a directory")) == (2, True)
    assert not list(tmp_path.glob(".writing-*"))


def test_the_same_results_give_the_same_page():
    assert page(leaderboard(board())) == page(leaderboard(board()))


def test_durations_are_in_words():
    assert [duration(seconds) for seconds in (0.04, 9.96, 12.4, 185, 7_620)] == [
        "0.0 s", "10.0 s", "12 s", "3 min 5 s", "2 h 7 min",
    ]  # fmt: skip
