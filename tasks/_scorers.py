"""How two recordings are compared, by the vectors or frames that a head gives: higher is more alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from core.lengths import bounded_batches
from core.metrics import Floats
from core.registry import Registry

Places = npt.NDArray[np.int64]
Scorer = Callable[[Sequence[Any], Places], Floats]
SCORERS: Registry[Scorer] = Registry("scorer", group="frostbench.scorers")

SHORTEST_QUERY = 5  # frames; below it every document scores 0, as in SUPERB
BATCH_FRAMES = 40_000  # of documents that a query is laid over at a time
SMALLEST = 1e-9  # of a deviation or a range that is divided by, as in SUPERB


def cosine(vectors: Sequence[Any], pairs: Places) -> Floats:
    """Cosine of the angle between two vectors, in any order; 0 where one has no length.

    Args:
        vectors: of the recordings, equally long.
        pairs: places of two recordings (pairs, 2).

    Returns: (pairs,).
    """
    points, places = np.asarray(vectors, dtype=np.float64), np.sort(pairs, axis=1)
    first, second = points[places[:, 0]], points[places[:, 1]]
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return np.asarray((first * second).sum(axis=1) / np.where(lengths > 0, lengths, 1.0))


def dtw(frames: Sequence[Any], pairs: Places) -> Floats:
    """How well the first recording fits into the second, by subsequence dynamic time warping, as SUPERB's QbE has it.

    Every dimension is standardised over all frames of the recordings that are compared. The distance of two frames is
    exp(1 - cosine) - 1, scaled to [0, 1] over the second recording for each frame of the first. The path takes every
    frame of the first once, and goes on by 0, 1 or 2 frames in the second; it may begin and end anywhere there.

    Args:
        frames: of the recordings (frames, size).
        pairs: places of what is sought, and of what it is sought in (pairs, 2).

    Returns: minus the mean distance along the best path (pairs,); 0 where what is sought has fewer than 5 frames.
    """
    directions = _directions([frames[place] for place in np.unique(pairs)])
    by_place = dict(zip(np.unique(pairs).tolist(), directions, strict=True))
    documents = sorted(set(pairs[:, 1].tolist()), key=lambda place: len(by_place[place]))
    lengths = [len(by_place[place]) for place in documents]
    batches = [
        ([documents[at] for at in batch], _repeated_to_length([by_place[documents[at]] for at in batch]))
        for batch in bounded_batches(range(len(documents)), lengths, BATCH_FRAMES)
    ]
    found = np.zeros(len(pairs))
    order = np.argsort(pairs[:, 0], kind="stable")
    for place, group in groupby(order.tolist(), key=lambda at: int(pairs[at, 0])):
        query, rows = by_place[place], list(group)
        if len(query) >= SHORTEST_QUERY:
            costs = {
                document: cost
                for named, padded in batches
                for document, cost in zip(named, _costs(query, padded).tolist(), strict=True)
            }
            found[rows] = [-costs[int(pairs[at, 1])] / len(query) for at in rows]
    return found


def _directions(recordings: Sequence[Any]) -> list[torch.Tensor]:
    """Frames of length 1, after every dimension was standardised over all of them."""
    whole = torch.cat([torch.as_tensor(frames, dtype=torch.float32) for frames in recordings])
    whole = (whole - whole.mean(dim=0)) / whole.std(dim=0).clamp(min=SMALLEST)
    return list(torch.nn.functional.normalize(whole, dim=1).split([len(frames) for frames in recordings]))


def _repeated_to_length(recordings: Sequence[torch.Tensor]) -> torch.Tensor:
    """(recordings, longest, size): each repeats its last frame.

    No range and no best path changes by that: a path that goes there costs what it costs to stay on the last frame.
    """
    longest = torch.arange(max(map(len, recordings)))
    return torch.stack([frames[longest.clamp(max=len(frames) - 1)] for frames in recordings])


def _costs(query: torch.Tensor, documents: torch.Tensor) -> torch.Tensor:
    """Sum of distances along the best path in each document (documents,)."""
    distances = (1 - (documents @ query.T).permute(2, 0, 1)).exp() - 1  # (query frames, documents, frames)
    least, most = distances.aminmax(dim=2, keepdim=True)
    distances = (distances - least) / (most - least).clamp(min=SMALLEST)
    row, *others = distances.unbind()
    for distance in others:
        best = row.clone()
        torch.minimum(best[:, 1:], row[:, :-1], out=best[:, 1:])
        torch.minimum(best[:, 2:], row[:, :-2], out=best[:, 2:])
        row = best.add_(distance)
    return row.amin(dim=1)


SCORERS.add("cosine", cosine)
SCORERS.add("dtw", dtw)


def scores(scorer: str, found: Sequence[Any], pairs: Sequence[tuple[int, int]]) -> list[float]:
    """The scores of pairs.

    Args:
        scorer: its name.
        found: what a head gives for each recording.
        pairs: places of two recordings.
    """
    return [float(score) for score in SCORERS.get(scorer)(found, np.asarray(pairs, dtype=np.int64))]


def standardised(found: Sequence[float], searches: Sequence[int]) -> list[float]:
    """Scores by how many deviations they are above the mean of their search, so that searches can share a threshold.

    Args:
        found: scores.
        searches: what was searched for; scores of one search have the same number.
    """
    values, numbers = np.asarray(found), np.asarray(searches)
    made = np.empty(len(values))
    for number in np.unique(numbers):
        chosen = numbers == number
        made[chosen] = (values[chosen] - values[chosen].mean()) / max(values[chosen].std(), SMALLEST)
    return [float(score) for score in made]
