"""The leaderboard from records and predictions: figures computed by hand, names made unique, markup kept as text."""

from __future__ import annotations

import csv as csv_files
import io
import json as json_files
import re
import shutil
from dataclasses import asdict

import pytest
import yaml
from results import ACCURACY, ASR, WER, add, classified, rows_of, upstream
from rich.console import Console
from test_records import record, task

from core.digest import digest_of
from core.errors import RecordError
from core.metrics import METRICS, get_metric
from core.records import RecordStore, ResultRecord
from leaderboard import frames
from leaderboard.aggregate import leaderboard
from leaderboard.board import Board, Leaderboard
from leaderboard.board_curves import Interval
from leaderboard.exports import eval_results, model_index, to_csv, to_json, to_latex
from leaderboard.frames import CELLS
from leaderboard.superb import superb_tasks
from leaderboard.tables import rich_tables, svg, to_markdown
from leaderboard.verification import verify
from tasks._base import TASKS

LIBRISPEECH = {"name": "librispeech", "digest": "l"}


def of(folder, *records: ResultRecord, **options: object) -> Leaderboard:
    """Of records alone, without predictions."""
    store = RecordStore(folder)
    for each in records:
        store.add(each)
    return leaderboard(store, **options)


def results() -> list[ResultRecord]:
    """Two upstreams, two tasks, three seeds of one cell."""
    apc, fbank = upstream("apc", 2_400_000), upstream("fbank")
    return [
        record("1", 60.0, upstream=apc, learning_rate=0.1),
        record("2", 62.0, upstream=apc, seed=1, learning_rate=0.01),
        record("3", 67.0, upstream=apc, seed=2, learning_rate=0.1),
        record("4", 50.0, upstream=fbank),
        record("5", 30.0, upstream=apc, task=ASR, metric=WER, learning_rate=0.003),
        record("6", 45.25, upstream=fbank, task=ASR, metric=WER, counts={"train": 1, "valid": 1, "test": 9}),
    ]


def judged(folder) -> RecordStore:
    """apc is better than mfcc and fbank, which tie: 40, 30 and 28 of 48 right, of 8 speakers."""
    store = RecordStore(folder)
    for name, right in (("apc", 44), ("mfcc", 26), ("fbank", 24)):
        add(store, classified([1] * right + [0] * (48 - right), 8), upstream=upstream(name, 1000))
    return store


def rows(text: str) -> list[dict[str, str]]:
    return list(csv_files.DictReader(io.StringIO(text)))


def only_board(board: Leaderboard) -> Board:
    (each,) = board.boards
    return each


def test_mean_and_sample_deviation(tmp_path):
    board = only_board(of(tmp_path, *results()))
    assert [row.name for row in board.rows] == ["apc", "fbank"]
    cell = board.rows[0].cells["ks"]
    # mean of 60, 62, 67 is 63; squared distances 9 + 1 + 16 over 2 is 13, whose root is 3.6056
    assert (cell.mean, cell.std) == (63, pytest.approx(13**0.5))
    assert cell.learning_rates == (0.01, 0.1)
    assert (cell.interval, cell.speakers, cell.letters, cell.rank, cell.best, cell.tied) == (
        None,
        None,
        "",
        1,
        True,
        False,
    )
    assert (board.rows[1].cells["ks"].std, board.rows[1].cells["ks"].rank) == (None, 2)


def unpadded(board: Leaderboard) -> str:
    """The Markdown without what makes its columns line up."""
    return re.sub(r"-{2,}", "---", re.sub(" +", " ", to_markdown(board)))


def test_csv_is_tidy(tmp_path):
    text = to_csv(of(tmp_path, *results()))
    header = "upstream,task,corpus,metric,direction,mean,std,seeds,test_utterances,learning_rate,params"
    assert text.splitlines()[0].startswith(header)
    assert text.splitlines()[0] == ",".join(CELLS)
    by_cell = {(row["upstream"], row["task"]): row for row in rows(text)}
    assert len(by_cell) == 4
    assert by_cell["apc", "ks"] == {
        "upstream": "apc", "task": "ks", "corpus": "tiny", "metric": "accuracy", "direction": "higher",
        "mean": "63.0000", "std": "3.6056", "seeds": "3", "test_utterances": "7", "learning_rate": "0.01 0.1",
        "params": "2400000", "low": "", "high": "", "rank": "1", "letters": "", "speakers": "", "recipe": "fast",
        "head": "utterance_linear", "board": "tiny, recipe fast", "score": "29.8508", "gflops_per_second": "0.5000",
        "source": "measured", "family": "", "letters_same_speakers": "",
    }  # fmt: skip
    assert (by_cell["fbank", "asr"]["mean"], by_cell["fbank", "asr"]["std"]) == ("45.2500", "")


def test_the_score_is_the_share_of_fbanks_errors_that_is_gone(tmp_path):
    board = only_board(of(tmp_path, *results()))
    # KS: 50 errors become 37, ASR: 45.25 become 30
    expected = (100 * 13 / 50 + 100 * 15.25 / 45.25) / 2
    assert {row.name: row.score for row in board.rows} == {"apc": pytest.approx(expected), "fbank": 0}
    assert "FBANK has 0" in board.score.explanation
    without = only_board(of(tmp_path / "without", *(each for each in results() if each.upstream["name"] == "apc")))
    assert without.rows[0].score is None
    assert "fbank was not run" in without.score.explanation
    foreign = record("9", 10.0, upstream=upstream("fbank"), circumstances={"upstream_spec": "s3prl:fbank"})
    other = only_board(of(tmp_path / "foreign", *results()[:3], foreign))
    assert {row.score for row in other.rows} == {None}


def test_markdown_has_arrows_and_the_best_in_bold(tmp_path):
    assert unpadded(of(tmp_path, *results())).splitlines()[:6] == [
        "**tiny, recipe fast**",
        "",
        "| upstream | params | error reduction % | ASR WER % ↓ | KS Acc % ↑ |",
        "|:---|---:|---:|---:|---:|",
        "| apc | 2.4 M | 29.9 | **30.0** | **63.0 ± 3.6** |",
        "| fbank | 0 | 0.0 | 45.2 | 50.0 |",
    ]


def test_rows_without_score_are_in_the_order_of_their_mean_rank(tmp_path):
    shuffled = [record(f"{name}{letter}", value, upstream=upstream(name), task={**ASR, "name": letter}, metric=WER)
                for name, values in {"worst": (9, 9, 2), "mixed": (2, 3, 9), "best": (1, 1, 1)}.items()
                for letter, value in zip("abc", values, strict=True)]  # fmt: skip
    board = only_board(of(tmp_path, *shuffled))
    assert [(row.name, row.mean_rank) for row in board.rows] == [("best", 1), ("mixed", 7 / 3), ("worst", 8 / 3)]
    assert [cell.best for row in board.rows for cell in row.cells.values()] == [True] * 3 + [False] * 6


def test_a_cell_that_was_not_run_is_a_dash(tmp_path):
    assert "| fbank | 0 | - | 50.0 |" in unpadded(of(tmp_path, *results()[:-1])).splitlines()


def test_predictions_give_intervals_tests_and_ties(tmp_path):
    board = only_board(leaderboard(judged(tmp_path)))
    apc, mfcc, fbank = (row.cells["ks"] for row in board.rows)
    assert (apc.letters, mfcc.letters, fbank.letters) == ("a", "b", "b")
    assert (apc.rank, mfcc.rank, fbank.rank) == (1, 2, 2)
    assert [(cell.best, cell.tied) for cell in (apc, mfcc, fbank)] == [(True, False), (False, False), (False, False)]
    for cell in (apc, mfcc, fbank):
        assert cell.speakers == 8
        assert isinstance(cell.interval, Interval)
        assert 0 <= cell.interval.low < cell.mean < cell.interval.high <= 100
    pairs = {(pair.first, pair.second): pair for pair in board.pairs}
    assert len(pairs) == 3
    (tie,) = [pair for pair in pairs.values() if not pair.different]
    assert {tie.first, tie.second} == {"mfcc", "fbank"}
    for pair in pairs.values():
        means = {row.name: row.cells["ks"].mean for row in board.rows}
        assert pair.difference == pytest.approx(means[pair.first] - means[pair.second])
        assert pair.interval.low < pair.difference < pair.interval.high
        assert pair.p <= pair.p_holm


def test_what_ties_with_the_best_is_marked(tmp_path):
    store = RecordStore(tmp_path)
    add(store, classified([1] * 30 + [0] * 18, 8), upstream=upstream("apc"))
    add(store, classified([0] * 17 + [1] * 31, 8), upstream=upstream("mfcc"))
    board = leaderboard(store)
    tied = {row.name: (row.cells["ks"].best, row.cells["ks"].tied) for row in only_board(board).rows}
    assert tied == {"mfcc": (True, False), "apc": (False, True)}
    assert "*62.5*" in unpadded(board)
    assert r"\underline{62.5}" in to_latex(board)


def test_seeds_are_averaged_utterance_by_utterance(tmp_path):
    """Two seeds that err in turn are no surer than one, nor less sure."""
    one = RecordStore(tmp_path / "one")
    add(one, classified([1, 0] * 24, 8))
    two = RecordStore(tmp_path / "two")
    add(two, classified([1, 0] * 24, 8))
    add(two, classified([0, 1] * 24, 8), seed=1)
    alone = only_board(leaderboard(one)).rows[0].cells["ks"].interval
    both = only_board(leaderboard(two)).rows[0].cells["ks"]
    assert (both.mean, both.std) == (50, 0)
    assert both.interval.high - both.interval.low != pytest.approx(alone.high - alone.low)


def test_a_deletion_of_runs_leaves_the_means(tmp_path):
    store = judged(tmp_path)
    shutil.rmtree(tmp_path / "runs")
    board = only_board(leaderboard(store))
    assert [row.cells["ks"].interval for row in board.rows] == [None] * 3
    assert [row.cells["ks"].rank for row in board.rows] == [1, 2, 3]


def test_one_utterance_tells_nothing(tmp_path):
    store = RecordStore(tmp_path)
    add(store, classified([1]), upstream=upstream("apc"))
    add(store, classified([0]), upstream=upstream("mfcc"))
    board = only_board(leaderboard(store))
    assert [row.cells["ks"].interval for row in board.rows] == [None, None]
    assert board.pairs == ()


def test_changed_predictions_are_not_read(tmp_path):
    store = judged(tmp_path)
    path = store.run_folder(store.all()[0].run) / "predictions.jsonl"
    path.write_text(path.read_text().replace('"no"', '"yes"', 1))
    board = leaderboard(store)
    (line,) = board.left_out
    assert re.fullmatch(rf"{path}: not the file .* frostbench verify", line)
    assert len(only_board(board).rows) == 2


def test_runs_on_the_same_data_have_the_same_utterances(tmp_path):
    store = RecordStore(tmp_path)
    add(store, classified([1, 0, 1]))
    add(store, classified([1, 1, 1]), seed=1)
    add(store, list(reversed(classified([1, 0, 0]))), seed=2)
    board = leaderboard(store)
    (line,) = board.left_out
    assert "fbank, seed 2: predicts other utterances" in line
    assert [seed.seed for seed in only_board(board).rows[0].cells["ks"].seeds] == [0, 1]


def test_confusions_are_counted_over_seeds(tmp_path):
    store = RecordStore(tmp_path)
    said = [("yes", "yes"), ("no", "yes"), ("no", "no"), ("up", "no")]
    add(store, rows_of(said))
    add(store, rows_of(said), seed=1)
    (confusion,) = only_board(leaderboard(store)).rows[0].cells["ks"].confusion
    assert (confusion.slot, confusion.labels) == ("", ("no", "up", "yes"))
    assert confusion.counts == ((0, 0, 2), (0, 1, 2), (2, 0, 2), (2, 2, 2))


def test_intents_have_a_matrix_a_slot(tmp_path):
    store = RecordStore(tmp_path)
    add(store, rows_of([({"do": "on", "to": "lamp"}, {"do": "off", "to": "lamp"})] * 2))
    confusions = only_board(leaderboard(store)).rows[0].cells["ks"].confusion
    assert [(each.slot, each.labels, each.counts) for each in confusions] == [
        ("do", ("off", "on"), ((0, 1, 2),)),
        ("to", ("lamp",), ((0, 0, 2),)),
    ]


def test_the_worst_transcripts_are_aligned(tmp_path):
    store = RecordStore(tmp_path)
    said = [("a cat sat", "the cat sat down"), ("dog", "dog"), ("no no yes", "yes"), ("", "so")]
    add(store, rows_of(said, 2), WER)
    cell = only_board(leaderboard(store)).rows[0].cells["asr"]
    assert cell.confusion == ()
    assert [(each.id, each.speaker, each.errors, each.total) for each in cell.worst] == [
        ("u2", "s0", 2, 1), ("u3", "s1", 1, 1), ("u0", "s0", 2, 4),
    ]  # fmt: skip
    assert cell.worst[0].alignment == (("insert", "", "no no"), ("equal", "yes", "yes"))
    assert cell.worst[1].alignment == (("delete", "so", ""),)
    assert cell.worst[2].alignment == (
        ("substitute", "the", "a"), ("equal", "cat sat", "cat sat"), ("delete", "down", ""),
    )  # fmt: skip


def test_layer_weights_are_corrected_for_the_norms(tmp_path):
    store = RecordStore(tmp_path)
    add(store, classified([1, 0]), upstream=upstream("apc", layers=3), circumstances={"layer_norms": [4.0, 1.0, 1.0]})
    cell = only_board(leaderboard(store)).rows[0].cells["ks"]
    parts = [4 * cell.layer_weights[0], *cell.layer_weights[1:]]
    assert cell.corrected_weights == pytest.approx([part / sum(parts) for part in parts])
    assert sum(cell.corrected_weights) == pytest.approx(1)


def test_every_metric_of_a_task_is_a_column(tmp_path):
    """The first is the task's own; scores and ranks take the mean over a task's metrics, so none counts twice."""
    store = RecordStore(tmp_path)
    both = ASR | {"metrics": ["wer", "cer"], "select": "cer"}
    texts = {"fbank": "the hat", "apc": "the bat", "mfcc": "a dog"}
    for name, said in texts.items():
        known = {"upstream": upstream(name), "circumstances": {"upstream_spec": name}}
        add(store, rows_of([(said, "the cat"), ("dog", "dog")]), WER, task=both, **known)
        add(store, classified([1, 0]), **known)
    board = only_board(leaderboard(store))
    assert [column.key for column in board.columns] == ["asr", "asr cer", "ks"]
    assert [column.heading for column in board.columns] == ["ASR WER % ↓", "ASR CER % ↓", "KS Acc % ↑"]
    assert [(column.primary, column.selecting) for column in board.columns[:2]] == [(True, False), (False, True)]
    rows = {row.name: row for row in board.rows}
    assert rows["fbank"].cells["asr"].mean == pytest.approx(100 / 3)
    assert rows["fbank"].cells["asr cer"].mean == pytest.approx(100 / 10)
    assert rows["fbank"].cells["asr cer"].interval is not None
    assert (len(rows["mfcc"].cells["asr"].worst), rows["mfcc"].cells["asr cer"].worst) == (1, ())
    wer, cer = (rows["fbank"].cells[key].mean / rows["mfcc"].cells[key].mean for key in ("asr", "asr cer"))
    assert rows["mfcc"].score == pytest.approx(-(100 * (1 - wer) + 100 * (1 - cer)) / 2 / 2), "it makes more errors"
    assert rows["mfcc"].mean_rank == pytest.approx((3 + 2) / 2)
    assert "ASR CER % ↓" in to_markdown(leaderboard(store))
    frame = frames.cells(leaderboard(store))
    assert sorted(frame[frame["task"] == "asr"]["metric"]) == ["cer"] * 3 + ["wer"] * 3
    assert {(pair.task, pair.metric) for pair in board.pairs} == {("asr", "wer"), ("asr", "cer"), ("ks", "accuracy")}


def test_a_metric_that_is_not_known_here_has_values_and_a_word(tmp_path, monkeypatch):
    store = RecordStore(tmp_path)
    for name, right in (("apc", [1, 1, 0]), ("fbank", [1, 0, 0])):
        add(store, classified(right), upstream=upstream(name), circumstances={"upstream_spec": name})
    known = only_board(leaderboard(store))
    entries = dict(METRICS._entries)
    del entries["accuracy"]
    monkeypatch.setattr(METRICS, "_entries", entries)
    board = only_board(leaderboard(store))
    assert [(row.name, row.cells["ks"].mean, row.score) for row in board.rows] == [
        (row.name, row.cells["ks"].mean, row.score) for row in known.rows
    ]
    assert {row.cells["ks"].interval for row in board.rows} == {None}
    assert "Metric accuracy is not known here" in to_markdown(leaderboard(store))
    assert "install the package that registers it" in verify(store)[0].problem


def test_custom_runs_stay_off_unless_asked_for(tmp_path):
    limited = record("7", 99.0, upstream=upstream("apc", 2_400_000), custom=True)
    plain = of(tmp_path / "plain", *results())
    hidden = of(tmp_path / "both", *results(), limited)
    assert to_csv(hidden) == to_csv(plain)
    assert (plain.hidden, hidden.hidden) == (0, 1)
    shown = leaderboard(RecordStore(tmp_path / "both"), custom=True)
    assert [(board.title, board.custom) for board in shown.boards] == [
        ("tiny, recipe fast", False), ("tiny, recipe fast (custom)", True),
    ]  # fmt: skip
    with pytest.raises(RecordError, match="all of them are custom: add --custom"):
        of(tmp_path / "limited", limited)
    with pytest.raises(RecordError, match="run something first"):
        of(tmp_path / "nothing")


def test_one_name_for_several_contents_is_told_apart(tmp_path):
    two = [
        record("1", upstream=upstream("apc", digest="aaaaaaaa")),
        record("2", upstream=upstream("apc", digest="bbbbbbbb")),
        record("3", upstream=upstream("mfcc")),
        record("4", upstream=upstream("mfcc"), corpus={"name": "tiny", "digest": "dddddddd"}),
        record("5", upstream=upstream("mfcc"), recipe={"name": "fast", "digest": "eeeeeeee"}),
        record("6", upstream=upstream("mfcc"), task=task(name="sid", label="speaker")),
        record("7", upstream=upstream("mfcc"), task=task(name="sid", label="voice")),
        record("8", upstream=upstream("mfcc"), protocol=1),
    ]
    found = rows(to_csv(of(tmp_path, *two)))
    assert len(found) == 8
    assert {"apc#aaaaaa", "apc#bbbbbb", "mfcc"} == {row["upstream"] for row in found}
    assert "tiny#dddddd" in {row["corpus"] for row in found}
    assert {"fast#p", "fast#eeeeee", "fast", "fast (protocol 1)"} == {row["recipe"] for row in found}
    assert sum(row["task"].startswith("sid#") for row in found) == 2


def test_what_is_made_of_recordings_is_part_of_a_recipe(tmp_path):
    """Of one recipe with other crops, levels or pauses nothing is averaged or compared."""
    made = [{}, {"crop_samples": 9}, {"crop_samples": 12}, {"gain_db": -3.0}, {"trim": {"level": 0.1, "seconds": 0.2}}]
    runs = [record(str(seed), seed=seed, audio=audio) for seed, audio in enumerate(made, start=1)]
    found = rows(to_csv(of(tmp_path, *runs)))
    assert len({row["recipe"] for row in found}) == len(found) == len(made)


def test_two_recipes_do_not_split_a_corpus(tmp_path):
    """Up to protocol 3 a recipe that crops made other clips, hence another digest, of the same corpus."""
    cropped = record("2", corpus={"name": "tiny", "digest": "d"}, recipe={"name": "superb", "digest": "s"})
    board = of(tmp_path, record("1"), cropped)
    assert [each.title for each in board.boards] == ["tiny, recipe fast", "tiny, recipe superb"]


def test_exact_crops_have_a_board_with_the_tasks_that_do_not_crop(tmp_path):
    crops = {"recipe": {"name": "superb", "digest": "s"}, "audio": {"crop_samples": 9}}
    sid = task(name="sid", label="speaker")
    plain = record("1", recipe={"name": "superb", "digest": "t"})
    cached, live = record("2", task=sid, **crops), record("3", task=sid, **crops, live=True)
    board = of(tmp_path / "both", plain, cached, live)
    assert [(each.title, [column.task for column in each.columns]) for each in board.boards] == [
        ("tiny, recipe superb", ["ks", "sid"]), ("tiny, recipe superb (exact)", ["ks", "sid"]),
    ]  # fmt: skip
    assert len(board.boards[0].rows[0].cells["sid"].seeds) == 1
    assert [each.title for each in of(tmp_path / "live", plain, live).boards] == ["tiny, recipe superb (exact)"]


def superb(run: str, value: float, name: str = "hubert-base-ls960", **changes: object) -> ResultRecord:
    """A run of SUPERB's speech recognition, by its content."""
    whole = {"corpus": LIBRISPEECH, "counts": {"train": 28_539, "valid": 2_703, "test": 2_620}}
    made = {"upstream": upstream(name, 94_700_000), **content_of("asr"), "metric": WER, **whole, **changes}
    return record(run, value, **made)


def content_of(task: str) -> dict[str, object]:
    """Task and recipe of the suite, as a run records them."""
    recipe = TASKS.get(task).recipe("superb")
    audio = asdict(TASKS.get(task).audio_of(recipe))
    return {
        "task": TASKS.get(task).recorded(),
        "recipe": {**asdict(recipe), "digest": digest_of(recipe)},
        "audio": audio,
    }


NOT_SUPERB = {
    "fewer train": {"counts": {"train": 28_538, "valid": 2_703, "test": 2_620}},
    "more valid": {"counts": {"train": 28_539, "valid": 2_704, "test": 2_620}},
    "another test": {"counts": {"train": 28_539, "valid": 2_703, "test": 2_619}},
    "custom": {"custom": True},
    "another corpus": {"corpus": {"name": "librispeech_clean", "digest": "l"}},
    "another recipe of its name": {"recipe": {"name": "superb", "steps": 2_000_000, "digest": "s", "crop_samples": 0}},
    "another head of its own": {"task": TASKS.get("asr").recorded() | {"head": "mine", "default_head": "mine"}},
    "changed head": {"task": TASKS.get("asr").recorded() | {"code": "c"}},
    "another metric selects": {"task": TASKS.get("asr").recorded() | {"metrics": ["wer", "cer"], "select": "cer"}},
    "another level": {"audio": {"gain_db": 6.0}},
}  # fmt: skip


@pytest.mark.parametrize("change", NOT_SUPERB)
def test_the_superb_board_is_entered_by_content(tmp_path, change):
    """Whatever it is called: a file of one's own may say ks, superb and librispeech."""
    board = of(tmp_path, superb("s1", 5.0), superb("s2", 1.0, "mine", **NOT_SUPERB[change]), custom=True)
    suite, other = board.boards[0], board.boards[1]
    assert (suite.title, [row.name for row in suite.rows]) == ("SUPERB", ["hubert-base-ls960"])
    assert (other.superb, [row.name for row in other.rows]) == (False, ["mine"])


def test_seconds_of_silence_may_stand_in_train_and_valid_alike(tmp_path):
    ks = {**content_of("ks"), "metric": ACCURACY, "corpus": {"name": "speech_commands", "digest": "k"}}
    for silent, superb_of in (((0, 0), True), ((398, 398), True), ((398, 399), False), ((601, 601), False)):
        counts = {"train": 51_088 + silent[0], "valid": 6_798 + silent[1], "test": 3_081}
        board = of(tmp_path / str(silent), record("s", 90.0, counts=counts, **ks))
        assert board.boards[0].superb is superb_of


@pytest.mark.parametrize(
    ("train", "valid", "trials", "superb_of"),
    [(143_101, 5_541, 37_720, True), (142_900, 5_541, 37_720, True), (143_102, 5_541, 37_720, False),
     (141_000, 5_541, 37_720, False), (142_900, 5_340, 37_720, False), (143_101, 5_541, 37_611, False)],
)  # fmt: skip
def test_superbs_verification_may_lack_recordings_that_are_short_without_pauses(train, valid, trials, superb_of):
    """How many those are is nowhere published; whole recordings last four seconds at least."""
    counts = {"train": train, "valid": valid, "test": 4_715, "trials": trials}
    corpus = {"name": "voxceleb1_verification", "digest": "v"}
    assert superb_tasks()["asv"].is_of(record("v", 9.0, counts=counts, corpus=corpus, **content_of("asv"))) is superb_of


@pytest.mark.parametrize(
    ("fold", "test", "superb_of"),
    [("Session1", 1_085, True), ("Session1", 1_084, False), ("Session2", 1_085, False), ("Session6", 1_085, False),
     (None, 1_085, False), (None, 5_531, False)],
)  # fmt: skip
def test_each_fold_of_superbs_emotions_has_its_own_size(fold, test, superb_of):
    er = {**content_of("er"), "metric": ACCURACY, "corpus": {"name": "iemocap", "digest": "i"}, "fold": fold}
    for train, valid, whole in ((3_556, 890, True), (3_555, 890, False), (3_556, 891, False)):
        made = record("e", 60.0, counts={"train": train, "valid": valid, "test": test}, **er)
        assert superb_tasks()["er"].is_of(made) is (superb_of and whole)
    assert not superb_tasks()["asr"].is_of(superb("s1", 5.0, fold="Session1")), "a task without folds"


def test_superbs_emotions_are_the_mean_of_five_folds(tmp_path):
    er = superb_tasks()["er"]
    facts = {"name": "iemocap", "folds": list(er.folds), "undivided": "u"}
    made = [
        record(f"e{place}", value, fold=fold, corpus={**facts, "digest": fold}, metric=ACCURACY,
               counts=dict(zip(("train", "valid", "test"), er.folds[fold], strict=True)), **content_of("er"))
        for place, (fold, value) in enumerate(zip(er.folds, (60.0, 62.0, 64.0, 66.0, 68.0), strict=True))
    ]  # fmt: skip
    (board,) = of(tmp_path, *made, published=True).boards
    assert (board.title, board.rows[0].cells["er"].mean) == ("SUPERB", 64.0)
    (column,) = board.columns
    assert (column.train, column.valid, column.test) == (er.train, er.valid, er.test) == (3_540, 885, 5_531)
    assert {row.name: row.values["er"] for row in board.published}["HuBERT Base"] == 64.92


def test_another_corpus_of_the_name_and_size_is_not_mixed_with_the_first(tmp_path):
    other = {"corpus": {"name": "librispeech", "digest": "mmmmmmmm"}}
    boards = of(tmp_path, superb("s1", 5.0), superb("s2", 1.0, "mine", **other)).boards
    assert [each.title for each in boards] == ["SUPERB, librispeech#l", "SUPERB, librispeech#mmmmmm"]


def test_old_protocols_have_a_superb_board_of_their_own(tmp_path):
    board = of(tmp_path, superb("s1", 5.0), superb("s2", 6.0, protocol=1))
    assert [each.title for each in board.boards] == ["SUPERB", "SUPERB (protocol 1)"]


def test_superbs_own_corpora_make_one_board_with_its_score(tmp_path):
    ks = {**content_of("ks"), "metric": ACCURACY, "corpus": {"name": "speech_commands", "digest": "k"},
          "counts": {"train": 51_088, "valid": 6_798, "test": 3_081}}  # fmt: skip
    part = {"counts": {"train": 9, "valid": 9, "test": 7}, "upstream": upstream("mfcc")}
    board = of(tmp_path, superb("s1", 3.62), superb("s2", 96.66, **ks), superb("s3", 50.0, **part), *results())
    assert [(each.title, each.superb) for each in board.boards] == [
        ("SUPERB", True), ("librispeech, recipe superb", False), ("tiny, recipe fast", False),
    ]  # fmt: skip
    assert board.boards[0].rows[0].score == pytest.approx(1000)
    assert "1000" in board.boards[0].score.explanation


def test_published_rows_stand_beside_what_was_measured(tmp_path):
    board = of(tmp_path, superb("s1", 6.5), *results(), published=True)
    suite, tiny = board.boards
    assert (tiny.published, tiny.rows[0].cells["asr"].published) == ((), None)
    beside = suite.rows[0].cells["asr"].published
    assert (beside.name, beside.value, round(beside.difference, 6)) == ("HuBERT Base", 6.42, 0.08)
    names = [row.name for row in suite.published]
    assert names[0] == "WavLM Large"
    assert len(names) == 22
    assert not any("data2vec" in name for name in names)  # remembered only
    text = unpadded(board)
    assert "| WavLM Large (published) | 316.6 M |" in text
    assert "published 6.42, here +0.08" in text
    assert text.index("(published)") < text.index("**tiny, recipe fast**")
    assert "(published)" not in text[text.index("**tiny, recipe fast**") :]
    published = [row for row in rows(to_csv(board)) if row["source"] == "published"]
    assert {row["board"] for row in published} == {"SUPERB"}
    assert r"WavLM Large (published) & 316.6 M" in to_latex(board)


def test_a_name_alone_does_not_make_a_published_upstream(tmp_path):
    small = superb("s1", 6.5, upstream=upstream("hubert-base-ls960", 1_000_000))
    fbank = superb("s2", 20.0, upstream=upstream("fbank"))
    mean_removed = superb(
        "3", 21.0, upstream=upstream("fbank", digest="f"), circumstances={"upstream_spec": "s3prl:fbank"}
    )
    board = of(tmp_path, small, fbank, mean_removed, published=True)
    beside = {row.name: row.cells["asr"].published for row in board.boards[0].rows}
    assert {name for name, found in beside.items() if found} == {"fbank#fbank"}


def test_both_metrics_of_slot_filling_stand_beside_the_published_ones(tmp_path):
    metrics = [get_metric(name).recorded() for name in TASKS.get("sf").metrics]
    made = record("f", 88.0, metrics=metrics, metric=metrics[0], values={"slot_type_f1": 88.0, "slot_value_cer": 26.0},
                  corpus={"name": "audio_snips", "digest": "a"}, upstream=upstream("hubert-base-ls960", 94_700_000),
                  counts={"train": 104_672, "valid": 2_800, "test": 2_800}, **content_of("sf"))  # fmt: skip
    (board,) = of(tmp_path, made, published=True).boards
    assert [column.key for column in board.columns] == ["sf", "sf slot_value_cer"]
    cells = board.rows[0].cells
    assert cells["sf"].published.value == 88.53 and cells["sf slot_value_cer"].published.value == 25.2
    published = {row.name: row for row in board.published}["HuBERT Base"]
    assert dict(published.values) == {"sf": 88.53, "sf slot_value_cer": 25.2} and published.score is not None


def test_the_worst_slots_stand_with_the_metric_that_aligns_them(tmp_path):
    sf = task(name="sf", label="marked", head="ctc", default_head="ctc", select="slot_type_f1",
              metrics=["slot_type_f1", "slot_value_cer"])  # fmt: skip
    said = [("go to B-city bonn E-city", "go to B-city rome E-city"), ("go", "go"), ("B-a b E-a", "B-a b E-a")]
    add(RecordStore(tmp_path), rows_of(said), get_metric("slot_type_f1").recorded(), task=sf)
    cells = leaderboard(RecordStore(tmp_path)).boards[0].rows[0].cells
    assert cells["sf"].worst == ()
    (mistake,) = cells["sf slot_value_cer"].worst
    assert (mistake.id, mistake.errors, mistake.total) == ("u0", 3, 4)
    assert ("substitute", "rome", "bonn") in mistake.alignment


@pytest.mark.parametrize(
    ("counts", "whole"),
    [
        ((289_430, 15_531, 15_531), True),
        ((288_000, 15_500, 15_400), True),
        ((289_430, 15_531, 15_300), False),
        ((280_000, 15_531, 15_531), False),
        ((289_431, 15_531, 15_531), False),
        ((289_430, 15_532, 15_531), False),
    ],
)
def test_of_a_corpus_whose_clean_part_nobody_counted_a_hundredth_may_be_left_out(counts, whole):
    made = record("t", 9.0, corpus={"name": "covost2", "digest": "a"}, **content_of("st"),
                  counts=dict(zip(("train", "valid", "test"), counts, strict=True)))  # fmt: skip
    assert superb_tasks()["st"].is_of(made) is whole


def test_published_rows_need_no_results(tmp_path):
    board = leaderboard(RecordStore(tmp_path), published=True)
    (suite,) = board.boards
    assert (suite.superb, suite.rows, [column.task for column in suite.columns]) == (
        True,
        (),
        ["asr", "asv", "er", "ic", "ks", "pr", "qbe", "sd", "se", "se", "se", "sf", "sf", "sid", "ss", "st"],
    )
    assert "WavLM Large" in drawn(board) and "(published)" in drawn(board), "so many columns may break the name"


def test_another_head_has_its_own_board_and_is_compared(tmp_path):
    other = task(head="utterance_attention")
    values = {"apc": (60.0, 70.0), "mfcc": (50.0, 80.0), "fbank": (40.0, 30.0)}
    made = [record(f"{name}{number}", value, upstream=upstream(name), task=(task(), other)[number])
            for name, pair in values.items() for number, value in enumerate(pair)]  # fmt: skip
    unrelated = record("u", 1.0, upstream=upstream("mfcc"), task=other, corpus={"name": "else", "digest": "e"})
    board = of(tmp_path, *made, unrelated)
    default = only_board(board)
    assert [row.cells["ks"].mean for row in default.rows] == [60, 50, 40]
    assert [each.title for each in board.variants] == [
        "else, recipe fast, head utterance_attention", "tiny, recipe fast, head utterance_attention",
    ]  # fmt: skip
    (compared,) = default.heads
    assert (compared.head, compared.default_head) == ("utterance_attention", "utterance_linear")
    assert (compared.upstreams, compared.means) == (("apc", "mfcc", "fbank"), (70, 80, 30))
    assert compared.tau == pytest.approx(1 / 3)  # two of three pairs in the same order
    assert compared.flipped == (("apc", "mfcc"),)
    assert "Kendall's tau 0.33 over 3 upstreams; in another order: apc/mfcc" in unpadded(board)


def drawn(board: Leaderboard) -> str:
    console = Console(width=200, file=io.StringIO(), force_terminal=False)
    for table in rich_tables(board, explained=True):
        console.print(table)
    return console.file.getvalue()


def test_the_terminal_table_shows_what_markdown_shows(tmp_path):
    text = drawn(of(tmp_path, *results()))
    for words in ("tiny, recipe fast", "Acc % ↑", "WER % ↓", "63.0 ± 3.6", "45.2", "2.4 M", "FBANK has 0"):
        assert words in text
    tables = drawn(leaderboard(judged(tmp_path / "tested")))
    assert "91.7" in tables
    assert "] b" in tables


def test_markup_in_names_is_text(tmp_path):
    name = "[red]<script>apc|x[/]"
    odd = [record(str(number), 50.0 + number, upstream=upstream(name), seed=number,
                  corpus={"name": "[bold]c[/]", "digest": "c"}) for number in range(2)]  # fmt: skip
    board = of(tmp_path, *odd)
    assert name in drawn(board)
    assert "[bold]c[/], recipe fast" in drawn(board)
    assert r"| [red]&lt;script>apc\|x[/] | 0 |" in unpadded(board)
    assert {row["upstream"] for row in rows(to_csv(board))} == {name}
    assert "<script>" not in svg(board)
    listed = of(tmp_path / "quoted", record("1", upstream=upstream('a,"b"')))
    assert rows(to_csv(listed))[0]["upstream"] == 'a,"b"'


def test_json_holds_everything(tmp_path):
    board = leaderboard(judged(tmp_path))
    read = json_files.loads(to_json(board))
    (each,) = read["boards"]
    assert [row["name"] for row in each["rows"]] == ["apc", "mfcc", "fbank"]
    assert each["rows"][0]["cells"]["ks"]["interval"] == list(board.boards[0].rows[0].cells["ks"].interval)
    assert each["rows"][0]["cells"]["ks"]["seeds"][0]["artifacts"].keys() == {
        "head.safetensors", "history.json", "predictions.jsonl",
    }  # fmt: skip


def test_latex_is_a_booktabs_table(tmp_path):
    odd = upstream("a_b&c%#$~^\\{}", 1000)
    store = RecordStore(tmp_path)
    add(store, classified([1] * 44 + [0] * 4, 8), upstream=odd)
    add(store, classified([1] * 10 + [0] * 38, 8), upstream=upstream("mfcc"))
    text = to_latex(leaderboard(store))
    for words in (r"\toprule", r"\midrule", r"\bottomrule", r"KS Acc \% $\uparrow$",
                  r"\textbf{91.7}\textsuperscript{a A}",
                  r"a\_b\&c\%\#\$\textasciitilde{}\textasciicircum{}\textbackslash{}\{\}"):  # fmt: skip
        assert words in text
    body = text[text.index(r"\midrule") : text.index(r"\bottomrule")]
    assert body.count(r" \\") == 2


def test_model_index_is_of_one_upstream(tmp_path):
    board = leaderboard(judged(tmp_path))
    (model,) = yaml.safe_load(model_index(board, "apc"))["model-index"]
    (result,) = model["results"]
    assert model["name"] == "apc"
    assert result["task"]["type"] == "audio-classification"
    assert result["dataset"] == {"name": "tiny", "type": "tiny", "split": "test", "args": {"digest": "c"}}
    (metric,) = result["metrics"]
    assert (metric["type"], metric["value"]) == ("accuracy", 91.6667)
    assert len(metric["args"]["interval_95"]) == 2
    for named in (None, "hubert"):
        with pytest.raises(RecordError, match="add --upstream with one of apc, mfcc, fbank"):
            model_index(board, named)
        with pytest.raises(RecordError, match="add --upstream with one of apc, mfcc, fbank"):
            eval_results(board, named)
    speech = of(tmp_path / "speech", *results()[4:5])
    assert "automatic-speech-recognition" in model_index(speech, None)


def test_eval_results_are_what_the_hub_reads(tmp_path):
    hub = pytest.importorskip("huggingface_hub._eval_results")
    board = leaderboard(judged(tmp_path))
    text = eval_results(board, "apc")
    (entry,) = hub.parse_eval_result_entries(yaml.safe_load(text))
    assert (entry.dataset_id, entry.task_id, entry.value) == ("tiny", board.boards[0].columns[0].key, 91.6667)
    assert "Acc % on test; frozen encoder, head " in entry.notes and "95 % interval" in entry.notes
    row = next(row for row in board.boards[0].rows if row.name == "apc")
    runs = [run for cell in row.cells.values() for run in cell.seeds]
    assert all(run.run[:16] in entry.notes for run in runs)
    times = [run.circumstances.get("finished") for run in runs]
    assert entry.date == (max(times) if all(times) else None)
    assert hub.eval_result_entries_to_yaml([entry]) == yaml.safe_load(text), "and nothing else"
