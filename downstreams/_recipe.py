"""How a head is trained: everything the protocol fixes, and the learning rates it leaves to a search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

POWERS_OF_TEN = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)  # the grid of SUPERB's organisers


@dataclass(frozen=True)
class SpecAugment:
    """Masks on features, after Park et al. (arXiv:1904.08779); the defaults are SUPERB's for ASR.

    Attributes:
        warp_frames: the time axis is bent around a point that moves by less than so many frames; 0 is off.
        time_masks: how many.
        time_width: their width is below so many frames.
        feature_masks: how many, on the feature axis.
        feature_width: their width is below so many features.
    """

    warp_frames: int = 5
    time_masks: int = 2
    time_width: int = 40
    feature_masks: int = 4
    feature_width: int = 50


@dataclass(frozen=True)
class Recipe:
    """Settings of a training. Optimiser is Adam (0.9, 0.999) without weight decay, as in SUPERB.

    Attributes:
        name: "fast" or "superb"; "custom" where a user changed something.
        steps: optimiser updates.
        batch_size: utterances of an update.
        batch_seconds: padded audio of an update at most, so that long utterances come in smaller batches; 0 has no end.
        learning_rates: grid; the best on valid is taken.
        eval_every: updates between looks at valid; the best state is kept.
        clip: largest gradient norm.
        schedule: "constant", or "linear" decay to zero over the steps.
        patience: looks at valid without improvement after which training ends; 0 never ends it early.
        normalise: layer norm of every hidden state before the weighted sum.
        balanced: train draws every class equally often, with replacement.
        even_batches: batches of neighbours in order of length, the same in every epoch, instead of blurred ones.
        spec_augment: masks on the mixed features of train.
        gain_db: level change of all recordings, in decibels.
        crop_samples: train recordings above it are cut to random pieces of this length; 0 leaves them whole.
        crops: how many such pieces of a recording are made and kept; without a cache (`--exact`) there is no end.
        head: options of the head that differ from its defaults.
    """

    name: str
    steps: int
    batch_size: int
    learning_rates: tuple[float, ...]
    eval_every: int
    batch_seconds: float = 0.0
    clip: float = 1.0
    schedule: Literal["constant", "linear"] = "constant"
    patience: int = 0
    normalise: bool = False
    balanced: bool = False
    even_batches: bool = False
    spec_augment: SpecAugment | None = None
    gain_db: float = 0.0
    crop_samples: int = 0
    crops: int = 0
    head: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Recipe:
        """The inverse of `dataclasses.asdict`, after a passage through JSON."""
        masks = content["spec_augment"]
        return cls(
            **{
                **content,
                "learning_rates": tuple(content["learning_rates"]),
                "spec_augment": None if masks is None else SpecAugment(**masks),
            }
        )


# The default of the mean-pooled tasks: thousands of updates a second on one core, so four rates take seconds.
FAST_UTTERANCE = Recipe(
    name="fast",
    steps=3_000,
    batch_size=32,
    learning_rates=(1e-1, 1e-2, 1e-3, 1e-4),
    eval_every=150,
)
