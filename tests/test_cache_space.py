"""The cache's space: limits, what goes first, what stays, waves of upstreams, and what becomes of too many frames."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import call

from core.errors import CacheError
from core.feature_cache import FeatureCache
from core.manifest import Manifest
from core.records import RecordStore
from frostbench.byte_sizes import format_bytes, parse_size
from frostbench.cache_space import Need, clear, delete, entries, exclusive, folders_in_use, in_use, make_room
from frostbench.grid import announcements, cell_jobs
from frostbench.grid.announcements import explained
from frostbench.grid.cell_jobs import Folders
from frostbench.grid.needs import choose_frames, sizes_of
from frostbench.grid.plan import Grid
from frostbench.grid.run import Report, run_grid
from frostbench.grid.upstream_checks import check_upstream
from frostbench.grid.wanted import WantedClips
from frostbench.jobs.local import LocalExecutor
from frostbench.jobs.progress import Watcher
from tasks._audio import AudioRecipe
from tasks._base import Task, resolve_task
from tasks._rows import clips_of, task_rows
from upstreams._facts import UpstreamFacts
from upstreams._resolve import build_upstream

ROOT = Path(__file__).parent.parent
CPU = torch.device("cpu")
DAY = 24 * 3600.0


@pytest.mark.parametrize(
    ("text", "size"),
    [("50GB", 50 * 10**9), ("1.5 tb", 15 * 10**11), ("800MiB", 800 * 2**20), ("12k", 12_000), ("7", 7), ("none", None),
     (" None ", None), ("0", 0)],
)  # fmt: skip
def test_sizes_are_read(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "5 apples", "1.2.3GB", "1e9", "5PB", "9" * 5_000])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(CacheError, match=r"is no size: write a number with MB, GB or TB"):
        parse_size(text)


def test_sizes_are_spelt():
    sizes = (0, 999, 1_000, 9_940, 99_400, 1_260_000_000, 999_600_000_000, 3_210_000_000_000)
    assert [format_bytes(size) for size in sizes] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "9.9 kB",
        "99 kB",
        "1.3 GB",
        "1.0 TB",
        "3.2 TB",
    ]


# Entries. Each holds 1,000 numbers of 4 bytes in its array.


def entry_of(cache: Path, name: str, days: float, kind: str = "pooled") -> Path:
    made = FeatureCache(cache, name * 32, kind)
    made.add({f"{name}{number}": np.zeros((1, 10, 50), np.float32) for number in range(2)})
    with in_use([need_of(made, name=f"upstream-{name}")]):
        pass
    os.utime(made.folder / ".used", (0, time.time() - days * DAY))
    return made.folder


def need_of(cache: FeatureCache, coming: int = 0, keys: tuple[str, ...] = (), name: str = "mine") -> Need:
    return Need(name, cache, frozenset(keys), coming, coming)


@pytest.fixture
def cache(tmp_path) -> Path:
    """Three upstreams, the middle one used last, the last one never within the year."""
    for name, days in (("a", 20), ("b", 1), ("c", 400)):
        entry_of(tmp_path, name, days)
    (tmp_path / "heads").mkdir()
    (tmp_path / "heads" / "x.safetensors").write_bytes(b"not features")
    return tmp_path


def names(cache: Path) -> list[str]:
    """Of the upstreams whose features there are."""
    return [entry.title for entry in entries(cache) if entry.holds_features]


def test_entries_are_listed_the_longest_unused_first(cache):
    *found, candidates = entries(cache)
    assert (candidates.title, candidates.name, candidates.count()) == ("trained candidates", "heads", 1)
    assert [(entry.title, entry.name, entry.count()) for entry in found] == [
        (f"upstream-{name}", "pooled", 2) for name in "cab"
    ]
    assert all(4_000 < entry.size < 4_500 for entry in found)


def test_the_longest_unused_go_first_and_the_needed_ones_never(cache):
    needed = FeatureCache(cache, "c" * 32, "pooled")
    one = entries(cache)[0].size
    deleted = make_room(cache, int(3.5 * one), [need_of(needed, coming=one, keys=("c0",))])
    assert [entry.title for entry in deleted] == ["upstream-a"]
    assert names(cache) == ["upstream-c", "upstream-b"]
    assert make_room(cache, int(3.5 * one), [need_of(needed, coming=one, keys=("c0",))]) == []
    assert make_room(cache, None, [need_of(needed, coming=100 * one)]) == []
    assert not (cache / ("a" * 32)).exists()
    assert (cache / "heads" / "x.safetensors").exists()


def test_of_the_needed_entries_the_segments_of_other_corpora_go(tmp_path):
    made = FeatureCache(tmp_path, "a" * 32, "frames")
    for key in ("other", "mine"):
        made.add({key: np.zeros((1_000, 1, 1), np.float32)})
    make_room(tmp_path, 4_000, [need_of(made, coming=1_000, keys=("mine",))])
    assert ("mine" in made, "other" in made) == (True, False)


def test_a_full_disk_is_told_before_the_work(cache):
    with pytest.raises(CacheError, match=r"of features are to be written and .* are free; free some space"):
        make_room(cache, None, [need_of(FeatureCache(cache, "a" * 32, "pooled"), coming=10**18)])


def test_what_is_in_use_stays(cache):
    using = FeatureCache(cache, "c" * 32, "pooled")
    entry = next(entry for entry in entries(cache) if entry.path == using.folder)
    with in_use([need_of(using, name="upstream-c")]), in_use([need_of(using, name="upstream-c")]):
        assert not delete(entry)
        with exclusive(entry.path) as is_free:
            assert not is_free
        assert make_room(cache, 0, []) and names(cache) == ["upstream-c"]
        assert clear(cache) == ([], entries(cache))
    assert delete(entry)
    assert not delete(entry), "gone is gone"
    assert names(cache) == []


def test_use_is_noted_and_makes_an_entry_the_last_to_go(cache):
    with in_use([need_of(FeatureCache(cache, "c" * 32, "pooled"), name="renamed")]):
        pass
    assert names(cache) == ["upstream-a", "upstream-b", "renamed"]


HOLDER = """
import sys, time
from pathlib import Path
from core.feature_cache import FeatureCache
from frostbench.cache_space import Need, in_use
with in_use([Need("upstream-c", FeatureCache(Path(sys.argv[1]), "c" * 32, "pooled"), frozenset(), 0, 0)]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_another_process_protects_its_entries_until_it_dies(cache):
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(cache)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    with holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        make_room(cache, 0, [])
        assert names(cache) == ["upstream-c"]
        holder.kill()
    make_room(cache, 0, [])
    assert names(cache) == []


def test_what_a_killed_deletion_left_goes_with_the_next_one(cache):
    leftover = cache / ("a" * 32) / ".removing-frames-123"
    leftover.mkdir()
    (leftover / "x.npy").write_bytes(b"half gone")
    assert names(cache) == ["upstream-c", "upstream-a", "upstream-b"]
    make_room(cache, 0, [])
    assert not (cache / ("a" * 32)).exists()


def made(folder: Path, size: int, days: float) -> None:
    folder.mkdir()
    (folder / "file").write_bytes(bytes(size))
    (folder / ".used").touch()
    os.utime(folder / ".used", (0, time.time() - days * DAY))


def test_the_limit_counts_candidates_audio_and_rows_and_they_go_like_features(cache):
    size = sum(entry.size for entry in entries(cache))
    for name, days in (("hf", 300), ("rows", 200), ("audio", 500), ("validated", 600)):
        made(cache / name, 1_000, days)
    assert [entry.name for entry in entries(cache) if not entry.holds_features] == [
        "validated", "audio", "hf", "rows", "heads",
    ]  # fmt: skip
    assert [entry.name for entry in make_room(cache, size + 3_500, [])] == ["pooled"]
    assert names(cache) == ["upstream-a", "upstream-b"], "the one unused for 400 days goes first"
    left = sum(entry.size for entry in entries(cache))
    assert [entry.name for entry in make_room(cache, left - 1_500, [])] == ["hf", "rows"]
    assert {path.name for path in cache.iterdir()} >= {"audio", "validated", "heads"}, "small ones stay"


def test_clear_without_names_takes_every_folder_and_leaves_what_is_in_use(cache):
    for name in ("hf", "rows", "audio", "validated"):
        made(cache / name, 10, 100)
    assert {entry.title for entry in clear(cache, ["trained candidates", "rows of tasks"])[0]} == {
        "trained candidates",
        "rows of tasks",
    }
    with folders_in_use(cache):
        deleted, busy = clear(cache)
        assert len(deleted) == 3 and all(entry.holds_features for entry in deleted)
        assert {entry.name for entry in busy} == {"heads", "hf", "rows", "audio", "validated"}
        assert (cache / "hf" / "file").is_file()
    clear(cache)
    assert list(cache.iterdir()) == []


def test_clear_takes_names_and_days(cache):
    deleted, busy = clear(cache, unused_days=30)
    assert ([entry.title for entry in deleted], busy) == (["upstream-c"], [])
    with pytest.raises(CacheError, match=r"nothing of 'upstream-c' \(there are: trained candidates, upstream-a"):
        clear(cache, ["upstream-c"])
    assert clear(cache, ["upstream-a"], unused_days=30) == ([], [])
    assert [entry.title for entry in clear(cache, ["upstream-a"])[0]] == ["upstream-a"]
    clear(cache)
    assert names(cache) == []


def test_the_command_line_lists_and_clears(cache):
    listed = call("cache", "list", "--cache", cache)
    assert listed.code == 0
    assert listed.out.index("upstream-c") < listed.out.index("upstream-a") < listed.out.index("upstream-b")
    assert "4 entries, 13 kB" in listed.out
    refused = call("cache", "clear", "nobody", "--cache", cache)
    assert (refused.code, refused.out) == (2, "")
    assert "nothing of 'nobody' (there are: trained candidates, upstream-a, upstream-b, upstream-c)" in refused.err
    cleared = call("cache", "clear", "--unused-days", 30, "--cache", cache)
    assert (cleared.code, cleared.out) == (0, "1 entries deleted, 4.2 kB\n")
    with in_use([need_of(FeatureCache(cache, "a" * 32, "pooled"), name="upstream-a")]):
        cleared = call("cache", "clear", "--cache", cache)
    assert cleared.out.startswith("2 entries deleted")
    assert "upstream-a pooled: a running command uses it; it stays" in cleared.err
    assert call("cache", "list", "--cache", cache / "nowhere").out.endswith("0 entries, 0 B\n")


# Runs with a limit.


class Notes(Watcher):
    """What was said, but for the plan."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.stages: list[str] = []

    def say(self, line: str) -> None:
        if not line.startswith("plan: "):
            self.lines.append(line)

    def stage(self, title: str, total: float, unit: str) -> None:
        self.stages.append(title)


@pytest.fixture(scope="module")
def tiny(tasks_file) -> dict[str, Task]:
    return {name: resolve_task(f"{tasks_file}:{name}") for name in ("KS", "SID", "IC", "ASR")}


def ran(grid: Grid, manifest: Manifest, folder: Path) -> tuple[Report, Notes]:
    watcher = Notes()
    report = run_grid(grid, manifest, Folders(folder / "cache", folder / "results"), LocalExecutor("cpu", 1), watcher)
    assert report.failures == []
    return report, watcher


def quick(task: Task) -> Task:
    """A recipe of moments."""
    (name,) = task.recipes
    return replace(task, recipes={name: replace(task.recipes[name], steps=6, eval_every=3)})


@pytest.fixture(scope="module")
def sizes(corpus: Manifest, tiny) -> dict:
    """What FBANK's features for KS and ASR take."""
    return sizes_of(UpstreamFacts.of("fbank", build_upstream("fbank")), WantedClips(clips(corpus, tiny)))


def clips(corpus: Manifest, tiny: dict[str, Task]) -> list:
    wanted = (("KS", "pooled"), ("ASR", "frames"))
    return clips_of((task_rows(corpus, tiny[name]).all_clips(), kind) for name, kind in wanted)


def on_disk(folder: Path, kind: str) -> int:
    return sum(path.stat().st_size for path in (folder / "cache").glob(f"*/{kind}/*.npy"))


@pytest.mark.parametrize("frames", ["float16", "int8"])
def test_the_estimate_is_what_is_written(corpus, tiny, sizes, tmp_path, frames):
    grid = Grid(("fbank",), (quick(tiny["KS"]), quick(tiny["ASR"])), (0,), frames=frames)
    ran(grid, corpus, tmp_path)
    written = on_disk(tmp_path, "pooled") + on_disk(tmp_path, "frames" if frames == "float16" else "frames_int8")
    assert written == pytest.approx(sizes[frames], rel=0.01)
    assert sizes["recompute"] < sizes["int8"] < 0.6 * sizes["float16"]


def test_auto_takes_the_best_that_fits(sizes):
    for limit, expected in ((sizes["float16"], "float16"), (sizes["float16"] - 1, "int8"), (sizes["int8"], "int8"),
                            (sizes["int8"] - 1, "recompute"), (0, "recompute")):  # fmt: skip
        assert choose_frames(sizes, limit) == expected
    line = explained("fbank", "int8", {"float16": 81_300_000_000, "int8": 40_700_000_000}, 50 * 10**9)
    assert line == (
        "fbank: features take 81 GB with frames in float16, 41 GB in int8, the limit is 50 GB: they are kept in 8 "
        "bits, which moved a WER of 30 by 1 where measured (docs/caching.md) "
        "(--cache-limit 82GB keeps float16, --frames recompute keeps none)"
    )


@pytest.mark.parametrize("chosen", ["int8", "recompute"])
def test_what_becomes_of_frames_is_said_and_recorded(corpus, tiny, sizes, tmp_path, chosen):
    grid = Grid(("fbank",), (quick(tiny["KS"]), quick(tiny["ASR"])), (0,), cache_limit=sizes[chosen] + 20_000)
    report, watcher = ran(grid, corpus, tmp_path)
    assert len([line for line in watcher.lines if line.startswith("fbank: features take")]) == 1
    records = {record.task["name"]: record for record in RecordStore(tmp_path / "results").all()}
    features = {name: record.features for name, record in records.items()}
    assert features["ks"] == {"kind": "pooled", "dtype": "float32", "live": [], "departures": []}
    assert (
        features["asr"]
        == {
            "int8": {"kind": "frames", "dtype": "int8", "live": [], "departures": ["frames kept in 8 bits"]},
            "recompute": {"kind": "frames", "dtype": "float32", "live": ["test", "train", "valid"], "departures": []},
        }[chosen]
    )
    assert on_disk(tmp_path, "frames*") == 0 if chosen == "recompute" else on_disk(tmp_path, "frames_int8") > 0
    runs = {cell.task.name: cell.run for cell in report.cells}
    free, _ = ran(replace(grid, cache_limit=None), corpus, tmp_path / "free")
    kept = {cell.task.name: cell.run for cell in free.cells}
    assert runs["ks"] == kept["ks"]
    assert runs["asr"] != kept["asr"]


def test_recomputed_frames_give_the_cached_ones_batches_and_scores(corpus, tiny, tmp_path):
    values, histories = {}, {}
    for frames in ("float16", "recompute"):
        ran(Grid(("fbank",), (tiny["ASR"],), (0,), frames=frames), corpus, tmp_path / frames)
        (record,) = RecordStore(tmp_path / frames / "results").all()
        values[frames] = record.value
        (history,) = (tmp_path / frames / "results" / "runs").glob("*/history.json")
        histories[frames] = [look["train_loss"] for look in json.loads(history.read_text())[0]["history"]]
    # The first updates see the same utterances; later ones drift apart by what half precision rounds.
    assert histories["recompute"][0] == pytest.approx(histories["float16"][0], rel=0.02)
    assert values["recompute"] == pytest.approx(values["float16"], abs=15)


def test_upstreams_that_do_not_fit_together_follow_each_other(corpus, tiny, tmp_path, sizes):
    tasks = (quick(tiny["KS"]), quick(tiny["ASR"]))
    limit = int(1.2 * sizes["float16"])
    specs = ("fbank", "fbank_cmvn", "mfcc")
    report, watcher = ran(Grid(specs, tasks, (0,), frames="float16", cache_limit=limit), corpus, tmp_path)
    assert report.computed == 6
    assert report.passed == {"fbank": 48, "fbank_cmvn": 48, "mfcc": 48}
    heads = ["training heads", "evaluating on test"]
    work = ["extracting features", "counting operations", *heads, "extracting features", *heads]
    assert watcher.stages == ["checking recordings", "checking upstreams", *work, *work]
    (line,) = watcher.lines
    assert line.startswith("features: fbank ")
    assert line.endswith("; more than fits at once, so 2 groups of upstreams follow each other")
    assert names(tmp_path / "cache") == ["fbank_cmvn"] * 2 + ["mfcc"] * 2
    assert sum(entry.size for entry in entries(tmp_path / "cache") if entry.holds_features) <= limit
    ran(Grid(specs, tasks, (0,)), corpus, tmp_path / "free")
    records = [RecordStore(folder / "results").all() for folder in (tmp_path, tmp_path / "free")]
    assert [record.result() for record in records[0]] == [record.result() for record in records[1]]


def test_one_upstream_that_does_not_fit_alone_is_refused_before_the_work(corpus, tiny, tmp_path, sizes):
    grid = Grid(("fbank",), (tiny["ASR"],), (0,), frames="float16", cache_limit=10_000)
    with pytest.raises(CacheError, match=r"fbank: its features take .* write --cache-limit \d+MB, or --frames int8"):
        ran(grid, corpus, tmp_path)
    assert names(tmp_path / "cache") == []
    told = call("run", "--upstream", "fbank", "--task", "ks", "--cache-limit", "x", "--cache", tmp_path / "cache")
    assert told.code == 2
    assert told.err.startswith("error: 'x' is no size: write a number with MB, GB or TB")


def test_what_is_coming_is_said_where_it_is_much(corpus, tiny, tmp_path, monkeypatch):
    grid = Grid(("mfcc",), (quick(tiny["KS"]),), (0,), cache_limit=10**9)
    _, watcher = ran(grid, corpus, tmp_path / "small")
    assert watcher.lines == []
    monkeypatch.setattr(announcements, "SAID_ABOVE", 1_000)
    _, watcher = ran(grid, corpus, tmp_path / "large")
    assert watcher.lines == ["features: mfcc 7.5 kB; 7.5 kB of it to be computed, limit 1.0 GB"]


def test_a_task_that_is_finished_is_not_extracted_again(corpus, tiny, tmp_path):
    both = (quick(tiny["KS"]), quick(tiny["ASR"]))
    ran(Grid(("fbank",), both, (0,)), corpus, tmp_path)
    for entry in entries(tmp_path / "cache"):
        assert delete(entry)
    moved = (replace(both[0], version=2), both[1])  # asked anew; ASR's record is there
    report, _ = ran(Grid(("fbank",), moved, (0,)), corpus, tmp_path)
    assert (report.computed, report.skipped) == (1, 1)
    assert {entry.name for entry in entries(tmp_path / "cache") if entry.holds_features} == {"pooled"}


# One pass for all.

COUNTED = """
import torch
from core.hidden_states import HiddenStates
from upstreams._base import Upstream, UpstreamCard, register_upstream

PASSED = []

@register_upstream(UpstreamCard(name="counted", title="tells what passes", paper="none"))
class Counted(Upstream):
    num_layers, hidden_size, downsample_rate, min_samples = 1, 2, 160, 160

    def frame_lengths(self, wav_lengths):
        return wav_lengths // 160

    def encode(self, wavs, wav_lengths):
        if wavs.shape[1] < 160_000:  # but for the noise that its operations are counted on
            PASSED.extend((int(length), float(wav.sum())) for wav, length in zip(wavs, wav_lengths))
        sums = wavs[:, : wavs.shape[1] // 160 * 160].unflatten(1, (-1, 160)).sum(dim=2)
        return HiddenStates((torch.stack([sums, sums.square()], dim=2),), self.frame_lengths(wav_lengths))
"""


def counted(folder: Path, monkeypatch) -> tuple[str, list]:
    import core.registry

    file = folder / "counted.py"
    file.write_text(COUNTED)
    modules = {}
    plain = core.registry.load_module
    for target in ("upstreams._resolve.load_module",):  # one module, however often the upstream is built
        monkeypatch.setattr(target, lambda path: modules.get(path) or modules.setdefault(path, plain(path)))
    spec = f"{file}:Counted"
    facts = UpstreamFacts.of(spec, build_upstream(spec))
    check_upstream(facts, folder / "cache", device="cpu", advance=lambda amount: None)  # with noise, before the run
    return spec, modules[file].PASSED


def test_four_tasks_pass_each_recording_once(corpus, tiny, tmp_path, monkeypatch):
    spec, passed = counted(tmp_path, monkeypatch)
    tasks = tuple(quick(task) for task in tiny.values())
    passed.clear()
    report, _ = ran(Grid((spec,), tasks, (0, 1)), corpus, tmp_path)
    assert report.computed == 8
    assert report.passed == {"counted": len(corpus.utterances)}
    assert len(passed) == len(corpus.utterances)
    assert len(set(passed)) == len(passed), "no recording twice"


def test_candidates_go_once_their_record_stands(corpus, tiny, tmp_path, monkeypatch):
    grid = Grid(("fbank",), (quick(tiny["KS"]), quick(tiny["SID"])), (0, 1))
    heads = tmp_path / "cache" / "heads"
    seen = []
    real = cell_jobs.predict

    def watched(*given):
        seen.append(len(list(heads.glob("*.safetensors"))))
        return real(*given)

    monkeypatch.setattr(cell_jobs, "predict", watched)
    ran(grid, corpus, tmp_path)
    rates = len(tiny["KS"].recipe(None).learning_rates)
    assert seen == [4 * rates, 3 * rates, 2 * rates, rates], "those of the cells that are not evaluated yet are there"
    assert list(heads.glob("*.safetensors")) == []
    listed = call("cache", "list", "--cache", tmp_path / "cache").out
    assert all(name in listed for name in ("trained candidates", "rows of tasks", "corpora that were checked"))


def test_candidates_that_a_kill_left_beside_their_record_go_with_the_next_command(corpus, tiny, tmp_path, monkeypatch):
    grid = Grid(("fbank",), (quick(tiny["KS"]),), (0,))
    monkeypatch.setattr(cell_jobs, "delete_candidates", lambda cell, folders: None)
    ran(grid, corpus, tmp_path)
    heads = tmp_path / "cache" / "heads"
    assert len(list(heads.glob("*.safetensors"))) == len(tiny["KS"].recipe(None).learning_rates)
    ran(grid, corpus, tmp_path)
    assert list(heads.glob("*.safetensors")) == []


def test_levels_and_crops_share_what_they_have_in_common(corpus, tiny, tmp_path, monkeypatch):
    """Whole recordings for KS and ASR, quieter ones for IC, random pieces of the longer ones in SID's train split."""
    spec, passed = counted(tmp_path, monkeypatch)
    changes = {"IC": AudioRecipe(gain_db=-3.0), "SID": AudioRecipe(crop_samples=4_000, crops=2)}
    tasks = tuple(replace(quick(task), audio={"tiny": changes.get(name, AudioRecipe())}) for name, task in tiny.items())
    keys = {clip.key for task in tasks for clip in task_rows(corpus, task).all_clips()}
    assert len(keys) > len(corpus.utterances) + 12
    passed.clear()
    report, _ = ran(Grid((spec,), tasks, (0,)), corpus, tmp_path)
    assert report.passed == {"counted": len(keys)}
    assert len(passed) == len(keys)
    passed.clear()
    again, _ = ran(Grid((spec,), tasks, (1,)), corpus, tmp_path)
    assert (again.passed, passed) == ({}, []), "another seed passes nothing"
