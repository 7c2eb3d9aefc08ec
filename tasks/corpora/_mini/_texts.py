"""What is said, by which voice, in which split: the script of the corpus, before any sound exists."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate, product

import numpy as np

SEED = 2024  # of the script; the acoustics have their own


def _words(text: str) -> list[str]:
    return text.split()


# Disjoint voices for everything that is tested on new voices. Both sexes and both accents occur in
# every split (af, am: American female, male; bf, bm: British).
VOICES = {
    "train": _words(
        "af_alloy af_aoede af_bella af_heart af_kore af_nova af_sky am_adam am_eric am_liam am_onyx "
        "am_santa bf_alice bf_isabella bm_daniel bm_lewis"
    ),
    "valid": _words("af_jessica am_michael bf_lily bm_fable"),
    "test": _words("af_nicole af_river af_sarah am_echo am_fenrir am_puck bf_emma bm_george"),
}
ALL_VOICES = sorted(voice for voices in VOICES.values() for voice in voices)
SPLITS = tuple(VOICES)

KEYWORDS = _words("yes no up down left right on off stop go")
UNKNOWN_WORDS = _words(
    "bed bird cat dog happy house marvin sheila tree wow zero one two three four five six seven eight nine"
)
LOCATIONS = ("bedroom", "kitchen", "washroom")
LANGUAGES = ("Chinese", "English", "German", "Korean")


@dataclass(frozen=True)
class Counts:
    """How many recordings one split gets; the unit is one voice except for `silence` (the whole split)."""

    keyword_takes: int
    unknown: int
    silence: int
    intent_takes: int
    intent_held_out_every: int  # 0: none; 2: every second intent also as its test-only phrasing
    sentences: int
    speaker: tuple[int, ...]  # rounds


COUNTS = {
    "train": Counts(3, 6, 48, 2, 0, 18, (6, 6)),
    "valid": Counts(2, 4, 10, 1, 0, 12, (3, 3)),
    "test": Counts(3, 6, 24, 1, 2, 14, (11,)),
}
SPEEDS = {"ks": (0.85, 1.2), "ic": (0.9, 1.2), "asr": (0.95, 1.25), "sid": (0.85, 1.2)}


@dataclass(frozen=True)
class Line:
    """One recording to be made.

    Attributes:
        id: unique and stable; starts with the group: ks, ic, asr, sid.
        voice: the Kokoro voice; None for silence.
        prompt: what the voice says, punctuation included; "" for silence.
        speed: the engine's rate, 1 is normal.
        labels: the columns of the metadata row that make it part of a task.
    """

    id: str
    split: str
    voice: str | None
    prompt: str
    speed: float
    labels: dict[str, object]

    @property
    def group(self) -> str:
        """The part of the corpus: ks, ic, asr or sid."""
        return self.id.split("-", 1)[0]

    def talks_behind(self, other: Line) -> bool:
        """Whether babble in another recording may be made of it: whole sentences of the same split.

        Behind speaker rows are speaker rows alone, so that they can be made without the rest.
        """
        if self.split != other.split or self.group not in ("sid", "ic"):
            return False
        if self.group == "sid":  # the first round
            return int(self.id.rsplit("-", 1)[1]) < COUNTS[self.split].speaker[0]
        return other.group != "sid"


def keyed_generator(*key: object) -> np.random.Generator:
    """A generator that depends on `key` alone, so the order of the work never changes a result."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


def script() -> list[Line]:
    """Every line of the corpus, sorted by group and id; the same list on every call."""
    lines = [
        line
        for split in SPLITS
        for part in (_keyword_lines, _speaker_lines, _intent_lines, _sentence_lines)
        for line in part(split)
    ]
    assert len({line.id for line in lines}) == len(lines)
    return lines


def _line(line_id: str, split: str, voice: str | None, prompt: str, labels: dict[str, object]) -> Line:
    low, high = SPEEDS[line_id.split("-", 1)[0]]
    speed = round(float(keyed_generator(SEED, line_id, "speed").uniform(low, high)), 3)
    return Line(line_id, split, voice, prompt, speed, labels)


def _keyword_lines(split: str) -> Iterator[Line]:
    counts = COUNTS[split]
    for voice in VOICES[split]:
        for word, take in product(KEYWORDS, range(counts.keyword_takes)):
            yield _line(f"ks-{voice}-{word}-{take}", split, voice, word + ".!,"[take], {"keyword": word})
        generator = keyed_generator(SEED, "unknown", voice)
        for word in generator.choice(UNKNOWN_WORDS, counts.unknown, replace=False):
            yield _line(f"ks-{voice}-{word}-0", split, voice, f"{word}.", {"keyword": "_unknown_"})
    for number in range(counts.silence):
        yield _line(f"ks-silence-{split}-{number:02d}", split, None, "", {"keyword": "_silence_"})


# Each intent has phrasings that occur everywhere and, last, one that occurs in test alone: whoever memorises
# whole sentences loses there. All of its words are known from train (build.py checks).
_SWITCH = {
    "activate": ("turn on the {place}{thing}", "switch the {place}{thing} on", "i need the {place}{thing} on",
                 "{place}{thing} on please", "please turn the {place}{thing} on now"),
    "deactivate": ("turn off the {place}{thing}", "switch the {place}{thing} off",
                   "i want the {place}{thing} off", "{place}{thing} off please",
                   "please turn the {place}{thing} off now"),
}  # fmt: skip
_MUSIC = {
    "activate": ("turn on the music", "play some music", "start the music now", "i want to hear music",
                 "please play the music"),
    "deactivate": ("turn off the music", "stop the music now", "no more music please", "i do not want music",
                   "please stop the music"),
}  # fmt: skip
_HEAT = {
    "increase": ("turn up the heat", "make it warmer", "more heat please", "it is too cold",
                 "please turn the heat up now"),
    "decrease": ("turn down the heat", "make it colder", "less heat please", "it is too warm",
                 "please turn the heat down now"),
}  # fmt: skip
_HEAT_PLACE = {
    "increase": ("turn up the heat in the {place}", "make the {place} warmer", "more heat in the {place}",
                 "the {place} is too cold", "please turn the {place} heat up"),
    "decrease": ("turn down the heat in the {place}", "make the {place} colder", "less heat in the {place}",
                 "the {place} is too warm", "please turn the {place} heat down"),
}  # fmt: skip
_VOLUME = {
    "increase": ("turn up the volume", "make it louder", "more volume please", "it is too quiet",
                 "please turn the volume up now"),
    "decrease": ("turn down the volume", "make it quieter", "less volume please", "it is too loud",
                 "please turn the volume down now"),
}  # fmt: skip
_BRING = ("bring me the {thing}", "get me my {thing} now", "i need the {thing}", "go and get the {thing}",
          "please bring my {thing} here")  # fmt: skip
_LANGUAGE = ("change the language to {thing}", "speak {thing} please", "switch the language to {thing}",
             "i want to speak {thing}", "please set my language to {thing}")  # fmt: skip
_ANY_LANGUAGE = ("change the language", "set another language", "switch the language now",
                 "speak another language here", "please change my language")  # fmt: skip


def phrasings() -> dict[tuple[str, str, str], tuple[str, ...]]:
    """(action, object, location) -> its phrasings, the last for test only. The slots are those of FSC."""
    found: dict[tuple[str, str, str], tuple[str, ...]] = {}

    def add(action: str, thing: str, place: str, templates: tuple[str, ...], prefix: str = "") -> None:
        spoken = {"thing": thing.lower(), "place": prefix or place}
        if templates in _SWITCH.values() and not prefix:
            spoken["place"] = ""
        found[action, thing, place] = tuple(template.format(**spoken) for template in templates)

    for action, templates in _SWITCH.items():
        add(action, "lamp", "none", templates)
        add(action, "lights", "none", templates)
        for place in LOCATIONS:
            add(action, "lights", place, templates, prefix=f"{place} ")
        add(action, "music", "none", _MUSIC[action])
    for action in ("increase", "decrease"):
        add(action, "heat", "none", _HEAT[action])
        for place in LOCATIONS:
            add(action, "heat", place, _HEAT_PLACE[action])
        add(action, "volume", "none", _VOLUME[action])
    for thing in ("juice", "newspaper", "shoes", "socks"):
        add("bring", thing, "none", _BRING)
    for language in LANGUAGES:
        add("change language", language, "none", _LANGUAGE)
    add("change language", "none", "none", _ANY_LANGUAGE)
    return found


def _spoken(text: str) -> str:
    words = [word.capitalize() if word.capitalize() in LANGUAGES else word for word in text.split()]
    return " ".join("I" if word == "i" else word for word in words).strip() + "."


def _intent_lines(split: str) -> Iterator[Line]:
    counts = COUNTS[split]
    for (number, voice), (place, (intent, texts)) in product(enumerate(VOICES[split]), enumerate(phrasings().items())):
        first = number * counts.intent_takes + place
        takes = [(first + take) % (len(texts) - 1) for take in range(counts.intent_takes)]
        if counts.intent_held_out_every and (number + place) % counts.intent_held_out_every == 0:
            takes.append(len(texts) - 1)
        slots = dict(zip(("action", "object", "location"), intent, strict=True))
        for take in takes:
            labels: dict[str, object] = {"intent": slots, "text": texts[take]}
            yield _line(f"ic-{voice}-{place:02d}-{take}", split, voice, _spoken(texts[take]), labels)


_THINGS = _words("lamp lights music juice newspaper shoes socks volume heat language")
CHOICES = {
    "bring": ("bring me", "get me", "bring", "get", "i need", "i want", "go and get"),
    "the": ("the", "my", "another", "some", "more"),
    "thing": tuple(_THINGS),
    "other": tuple(_THINGS),
    "place": LOCATIONS,
    "language": tuple(language.lower() for language in LANGUAGES),
    "way": ("on", "off", "up", "down"),
    "like": ("cold", "warm", "loud", "quiet"),
    "more": ("colder", "warmer", "louder", "quieter"),
    "do": ("turn", "switch", "set", "put"),
    "please": ("please ", "now ", ""),
}
SENTENCES = (
    "{bring} {the} {thing} and {the} {other} please",
    "{please}{bring} {the} {thing} in the {place}",
    "{please}set {the} {thing} in the {place} to {language}",
    "the {thing} in the {place} is too {like}",
    "{please}turn {way} the {thing} and the {other}",
    "{please}switch {way} the {place} {thing} and the {other}",
    "{please}speak {language} in the {place}",
    "make the {place} {more} and {bring} {the} {thing}",
    "i do not want {the} {thing} in the {place}",
    "{please}change the {thing} and start the {other}",
    "no {thing} in the {place} and less {other} here",
    "it is {like} in the {place} and too {like} here",
)

_SHARES = (0.5, 0.65)  # of all possible sentences half is for train, 15 % for valid, the rest for test
_OBJECTS = _words(
    "horse river garden window teacher doctor farmer village market bottle basket engine ticket letter "
    "carpet mountain sailor painter kitten spider tunnel bridge castle forest island pocket rabbit "
    "tiger wagon yard"
)
_SPEAKER_CHOICES = {
    "noun": tuple(_OBJECTS),
    "other": tuple(_OBJECTS),
    "kind": tuple(
        _words("old young small heavy green yellow broken quick gentle noisy famous lonely narrow wooden early")
    ),
    "verb": tuple(_words("found painted watched carried followed forgot washed moved missed sold")),
    "when": tuple(_words("today again yesterday tomorrow together slowly")),
    "name": tuple(_words("Anna Peter Julia Martin Oliver Sophie")),
}
_SPEAKER_SENTENCES = (
    "The {noun} looks {kind}.",
    "{name} {verb} a {noun}.",
    "We {verb} the {kind} {noun}.",
    "Is the {noun} {kind}?",
    "They {verb} it {when}.",
    "The {kind} {noun}, {when}.",
    "{name} {verb} the {noun}.",
    "Who {verb} my {noun}?",
)


def _generate(generator: np.random.Generator, templates: tuple[str, ...], choices: dict[str, tuple[str, ...]]) -> str:
    picked = {slot: str(generator.choice(values)) for slot, values in choices.items()}
    if picked.get("other") == picked.get("thing", picked.get("noun")):
        return _generate(generator, templates, choices)
    return str(generator.choice(templates)).format(**picked)


def _dealer(name: str, make: Callable[[np.random.Generator], str]) -> Callable[[str], Iterator[str]]:
    """Sentences without repetition, every one belonging to exactly one split by its hash."""

    def deal(split: str) -> Iterator[str]:
        generator, seen = keyed_generator(SEED, name, split), set(_fixed_texts())
        while True:
            text = make(generator)
            # A sentence's split is a function of its words, so no two splits can share one.
            share = keyed_generator(SEED, name, text).random()
            owner = SPLITS[int(np.searchsorted(_SHARES, share))]
            if owner == split and text not in seen:
                seen.add(text)
                yield text

    return deal


def _fixed_texts() -> set[str]:
    return {text for texts in phrasings().values() for text in texts}


_deal_sentences = _dealer("asr", lambda generator: _generate(generator, SENTENCES, CHOICES))
_deal_speaker = _dealer("sid", lambda generator: _generate(generator, _SPEAKER_SENTENCES, _SPEAKER_CHOICES))


def _sentence_lines(split: str) -> Iterator[Line]:
    texts = _deal_sentences(split)
    for voice, number in product(VOICES[split], range(COUNTS[split].sentences)):
        text = next(texts)
        yield _line(f"asr-{voice}-{number:02d}", split, voice, _spoken(text), {"text": text})


def _speaker_lines(split: str) -> Iterator[Line]:
    # Dealt in rounds, so that more of them leave the earlier ones, which babble is made of too, as they are.
    texts, rounds = _deal_speaker(split), COUNTS[split].speaker
    for first, count in zip(accumulate(rounds, initial=0), rounds, strict=False):
        for voice, number in product(ALL_VOICES, range(first, first + count)):
            labels: dict[str, object] = {"speaker": voice}
            yield _line(f"sid-{voice}-{split}-{number:02d}", split, voice, next(texts), labels)


def vocabulary(lines: list[Line], split: str) -> set[str]:
    """The words of the rows of `split` that carry `text`."""
    texts = [str(line.labels["text"]) for line in lines if line.split == split and "text" in line.labels]
    return {word for text in texts for word in text.split()}
