"""Build the `mini` corpus in stages; run it as a script, from anywhere.

    python build.py synthesise --work WORK --voices VOICES [--part 0/2]   # slow, once: clean speech into WORK
    python build.py harden --work WORK [--out OUT] [--processes 2]        # minutes: audio/; [--group sid] for a part
    python build.py lexicon [--out OUT]                                   # seconds: lexicon.txt
    python build.py label [--out OUT]                                     # seconds: metadata.jsonl
    python build.py check [--out OUT]                                     # what is there, and is it sane
    python build.py sample --work WORK --voices VOICES [--rows 100]       # minutes: are some the same bytes once more?

What is said is in `_texts.py`, all difficulty in `_acoustics.py`, what follows from both in `_labels.py`. README.md
says how to get the engine.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections import Counter
from collections.abc import Collection, Sequence
from functools import partial
from itertools import product
from multiprocessing import Pool
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import soundfile
from _acoustics import BABBLE_VOICES, SAMPLE_RATE, SEED, Wav, harden
from _labels import labelled
from _ogg import write_opus
from _synthesis import clean_path, synthesise
from _texts import SPEEDS, SPLITS, Line, keyed_generator, script, vocabulary

HERE = Path(__file__).parent
SUFFIX = ".opus"
GROUPS = tuple(SPEEDS)
LABELS = ("keyword", "speaker", "intent", "text", "speaker_to_verify", "query", "turns", "targets", "clean")
STRESS = "\N{MODIFIER LETTER VERTICAL LINE}\N{MODIFIER LETTER LOW VERTICAL LINE}"
BITRATE = 22_000  # bit/s, nominal; short and noisy recordings get about 30, so 85 minutes are about 20 MB
Row = dict[str, object]

log = logging.getLogger("mini")


def read(path: Path) -> Wav:
    """Mono float32 at 16 kHz, (samples,)."""
    wav, rate = soundfile.read(path, dtype="float32")
    assert rate == SAMPLE_RATE and wav.ndim == 1, path
    return np.asarray(wav)


def harden_one(line: Line, work: Path, out: Path, lines: Sequence[Line]) -> None:
    """Write the recording of `line`, one of `lines`, below `out`."""
    clean = read(clean_path(work, line)) if line.voice else None
    wav = harden(line, clean, [read(clean_path(work, talker)) for talker in talkers(line, lines)])
    write_opus(recording(out, line), wav, SAMPLE_RATE, BITRATE)


def talkers(line: Line, lines: Sequence[Line]) -> list[Line]:
    """Who talks behind `line`, if there is babble."""
    able = [other for other in lines if other.talks_behind(line)]
    chosen = keyed_generator(SEED, "talkers", line.id).choice(len(able), BABBLE_VOICES, replace=False)
    return [able[index] for index in chosen]


def recording(out: Path, line: Line) -> Path:
    """Where the recording of `line` lies."""
    return out / "audio" / f"{line.id}{SUFFIX}"


def harden_all(work: Path, out: Path, processes: int, groups: Collection[str]) -> None:
    """Replace the recordings of some groups, or all, in `out`/audio."""
    lines = script()
    chosen = [line for line in lines if line.group in groups]
    needed = {other.id: other for line in chosen for other in (line, *talkers(line, lines)) if other.voice}
    missing = [name for name, line in needed.items() if not clean_path(work, line).exists()]
    if missing:
        raise SystemExit(f"{work}: {len(missing)} clean recordings are missing ({missing[0]}, ...). Run synthesise.")
    (out / "audio").mkdir(parents=True, exist_ok=True)
    for path in set((out / "audio").iterdir()) - {recording(out, line) for line in lines if line not in chosen}:
        path.unlink()
    with Pool(processes) as pool:
        pool.map(partial(harden_one, work=work, out=out, lines=lines), chosen, chunksize=32)


def sample(work: Path, voices: Path, out: Path, rows: int) -> None:
    """Build some recordings of every group anew, from their text on, and compare them with those in `out`.

    Raises: SystemExit: bytes differ.
    """
    lines, differing = script(), []
    with TemporaryDirectory() as folder:
        for group in GROUPS:
            members = [line for line in lines if line.group == group]
            share = max(1, round(rows * len(members) / len(lines)))
            drawn = keyed_generator(SEED, "sample", group).choice(len(members), share, replace=False)
            chosen = [members[index] for index in drawn]
            needed = {other.id: other for line in chosen for other in (line, *talkers(line, lines))}
            synthesise(list(needed.values()), work, voices)
            for line in chosen:
                again = recording(Path(folder), line)
                again.parent.mkdir(exist_ok=True)
                harden_one(line, work, Path(folder), lines)
                if again.read_bytes() != recording(out, line).read_bytes():
                    differing.append(line.id)
            log.info("%s: %d of %d recordings built anew", group, share, len(members))
    if differing:
        raise SystemExit(f"{len(differing)} recordings are other bytes: {', '.join(differing)}")
    log.info("all are the same bytes")


def label(out: Path) -> None:
    """Write `out`/metadata.jsonl: the recordings' rows, those of mixtures behind them."""
    rows = labelled([row_of(line, out) for line in script()], out)
    temporary = out / "metadata.jsonl.part"
    temporary.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    temporary.replace(out / "metadata.jsonl")


def row_of(line: Line, out: Path) -> Row:
    """What the script knows of a recording, and how long it is."""
    path = recording(out, line)
    row: Row = {"file_name": f"audio/{path.name}", "id": line.id, "split": line.split, "voice": line.voice}
    row["duration_seconds"] = round(soundfile.info(path).frames / SAMPLE_RATE, 4)
    if "speaker" in line.labels:
        row["prompt"] = line.prompt
    return row | line.labels


def write_lexicon(out: Path) -> None:
    """Write `out`/lexicon.txt: a word a line and its phones, as the engine was told to speak them, without stress."""
    from hibari import Hibari

    phonemize, lines = Hibari().phonemize, script()
    words = sorted(set().union(*(vocabulary(lines, split) for split in SPLITS)))
    spelt = ("".join(phonemize(word if word != "i" else "I")) for word in words)
    phones = (" ".join(symbol for symbol in word if symbol not in STRESS) for word in spelt)
    content = "".join(f"{word} {each}\n" for word, each in zip(words, phones, strict=True))
    (out / "lexicon.txt").write_text(content, encoding="utf-8")


def check(out: Path) -> None:
    """Log counts and sizes; raise AssertionError where a recording or a split is not as it should be."""
    rows = [json.loads(text) for text in (out / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len({row["id"] for row in rows}) == len(rows)
    sizes, counts, minutes = 0, Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for row in rows:
        for label in LABELS:
            counts[label, row["split"]] += label in row
    recorded = [row for row in rows if "file_name" in row]
    for row in recorded:
        path = out / row["file_name"]
        wav, sizes = read(path), sizes + path.stat().st_size
        level = 10 * np.log10(np.mean(wav**2) + 1e-12)
        assert abs(len(wav) / SAMPLE_RATE - row["duration_seconds"]) < 1e-3, path
        assert 0.35 < row["duration_seconds"] < 6 and -60 < level < -10, (
            path,
            row["duration_seconds"],
            level,
        )
        for label in {*LABELS, "file_name"} & row.keys():
            minutes[label, row["split"]] += row["duration_seconds"] / 60
    for label, split in product((*LABELS, "file_name"), SPLITS):
        count = sum(row["split"] == split for row in recorded) if label == "file_name" else counts[label, split]
        log.info("%-18s %-5s %5d rows %5.1f min", label, split, count, minutes[label, split])
    total = sum(row["duration_seconds"] for row in recorded) / 60
    log.info("%d recordings, %.1f min, %.1f MB", len(recorded), total, sizes / 1e6)
    assert sizes < 25e6 and len(list((out / "audio").iterdir())) == len(recorded)
    _check_splits(rows)


def _check_splits(rows: list[Row]) -> None:
    for label, unit in (
        ("keyword", "voice"),
        ("text", "voice"),
        ("targets", "voice"),
        ("clean", "voice"),
        ("speaker", "prompt"),
    ):
        values = [(row[unit], row["split"]) for row in rows if label in row and row[unit]]
        seen = {(value, split) for many, split in values for value in (many if isinstance(many, list) else [many])}
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
    parser.add_argument("stage", choices=("synthesise", "harden", "lexicon", "label", "check", "sample"))
    parser.add_argument("--work", type=Path, help="folder of the clean speech")
    parser.add_argument("--voices", type=Path, help="folder of Kokoro's voices/*.bin")
    parser.add_argument("--part", default="0/1", help="of the lines, for one process a core: 0/2 and 1/2")
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--group", action="append", choices=GROUPS, help="to harden, several; all if left out")
    parser.add_argument("--rows", type=int, default=100, help="of the sample, about")
    options = parser.parse_args()
    if options.stage == "sample":
        sample(options.work, options.voices, options.out, options.rows)
        return
    if options.stage == "synthesise":
        part, parts = map(int, options.part.split("/"))
        synthesise(script()[part::parts], options.work, options.voices)
        return
    if options.stage == "harden":
        harden_all(options.work, options.out, options.processes, options.group or GROUPS)
    elif options.stage == "lexicon":
        write_lexicon(options.out)
    elif options.stage == "label":
        label(options.out)
    else:
        check(options.out)


if __name__ == "__main__":
    main()
