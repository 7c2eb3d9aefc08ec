"""Whatever stands on the command line: a result, or one line and exit code 2; never a traceback.

Each option of each command gets names that are empty, too long, of other kinds, of files that hold something else.
A few in the suite, always the same; `FROSTBENCH_FUZZ=10000` draws so many new ones.
"""

from __future__ import annotations

import os
import shutil
import traceback
from pathlib import Path

import pytest
from conftest import call, fuzzed
from hypothesis import given
from hypothesis import strategies as st
from results import add, classified, upstream

from core.records import RecordStore

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def home(tmp_path_factory, corpus_folder) -> Path:
    """Results, a corpus and files of every wrong kind, beside each other."""
    home = tmp_path_factory.mktemp("arguments")
    shutil.copytree(corpus_folder, home / "corpus")
    store = RecordStore(home / "results")
    for name in ("apc", "fbank"):
        add(store, classified([1, 0, 1, 1], 2), upstream=upstream(name))
    shutil.copytree(home / "results" / "records", home / "no_runs" / "records")
    (home / "odd_records" / "records" / f"{'a' * 16}.json").mkdir(parents=True)
    (home / "folder_as_file" / "metadata.jsonl").mkdir(parents=True)
    (home / "records_as_file").mkdir()
    texts = {"file": "x", "empty.jsonl": "", "null.json": "null", "list.json": "[1]", "x.py": "x = 1", "bad.py": "def",
             "raises.py": "raise MemoryError", "ends.py": "import sys; sys.exit(3)",
             "records_as_file/records": "x"}  # fmt: skip
    for name, text in texts.items():
        (home / name).write_text(text)
    (home / "bytes").write_bytes(bytes(range(256)))
    (home / "bundle.zip").write_bytes(b"PK\3\4" + bytes(60))
    for name in ("folder", "folder.py", "folder.json"):
        (home / name).mkdir()
    if os.name == "posix":
        (home / "loop").symlink_to(home / "loop")
        (home / "broken").symlink_to(home / "nothing")
    return home


FILES = (
    "corpus", "results", "no_runs", "odd_records", "folder_as_file", "records_as_file", "file", "file/inside",
    "missing", "empty.jsonl", "null.json", "list.json", "bytes", "bundle.zip", "folder", "folder.json", "loop",
    "broken", "x.py", "x.py:x", "x.py:", "bad.py:x", "raises.py:x", "ends.py:x", "folder.py:x", "corpus/metadata.jsonl",
)  # fmt: skip
KINDS = ("", "hf:", "s3prl-ckpt:", "fairseq:", "apc@", "wav2vec2@", "hf-untrained:", "torchaudio:")
WORDS = (
    "", " ", "\0", "a\0b", "x" * 300, "/".join(["y" * 200] * 30), "-", "--", ".", ":", "@", "a:b", "hf:", "hf:\0",
    "fbank", "fbank@", "fbank@x", "apc@", ".py", ".py:", "ks", "ctc", "accuracy", "mini", "librispeech", "\ud800",
    "a\udcff", "é", "😀", "[red]x[/]", "nan", "-1", "0", "1e999", "9" * 5_000, "null", "[]", "{", "=", "a=", "=b",
    "a==b", "text=text", "speaker=id", "cpu", "cuda:9", "/dev/null", "/proc/self/mem", "/proc/1/x", "1GB", "none",
)  # fmt: skip
RUN = ("run", "--upstream", "fbank", "--task", "{tests}/tiny_tasks.py:KS", "--corpus", "{}/corpus", "--limit", "6",
       "--output", "{}/new", "--cache", "{}/cache", "--workers", "1")  # fmt: skip
PRETRAIN = ("pretrain", "apc", "--corpus", "{}/folder", "--output", "{}/checkpoints", "--workers", "1", "--steps", "1",
            "--looks", "0")  # fmt: skip
PREDICT = ("predict", "{}/corpus/audio/train_0_0.wav", "--run", "0", "--output", "{}/results")
REPORT = ("report", "--output", "{}/results")
# What a command is given besides -> what takes a value that was drawn; None is an argument.
COMMANDS: dict[tuple[str, ...], tuple[str | None, ...]] = {
    RUN: ("--upstream", "--task", "--corpus", "--root", "--columns", "--recipe", "--head", "--cache-limit", "--output",
          "--cache", "--device", "--ray-address", "--seed", "--frames", "--precision", "--limit", "--workers"),
    REPORT: ("--output", "--picture", "--html", "--figures", "--upstream", "--format"),
    (*REPORT, "--format", "model-index"): ("--upstream",),
    (*REPORT, "--format", "eval-results"): ("--upstream",),
    ("verify",): ("--output",),
    ("merge", "--output", "{}/merged"): (None,),
    ("merge", "{}/results"): ("--output",),
    ("submit", "--output", "{}/results"): (None,),
    ("submit", "{}/packed.zip"): ("--output",),
    PREDICT: (None, "--run", "--upstream", "--head", "--output", "--device"),
    ("prepare", "--cache", "{}/cache"): (None,),
    ("prepare", "{}/corpus", "--cache", "{}/cache"): ("--root", "--columns", "--cache"),
    ("prepare", "hf:{}/corpus", "--cache", "{}/cache"): ("--root", "--columns", "--cache"),
    ("prepare", "librispeech"): ("--root",),
    ("prepare", "speech_commands"): ("--root",),
    ("prepare", "voxceleb1"): ("--root",),
    ("prepare", "fluent_speech_commands"): ("--root",),
    PRETRAIN: (None, "--corpus", "--root", "--columns", "--size", "--set", "--output", "--device", "--minutes",
               "--mixed-precision", "--seed", "--save-minutes"),
    ("check",): (None,),
    ("check", "ks"): ("--corpus", "--root"),
    ("list",): (None,),
    ("cache", "list"): ("--cache",),
    ("cache", "clear", "--cache", "{}/cache"): (None, "--unused-days"),
    ("cache", "clear", "x"): ("--cache",),
}  # fmt: skip
commands = st.sampled_from([(base, option) for base, options in COMMANDS.items() for option in options])
values = st.sampled_from(WORDS) | st.builds("{1}{{}}/{0}".format, st.sampled_from(FILES), st.sampled_from(KINDS))


@given(command=commands, value=values)
@fuzzed(150)
def test_no_argument_gives_a_traceback(command, value, home, monkeypatch):
    monkeypatch.chdir(home)
    base, option = command
    given_ = [value] if option is None else [option, value]
    arguments = [each.replace("{tests}", str(ROOT / "tests")).replace("{}", str(home)) for each in (*base, *given_)]
    try:
        called = call(*arguments)
    except BaseException as error:
        pytest.fail(f"{arguments}: {''.join(traceback.format_exception(error)[-3:])}")
    assert called.code in (0, 1, 2)
    assert "Traceback" not in called.err
    if called.code == 2 and "Usage:" not in called.err:
        first, *lines = [line for line in called.err.splitlines() if not line.startswith(("note: ", "left out: "))]
        assert first.startswith("error: ")
        assert all(line.startswith("  ") or "\0" in value for line in lines)
        assert not called.out
    if called.code == 1:
        assert called.err, "what failed is said"
