"""Any file of a cache or of a folder of results may hold anything: it is made anew, left out, or named in one line."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import call
from results import WER, add, classified, rows_of, upstream

from core.records import RecordStore

TASKS = """
from dataclasses import replace
import tiny_tasks
from tasks._audio import AudioRecipe, Trim
KS = replace(tiny_tasks.KS, recipes={"tiny": replace(tiny_tasks.CLASSIFY, steps=2, eval_every=1)},
             audio={"tiny": AudioRecipe(trim=Trim(level=1e-5, seconds=0.05))})
ASR = replace(tiny_tasks.ASR, recipes={"tiny": replace(tiny_tasks.TRANSCRIBE, steps=1, eval_every=1)})
"""


def in_place_of(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def replace(path: Path) -> None:
        path.unlink()
        make(path)

    return replace


JUNK: dict[str, Callable[[Path], object]] = {
    "list": lambda path: path.write_bytes(b'[["a", 1]]'),
    "deep": lambda path: path.write_bytes(b"[" * 100_000),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "empty": lambda path: path.write_bytes(b""),
    "folder": in_place_of(Path.mkdir),
    "full folder": in_place_of(lambda path: (path / "more").mkdir(parents=True)),
    "dangling link": in_place_of(lambda path: path.symlink_to("nowhere")),
    "link to itself": in_place_of(lambda path: path.symlink_to(path.name)),
}

IN_THE_WAY = {
    **dict.fromkeys(("list", "deep", "half", "empty", "dangling link"), ()),
    **dict.fromkeys(("folder", "full folder"), ("Is a directory; a folder is in the way of a file",)),
    "link to itself": ("Too many levels of symbolic links; it is a link that leads to itself",),
}


@pytest.fixture(scope="module")
def warm(corpus_folder, tmp_path_factory) -> tuple[Path, list[str]]:
    """A cache with everything that a run leaves there, and the command."""
    folder = tmp_path_factory.mktemp("warm")
    (folder / "own.py").write_text(TASKS)
    tasks = (f"--task={folder / 'own.py'}:KS", f"--task={folder / 'own.py'}:ASR")
    command = ["run", "--upstream", "fbank", *tasks, "--corpus", str(corpus_folder), "--workers", "1"]
    assert call(*command, "--cache", folder / "cache", "--output", folder / "results").code == 0
    return folder / "cache", command


@pytest.mark.parametrize("junk", JUNK)
def test_any_file_of_a_cache_may_be_damaged(warm, junk, tmp_path):
    cache, command = warm
    names = [path.relative_to(cache) for path in cache.rglob("*") if path.is_file()]
    assert len({name.parts[0] for name in names}) > 4
    for number, name in enumerate(names):
        place = tmp_path / str(number)
        shutil.copytree(cache, place)
        JUNK[junk](place / name)
        ran = call(*command, "--seed", 1, "--cache", place, "--output", tmp_path / f"results{number}")
        assert "Traceback" not in ran.err
        if ran.code:  # features can't be doubted and be used; what is in the way may be somebody's work
            assert str(name) in ran.err
            if "damaged" in ran.err:
                assert name.parent.name in ("pooled", "frames") or name.parts[0] == "rows"
            else:
                assert ran.code == 2 and ran.err.count("\n") <= 1 + len(ran.err.split("error: ")[0].splitlines())
                assert any(words in ran.err for words in IN_THE_WAY[junk])
        listed = call("cache", "list", "--cache", place)
        assert (listed.code, listed.err) == (0, "")
        assert call("cache", "clear", "--cache", place).code == 0
        assert not [path for path in place.rglob("*") if not path.is_dir()]


@pytest.mark.parametrize("junk", JUNK)
def test_any_file_of_results_may_be_damaged(junk, tmp_path):
    store = RecordStore(tmp_path / "results")
    run = add(store, classified([1, 0, 1, 1], 2), upstream=upstream("fbank")).run
    add(store, rows_of([("a cat", "the cat"), ("dog", "dog")]), WER, upstream=upstream("fbank"))
    names = [path.relative_to(store.folder) for path in store.folder.rglob("*") if path.is_file()]
    assert len(names) == 8
    for number, name in enumerate(names):
        place = tmp_path / str(number)
        shutil.copytree(store.folder, place)
        JUNK[junk](place / name)
        commands = {
            "report": ("report", "--output", place, "--html", tmp_path / "page.html"),
            "verify": ("verify", "--output", place),
            "submit": ("submit", tmp_path / "new.zip", "--output", place),
            "merge": ("merge", place, "--output", tmp_path / "merged"),
            "predict": ("predict", "x.wav", "--run", run[:8], "--output", place),
        }
        called = {command: call(*arguments) for command, arguments in commands.items()}
        assert [called[command].code for command in commands] == [0, 1, 2, 2, 2]
        assert not any("Traceback" in each.err for each in called.values())
        for command in ("verify", "submit", "merge"):
            assert name.name in called[command].err
        assert ("left out: " in called["report"].err) == (
            name.parts[0] == "records" or name.name == "predictions.jsonl"
        )
