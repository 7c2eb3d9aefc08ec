"""Entries of any kind, by object, name or `FILE.py:NAME`: what checks them, and what runs them."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_tasks
from conftest import call

import frostbench as fb
from core.records import RecordStore
from downstreams._recipe import SpecAugment
from downstreams.utterance_linear import UtteranceLinear
from frostbench.entries import subject_of

ROOT = Path(__file__).parent.parent
OWN = '''
"""A head, a task and an upstream of one's own."""
import torch
import frostbench as fb
from dataclasses import dataclass

@dataclass(frozen=True)
class Options:
    """None."""

@fb.register_head("last_layer_linear")
class OwnHead(fb.Head):
    """One linear layer without a projector."""
    needs = "pooled"
    label_kind = fb.SlotLabels
    options_type = Options

    def __init__(self, shape, labels, options):
        super().__init__(shape, labels, options)
        self.classifier = torch.nn.Linear(shape.hidden_size, sum(labels.sizes))

    def forward(self, features, lengths):
        return self.classifier(fb.mean_over_valid(features, lengths))

    def loss(self, logits, lengths, targets):
        parts = logits.split(list(self.labels.sizes), dim=1)
        targets = torch.stack(list(targets)).to(logits.device)
        return sum(torch.nn.functional.cross_entropy(part, targets[:, slot]) for slot, part in enumerate(parts))

    def predict(self, logits, lengths):
        parts = logits.split(list(self.labels.sizes), dim=1)
        best = torch.stack([part.argmax(dim=1) for part in parts], dim=1)
        return [self.labels.decode(row) for row in best.tolist()]

word = fb.Task(name="word", title="Keyword of one's own", paper="none", label="keyword", head="last_layer_linear",
               recipes={"tiny": fb.Recipe("tiny", steps=60, batch_size=16, learning_rates=(1e-1,), eval_every=30)},
               metrics=("accuracy", "length"))

def length_difference(prediction, reference):
    return (abs(len(str(prediction)) - len(str(reference))),)

def plain(means):
    return means[..., 0]

length = fb.register_metric(
    fb.Metric("length", "Length", "letters", "lower", (0.0, None), "mean", length_difference, plain))

class Halves(fb.Upstream):
    """Two values a block."""
    card = fb.UpstreamCard(name="halves", title="Two values a block", paper="none")
    num_layers, hidden_size, downsample_rate, min_samples = 1, 2, 160, 160
    def frame_lengths(self, wav_lengths):
        return wav_lengths // 160
    def encode(self, wavs, wav_lengths):
        blocks = wavs[:, : wavs.shape[1] // 160 * 160].unflatten(1, (-1, 2, 80))
        return fb.HiddenStates(((blocks.square().mean(dim=3) + 1e-8).log(),), self.frame_lengths(wav_lengths))
'''


@pytest.fixture
def own(tmp_path) -> Path:
    path = tmp_path / "own.py"
    path.write_text(OWN)
    return path


@pytest.mark.parametrize("name", ["OwnHead", "word", "Halves", "length"])
def test_check_takes_any_kind_of_a_file(name, own):
    called = call("check", f"{own}:{name}")
    assert (called.code, called.err) == (0, "")
    assert called.out.count("passed") >= 6
    assert all(finding.passed for finding in fb.check(f"{own}:{name}"))


@pytest.mark.parametrize("name", ["fbank", "ctc", "ks", "accuracy", "wer", "eer"])
def test_check_takes_any_kind_by_name(name):
    assert all(finding.passed for finding in fb.check(name))
    assert call("check", name).code == 0


def test_a_task_is_checked_on_a_corpus(corpus_folder):
    called = call("check", "ks", "--corpus", corpus_folder)
    assert (called.code, called.err) == (0, "")
    assert "on tiny" in called.out
    with pytest.raises(fb.ContractError, match=r"(?s)4 of \d+ checks fail.*check_test_labels_occur_in_train"):
        fb.check(replace(tiny_tasks.SID, label="voice"), corpus=corpus_folder)
    with pytest.raises(fb.ContractError, match="only a task is checked on a corpus"):
        fb.check("fbank", corpus=corpus_folder)


def test_a_file_alone_lists_what_is_in_it(own):
    called = call("check", own)
    assert called.code == 0
    assert [tuple(line.split(maxsplit=1)) for line in called.out.splitlines()] == [
        ("head", f"{own}:OwnHead"),
        ("task", f"{own}:word"),
        ("metric", f"{own}:length"),
        ("upstream", f"{own}:Halves"),
    ]


def test_check_says_how_fast_and_how_far(own, monkeypatch):
    called = call("check", f"{own}:Halves")
    *lines, last = called.out.splitlines()[1:]
    assert [re.fullmatch(r"passed {3,}\d+\.\d s  (check_\w+)", line)[1] for line in lines] == [
        finding.check for finding in fb.check(f"{own}:Halves")]  # fmt: skip
    assert re.fullmatch(r"speed: [\d,]+ s of audio a second on this CPU", last)
    monkeypatch.setattr("frostbench.jobs.progress.LINE_SECONDS", -1.0)
    called = call("check", "accuracy")
    assert "speed" not in called.out
    progress = [line.split(",")[0] for line in called.err.splitlines()]
    assert progress == [f"checking: {n + 1} of {len(progress)} checks" for n in range(len(progress))]


@pytest.mark.parametrize("name", ["OwnHead", "length", "Halves"])
@pytest.mark.parametrize("broken", [False, True])
def test_nothing_is_cut_on_a_narrow_terminal(own, name, broken, monkeypatch):
    """Nor names of classes, files and tasks, nor what is wrong."""
    monkeypatch.setenv("COLUMNS", "30")
    text = own.read_text()
    if broken:
        text = text.replace("mean_over_valid(features", "mean_over_valid(features.a_rather_long_name")
        text = text.replace("abs(len(str(prediction))", "abs(len(prediction.a_rather_long_name)")
        text = text.replace("wavs[:, : wavs.shape[1]", "wavs[:, : wavs.a_rather_long_name[1]")
        own.write_text(text)
    called = call("check", f"{own}:{name}")
    assert called.code == broken
    for finding in fb.check(f"{own}:{name}", raise_error=False):
        assert f"{finding.check}{': ' + finding.error if finding.error else ''}\n" in called.out
    assert ("a_rather_long_name" in called.out) == broken
    if broken:  # whatever kind it is of, the line in its file is said
        line = 1 + next(n for n, each in enumerate(text.splitlines()) if "a_rather_long" in each and _is_of(name, each))
        assert f"(own.py, line {line})" in called.out
    assert f"{own}:OwnHead\n" in call("check", own).out


def _is_of(name: str, line: str) -> bool:
    return {"OwnHead": "classifier", "length": "len(", "Halves": "wavs"}[name] in line


def test_list_cuts_nothing(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    assert "…" not in call("list").out


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "{}:Options",
            "or metric 'Options' (found: head OwnHead, task word, metric length, upstream Halves)",
        ),
        (
            "utterance_liner",
            "head, task or metric 'utterance_liner': did you mean 'utterance_linear'?",
        ),
        ("nothing.py:Head", "nothing.py: no such file"),
    ],
)
def test_what_is_no_entry_is_said(spec, message, own):
    called = call("check", spec.format(own))
    assert called.code == 2
    assert message in called.err


def test_an_object_that_is_no_entry_is_refused():
    with pytest.raises(fb.ContractError, match="3 is no entry: give an upstream, a head's class, a task"):
        fb.check(3)
    with pytest.raises(fb.ContractError, match=r"Unnamed has no name: decorate it with @frostbench.register_head"):
        fb.check(type("Unnamed", (UtteranceLinear,), {}))


class Wrong(fb.Upstream):
    """Lets padding in."""

    card = fb.UpstreamCard(name="wrong", title="Lets padding in", paper="none")
    num_layers, hidden_size, downsample_rate, min_samples = 1, 1, 160, 160

    def frame_lengths(self, wav_lengths):
        return wav_lengths // 160

    def encode(self, wavs, wav_lengths):
        blocks = wavs[:, : wavs.shape[1] // 160 * 160].unflatten(1, (-1, 160)).square().mean(2, keepdim=True)
        return fb.HiddenStates((blocks - blocks.mean(dim=1, keepdim=True),), self.frame_lengths(wav_lengths))


class KnownWrong(Wrong):
    """The same, and says so."""

    card = fb.UpstreamCard(
        name="known", title="says so", paper="none", known_failures={"check_padding_changes_nothing": "on purpose"}
    )


def test_a_broken_promise_raises_or_is_returned():
    with pytest.raises(fb.ContractError, match=r"(?s)wrong: .*1 of 12 checks fail:\n  check_padding_changes_nothing"):
        fb.check(Wrong())
    broken = [finding for finding in fb.check(Wrong, raise_error=False) if not finding.passed]
    assert [finding.check for finding in broken] == ["check_padding_changes_nothing"]
    fb.check(KnownWrong())
    known = replace(KnownWrong.card, known_failures={"check_silence_is_finite": "untrue"})
    with pytest.raises(fb.ContractError, match="check_silence_is_finite: a known failure passes: take it off the list"):
        fb.check(type("Untrue", (Wrong,), {"card": known}))


PLUGIN_TESTS = """
from frostbench.testing import parametrize_with_checks
from test_entries import KnownWrong, Wrong
import tiny_tasks

@parametrize_with_checks(ENTRIES)
def test_contract(check):
    check()
"""


@pytest.mark.parametrize(
    ("entries", "outcome"),
    [
        ("KnownWrong(), 'utterance_linear', tiny_tasks.KS, 'mfcc'", "44 passed, 1 xfailed"),
        ("Wrong", "1 failed, 11 passed"),
        ("'{own}:OwnHead', '{own}:word', '{own}:Halves'", "33 passed"),
    ],
)
def test_the_tests_of_a_plug_ins_own_repository(entries, outcome, own, tmp_path):
    (tmp_path / "test_plugin.py").write_text(PLUGIN_TESTS.replace("ENTRIES", entries.format(own=own)))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:conftest", "test_plugin.py"]
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert outcome in done.stdout, done.stdout + done.stderr


def test_the_corpus_of_a_known_failure_is_no_failure(corpus):
    task = fb.Task(**{**vars(tiny_tasks.KS), "disjoint": None})
    twice = replace(corpus, utterances=(*corpus.utterances, *(
        replace(row, id=f"{row.id}-again", split="valid") for row in corpus.with_label("keyword").split("train")[:1]
    )))  # fmt: skip
    name = "check_splits_share_no_recording"

    def verdict(manifest):
        (check,) = [each for each in subject_of(task, manifest).checks if each.name == name]
        return check.run().passed

    known = {name: "as published"}
    assert [verdict(each) for each in (corpus, twice, replace(twice, known_failures=known))] == [True, False, True]
    assert not verdict(replace(corpus, known_failures=known)), "a known failure has to fail"


SOUND = tiny_tasks.CLASSIFY
DECLARATIONS = {
    "no rates": (replace(SOUND, learning_rates=()), "task 'ks': recipe 'tiny': learning_rates is empty"),
    "schedule": (replace(SOUND, schedule="cosine"), "schedule 'cosine' is none of constant"),
    "masks on means": (replace(SOUND, spec_augment=SpecAugment()), "spec_augment needs a head on frames"),
    "options": (replace(SOUND, head={"size": 3}), "unknown option of utterance_linear 'size': "),
}


@pytest.mark.parametrize("case", DECLARATIONS)
def test_run_checks_declarations_before_any_work(case, corpus_folder, tmp_path):
    recipe, message = DECLARATIONS[case]
    with pytest.raises(fb.ContractError, match=message):
        fb.evaluate("fbank", replace(tiny_tasks.KS, recipes={"tiny": recipe}), corpus=corpus_folder,
                    output=tmp_path / "results", cache=tmp_path / "cache")  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_run_checks_declarations_of_files(corpus_folder, tmp_path):
    file = tmp_path / "tasks_of_mine.py"
    file.write_text("import tiny_tasks\nfrom dataclasses import replace\n"
                    "KS = replace(tiny_tasks.KS, recipes={'a': replace(tiny_tasks.CLASSIFY, name='b')})\n")  # fmt: skip
    folders = ("--output", tmp_path / "results", "--cache", tmp_path / "cache")
    called = call("run", "--upstream", "fbank", "--task", f"{file}:KS", "--corpus", corpus_folder, *folders)
    assert (called.code, called.err) == (2, "error: task 'ks': recipe 'a' calls itself 'b'\n")


def test_a_head_from_a_file_runs_in_workers_and_predicts(own, corpus_folder, tasks_file, tmp_path):
    folders = ("--output", tmp_path / "results", "--cache", tmp_path / "cache")
    asked = ("run", "--upstream", "fbank", "--task", f"{tasks_file}:KS", "--corpus", corpus_folder)
    called = call(*asked, "--head", f"{own}:OwnHead", "--workers", 2, *folders)
    assert (called.code, "1 cells computed" in called.out) == (0, True), called.err
    (record,) = RecordStore(tmp_path / "results").all()
    assert (record.task["head"], record.task["default_head"]) == ("last_layer_linear", "utterance_linear")
    file = next(corpus_folder.glob("audio/test_6_0.*"))
    said = call("predict", file, "--run", record.run, "--head", f"{own}:OwnHead", *folders[:2], "--device", "cpu")
    assert said.code == 0, said.err


def test_a_task_from_a_file_brings_its_head_along(own, corpus_folder, tmp_path):
    folders = {"output": tmp_path / "results", "cache": tmp_path / "cache"}
    results = fb.evaluate("fbank", f"{own}:word", corpus=corpus_folder, workers=2, **folders)
    assert (results.computed, results.failures) == (1, ())
    assert results.cells()["metric"].tolist() == ["accuracy", "length"]
    assert set(results.cells()["head"]) == {"last_layer_linear"}
    run, predictions = results.runs().iloc[0], results.predictions()
    assert predictions["value"].mean() == pytest.approx(run["value"])
    lengths = (predictions["prediction"].str.len() - predictions["reference"].str.len()).abs()
    assert run["value_length"] == pytest.approx(lengths.mean())


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("{}:word", "is no head: give a name, FILE.py:CLASS"),
        ("{}:Nothing", "has no upstream, head, task or metric 'Nothing'"),
        ("utterance_liner", "unknown head 'utterance_liner'"),
        ("ctc", "head 'ctc' takes other labels than task 'ks' has"),
    ],
)
def test_what_is_no_head_is_said(head, message, own, corpus_folder):
    with pytest.raises(fb.BenchmarkError, match=message):
        fb.evaluate("fbank", "ks", head=head.format(own), corpus=corpus_folder)
