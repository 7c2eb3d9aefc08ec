"""Decoding: recordings that several upstreams hear are decoded once, to the same bits, and nothing stays behind."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch

from core.errors import AudioError
from core.records import RecordStore
from frostbench.cache_space import DECODED, entries
from frostbench.grid import decoding
from frostbench.grid.cell_jobs import Folders
from frostbench.grid.plan import Grid
from frostbench.grid.run import run_grid
from frostbench.jobs.local import LocalExecutor
from tasks._base import resolve_task
from tasks._rows import clips_of, task_rows
from upstreams._extraction import clips as clips_module
from upstreams._extraction.clips import Clip
from upstreams._extraction.decoded import DecodedAudio


@pytest.fixture
def task(tasks_file):
    return resolve_task(f"{tasks_file}:KS")


@pytest.fixture
def clips(corpus, task) -> list[Clip]:
    return clips_of([(task_rows(corpus, task).all_clips(), "pooled")])


@pytest.fixture
def decoded(monkeypatch) -> Counter[str]:
    """File name -> how often it was decoded for a pass."""
    counts, read = Counter[str](), clips_module.read_audio

    def counted(path, *given):
        counts[path.name] += 1
        return read(path, *given)

    monkeypatch.setattr(clips_module, "read_audio", counted)
    return counts


def test_what_is_kept_is_what_the_clip_reads(clips, tmp_path):
    whole = clips[0]
    for clip in (whole, replace(whole, start=100, stop=900), replace(whole, gain_db=-3.0)):
        for rate in (16_000, 8_000):
            wanted = clip.read(rate)
            for _ in range(2):  # decoded, and read again
                assert torch.equal(DecodedAudio(tmp_path).read(clip, rate), wanted)
    assert len(list(tmp_path.iterdir())) == 6


def test_a_recording_that_is_not_usable_is_refused_as_ever(clips, tmp_path):
    with pytest.raises(AudioError, match="no such file"):
        DecodedAudio(tmp_path).read(replace(clips[0], path=tmp_path / "none.wav"))
    assert not list(tmp_path.iterdir())


def test_a_disk_that_takes_nothing_is_in_nobodys_way(clips, tmp_path):
    assert torch.equal(DecodedAudio(tmp_path / "no folder").read(clips[0]), clips[0].read())


def run(corpus, task, folder, upstreams, **options):
    folders = Folders(folder / "cache", folder / "results")
    report = run_grid(Grid(upstreams, [task], (0,), **options), corpus, folders, LocalExecutor("cpu", 1))
    assert not report.failures
    return {record.upstream["name"]: record.result_digest() for record in RecordStore(folders.results).all()}


def test_several_upstreams_decode_a_recording_once_and_leave_nothing_behind(corpus, task, tmp_path, decoded, clips):
    (tmp_path / "several" / "cache" / DECODED).mkdir(parents=True)
    (tmp_path / "several" / "cache" / DECODED / "old.npy").write_text("of a command that was killed")
    together = run(corpus, task, tmp_path / "several", ("fbank", "mfcc"))
    assert decoded == {clip.path.name: 1 for clip in clips}
    assert DECODED not in {entry.name for entry in entries(tmp_path / "several" / "cache")}
    alone = run(corpus, task, tmp_path / "fbank", ("fbank",)) | run(corpus, task, tmp_path / "mfcc", ("mfcc",))
    assert together == alone


@pytest.mark.parametrize("limited", [False, True])
def test_where_there_is_no_room_each_upstream_decodes_for_itself(
    corpus, task, tmp_path, decoded, clips, monkeypatch, limited
):
    size = sum(4 * clip.samples for clip in clips)
    if not limited:
        monkeypatch.setattr(decoding, "MOST_BYTES", size - 1)
    run(corpus, task, tmp_path, ("fbank", "mfcc"), cache_limit=size if limited else None)  # no room for features
    assert decoded == {clip.path.name: 2 for clip in clips}


def test_one_upstream_keeps_no_audio(corpus, task, tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "decoded_folder", lambda cache: pytest.fail("nobody else hears it"))
    run(corpus, task, tmp_path, ("fbank",))
