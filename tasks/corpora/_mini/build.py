"""Build the `mini` corpus in two stages; run it as a script, from anywhere.

    python build.py synthesise --work WORK --voices VOICES [--part 0/2]   # slow, once: clean speech into WORK
    python build.py harden --work WORK [--out OUT] [--processes 2]        # minutes: audio/ and metadata.jsonl
    python build.py check [--out OUT]                                     # what is there, and is it sane

What is said is in `_texts.py`, all difficulty in `_acoustics.py`. README.md says how to get the engine.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
from collections import Counter, defaultdict
from functools import partial
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import soundfile
from _acoustics import BABBLE_VOICES, SAMPLE_RATE, SEED, Wav, harden
from _ogg import write_opus
from _synthesis import clean_path, synthesise
from _texts import Line, keyed_generator, script, vocabulary

HERE = Path(__file__).parent
SUFFIX = ".opus"
BITRATE = 22_000  # bit/s, nominal; short and noisy recordings get about 30, so 85 minutes are about 20 MB
Row = dict[str, object]

log = logging.getLogger("mini")


def read(path: Path) -> Wav:
    """Mono float32 at 16 kHz, (samples,)."""
    wav, rate = soundfile.read(path, dtype="float32")
    assert rate == SAMPLE_RATE and wav.ndim == 1, path
    return np.asarray(wav)


def harden_one(line: Line, work: Path, out: Path, talkers: dict[str, list[Path]]) -> Row:
    """Write the recording of `line` below `out` and return its metadata row."""
    chosen = keyed_generator(SEED, "talkers", line.id).choice(len(talkers[line.split]), BABBLE_VOICES, replace=False)
    clean = read(clean_path(work, line)) if line.voice else None
    wav = harden(line, clean, [read(talkers[line.split][index]) for index in chosen])
    path = out / "audio" / f"{line.id}{SUFFIX}"
    write_opus(path, wav, SAMPLE_RATE, BITRATE)
    row: Row = {"file_name": f"audio/{path.name}", "id": line.id, "split": line.split, "voice": line.voice}
    row["duration_seconds"] = round(len(wav) / SAMPLE_RATE, 4)
    if "speaker" in line.labels:
        row["prompt"] = line.prompt
    return row | line.labels


def harden_all(work: Path, out: Path, processes: int) -> None:
    """Replace `out`/audio and `out`/metadata.jsonl."""
    lines = script()
    missing = [line.id for line in lines if line.voice and not clean_path(work, line).exists()]
    if missing:
        raise SystemExit(f"{work}: {len(missing)} clean recordings are missing ({missing[0]}, ...). Run synthesise.")
    talkers = defaultdict(list)
    for line in lines:
        if line.group in ("sid", "ic"):
            talkers[line.split].append(clean_path(work, line))
    shutil.rmtree(out / "audio", ignore_errors=True)
    (out / "audio").mkdir(parents=True)
    with Pool(processes) as pool:
        rows = pool.map(partial(harden_one, work=work, out=out, talkers=dict(talkers)), lines, chunksize=32)
    temporary = out / "metadata.jsonl.part"
    temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    temporary.replace(out / "metadata.jsonl")


def check(out: Path) -> None:
    """Log counts and sizes; raise AssertionError where a recording or a split is not as it should be."""
    rows = [json.loads(text) for text in (out / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len({row["id"] for row in rows}) == len(rows)
    sizes, counts, minutes = 0, Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for row in rows:
        path = out / row["file_name"]
        wav, sizes = read(path), sizes + path.stat().st_size
        level = 10 * np.log10(np.mean(wav**2) + 1e-12)
        assert abs(len(wav) / SAMPLE_RATE - row["duration_seconds"]) < 1e-3, path
        assert 0.35 < row["duration_seconds"] < 6 and -60 < level < -10, (
            path,
            row["duration_seconds"],
            level,
        )
        for label in ("keyword", "speaker", "intent", "text"):
            if label in row:
                counts[label, row["split"]] += 1
                minutes[label, row["split"]] += row["duration_seconds"] / 60
    for (label, split), count in sorted(counts.items()):
        log.info("%-8s %-5s %5d recordings %5.1f min", label, split, count, minutes[label, split])
    total = sum(row["duration_seconds"] for row in rows) / 60
    log.info("%d recordings, %.1f min, %.1f MB", len(rows), total, sizes / 1e6)
    assert sizes < 22e6 and len(list((out / "audio").iterdir())) == len(rows)
    _check_splits(rows)


def _check_splits(rows: list[Row]) -> None:
    for label, unit in (("keyword", "voice"), ("text", "voice"), ("speaker", "prompt")):
        seen = {(row[unit], row["split"]) for row in rows if label in row and row[unit]}
        assert len(seen) == len({value for value, _ in seen}), f"a {unit} of the {label} rows is in two splits"
    free = {(row["text"], row["split"]) for row in rows if "text" in row and "intent" not in row}
    assert len(free) == len({text for text, _ in free}), "a sentence is in two splits"
    lines = script()
    known = vocabulary(lines, "train")
    assert vocabulary(lines, "valid") | vocabulary(lines, "test") <= known, "a word is not in train"
    log.info("%d words, all in train", len(known))


def main() -> None:
    """Parse the command line and run one stage."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=("synthesise", "harden", "check"))
    parser.add_argument("--work", type=Path, help="folder of the clean speech")
    parser.add_argument("--voices", type=Path, help="folder of Kokoro's voices/*.bin")
    parser.add_argument("--part", default="0/1", help="of the lines, for one process a core: 0/2 and 1/2")
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    if options.stage == "synthesise":
        part, parts = map(int, options.part.split("/"))
        synthesise(script()[part::parts], options.work, options.voices)
        return
    if options.stage == "harden":
        harden_all(options.work, options.out, options.processes)
    check(options.out)


if __name__ == "__main__":
    main()
