"""Test heard in conditions (`run --condition`) by heads that were trained without them."""

from __future__ import annotations

import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tiny_tasks
import torch
from conftest import call
from made_boards import board, leaderboard, with_conditions
from test_layer_panels import parts, whiskers

import frostbench as fb
from core.audio import SAMPLE_RATE, read_audio
from core.conditions import THIRD_OCTAVES, Condition, asked_conditions, room_response, speech_shaped
from core.digest import digest_of
from core.errors import BenchmarkError, ContractError
from core.feature_cache import FeatureCache
from core.metrics import get_metric
from core.mixtures import Mixture, Source
from core.records import RecordStore
from downstreams._downstream import downstream_of, load_trained
from downstreams.labels.slots import SlotLabels
from frostbench.grid.plan import Grid, make_cells
from frostbench.jobs.cell_table import CellNews, CellTable
from leaderboard._svg import CHARACTER_WIDTH
from leaderboard.figures import figures_of
from leaderboard.page import page
from leaderboard.statistics import Trials, interval, resample
from leaderboard.tables import to_markdown
from leaderboard.usable_records import usable_records
from leaderboard.verification import verify
from tasks._base import TASKS
from tasks._rows import read_rows, task_rows
from upstreams._extraction.clips import Clip, clip_key

CONDITIONS = "noise@20dB,noise@0dB,telephone"


@pytest.mark.parametrize(
    ("text", "condition", "shown", "label"),
    [
        ("noise@20dB", Condition("noise", 20), "noise@20dB", "20 dB"),
        ("noise@-5", Condition("noise", -5), "noise@-5dB", "-5 dB"),
        (" noise@2.5dB ", Condition("noise", 2.5), "noise@2.5dB", "2.5 dB"),
        ("reverb", Condition("reverb", 0.6), "reverb@0.6s", "0.6 s"),
        ("reverb@1.2s", Condition("reverb", 1.2), "reverb@1.2s", "1.2 s"),
        ("telephone", Condition("telephone", 0), "telephone", "300 to 3400 Hz"),
    ],
)
def test_what_is_asked_for(text, condition, shown, label):
    assert Condition.from_text(text) == Condition.from_text(shown) == condition
    assert (str(condition), condition.label) == (shown, label)


@pytest.mark.parametrize(
    "text",
    [
        "noise",
        "noise@loud",
        "noise@20s",
        "noise@101dB",
        "reverb@0s",
        "reverb@11s",
        "telephone@1",
        "babble@5dB",
        "",
        "@3",
    ],
)
def test_what_is_no_condition_is_refused(text):
    with pytest.raises(BenchmarkError, match=r"must be such as noise@20dB .*, reverb@0.6s .* or telephone"):
        Condition.from_text(text)


def test_each_condition_is_asked_for_once_and_clean_is_always_heard():
    assert (
        asked_conditions("clean,noise@20dB,noise@20") == asked_conditions(["noise@20dB"]) == (Condition("noise", 20),)
    )
    assert asked_conditions("") == asked_conditions(()) == asked_conditions("clean") == ()


def test_harder_is_less_signal_and_more_room():
    assert Condition("noise", 0).severity > Condition("noise", 10).severity
    assert Condition("reverb", 1).severity > Condition("reverb", 0.5).severity


def decibels(power: float) -> float:
    return 10 * math.log10(power)


def spoken(seconds: float = 2.0, seed: int = 3) -> torch.Tensor:
    """Something with pauses and peaks: noise in bursts."""
    generator = np.random.default_rng(seed)
    bursts = np.repeat(generator.random(int(20 * seconds)) ** 3, SAMPLE_RATE // 20)
    return torch.from_numpy((0.1 * bursts * generator.standard_normal(len(bursts))).astype(np.float32))


def band_power(wav: torch.Tensor, low: float, high: float) -> float:
    spectrum = np.abs(np.fft.rfft(wav.double().numpy() * np.hanning(len(wav)))) ** 2
    frequencies = np.fft.rfftfreq(len(wav), 1 / SAMPLE_RATE)
    return float(spectrum[(frequencies >= low) & (frequencies < high)].sum())


@pytest.mark.parametrize("snr", [20, 10, 0, -5])
def test_the_noise_that_was_mixed_has_the_ratio_that_was_asked_for(snr):
    wav = spoken()
    heard = Condition("noise", snr).applied(wav, "seed")
    noise = heard - wav
    assert decibels(float(wav.square().mean() / noise.square().mean())) == pytest.approx(snr, abs=0.1)
    assert heard.dtype == torch.float32 and heard.shape == wav.shape
    louder = Condition("noise", snr).applied(4 * wav, "seed")
    assert torch.allclose(louder, 4 * heard, atol=1e-5), "the level says nothing of it"


def test_one_recording_has_one_noise_at_every_ratio_and_others_have_others():
    wav = spoken()
    noises = [Condition("noise", snr).applied(wav, "a") - wav for snr in (0, 20)]
    assert torch.allclose(noises[0] / 10, noises[1], atol=1e-5)
    for condition in (Condition("noise", 10), Condition("reverb", 0.4)):
        heard = condition.applied(wav, "a")
        assert torch.equal(heard, condition.applied(wav, "a"))
        assert not torch.allclose(heard, condition.applied(wav, "b"), atol=1e-3)


def test_the_noise_has_the_spectrum_of_speech_and_is_steady():
    noise = torch.from_numpy(speech_shaped(100 * SAMPLE_RATE, np.random.default_rng(0)))
    levels = {
        centre: decibels(band_power(noise, centre * 2 ** (-1 / 6), centre * 2 ** (1 / 6)))
        for centre in THIRD_OCTAVES
        if 100 <= centre <= 6300
    }
    # Byrne et al. 1994, table II, combined: each third octave beside that at 1 kHz.
    for centre, level in {125: 57.7, 250: 60.3, 500: 62.1, 2000: 48.7, 4000: 45.6}.items():
        assert levels[centre] - levels[1000] == pytest.approx(level - 53.7, abs=0.5)
    seconds = [decibels(float(part.square().mean())) for part in noise.split(SAMPLE_RATE)]
    assert max(seconds) - min(seconds) < 2


@pytest.mark.parametrize("seconds", [0.3, 0.6, 1.5])
def test_a_room_rings_as_long_as_was_asked_for(seconds):
    response = room_response(seconds, np.random.default_rng(1))
    left = np.cumsum(np.square(response[::-1]))[::-1]  # Schroeder's integration
    assert left[1] / left[0] == pytest.approx(0.5), "the direct sound has as much energy as all echoes"
    curve = 10 * np.log10(left / left[1])
    first, last = (int(np.argmax(curve < level)) for level in (-1, -26))
    rate = (last - first) / SAMPLE_RATE / (curve[first] - curve[last])  # seconds for a decibel
    assert 60 * rate == pytest.approx(seconds, rel=0.1)


def test_what_a_room_makes_of_a_recording():
    click = torch.zeros(SAMPLE_RATE)
    click[4_000] = 1.0
    heard = Condition("reverb", 0.5).applied(click, "seed")
    assert heard.shape == click.shape
    assert heard[:4_000].abs().max() < 1e-6, "nothing is heard before its cause"
    assert heard.square().sum().item() == pytest.approx(1.0, rel=1e-4), "at the level that it had"
    assert torch.equal(Condition("reverb", 0.5).applied(torch.zeros(800), "seed"), torch.zeros(800))


def test_a_telephone_passes_its_band_alone():
    white = torch.from_numpy(np.random.default_rng(0).standard_normal(4 * SAMPLE_RATE).astype(np.float32))
    heard = Condition("telephone").applied(white, "whatever")
    assert heard.shape == white.shape

    def passed(low: float, high: float) -> float:
        return decibels(band_power(heard, low, high) / band_power(white, low, high))

    for low, high in ((310, 400), (1_000, 2_000), (3_000, 3_390)):
        assert passed(low, high) == pytest.approx(0, abs=0.1)
    for low, high in ((0, 180), (4_010, 8_000)):
        assert passed(low, high) < -60
    click = torch.zeros(SAMPLE_RATE)
    click[8_000] = 1.0
    assert Condition("telephone").applied(click, "").argmax() == 8_000, "nothing is shifted"


def test_silence_and_a_single_sample_stay_what_they_are():
    for condition in map(Condition.from_text, ("noise@0dB", "reverb", "telephone")):
        assert torch.equal(condition.applied(torch.zeros(400), "seed"), torch.zeros(400))
        assert condition.applied(torch.ones(1), "seed").isfinite().all()


@pytest.fixture(scope="module")
def recording(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("heard") / "a.wav"
    soundfile.write(path, spoken(3.0).numpy(), SAMPLE_RATE, subtype="FLOAT")
    return path


def test_a_clip_is_heard_in_its_condition_under_a_key_of_its_own(recording):
    clean = Clip("digest", recording, 0, frozenset(), 1_000, 20_000)
    heard = replace(clean, condition="noise@0dB")
    assert (clean.key, heard.key) == ("digest[1000:20000]", "digest[1000:20000]|noise@0dB")
    assert clip_key("digest") == "digest" and clip_key("digest", gain_db=-3) == "digest-3dB", "as they were"
    noise = heard.read() - clean.read()
    assert decibels(float(clean.read().square().mean() / noise.square().mean())) == pytest.approx(0, abs=0.1)
    assert torch.equal(heard.read(), Condition("noise", 0).applied(clean.read(), "digest[1000:20000]"))
    assert torch.equal(heard.read(), heard.read())
    quiet = replace(heard, gain_db=-6.0)
    assert torch.allclose(quiet.read(), heard.read() * 10 ** (-6 / 20), atol=1e-5)
    other = replace(heard, audio_digest="another")
    assert not torch.allclose(other.read(), heard.read(), atol=1e-3)
    assert heard.samples == clean.samples and heard.recorded_samples() == clean.recorded_samples()
    mixed = replace(heard, mixture=Mixture((Source(recording), Source(recording, gain_db=-3.0))))
    assert len(mixed.read()) == 19_000 and not torch.equal(mixed.read(), heard.read())


def test_other_rates_hear_what_16_khz_hears(recording):
    heard = Clip("digest", recording, 0, frozenset(), condition="noise@5dB")
    fast = heard.read(24_000)
    assert len(fast) == 72_000
    frequencies = np.fft.rfftfreq(len(fast), 1 / 24_000)
    spectrum = np.abs(np.fft.rfft(fast.numpy())) ** 2
    assert spectrum[frequencies > 8_500].sum() < 1e-4 * spectrum.sum()
    assert fast.square().mean().item() == pytest.approx(heard.read().square().mean().item(), rel=0.06)


def test_test_alone_is_heard_in_a_condition_and_jobs_read_the_same(corpus, tmp_path):
    rows = task_rows(corpus, tiny_tasks.KS)
    heard = rows.heard_in("noise@0dB")
    for split in ("train", "valid"):
        assert heard.clips[split] == rows.clips[split] and heard.examples[split] == rows.examples[split]
    for one, other in zip(heard.clips["test"], rows.clips["test"], strict=True):
        assert one == [replace(other[0], condition="noise@0dB")]
    assert [each.keys for each in heard.examples["test"]] == [(each[0].key,) for each in heard.clips["test"]]
    assert heard.digest == rows.digest
    kept = heard.kept_in(tmp_path)
    assert kept.path is not None
    read = read_rows(kept.path)
    assert (read.clips, read.examples, read.audio) == (heard.clips, heard.examples, heard.audio)


def cells_of(corpus, *tasks, conditions="", **asked):
    return make_cells(Grid(("fbank",), tasks, (0,), conditions=asked_conditions(conditions), **asked), corpus)


def test_a_condition_is_another_run_of_the_same_head(corpus):
    (plain,) = make_cells(Grid(("fbank",), (TASKS.get("ks"),), (0,)), corpus).cells
    clean, noisy, called = cells_of(corpus, TASKS.get("ks"), conditions="noise@10dB,telephone").cells
    assert (clean.run, clean.clean_run, clean.name) == (plain.run, plain.run, plain.name)
    assert len({clean.run, noisy.run, called.run}) == 3
    assert {noisy.clean_run, called.clean_run} == {clean.run}
    assert noisy.candidates == [] and not noisy.custom
    assert noisy.name == "fbank / ks / noise@10dB / seed 0"


def test_what_can_not_be_heard_is_left_out_or_refused(corpus):
    with pytest.raises(ContractError, match="ask for the budget all, too, and leave chosen layers out"):
        cells_of(corpus, tiny_tasks.KS, conditions="telephone", layers=(0,))
    with pytest.raises(ContractError, match="ask for the budget all"):
        cells_of(corpus, tiny_tasks.KS, conditions="telephone", budgets=())
    each = cells_of(corpus, tiny_tasks.KS, conditions="telephone", layers="each").cells
    assert [(cell.recipe.layer, cell.condition) for cell in each] == [(None, None), (0, None), (None, "telephone")]


def test_tasks_whose_labels_are_waveforms_are_left_out(monkeypatch, corpus):
    rows = task_rows(corpus, tiny_tasks.KS)
    monkeypatch.setattr("frostbench.grid.plan.task_rows", lambda *given: rows)
    monkeypatch.setattr(SlotLabels, "heard", True)
    plan = cells_of(corpus, tiny_tasks.KS, conditions="telephone")
    assert [cell.condition for cell in plan.cells] == [None]
    assert "ks is not heard in conditions" in plan.notes[0]


def test_progress_shows_what_stands_in_a_row():
    news = CellNews("fbank", "ks", 0, "done", 80.0, "%")
    noisy = news._replace(condition="noise@0dB", value=20.0)
    assert noisy.line() == "fbank, ks, seed 0, noise@0dB: 20.0 %"
    entry = CellTable([news, noisy])._rows["fbank"]["ks"]
    assert entry.text() == "80.0"
    entry = CellTable([noisy])._rows["fbank"]["ks"]
    assert entry.text() == "20.0"


def evaluated(corpus_folder: Path, place: Path, **asked) -> fb.Results:
    asked = {"seeds": (0, 1), **asked}
    return fb.evaluate(
        "fbank", tiny_tasks.KS, corpus=corpus_folder, output=place / "results", cache=place / "cache", **asked
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("conditions")


@pytest.fixture(scope="module")
def ran(corpus_folder, place) -> fb.Results:
    return evaluated(corpus_folder, place, conditions=CONDITIONS)


def test_the_curve_is_told_by_frames(ran):
    found = ran.conditions()
    assert (ran.computed, len(found)) == (8, 8)
    runs = ran.runs().set_index("run")
    for _, each in found.groupby("seed"):
        assert each["condition"].tolist() == ["clean", "noise@20dB", "noise@0dB", "telephone"]
        assert set(each["clean_run"]) == {each["run"].iloc[0]}
    for row in found.to_dict("records"):
        record = runs.loc[row["run"]]
        assert record["value"] == row["value"]
        assert row["condition"] in ("clean", record["condition"])
        assert (row["condition"] == "clean") == (row["run"] == row["clean_run"])
    assert len(set(runs["corpus"])) == len(set(runs["recipe"])) == 1


def test_the_head_is_the_one_that_was_trained_without(ran):
    store = RecordStore(ran.folder)
    records = store.all()
    cleans = {record.run: record for record in records if record.has_row}
    assert len(cleans) == 2 and len(records) == 8
    for record in (record for record in records if not record.has_row):
        clean = cleans[record.run_of_clean()]
        for name in ("head.safetensors", "history.json"):
            assert record.artifacts[name] == clean.artifacts[name]
        assert (
            record.artifacts["predictions.jsonl"] != clean.artifacts["predictions.jsonl"] or record.value == clean.value
        )
        assert (record.learning_rate, record.layer_weights) == (clean.learning_rate, clean.layer_weights)
        assert list(record.circumstances["wall_seconds"]) == ["test"]
    assert verify(store) == []


def test_the_predictions_are_those_of_the_head_on_what_is_heard(ran, corpus):
    """By hand: each recording read, noise added, passed alone, and given to the head that lies beside the clean run."""
    record = next(each for each in ran.records if each.condition == "noise@0dB" and each.seed == 0)
    upstream = fb.upstream("fbank")
    rows = {row.id: row for row in corpus.with_label("keyword").split("test")}
    predictor = ran.predictions().query(f"run == '{record.run}'")
    found = {}
    trained, description = load_trained(RecordStore(ran.folder).run_folder(record.run_of_clean()) / "head.safetensors")
    head = downstream_of(description, trained.state).eval()
    for name in list(rows)[:4]:
        row = rows[name]
        wav = Condition("noise", 0).applied(read_audio(row.path), corpus.audio_digests[name])
        states = upstream.extract(wav[None], torch.tensor([len(wav)]))
        logits = head(states.pooled()[:, None], torch.tensor([1]))
        (found[name],) = head.head.predict(logits, torch.tensor([1]))
    told = dict(zip(predictor["id"], predictor["prediction"], strict=True))
    assert found == {name: told[name] for name in found}


def test_the_leaderboard_is_what_it_is_without_and_train_passes_once(ran, corpus_folder, tmp_path):
    alone = evaluated(corpus_folder, tmp_path)
    tested = alone.records[0].counts["test"]
    assert ran.passed["fbank"] == alone.passed["fbank"] + 3 * tested
    assert alone.cells().equals(ran.cells())
    assert fb.load(ran.folder, custom=True).cells().equals(alone.cells())
    assert alone.conditions().empty and "in conditions" not in to_markdown(alone.board)
    assert {record.run for record in alone.records} == {record.run_of_clean() for record in ran.records}


def test_heads_that_are_there_are_heard_without_training(ran, corpus_folder, tmp_path, monkeypatch):
    shutil.copytree(ran.folder.parent / "cache", tmp_path / "cache")
    evaluated(corpus_folder, tmp_path)

    def refuse(*given, **named):
        raise AssertionError("nothing is to be trained")

    monkeypatch.setattr("frostbench.grid.cell_jobs.train_together", refuse)
    again = evaluated(corpus_folder, tmp_path, conditions=CONDITIONS)
    assert (again.computed, again.skipped, again.passed) == (6, 2, {})
    assert {each.run: each.result_digest() for each in again.records} == {
        each.run: each.result_digest() for each in ran.records
    }


def test_a_head_that_was_changed_is_not_heard(ran, corpus_folder, tmp_path):
    shutil.copytree(ran.folder.parent / "cache", tmp_path / "cache")
    (record,) = evaluated(corpus_folder, tmp_path, seeds=0).records
    head = RecordStore(tmp_path / "results").run_folder(record.run) / "head.safetensors"
    head.write_bytes(head.read_bytes()[:-1] + b"\0")
    asked = {"seeds": 0, "conditions": "telephone"}
    done = evaluated(corpus_folder, tmp_path, **asked, raise_error=False)
    assert done.computed == 0 and done.failed == 1
    assert "head.safetensors: is gone or was changed since it was recorded" in done.failures[0][1]


def test_another_head_than_the_clean_one_is_found_by_verify(ran, tmp_path):
    shutil.copytree(ran.folder, tmp_path / "copy")
    store = RecordStore(tmp_path / "copy")
    record = next(each for each in store.all() if each.condition == "telephone" and each.seed == 0)
    other = next(each for each in store.all() if each.has_row and each.seed == 1)
    shutil.copyfile(store.run_folder(other.run) / "history.json", store.run_folder(record.run) / "history.json")
    content = json.loads(store.path(record.run).read_text(encoding="utf-8"))
    content["artifacts"]["history.json"] = other.artifacts["history.json"]
    content["digest"] = digest_of({key: value for key, value in content.items() if key != "digest"})
    store.path(record.run).write_text(json.dumps(content), encoding="utf-8")
    told = [finding.problem for finding in verify(store)]
    assert any(f"its history.json is not that of {record.run_of_clean()[:16]}.json" in problem for problem in told)


def test_a_condition_that_is_not_known_is_left_out(ran, tmp_path):
    record = next(each for each in ran.records if each.condition == "telephone")
    odd = replace(record, audio={**record.audio, "condition": "under water"})
    store = RecordStore(tmp_path)
    store.add(replace(odd, run=odd.inputs_digest()))
    (left_out,) = usable_records(store).left_out
    assert "audio has not what is needed" in str(left_out)


def test_the_cell_has_the_curve_with_intervals(ran):
    (made,) = ran.board.boards
    cell = made.rows[0].cells["ks"]
    clean, *heard = cell.conditions
    assert (clean.condition, clean.mean, clean.interval) == ("clean", cell.mean, cell.interval)
    assert [each.condition for each in heard] == ["noise@20dB", "noise@0dB", "telephone"]
    found = ran.conditions()
    predictions = ran.predictions().set_index("run")
    for score in heard:
        mine = found[found["condition"] == score.condition]
        assert score.mean == pytest.approx(mine["value"].mean()) and score.seeds == (0, 1)
        judged = [predictions.loc[run] for run in mine["run"]]
        statistics = np.array([[each["accuracy"] for each in seed["statistics"]] for seed in judged], dtype=float)
        draws = resample(Trials(get_metric("accuracy"), [statistics], list(judged[0]["speaker"])))
        assert score.interval == interval(draws, 0)


def test_frames_that_are_not_kept_are_heard_as_well(corpus_folder, tmp_path):
    asked = {"corpus": corpus_folder, "conditions": "noise@0dB", "output": tmp_path / "out", "cache": tmp_path / "kept"}
    kept = fb.evaluate("fbank", tiny_tasks.ASR, frames="recompute", **asked)
    clean, noisy = kept.conditions()["value"]
    assert kept.computed == 2 and clean != noisy


def test_features_in_a_condition_lie_beside_the_clean_ones(ran, place):
    record = next(each for each in ran.records if each.condition == "noise@0dB")
    cache = FeatureCache(place / "cache", record.upstream["digest"], "pooled")
    keys = [key for key in cache._slots] if len(cache) else []
    heard = {key.split("|")[1] for key in keys if "|" in key}
    assert heard == set(CONDITIONS.split(","))


def test_the_command_prints_the_curve_and_reports_it(corpus_folder, tasks_file, tmp_path):
    places = ("--output", tmp_path / "results", "--cache", tmp_path / "cache", "--workers", 1)
    command = ("run", "--upstream", "fbank", "--task", f"{tasks_file}:KS", "--corpus", corpus_folder, *places)
    done = call(*command, "--condition", "noise@0dB,telephone")
    assert done.code == 0, done.err
    assert "ks: accuracy in conditions of test" in " ".join(done.out.split())
    shown = " ".join(call("report", "--custom", "--output", tmp_path / "results").out.split())
    assert "KS Acc % ↑ in conditions of test" in shown and "noise@0dB" in shown
    assert "condition 'rain': must be such as" in " ".join(call(*command, "--condition", "rain").err.split())


def test_the_figure_has_a_panel_a_task_and_kind():
    made = with_conditions(board(tasks=3), "apc", "mfcc")
    (figure,) = [figure for figure in figures_of(made) if figure.name == "conditions"]
    assert [panel.label.split(": ")[0] + panel.label[panel.label.rindex(","):] for panel in figure.panels] == [
        f"{task}, {kind}" for task in ("ASR", "IC", "KS") for kind in ("noise", "telephone")
    ]  # fmt: skip
    noise, telephone = figure.panels[:2]
    names = [each.text for each in parts(noise, "text", "tick") if each.get("text-anchor") == "middle"]
    assert names[::-1] == ["clean", "20 dB", "0 dB"]
    names = [each.text for each in parts(telephone, "text", "tick") if each.get("text-anchor") == "middle"]
    assert names[::-1] == ["clean", "300 to 3400 Hz"]
    last = next(each for each in parts(telephone, "text", "tick") if each.text == "300 to 3400 Hz")
    assert float(last.get("x", "")) + len("300 to 3400 Hz") * CHARACTER_WIDTH / 2 < telephone.width
    first, second = (x for x, *_ in whiskers(telephone)[::2])
    assert abs(first - second) == pytest.approx(4), "whiskers of two upstreams stand side by side"
    for curve in (each for each in parts(noise, "path", "line") if "V" not in each.get("d", "")):
        places = [tuple(map(float, point.split(","))) for point in curve.get("d", "")[1:].split()]
        assert len(places) == 3
        steps = np.diff(places, axis=0)
        assert steps[0, 0] == pytest.approx(steps[1, 0], abs=0.2), "equal steps"
        assert (steps[:, 1] > 0).all(), "worse is further down, whatever the metric"
        assert steps[1, 1] == pytest.approx(4 * steps[0, 1], abs=0.5)
    assert len(whiskers(noise)) == 6, "a whisker a point"
    cell = next(row for row in made.rows if row.name == "apc").cells["ks"]
    told = re.findall(r'data-tip="([^"]*)"', figure.panels[4].body)
    assert [tip.split("\n")[0] for tip in told[:3]] == ["apc, noise@0dB", "apc, noise@20dB", "apc, clean"]
    assert told[1].split("\n")[1:] == [
        f"Acc\t{cell.mean - 5:.1f} %", f"95 % interval\t{cell.mean - 8:.1f} to {cell.mean - 3:.1f}",
        f"As recorded\t{cell.mean:.1f} %", "Seeds\t0, 1",
    ]  # fmt: skip


def test_the_page_and_the_tables_have_them_only_where_they_were_run():
    made = with_conditions(board(tasks=3), "apc")
    assert 'id="b0-conditions"' in page(leaderboard(made))
    assert 'id="b0-conditions"' not in page(leaderboard(board(tasks=3)))
    written = to_markdown(leaderboard(made))
    cell = next(row for row in made.rows if row.name == "apc").cells["ks"]
    assert "**KS Acc % ↑ in conditions of test**" in written
    heading = re.search(r"\| upstream +\| +clean \| +noise@20dB \| +noise@0dB \| +telephone \|", written)
    assert heading is not None
    last = rf"{cell.mean - 25:.1f} \[{cell.mean - 28:.0f}, {cell.mean - 23:.0f}\]"
    assert re.search(rf"\| apc .*\| {last} \|", written)
