"""What is chosen on valid: the better metric, and of equals the smaller loss; of equals in both the first."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

Candidate = TypeVar("Candidate")


def best_on_valid(
    candidates: Iterable[Candidate], valid: Callable[[Candidate], tuple[float, float]], sign: int
) -> Candidate | None:
    """The candidate that is best on valid; None of none.

    Args:
        candidates: states of a training, or trainings with different learning rates; none that diverged.
        valid: metric and loss of a candidate on valid.
        sign: 1 where a higher metric is better, else -1.
    """

    def rank(candidate: Candidate) -> tuple[float, float]:
        metric, loss = valid(candidate)
        return sign * metric, -loss

    return max(candidates, key=rank, default=None)
