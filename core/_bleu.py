"""BLEU, as sacreBLEU computes it by default: from sums, so that it can be resampled."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
ORDERS = 4  # n-grams of one word to four


@cache
def _scorer() -> Any:
    from sacrebleu.metrics.bleu import BLEU  # importing it takes a third of a second

    return BLEU()


def ngram_matches(prediction: str, reference: str) -> tuple[int, ...]:
    """What a translation adds to BLEU: 11 numbers.

    Words and signs of punctuation are tokens (13a, with case). The numbers are the n-grams of the prediction that the
    reference has, too, for one token to four; all n-grams of the prediction, likewise; the tokens of the prediction and
    of the reference; and the reference's n-grams of four, without which there is no value.
    """
    score = _scorer().corpus_score([prediction], [[reference]])
    return (*score.counts, *score.totals, score.sys_len, score.ref_len, max(0, score.ref_len - ORDERS + 1))


def bleu(sums: Floats) -> Floats:
    """BLEU in percent of sums (..., 11) -> (...): the geometric mean of precisions, times the brevity penalty.

    Where no n-gram of an order matches, it counts as half of one, of the next such order as a quarter, and so on
    (NIST's smoothing). NaN where no reference is as long as four tokens.

    Reference: Papineni et al., ACL 2002; Post, WMT 2018 (arXiv:1804.08771).
    """
    matches, found = sums[..., :ORDERS], sums[..., ORDERS : 2 * ORDERS]
    length, wanted, longest = (sums[..., 2 * ORDERS + place] for place in range(3))
    missed = (matches == 0).cumsum(axis=-1)
    precisions = np.where(matches == 0, 0.5**missed, matches) / found
    brevity = np.exp(np.minimum(0, 1 - wanted / length))
    value = 100 * brevity * np.exp(np.log(precisions).mean(axis=-1))
    nothing = (found[..., -1] == 0) | ~matches.any(axis=-1)
    return np.asarray(np.where(longest > 0, np.where(nothing, 0.0, value), np.nan))
