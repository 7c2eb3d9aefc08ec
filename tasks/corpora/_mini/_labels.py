"""Labels that need no new audio: slot marks and German of the texts, queries, voices to verify, mixtures.

All of it follows from the sentences' own templates in `_texts.py`, from the voices, and, for turns, from where a
recording is loud. `lexicon.txt` beside it spells each word in phones.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from string import Formatter
from typing import Any

import numpy as np
import soundfile
from _texts import CHOICES, LANGUAGES, LOCATIONS, SENTENCES, SPLITS, keyed_generator, phrasings

SEED = 11
SAMPLE_RATE = 16_000
Row = dict[str, Any]

STATES = {"on", "off", "up", "down", *CHOICES["like"], *CHOICES["more"]}
# What is brought, wanted or missed is an item, what is switched, set or changed is a device: a word alone doesn't say.
ITEM_SENTENCES = (0, 1, 7, 8, 10)  # of SENTENCES
VERIFIED = {"train": None, "valid": 30, "test": 30}  # sentences of a voice that are compared
QUERY_WORDS = range(2, 6)
OVERLAPS = {"train": 480, "valid": 60, "test": 120}  # mixtures of two voices
LEVELS_DB = 5  # between the two
NOISY = {"train": 300, "valid": 50, "test": 100}
NOISE_DB = (0.0, 10.0)  # speech to noise
LOUD_DB, FRAME = 20, 160  # a frame of 10 ms is speech if it is within this of the loudest
PAUSE, BURST = 25, 10  # frames: shorter pauses belong to the turn, shorter sounds don't

GERMAN_STATES = dict(zip(
    ("cold", "warm", "loud", "quiet", "colder", "warmer", "louder", "quieter"),
    ("kalt", "warm", "laut", "leise", "kälter", "wärmer", "lauter", "leiser"), strict=True,
))  # fmt: skip
GERMAN_LANGUAGES = {"chinese": "chinesisch", "english": "englisch", "german": "deutsch", "korean": "koreanisch"}
PLACES = {
    "bedroom": ("das schlafzimmer", "im schlafzimmer"),
    "kitchen": ("die küche", "in der küche"),
    "washroom": ("den waschraum", "im waschraum"),
}
NOUNS = {
    "lamp": "die lampe", "lights": "sie lichter", "music": "die musik", "juice": "der saft", "newspaper": "die zeitung",
    "shoes": "sie schuhe", "socks": "sie socken", "volume": "die lautstärke", "heat": "die heizung",
    "language": "die sprache",
}  # fmt: skip
# Word before the noun, by the noun's gender: der, die, sie (plural).
BEFORE = {
    "the": {"der": "den", "die": "die", "sie": "die"},
    "my": {"der": "meinen", "die": "meine", "sie": "meine"},
    "another": {"der": "einen anderen", "die": "eine andere", "sie": "andere"},
    "some": {"der": "etwas", "die": "etwas", "sie": "einige"},
    "more": {"der": "mehr", "die": "mehr", "sie": "mehr"},
    "no": {"der": "kein", "die": "keine", "sie": "keine"},
    "subject": {"der": "der", "die": "die", "sie": "die"},
}
BRING = dict(zip(
    CHOICES["bring"], ("bring mir", "hol mir", "bring", "hol", "ich brauche", "ich will", "geh und hol"), strict=True
))  # fmt: skip
PLEASE = {"please ": "bitte ", "now ": "jetzt ", "": ""}
TURN = {"on": ("schalte", "ein"), "off": ("schalte", "aus"), "up": ("dreh", "auf"), "down": ("dreh", "herunter")}
SWITCH = {"on": ("mach", "an"), "off": ("mach", "aus"), "up": ("stell", "hoch"), "down": ("stell", "herunter")}

# One for each of SENTENCES; `turn` and `way`, `switch` and `side` are the parts of a separable verb.
GERMAN_SENTENCES = (
    "{bring} {the_thing} und {the_other} bitte",
    "{please}{bring} {the_thing} {in_place}",
    "{please}stell {the_thing} {in_place} auf {language}",
    "{thing} {in_place} {be} zu {like}",
    "{please}{turn} {a_thing} und {a_other} {way}",
    "{please}{switch} {a_thing} {in_place} und {a_other} {side}",
    "{please}sprich {language} {in_place}",
    "mach {place} {more} und {bring} {the_thing}",
    "ich will {the_thing} {in_place} nicht",
    "{please}ändere {a_thing} und starte {a_other}",
    "{no_thing} {in_place} und weniger {other} hier",
    "es ist {like} {in_place} und zu {like} hier",
)
# Five phrasings an intent, in the order of `phrasings()`.
GERMAN_REQUESTS = {
    ("activate", "thing"): ("schalte {x} ein", "mach {x} an", "ich brauche {x} an", "{x} an bitte",
                            "bitte schalte {x} jetzt ein"),
    ("deactivate", "thing"): ("schalte {x} aus", "mach {x} aus", "ich will {x} aus haben", "{x} aus bitte",
                              "bitte schalte {x} jetzt aus"),
    ("activate", "music"): ("schalte die musik ein", "spiel etwas musik", "starte jetzt die musik",
                            "ich will musik hören", "bitte spiel die musik"),
    ("deactivate", "music"): ("schalte die musik aus", "stopp jetzt die musik", "keine musik mehr bitte",
                              "ich will keine musik", "bitte stopp die musik"),
    ("increase", "heat"): ("dreh die heizung auf", "mach es wärmer", "mehr heizung bitte", "es ist zu kalt",
                           "bitte dreh jetzt die heizung auf"),
    ("decrease", "heat"): ("dreh die heizung herunter", "mach es kälter", "weniger heizung bitte", "es ist zu warm",
                           "bitte dreh jetzt die heizung herunter"),
    ("increase", "heat in a place"): ("dreh die heizung {in_place} auf", "mach {place} wärmer",
                                      "mehr heizung {in_place}", "{in_place} ist es zu kalt",
                                      "bitte dreh die heizung {in_place} auf"),
    ("decrease", "heat in a place"): ("dreh die heizung {in_place} herunter", "mach {place} kälter",
                                      "weniger heizung {in_place}", "{in_place} ist es zu warm",
                                      "bitte dreh die heizung {in_place} herunter"),
    ("increase", "volume"): ("dreh die lautstärke auf", "mach es lauter", "mehr lautstärke bitte", "es ist zu leise",
                             "bitte dreh jetzt die lautstärke auf"),
    ("decrease", "volume"): ("dreh die lautstärke herunter", "mach es leiser", "weniger lautstärke bitte",
                             "es ist zu laut", "bitte dreh jetzt die lautstärke herunter"),
    ("bring", "thing"): ("bring mir {x}", "hol mir jetzt {my_x}", "ich brauche {x}", "geh und hol {x}",
                         "bitte bring mir {my_x}"),
    ("change language", "thing"): ("ändere die sprache auf {language}", "sprich {language} bitte",
                                   "stell die sprache auf {language} um", "ich will {language} sprechen",
                                   "bitte stell meine sprache auf {language}"),
    ("change language", "none"): ("ändere die sprache", "stell eine andere sprache ein", "wechsle jetzt die sprache",
                                  "sprich hier eine andere sprache", "bitte ändere meine sprache"),
}  # fmt: skip


def noun(before: str, thing: str) -> str:
    """German object, or subject, with the word before it."""
    gender, name = NOUNS[thing].split()
    return f"{BEFORE[before][gender]} {name}"


def texts() -> dict[str, tuple[str, str]]:
    """Every text that the templates can make -> (its slots' marks, its German).

    Raises: AssertionError: a text has two readings.
    """
    found: dict[str, tuple[str, str]] = {}
    for text, *reading in (*_requests(), *_sentences()):
        assert found.setdefault(text, (reading[0], reading[1])) == tuple(reading), text
    return found


def _marked(text: str, role: str) -> str:
    kinds = dict.fromkeys(NOUNS, role) | dict.fromkeys(STATES, "state") | dict.fromkeys(LOCATIONS, "location")
    kinds |= dict.fromkeys(map(str.lower, LANGUAGES), "language")
    words = ((word, kinds.get(word)) for word in text.split())
    return " ".join(f"B-{kind} {word} E-{kind}" if kind else word for word, kind in words)


def _requests() -> Iterator[tuple[str, str, str]]:
    for (action, thing, place), spoken in phrasings().items():
        known: dict[str, str] = {}
        if place in PLACES:
            known = {"place": PLACES[place][0], "in_place": PLACES[place][1]}
        if thing in NOUNS:
            x, my_x = noun("the", thing), noun("my", thing)
            known |= {"x": f"{x} {known['in_place']}" if place in PLACES else x, "my_x": my_x}
        elif thing in LANGUAGES:
            known["language"] = GERMAN_LANGUAGES[thing.lower()]
        role = "item" if action == "bring" else "device"
        german = GERMAN_REQUESTS[action, _kind(action, thing, place)]
        for text, pattern in zip(spoken, german, strict=True):
            yield text, _marked(text, role), pattern.format(**known)


def _kind(action: str, thing: str, place: str) -> str:
    if thing == "heat" and place in PLACES:
        return "heat in a place"
    return thing if (action, thing) in GERMAN_REQUESTS else "thing"


def _sentences() -> Iterator[tuple[str, str, str]]:
    for number, (template, german) in enumerate(zip(SENTENCES, GERMAN_SENTENCES, strict=True)):
        slots = sorted({name for _, name, _, _ in Formatter().parse(template) if name})
        role = "item" if number in ITEM_SENTENCES else "device"
        for values in product(*(CHOICES[slot] for slot in slots)):
            picked = dict(zip(slots, values, strict=True))
            if "other" not in picked or picked.get("thing") != picked["other"]:
                text = template.format(**picked)
                yield " ".join(text.split()), _marked(text, role), german.format(**_german(picked))


def _german(picked: Mapping[str, str]) -> dict[str, str]:
    known: dict[str, str] = {}
    before = picked.get("the", "the")
    if "place" in picked:
        known |= dict(zip(("place", "in_place"), PLACES[picked["place"]], strict=True))
    for slot in {"thing", "other"} & picked.keys():
        thing = picked[slot]
        known |= {f"the_{slot}": noun(before, thing), f"a_{slot}": noun("the", thing), f"no_{slot}": noun("no", thing)}
    if "thing" in picked:
        # "my" and the like are the same before a subject but for the masculine.
        gender, name = NOUNS[picked["thing"]].split()
        subject = {"the": "der", "my": "mein", "another": "ein anderer"}.get(before) if gender == "der" else None
        known |= {"thing": f"{subject or BEFORE[before][gender]} {name}", "be": "sind" if gender == "sie" else "ist"}
    if "other" in picked:
        known["other"] = NOUNS[picked["other"]].split()[1]
    if "way" in picked:
        known |= dict(zip(("turn", "way", "switch", "side"), TURN[picked["way"]] + SWITCH[picked["way"]], strict=True))
    tables: tuple[tuple[str, Mapping[str, str]], ...] = (
        ("bring", BRING), ("please", PLEASE), ("language", GERMAN_LANGUAGES), ("like", GERMAN_STATES),
        ("more", GERMAN_STATES),
    )  # fmt: skip
    return known | {slot: table[picked[slot]] for slot, table in tables if slot in picked}


def labelled(rows: Sequence[Row], out: Path) -> list[Row]:
    """The rows with all labels, and the rows of mixtures behind them.

    Args:
        rows: of the recordings, with what each is for.
        out: the folder of the corpus; turns are found in its audio.
    """
    known = texts()
    for row in rows:
        if "text" in row:
            row["marked"], row["translation"] = known[row["text"]]
    of_split = {split: [row for row in rows if row["split"] == split] for split in SPLITS}
    mixtures = []
    for split in SPLITS:
        with_text = [row for row in of_split[split] if "text" in row]
        _add_verification(with_text, VERIFIED[split])
        if split != "train":
            _add_queries(with_text)
        mixtures += list(_overlaps(with_text, split, out))
        noises = [row for row in of_split[split] if row.get("keyword") == "_silence_"]
        mixtures += list(_noisy(with_text, noises, split, out))
    return [*rows, *mixtures]


def _shuffled(rows: Sequence[Row], *key: object) -> list[Row]:
    return [rows[index] for index in keyed_generator(SEED, *key).permutation(len(rows))]


def _add_verification(rows: Sequence[Row], most: int | None) -> None:
    """`speaker_to_verify`: whose voice it is, of at most so many sentences a voice."""
    counts: dict[str, int] = defaultdict(int)
    for row in _shuffled(rows, "verification", rows[0]["split"]):
        counts[row["voice"]] += 1
        if most is None or counts[row["voice"]] <= most:
            row["speaker_to_verify"] = row["voice"]


def _add_queries(rows: Sequence[Row]) -> None:
    """`query`: a short request that others say, too; `contains`: the queries whose words a row has, in their order."""
    said: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if "intent" in row and len(row["text"].split()) in QUERY_WORDS:
            said[row["text"]].append(row)
    holders = {text: [row for row in rows if f" {text} " in f" {row['text']} "] for text in said}
    for row in rows:
        row["contains"] = []
    for text, same in said.items():
        query = _shuffled(same, "query", text)[0]
        if any(row["voice"] != query["voice"] for row in holders[text]):
            query["query"] = text
            for row in holders[text]:
                row["contains"].append(text)


def _overlaps(rows: Sequence[Row], split: str, out: Path) -> Iterator[Row]:
    """Two voices at a time: who speaks when, and which source is which."""
    waiting = _shuffled(rows, "overlaps", split)
    for number in range(OVERLAPS[split]):
        first = waiting.pop()
        second = waiting.pop(next(index for index, row in enumerate(waiting) if row["voice"] != first["voice"]))
        identifier = f"mix-{split}-{number:03d}"
        generator = keyed_generator(SEED, identifier)
        offset = int(generator.uniform(0, first["duration_seconds"]) * SAMPLE_RATE)
        level = round(float(generator.uniform(-LEVELS_DB, LEVELS_DB)), 1)
        pair = [(first, 0, 0.0), (second, offset, level)]
        yield {
            "id": identifier,
            "split": split,
            "mixture": [_source(row, start, gain) for row, start, gain in pair],
            "voice": [first["voice"], second["voice"]],
            "turns": sorted(
                ({"start": start, "stop": stop, "speaker": row["voice"]}
                 for row, begin, _ in pair for start, stop in _spans(out / row["file_name"], begin)),
                key=lambda turn: turn["start"],
            ),
            "targets": [0, 1],
        }  # fmt: skip


def _source(row: Row, offset: int, gain_db: float) -> Row:
    source: Row = {"of": row["id"]}
    return source | ({"offset": offset} if offset else {}) | ({"gain_db": gain_db} if gain_db else {})


def _spans(path: Path, offset: int) -> Iterator[tuple[float, ...]]:
    """Seconds from where to where there is speech, later by `offset` samples."""
    loud = np.flatnonzero(_levels(path) > -LOUD_DB)
    breaks = np.flatnonzero(np.diff(loud) > PAUSE)
    for first, last in zip(loud[[0, *(breaks + 1)]], loud[[*breaks, -1]], strict=True):
        if last + 1 - first >= BURST:
            yield tuple(round(float(offset / SAMPLE_RATE + frame / 100), 2) for frame in (first, last + 1))


def _levels(path: Path) -> np.ndarray:
    """Decibels of each 10 ms, against the loudest."""
    wav, _ = soundfile.read(path, dtype="float32")
    power = np.square(wav[: len(wav) // FRAME * FRAME].reshape(-1, FRAME)).mean(axis=1)
    return np.asarray(10 * np.log10(power / power.max() + 1e-12))


def _samples(path: Path) -> int:
    return int(soundfile.info(path).frames)


def _rms_db(path: Path) -> float:
    wav, _ = soundfile.read(path, dtype="float32")
    return float(10 * np.log10(np.mean(np.square(wav)) + 1e-12))


def _noisy(rows: Sequence[Row], noises: Sequence[Row], split: str, out: Path) -> Iterator[Row]:
    """A sentence, and recordings of noise one behind the other under all of it."""
    for number, row in enumerate(_shuffled(rows, "noisy", split)[: NOISY[split]]):
        identifier = f"noisy-{split}-{number:03d}"
        generator = keyed_generator(SEED, identifier)
        snr, offset, sources = float(generator.uniform(*NOISE_DB)), 0, [_source(row, 0, 0.0)]
        samples = _samples(out / row["file_name"])
        speech = _rms_db(out / row["file_name"])
        for index in generator.permutation(len(noises)):
            if offset >= samples:
                break
            noise = noises[index]
            gain = round(speech - snr - _rms_db(out / noise["file_name"]), 1)
            source, size = _source(noise, offset, gain), _samples(out / noise["file_name"])
            if offset + size > samples:  # a piece of a recording is named by its file
                del source["of"]
                source = {"file_name": noise["file_name"], "stop_sample": samples - offset, **source}
            sources.append(source)
            offset += size
        yield {"id": identifier, "split": split, "mixture": sources, "voice": row["voice"], "clean": 0}
