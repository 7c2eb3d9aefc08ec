"""Populations whose truth is known, one for each metric and size of test set: where `interval_coverage` draws from.

A population is a way to draw a test set for two upstreams that are alike: what varies (voices, recordings, searches)
has normal effects, of which half of the variance is the same for both upstreams, as what is hard for one is hard for
another. Voices of one test set are never those of another. The truth is the value of many test sets together: for a
threshold or a ratio that is the value of the whole population, not the mean of the values of test sets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

from core.metrics import Floats, get_metric
from leaderboard.statistics import Speakers, Trials
from tasks._scorers import standardised

Places = npt.NDArray[np.int64]
Random = np.random.Generator
ALIKE = 2  # upstreams
SHARED = 0.5  # of the variance of every effect
POOLED = 400  # test sets whose value is the truth; intervals are some 20 times as wide as its own error
POOLED_ITEMS = 1_500_000  # that fit into memory
POOLED_TRIALS = 400_000  # of a threshold, which all scores decide


@dataclass(frozen=True)
class Population:
    """Where test sets are drawn from.

    Attributes:
        metric: its name.
        like: the test set whose size it has.
        size: of that, in words.
        draw: -> the statistics of two upstreams that are alike.
        by_size: whether the metric is another one for another size of test set: the truth is then the mean over test
            sets of this size.
    """

    metric: str
    like: str
    size: str
    draw: Callable[[Random], Trials]
    by_size: bool = False

    @property
    def name(self) -> str:
        """Such as `wer, mini`."""
        return f"{self.metric}, {self.like}"

    def truth(self, rng: Random) -> float:
        """The value of many test sets together, fold by fold; both upstreams have the same."""
        if self.by_size:
            return float(np.mean([self.draw(rng).values() for _ in range(POOLED)]))
        first = self.draw(rng)
        items = POOLED_TRIALS if first.metric.kind == "corpus" else POOLED_ITEMS
        most = min(POOLED, 1 + items // len(first.speakers))
        sets = [first, *(self.draw(rng) for _ in range(most - 1))]
        statistics = [np.concatenate([each.statistics[at] for each in sets], axis=1) for at in range(ALIKE)]
        if first.metric.name == "mtwv":  # a search of one test set is none of another
            searches = np.concatenate([np.full(len(each.speakers), place * 1_000) for place, each in enumerate(sets)])
            statistics = [rows + searches[None, :, None] * [0, 0, 1] for rows in statistics]
        pooled = Trials(first.metric, statistics, (None,) * statistics[0].shape[1], tuple(first.folds) * len(sets))
        return float(pooled.values().mean())


def effects(rng: Random, shape: int | tuple[int, ...], spread: float) -> Floats:
    """Normal effects, half of whose variance both upstreams share (upstreams, *shape)."""
    shared, own = rng.normal(size=shape), rng.normal(size=(ALIKE, *np.atleast_1d(shape)))
    return spread * (np.sqrt(SHARED) * shared + np.sqrt(1 - SHARED) * own)


def voices(count: int, items: int) -> Places:
    """The voice of each item, as many of each as can be (items, 1)."""
    return (np.arange(items) % count)[:, None]


def couples(rng: Random, count: int, items: int) -> Places:
    """Two different voices of each item (items, 2)."""
    first = rng.integers(0, count, items)
    return np.stack([first, (first + rng.integers(1, count, items)) % count], axis=1)


def names(places: Places) -> list[Speakers]:
    """The voices of items by name."""
    return [tuple(f"voice-{place}" for place in sorted(set(row))) for row in places.tolist()]


def levels(rng: Random, places: Places, spread: float, item_spread: float) -> Floats:
    """Effects of items: those of their voices and their own (upstreams, items)."""
    of_voices = effects(rng, int(places.max()) + 1, spread / np.sqrt(places.shape[1]))
    return of_voices[:, places].sum(axis=2) + effects(rng, len(places), item_spread)


def trials(metric: str, statistics: Floats, places: Places, folds: Sequence[str] = ()) -> Trials:
    """Of one seed: statistics (upstreams, items, statistics)."""
    return Trials(get_metric(metric), [rows[None] for rows in statistics], names(places), folds)


def of_errors(
    rng: Random, metric: str, count: int, items: int, *, rate: float, spread: float, length: float = 0, folds: int = 0
) -> Trials:
    """Errors of a metric in so many utterances of so many voices, each with one word and `length` more on average.

    A voice in the middle has the rate, the voices' log odds of an error have the spread; folds share the voices out.
    """
    places = voices(count, items)
    totals = 1 + rng.poisson(length, items)
    odds = logit(rate) + levels(rng, places, spread, 0.7)
    errors = rng.binomial(totals, expit(odds))
    statistics = np.stack([errors, np.broadcast_to(totals, errors.shape)], axis=2)
    marks = [str(place % folds) for place in places[:, 0]] if folds else ()
    return trials(metric, statistics.astype(np.float64), places, marks)


def of_translations(rng: Random, count: int, items: int) -> Trials:
    """N-grams of translations, of which some lack a token or two; a token behind a right one is right more often."""
    places = voices(count, items)
    wanted = 4 + rng.poisson(8, items)
    lengths = np.maximum(4, wanted - rng.binomial(2, 0.4, (ALIKE, items)))
    chances = expit(0.2 + levels(rng, places, 0.4, 0.5))[:, :, None]
    shape = (ALIKE, items, int(wanted.max()))
    kept, right = rng.random(shape) < 0.5, rng.random(shape) < chances
    for token in range(1, shape[2]):
        right[:, :, token] = np.where(kept[:, :, token], right[:, :, token - 1], right[:, :, token])
    runs = [right & (np.arange(shape[2]) < lengths[:, :, None])]
    for order in range(1, 4):
        runs.append(runs[-1][:, :, :-1] & runs[0][:, :, order:])
    matches = [run.sum(axis=2) for run in runs]
    found = [lengths - order for order in range(4)]
    references = [np.broadcast_to(each, lengths.shape) for each in (wanted, wanted - 3)]
    return trials("bleu", np.stack([*matches, *found, lengths, *references], axis=2).astype(np.float64), places)


def of_turns(rng: Random, count: int, items: int) -> Trials:
    """Seconds of wrong speaker labels in recordings of two voices, some of which go wrong altogether."""
    places = couples(rng, count, items)
    totals = rng.gamma(8, 1.5, items)
    failed = 2.0 * (rng.random((ALIKE, items)) < 0.05)
    errors = totals * np.exp(np.log(0.12) + levels(rng, places, 0.4, 0.5) + failed)
    return trials("der", np.stack([errors, np.broadcast_to(totals, errors.shape)], axis=2), places)


def of_slots(rng: Random, count: int, items: int) -> Trials:
    """F1 of an utterance's one to four slots, of which some are missed, and others found in their place."""
    places = voices(count, items)
    meant = 1 + rng.binomial(3, 0.4, items)
    right = rng.binomial(meant, expit(1.3 + levels(rng, places, 0.6, 0.8)))
    found = right + rng.binomial(meant - right, 0.7)
    shares = 2 * right / (meant + found)
    return trials("slot_type_f1", shares[:, :, None], places)


def of_shares(rng: Random, count: int, items: int) -> Trials:
    """Average precisions, crowded towards nothing and towards all."""
    places = voices(count, items)
    shares = expit(-0.5 + 2 * levels(rng, places, 0.6, 1.0))
    return trials("map_r", shares[:, :, None], places)


def of_waveforms(
    rng: Random, metric: str, count: int, items: int, *, mixed: bool, scale: Callable[..., Floats]
) -> Trials:
    """A number a recording: `scale` of the effects of its voice (or both, where it is mixed), and its own."""
    places = couples(rng, count, items) if mixed else voices(count, items)
    made = scale(levels(rng, places, 0.5, 0.8), rng)
    return trials(metric, made[:, :, None], places)


def decibels(found: Floats, rng: Random) -> Floats:
    """Improvements with long tails: one in twenty separations takes one voice for the other."""
    failed = rng.random(found.shape) < 0.05
    return 8 + 3 * found - 9 * failed


def between(low: float, high: float, middle: float, found: Floats, rng: Random) -> Floats:
    """A score between two bounds, crowded towards the nearer one."""
    return low + (high - low) * expit(logit((middle - low) / (high - low)) + 0.5 * found)


def of_verification(rng: Random, count: int, each: int, targets: int, others: int) -> Trials:
    """Cosines of embeddings: a voice's centre and what differs between its recordings, in some voices more."""
    size = 8
    speakers = np.repeat(np.arange(count), each)
    centers = effects(rng, (count, size), 1.0)
    restless = np.exp(effects(rng, count, 0.2))
    vectors = centers[:, speakers] + restless[:, speakers, None] * effects(rng, (len(speakers), size), 1.2)
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    one, other = np.triu_indices(len(speakers), 1)
    same = speakers[one] == speakers[other]
    chosen = np.concatenate([
        rng.choice(np.flatnonzero(same), targets, replace=False),
        rng.choice(np.flatnonzero(~same), others, replace=False),
    ])  # fmt: skip
    one, other = one[chosen], other[chosen]
    cosines = np.einsum("und,und->un", vectors[:, one], vectors[:, other])
    statistics = np.stack([cosines, np.broadcast_to(same[chosen], cosines.shape)], axis=2)
    return trials("eer", statistics, np.stack([speakers[one], speakers[other]], axis=1))


def of_searches(rng: Random, count: int, queries: int, documents: int, held: float) -> Trials:
    """Scores of what is searched for in recordings of other voices, or where voices are unknown (0), in all.

    So many of the recordings hold what is searched for, on the average over searches.
    """
    known = max(count, 1)
    query, document = (np.repeat(np.arange(queries), documents), np.tile(np.arange(documents), queries))
    chances = rng.gamma(1.0, held / documents, queries)
    holds = rng.random(len(query)) < chances[query]
    fits = 4.5 + effects(rng, queries, 1.0)[:, query] + effects(rng, documents, 0.7)[:, document]
    if count:  # one voice of all would be a test set of its own, which no interval knows of
        fits = fits + (effects(rng, known, 0.7)[:, query % known] + effects(rng, known, 0.7)[:, document % known])
    drift = effects(rng, documents, 0.3)[:, document]
    found = np.where(holds, fits, 0) + drift + effects(rng, len(query), 1.0)
    compared = query % known != document % known if count else np.ones(len(query), dtype=bool)
    found, query, document, holds = found[:, compared], query[compared], document[compared], holds[compared]
    scores = np.array([standardised(row, query) for row in found])
    statistics = np.stack([scores, *(np.broadcast_to(each, scores.shape) for each in (holds, query))], axis=2)
    units = (query % known, document % known) if count else (query, queries + document)
    return trials("mtwv", statistics, np.stack(units, axis=1))


def of_clusters(rng: Random, count: int, items: int, classes: int) -> Trials:
    """As many clusters as classes: some find the cluster of their class, others any, in some voices more often."""
    places = voices(count, items)
    meant = np.arange(items) // count % classes
    right = rng.random((ALIKE, items)) < expit(0.3 + levels(rng, places, 0.6, 0.7))
    found = np.where(right, meant, rng.integers(0, classes, (ALIKE, items)))
    statistics = np.stack([found, np.broadcast_to(meant, found.shape)], axis=2)
    return trials("v_measure", statistics.astype(np.float64), places)


def _populations() -> list[Population]:
    """One at least for each metric; sizes are those of the test sets of `mini` and of the official corpora."""
    found: list[Population] = []

    def add(metric: str, like: str, size: str, draw: Callable[..., Trials], *sizes: object, **how: object) -> None:
        by_size = metric == "v_measure"
        found.append(Population(metric, like, size, lambda rng: draw(rng, *sizes, **how), by_size))

    def errors(metric: str, like: str, count: int, items: int, **how: object) -> None:
        add(metric, like, f"{count} voices, {items} utterances", of_errors, metric, count, items, **how)

    def waveforms(metric: str, like: str, count: int, items: int, scale: Callable[..., Floats], mixed: bool) -> None:
        of = "mixtures of two" if mixed else "recordings"
        add(metric, like, f"{count} voices, {items} {of}", of_waveforms, metric, count, items, mixed=mixed, scale=scale)

    errors("accuracy", "mini KS", 8, 288, rate=0.3, spread=0.7)
    errors("accuracy", "Fluent Speech Commands", 10, 3_793, rate=0.05, spread=0.8)
    errors("accuracy", "IEMOCAP in five folds", 10, 5_531, rate=0.35, spread=0.3, folds=5)
    errors("accuracy", "VoxCeleb1 SID", 1_251, 8_251, rate=0.3, spread=1.0)
    errors("wer", "mini", 8, 484, rate=0.35, spread=0.6, length=4)
    errors("wer", "LibriSpeech test-clean", 40, 2_620, rate=0.06, spread=0.6, length=19)
    errors("cer", "mini", 8, 484, rate=0.2, spread=0.6, length=24)
    errors("per", "mini", 8, 484, rate=0.3, spread=0.5, length=17)
    errors("slot_value_cer", "mini", 8, 484, rate=0.4, spread=0.5, length=7)
    add("slot_type_f1", "mini", "8 voices, 484 utterances", of_slots, 8, 484)
    add("der", "mini", "8 voices, 120 recordings of two", of_turns, 8, 120)
    add("der", "Libri2Mix", "40 voices, 3000 recordings of two", of_turns, 40, 3_000)
    waveforms("si_sdri", "mini SS", 8, 120, decibels, True)
    waveforms("si_sdri", "Libri2Mix", 40, 3_000, decibels, True)
    for like, count, items in (("mini SE", 8, 100), ("VoiceBank-DEMAND", 2, 824)):
        waveforms("si_sdri", like, count, items, decibels, False)
        waveforms("stoi", like, count, items, partial(between, -1.0, 1.0, 0.85), False)
        waveforms("pesq", like, count, items, partial(between, 0.999, 4.64389, 1.5 if count > 2 else 2.6), False)
    add("map_r", "mini KS", "8 voices, 288 recordings", of_shares, 8, 288)
    add("v_measure", "mini KS", "8 voices, 288 recordings of 12 classes", of_clusters, 8, 288, 12)
    add("eer", "mini", "8 voices, 8000 trials", of_verification, 8, 30, 3_480, 4_520)
    add("eer", "VoxCeleb1-O, a fifth", "40 voices, 7560 trials", of_verification, 40, 24, 3_780, 3_780)
    add("mtwv", "mini, a quarter", "8 voices, 119 searches in 121", of_searches, 8, 119, 121, 1.5)
    add("mtwv", "QUESST 2014, a twentieth", "138 searches in 122", of_searches, 0, 138, 122, 3.0)
    add("bleu", "mini ASR", "8 voices, 484 utterances", of_translations, 8, 484)
    add("bleu", "CoVoST 2", "9,000 voices, 15,531 utterances", of_translations, 9_000, 15_531)
    return found  # seeds of the counts are by place: a new one stands last


POPULATIONS = tuple(_populations())
