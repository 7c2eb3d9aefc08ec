"""Each bad input gets one line that says what, where and what to do, exit code 2, and leaves nothing half-written."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import call
from results import add, classified, upstream

from core.records import RecordStore
from upstreams._pretraining import checkpoint as checkpoint_module
from upstreams.generative.apc import APC, APCConfig

ROOT = Path(__file__).parent.parent


@pytest.fixture
def place(corpus_folder, tmp_path) -> Path:
    """A folder with a corpus of its own, a checkpoint, and files that are none."""
    shutil.copytree(corpus_folder, tmp_path / "corpus")
    config = APCConfig(num_layers=1, hidden_size=8)
    checkpoint_module.save(tmp_path / "apc.safetensors", "apc", asdict(config), APC(config), {})
    whole = (tmp_path / "apc.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    torch.save({"a": 1}, tmp_path / "pickle.pt")
    (tmp_path / "folder").mkdir()
    (tmp_path / "raises.py").write_text("1 / 0")
    (tmp_path / "plain.py").write_text("from upstreams._base import Upstream\nclass Mine(Upstream): pass\nmine = 3\n")
    return tmp_path


def change(place: Path, **changes: object) -> None:
    """Alters the rows of the corpus: None takes a key away; a function gets the row."""
    path = place / "corpus" / "metadata.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        for key, value in changes.items():
            new = value(row) if callable(value) else value
            row.pop(key, None)
            row |= {} if new is None else {key: new}
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")


def first_audio(place: Path) -> Path:
    return place / "corpus" / "audio" / "train_0_0.wav"


def nothing(place: Path) -> None:
    """The corpus is fine."""


def nan(place: Path) -> None:
    soundfile.write(first_audio(place), np.array([np.nan], dtype=np.float32), 16_000, subtype="FLOAT")


def huge(place: Path) -> None:
    """Finite samples, but the sum of two channels is not."""
    wav = np.full((16_000, 2), 3e38, dtype=np.float32)
    soundfile.write(first_audio(place), wav, 16_000, subtype="FLOAT")


def text(place: Path) -> None:
    first_audio(place).write_text("no audio")


def link(place: Path) -> None:
    (place / "results").symlink_to(place / "gone")


def records_are_a_file(place: Path) -> None:
    (place / "results").mkdir()
    (place / "results" / "records").write_text("a file")


def csv(text: str) -> Callable[[Path], None]:
    """The corpus has this metadata.csv instead."""

    def prepare(place: Path) -> None:
        (place / "corpus" / "metadata.jsonl").unlink()
        (place / "corpus" / "metadata.csv").write_text(text)

    return prepare


def several(place: Path) -> None:
    text(place)
    next(place.glob("corpus/audio/test_6_2.*")).unlink()


RUN = (
    "run",
    "--task",
    "ks",
    "--corpus",
    "{}/corpus",
    "--output",
    "{}/results",
    "--cache",
    "{}/cache",
    "--workers",
    "1",
)
FBANK = (*RUN, "--upstream", "fbank")
PRETRAIN = ("pretrain", "apc", "--corpus", "{}/corpus", "--output", "{}/new", "--workers", "1", "--steps", "1",
            "--looks", "0")  # fmt: skip
CASES = {
    "unknown upstream": (nothing, (*RUN, "--upstream", "fbnak"), "unknown upstream 'fbnak': did you mean 'fbank'?"),
    "unknown kind": (nothing, (*RUN, "--upstream", "hff:x"), "unknown kind of upstream 'hff:' in 'hff:x': write NAME"),
    "unknown task": (nothing, (*FBANK, "--task", "kks"), "unknown task 'kks': did you mean 'ks'?"),
    "unknown corpus": (nothing, (*FBANK, "--corpus", "minni"), "unknown corpus 'minni': did you mean 'mini'?"),
    "unknown recipe": (nothing, (*FBANK, "--recipe", "fat"), "unknown recipe of ks 'fat': did you mean 'fast'?"),
    "unknown device": (nothing, (*FBANK, "--device", "cuda:77"), "device 'cuda:77' can't be used here"),
    "no device": (nothing, (*FBANK, "--device", "gpu"), "device 'gpu' can't be used here"),
    "missing corpus": (nothing, (*FBANK, "--corpus", "{}/korpus"), "{}/korpus: no such folder or file"),
    "no manifest": (nothing, (*FBANK, "--corpus", "{}/folder"), "{}/folder: no metadata.jsonl there"),
    "no folder named": (nothing, (*FBANK, "--corpus", "librispeech"), "where does it lie? Add --root FOLDER"),
    "missing checkpoint": (nothing, (*RUN, "--upstream", "apc@{}/gone"), "{}/gone: no such checkpoint; train one"),
    "corrupt checkpoint": (nothing, (*RUN, "--upstream", "apc@{}/cut.safetensors"), "not a readable safetensors file"),
    "pickled checkpoint": (nothing, (*RUN, "--upstream", "apc@{}/pickle.pt"), "not a readable safetensors file"),
    "another architecture": (
        nothing,
        (*RUN, "--upstream", "mockingjay@{}/apc.safetensors"),
        "is a checkpoint of 'apc', not of 'mockingjay'; write apc@{}/apc.safetensors",
    ),
    "needless checkpoint": (
        nothing,
        (*RUN, "--upstream", "fbank@{}/x"),
        "fbank takes no checkpoint: leave out '@{}/x'",
    ),
    "no hf folder": (nothing, (*RUN, "--upstream", "hf:{}/gone"), "hf:{}/gone: no such folder; correct the path"),
    "empty hf folder": (nothing, (*RUN, "--upstream", "hf:{}/folder"), "hf:{}/folder: can't be loaded"),
    "hub out of reach": (nothing, (*RUN, "--upstream", "hf:nobody/nothing"), "hf:nobody/nothing: can't be loaded"),
    "no plug-in file": (nothing, (*RUN, "--upstream", "{}/gone.py:Mine"), "{}/gone.py: no such file; name the Python"),
    "plug-in raises": (nothing, (*RUN, "--upstream", "{}/raises.py:Mine"), "fails when imported: ZeroDivisionError"),
    "no class named": (
        nothing,
        (*RUN, "--upstream", "{}/plain.py"),
        "{}/plain.py: name one class of it, as {}/plain.py:CLASS (found: Mine)",
    ),
    "no task named": (nothing, (*FBANK, "--task", "{}/plain.py"), "{}/plain.py:NAME (found: none)"),
    "no head named": (nothing, (*FBANK, "--head", "{}/plain.py"), "{}/plain.py:CLASS (found: upstream Mine)"),
    "no such class": (nothing, (*RUN, "--upstream", "{}/plain.py:Your"), "no upstream class 'Your' (found: "),
    "no class": (nothing, (*RUN, "--upstream", "{}/plain.py:mine"), "has no upstream class 'mine'"),
    "class without card": (nothing, (*RUN, "--upstream", "{}/plain.py:Mine"), "Mine has no card; decorate it"),
    "no task in file": (nothing, (*FBANK, "--task", "{}/plain.py:mine"), "has no task 'mine' (found: none)"),
    "no task file": (nothing, (*FBANK, "--task", "{}/gone.py:mine"), "{}/gone.py: no such file"),
    "corpus without the label": (lambda place: change(place, keyword=None), FBANK, "no row has the label 'keyword'"),
    "empty split": (
        lambda place: change(place, split=lambda row: "train" if row["split"] == "valid" else row["split"]),
        FBANK,
        "split 'valid' is empty; give some rows",
    ),
    "unknown split": (lambda place: change(place, split="other"), FBANK, "76 bad rows; correct or remove:"),
    "duplicate ids": (lambda place: change(place, id="same"), FBANK, "id stands already in line 1"),
    "unseen label": (
        lambda place: change(place, keyword=lambda row: "new" if row["id"] == "test_6_0" else row.get("keyword")),
        FBANK,
        "(utterance 'test_6_0'): keyword 'new' is in test, but not in train",
    ),
    "voice in two splits": (
        lambda place: change(place, voice=lambda row: "v0" if row["id"] == "test_6_0" else row.get("voice")),
        FBANK,
        "voice 'v0' is in test, but in train at line 1",
    ),
    "unreadable audio": (text, FBANK, "train_0_0.wav: not readable as audio"),
    "missing audio": (
        lambda place: first_audio(place).unlink(),
        FBANK,
        "train_0_0.wav: no such file; correct file_name",
    ),
    "no samples": (lambda place: soundfile.write(first_audio(place), np.zeros(0), 16_000), FBANK, "has no samples"),
    "NaN samples": (nan, FBANK, "has samples that are NaN or infinite; write the file anew"),
    "huge samples": (huge, FBANK, "has samples that are NaN or infinite; write the file anew"),
    "nothing behind @": (
        nothing,
        (*RUN, "--upstream", "fbank@"),
        "upstream 'fbank@' names no checkpoint behind '@': write one, or fbank alone",
    ),
    "two bad recordings": (several, FBANK, "2 bad rows; correct or remove:"),
    "binary manifest": (
        lambda place: (place / "corpus" / "metadata.jsonl").write_bytes(b"\xff\xfe\x00"),
        FBANK,
        "not UTF-8 text",
    ),
    "columns without hf": (nothing, (*FBANK, "--columns", "text=a"), "--columns is for hf: datasets"),
    "output is a file": (nothing, (*FBANK, "--cache", "{}/pickle.pt"), "{}/pickle.pt"),
    "output is a broken link": (link, FBANK, "{}/results: File exists; a file is in the way of a folder"),
    "records are a file": (records_are_a_file, FBANK, "{}/results/records: File exists; a file is in the way"),
    "picture is a folder": (
        nothing,
        ("report", "--output", "{}/folder", "--picture", "{}/folder"),
        "{}/folder: Is a directory; a folder is in the way of a file",
    ),
    "page is a folder": (nothing, ("report", "--output", "{}/folder", "--html", "."), "error: .: Is a directory"),
    "bundle is a folder": (nothing, ("submit", "{}/folder", "--output", "{}/folder"), "{}/folder: Is a directory"),
    "output is no text": (nothing, (*FBANK, "--output", "{}/a\udcff"), "Name is not UTF-8; correct the path"),
    "csv without an end": (csv('"file_name'), FBANK, "metadata.csv: its first line is not CSV (unexpected end"),
    "csv with a number of thousands of digits": (
        csv("file_name,split,start_sample\na.wav,train," + "1" * 5_000),
        FBANK,
        "must be whole numbers, 0 <= start < stop",
    ),
    "manifest is a folder": (nothing, (*FBANK, "--corpus", "{}/corpus/audio"), "no metadata.jsonl there"),
    "file_name of a source": (
        lambda place: change(place, mixture=[{"file_name": 5}], file_name=None),
        FBANK,
        "file_name of a source is 5, must be text",
    ),
    "offset of a source": (
        lambda place: change(place, mixture=[{"file_name": "a", "offset": 10**12}], file_name=None),
        FBANK,
        "offset 1000000000000 must be a whole number from 0 to 57,600,000",
    ),
    "level of a source": (
        lambda place: change(place, mixture=[{"file_name": "a", "gain_db": float("nan")}], file_name=None),
        FBANK,
        "gain_db nan a number from -200 to 200",
    ),
    "too long a name": (lambda place: change(place, file_name="a" * 300), FBANK, "is no name (File name too long)"),
    "piece of true": (lambda place: change(place, start_sample=True), FBANK, "start_sample True and stop_sample None"),
    "prepare": (several, ("prepare", "{}/corpus"), "2 bad rows; correct or remove:"),
    "check": (nothing, ("check", "mfc"), "unknown upstream, head, task or metric 'mfc': did you mean 'mfcc'?"),
    "check checkpoint": (nothing, ("check", "apc@{}/cut.safetensors"), "not a readable safetensors file"),
    "report of nothing": (nothing, ("report", "--output", "{}/folder"), "run something first: frostbench run"),
    "pretrain what can't": (nothing, (*PRETRAIN, "fbank"), "'fbank' can't be pretrained here; these can: apc"),
    "pretrain unknown": (nothing, (*PRETRAIN, "apcc"), "unknown upstream 'apcc': did you mean 'apc'?"),
    "pretrain size": (nothing, (*PRETRAIN, "--size", "huge"), "unknown size of apc 'huge'"),
    "pretrain option": (
        nothing,
        (*PRETRAIN, "--set", "num_layer=2"),
        "unknown option of apc 'num_layer': did you mean",
    ),
    "pretrain option's value": (nothing, (*PRETRAIN, "--set", "num_layers=x"), "num_layers=x: not a value like 3"),
    "pretrain steps and minutes": (nothing, (*PRETRAIN, "--minutes", "1"), "a training ends by one of them"),
    "pretrain on bad audio": (several, PRETRAIN, "train_0_0.wav: not readable as audio"),
    "pretrain without train": (lambda place: change(place, split="test"), PRETRAIN, "split 'train' is empty"),
}


def files(folder: Path) -> dict[Path, bytes]:
    """All but what Python and planning remember under the digest of its content, which is whole and true."""
    remembered = {"__pycache__", "upstreams"}
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and not remembered & {*path.parts}}


@pytest.mark.parametrize("case", CASES)
def test_one_line_and_exit_code_2(case, place):
    prepare, arguments, message = CASES[case]
    prepare(place)
    before = files(place)
    called = call(*(argument.replace("{}", str(place)) for argument in arguments))
    assert called.code == 2
    assert called.out == ""
    first, *rows = called.err.strip().splitlines()
    assert first.startswith("error: ")
    assert message.replace("{}", str(place)) in called.err
    assert "Traceback" not in called.err
    assert all(row.startswith("  ") for row in rows)  # only rows of a manifest stand on lines of their own
    assert files(place) == before


def test_a_damaged_record_is_named(place):
    (place / "results" / "records").mkdir(parents=True)
    (place / "results" / "records" / "abc.json").write_text("{")
    called = call("report", "--output", place / "results")
    assert called.code == 2
    assert "abc.json: not a result record" in called.err


def test_another_checkpoint_is_not_overwritten(place):
    shutil.copy(place / "apc.safetensors", place / "apc-tiny.safetensors")
    before = files(place)
    arguments = [argument.replace("{}/new", "{}").replace("{}", str(place)) for argument in PRETRAIN]
    called = call(*arguments)
    assert called.code == 2
    assert "holds a checkpoint of another training; name another --output or delete it" in called.err
    assert files(place) == before


@contextlib.contextmanager
def small_files() -> Iterator[None]:
    """No file may grow beyond 20 kB, as where a disk is full or a quota used up."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def run_tiny(place: Path, tasks_file: Path) -> list[object]:
    folders = ("--output", place / "results", "--cache", place / "cache", "--workers", 1)
    return ["run", "--upstream", "fbank", "--task", f"{tasks_file}:KS", "--corpus", place / "corpus", *folders]


def test_no_room_for_features(place, tasks_file):
    command = run_tiny(place, tasks_file)
    with small_files():
        called = call(*command)
    assert called.code == 2
    planned, line = called.err.strip().splitlines()
    assert planned.startswith("plan: 1 cell; 1 upstream to hear ")
    assert line.startswith(f"error: {place / 'cache'}")
    assert line.endswith("free some space or name another folder")
    left = [path for path in (*place.glob("cache/**/*"), *place.glob("results/**/*")) if path.is_file()]
    noted = {".json", "", ".npz"}  # the last are fingerprints of recordings
    assert {path.suffix for path in left} <= noted, "notes and markers, no features"
    assert {path.parent.name for path in left if path.suffix == ".npz"} <= {"validated"}
    assert not list(place.glob("results/**/*.json"))
    assert call(*command).code == 0
    assert len(RecordStore(place / "results").all()) == 1


@pytest.mark.parametrize(("name", "written"), [("apc", "apc-tiny.safetensors"), ("wav2vec2", "wav2vec2-tiny")])
def test_no_room_for_a_checkpoint(name, written, place):
    command = [argument.replace("{}", str(place)).replace("apc", name) for argument in PRETRAIN]
    with small_files():
        called = call(*command)
    assert called.code == 2
    assert f"error: {place / 'new' / written}: File too large; free some space" in called.err
    assert "Traceback" not in called.err
    assert [path.name for path in (place / "new").iterdir()] == ["logs"]


@pytest.mark.parametrize("written", [1, 2, 3, 4, 5, 6])
def test_no_space_at_any_write(written, place, tasks_file, monkeypatch):
    """Marker, features, index, candidates, files of the run, record: whichever write fails, the message is the same."""
    real, count = os.fsync, 0

    def full(handle: int) -> None:
        nonlocal count
        count += 1
        if count >= written:
            raise OSError(28, "No space left on device")
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr("core.digest.os.fsync", full)
        called = call(*run_tiny(place, tasks_file))
    assert called.code == 2
    assert "No space left on device; free some space or name another folder" in called.err
    assert "Traceback" not in called.err
    assert not list(place.rglob(".writing-*"))
    assert RecordStore(place / "results").all() == []
    assert call(*run_tiny(place, tasks_file)).code == 0
    assert len(RecordStore(place / "results").all()) == 1


WRITERS = {
    "report --html": ("report", "--custom", "--output", "{}/results", "--html", "{}/new.html"),
    "report --picture": ("report", "--custom", "--output", "{}/results", "--picture", "{}/new.svg"),
    "report --figures": ("report", "--custom", "--output", "{}/results", "--figures", "{}/new"),
    "submit": ("submit", "{}/new.zip", "--output", "{}/results"),
    "merge": ("merge", "{}/results", "--output", "{}/new"),
    "pretrain": (*PRETRAIN[:-2], "--looks", "0"),
}


@pytest.mark.parametrize("command", WRITERS)
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_every_command_that_writes_says_that_it_can_t(command, number, place, monkeypatch):
    """Disks are full, quotas used up, and devices fail: nothing half-written stays, and nothing that was there goes."""
    store = RecordStore(place / "results")
    add(store, classified([1, 0, 1, 1], 2), upstream=upstream("fbank"))
    before = files(place)

    def fails(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr("core.digest.os.fsync", fails)
        called = call(*(argument.replace("{}", str(place)) for argument in WRITERS[command]))
    assert called.code == 2
    line = called.err.strip().splitlines()[-1]
    assert line.startswith("error: ")
    assert os.strerror(number) in line
    assert ("free some space" in line) == (number != errno.EIO)
    assert "Traceback" not in called.err
    assert {path: content for path, content in files(place).items() if "logs" not in path.parts} == before
    assert not list(place.rglob(".writing-*"))


def test_the_program_itself_tells_it_the_same_way(tmp_path):
    command = [sys.executable, ROOT / "run_benchmark.py", "report", "--output", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: no records for a leaderboard; run something first: frostbench run\n"


@pytest.mark.parametrize("command", ["run", "pretrain", "merge", "submit"])
def test_an_output_that_can_t_be_written_is_said_before_any_work(command, place, tasks_file):
    """Whatever was computed until then would be lost."""
    (place / "new").write_text("a file")
    arguments = {
        "run": [*run_tiny(place, tasks_file), "--output", place / "new"],
        "pretrain": [argument.replace("{}", str(place)) for argument in PRETRAIN],
        "merge": ["merge", place / "folder", "--output", place / "new"],
        "submit": ["submit", place / "new" / "bundle.zip", "--output", place / "folder"],
    }
    before = files(place)
    called = call(*arguments[command])
    assert called.code == 2
    assert f"error: {place / 'new'}: File exists; a file is in the way of a folder" in called.err
    assert files(place) == before, "nothing was computed"


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
@pytest.mark.parametrize("command", ["run", "pretrain", "report"])
def test_without_permission_no_space_is_to_be_freed(command, number, place, tasks_file, monkeypatch):
    def refused(*arguments: object, **options: object) -> None:
        raise OSError(number, os.strerror(number))

    assert call(*run_tiny(place, tasks_file)).code == 0
    arguments = {
        "run": [*run_tiny(place, tasks_file), "--output", place / "new"],
        "pretrain": [argument.replace("{}", str(place)) for argument in PRETRAIN],
        "report": ["report", "--custom", "--output", place / "results", "--html", place / "new" / "page.html"],
    }
    with monkeypatch.context() as patch:
        patch.setattr("core.digest.tempfile.TemporaryFile", refused)
        patch.setattr("core.digest.tempfile.mkstemp", refused)
        called = call(*arguments[command])
    assert called.code == 2
    (line,) = called.err.strip().splitlines()
    assert f"{place / 'new'}" in line
    assert os.strerror(number) in line
    assert "name another f" in line
    assert "space" not in line


PLUGIN = """
import torch
from core.hidden_states import HiddenStates
from upstreams._base import Upstream, UpstreamCard, register_upstream

@register_upstream(UpstreamCard(name="{name}", title="x", paper="none"))
class Mine(Upstream):
    num_layers, hidden_size, downsample_rate, min_samples = 1, 1, 160, 160

    def __init__(self):
        super().__init__()
        {built}

    def frame_lengths(self, wav_lengths):
        return wav_lengths // 160

    def encode(self, wavs, wav_lengths):
        {encoded}
        return HiddenStates((wavs[:, ::160, None][:, : int(wav_lengths.max()) // 160],), wav_lengths // 160)
"""


@pytest.mark.parametrize(
    ("changed", "code", "message"),
    [
        ({}, 0, None),
        ({"name": "fbank"}, 2, "upstream 'fbank' is registered twice: rename one of them"),
        ({"built": "raise SystemExit"}, 2, "can't be built: it ends the program by sys.exit()"),
        ({"built": "self.width = 1 / 0"}, 2, "can't be built: ZeroDivisionError: division by zero (mine.py, line 12)"),
        (
            {"encoded": "raise SystemExit(3)"},
            1,
            "it ends the program by sys.exit(); raise an error instead (mine.py, l",
        ),
        ({"encoded": "torch.zeros(2) @ torch.zeros(3)"}, 1, "(mine.py, line 18)"),
    ],
)
def test_what_a_plug_in_does_wrong_is_said_with_its_line(changed, code, message, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN.format(**{"name": "mine", "built": "", "encoded": "", **changed}))
    called = call("check", f"{path}:Mine")
    assert called.code == code
    assert message is None or message in " ".join((called.out + called.err).split())


def test_frames_too_large_for_half_precision_name_the_recording_and_the_way_out(place, tasks_file):
    whole = PLUGIN.format(name="own", built="pass", encoded="wavs = wavs * 1e7")
    (place / "loud.py").write_text(whole)
    folders = ("--output", place / "results", "--cache", place / "cache", "--workers", 1, "--device", "cpu")
    command = ("run", "--upstream", f"{place}/loud.py:Mine", "--task", f"{tasks_file}:ASR", "--corpus",
               place / "corpus", *folders)  # fmt: skip
    called = call(*command)
    assert called.code == 1
    words = rf"failed: own: {place}/corpus/audio/\w+\.\w+: its features hold -?[\d.e+]+, float16 holds no more than "
    assert re.search(rf"{words}6\.55e\+04: keep none with --frames recompute", called.err)
    assert call(*command, "--frames", "recompute").code == 0


def test_a_file_that_ends_the_program_is_refused(tmp_path):
    (tmp_path / "mine.py").write_text("import sys\nsys.exit()\n")
    called = call("check", f"{tmp_path / 'mine.py'}:Mine")
    assert called.code == 2
    assert (
        "fails when imported: it ends the program by sys.exit(); raise an error instead (mine.py, line 2)" in called.err
    )


def test_a_terminal_that_lacks_characters_shows_others(tmp_path):
    """As a Windows console, or a log that is opened as ASCII."""
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1", "PYTHONPATH": str(ROOT)}
    code = "import run_benchmark, sys; sys.argv = ['x', 'list']; run_benchmark.out.print('→'); run_benchmark.main()"
    called = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment)
    assert b"UnicodeEncodeError" in called.stderr, "before main() nothing is replaced"
    code = code.replace("run_benchmark.out.print('→'); ", "").replace("'list'", "'check', 'no → name'")
    called = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment)
    assert called.returncode == 2
    assert b"'no ? name'" in called.stderr
