"""How a head is trained: everything the protocol fixes, and the learning rates it leaves to a search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Recipe:
    """Settings of a training. Optimiser is Adam (0.9, 0.999) without weight decay, as in SUPERB.

    Attributes:
        name: "fast" or "superb"; "custom" where a user changed something.
        steps: optimiser updates.
        batch_size: utterances of an update.
        learning_rates: grid; the best on valid is taken.
        eval_every: updates between looks at valid; the best state is kept.
        clip: largest gradient norm.
        schedule: "constant", or "linear" decay to zero over the steps.
        patience: looks at valid without improvement after which training ends; 0 never ends it early.
        normalise: layer norm of every hidden state before the weighted sum.
        head: options of the head that differ from its defaults.
    """

    name: str
    steps: int
    batch_size: int
    learning_rates: tuple[float, ...]
    eval_every: int
    clip: float = 1.0
    schedule: Literal["constant", "linear"] = "constant"
    patience: int = 0
    normalise: bool = False
    head: Mapping[str, Any] = field(default_factory=dict)
