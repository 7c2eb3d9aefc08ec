"""How a head is trained: everything the protocol fixes, and the learning rates it leaves to a search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

from core.digest import LATER
from core.finetuning import FineTuning

ONCE_HERE = {"gain_db", "crop_samples", "crops"}  # what is made of recordings is `tasks/_audio.py`'s now
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
    """Settings of a training. Optimiser is Adam (0.9, 0.999), without weight decay where SUPERB has none.

    Attributes:
        name: "fast" or "superb"; "custom" where a user changed something.
        steps: optimiser updates; 0 where the head learns nothing.
        batch_size: utterances of an update.
        batch_seconds: padded audio of an update at most, so that long utterances come in smaller batches; 0 has no end.
        learning_rates: grid; the best on valid is taken. Where the head learns nothing it is 0 alone.
        eval_every: updates between looks at valid; the best state is kept.
        clip: largest gradient norm.
        schedule: name of what becomes of the rate over the updates (`_schedules.py`).
        warmup_steps: updates over which the rate rises from zero.
        weight_decay: share of every weight that an update takes off, times the rate, apart from the gradient (AdamW).
        patience: looks at valid without improvement after which training ends; 0 never ends it early.
        search_steps: updates after which only that candidate of a run goes on that is best on valid so far; 0 trains
            all to their end.
        normalise: layer norm of every hidden state before the weighted sum.
        layers: "weighted" learns a sum of all, "single" tries one after the other (with every rate) and takes the best
            on valid.
        balanced: train draws every class equally often, with replacement.
        even_batches: batches of neighbours in order of length, the same in every epoch, instead of blurred ones.
        spec_augment: masks on the mixed features of train.
        head: options of the head that differ from its defaults.
        layer: the only one that the head is given (`run --layers`); None goes by `layers`. No task declares it.
        finetune: how the upstream is trained with the head (`run --finetune`); None leaves it frozen. No task declares
            it.
    """

    name: str
    steps: int
    batch_size: int
    learning_rates: tuple[float, ...]
    eval_every: int
    batch_seconds: float = 0.0
    clip: float = 1.0
    schedule: str = "constant"
    warmup_steps: int = 0
    weight_decay: float = 0.0
    patience: int = 0
    normalise: bool = False
    layers: Literal["weighted", "single"] = "weighted"
    balanced: bool = False
    even_batches: bool = False
    spec_augment: SpecAugment | None = None
    head: Mapping[str, Any] = field(default_factory=dict)
    search_steps: int = field(default=0, metadata=LATER)
    layer: int | None = field(default=None, metadata=LATER)
    finetune: FineTuning | None = field(default=None, metadata=LATER)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Recipe:
        """The inverse of `dataclasses.asdict`, after a passage through JSON; also reads what older versions wrote."""
        masks = content["spec_augment"]
        return cls(
            **{
                **{key: value for key, value in content.items() if key not in ONCE_HERE},
                "learning_rates": tuple(content["learning_rates"]),
                "spec_augment": None if masks is None else SpecAugment(**masks),
            }
        )


class Candidate(NamedTuple):
    """What one training of a recipe's search tries.

    Attributes:
        learning_rate: of the optimiser; of a fine-tuning 0, for the head's is the one chosen on the frozen upstream.
        layer: the only one that the head is given; None is a learned sum of all.
        upstream_rate: of a fine-tuning, the upstream's; None where it is frozen.
    """

    learning_rate: float
    layer: int | None = None
    upstream_rate: float | None = None

    def __str__(self) -> str:
        if self.upstream_rate is not None:
            return f"learning rate {self.upstream_rate:g} of the upstream"
        return f"learning rate {self.learning_rate:g}" + ("" if self.layer is None else f", layer {self.layer}")


def candidates_of(recipe: Recipe, num_layers: int) -> list[Candidate]:
    """All that a recipe tries on an upstream of so many layers."""
    if recipe.finetune is not None:
        return [Candidate(0.0, None, rate) for rate in recipe.finetune.learning_rates]
    layers = range(num_layers) if recipe.layers == "single" and recipe.layer is None else (recipe.layer,)
    return [Candidate(rate, layer) for layer in layers for rate in recipe.learning_rates]


def updates_of(recipe: Recipe, candidates: int) -> int:
    """How many updates so many candidates of a run take together, if none ends early."""
    if not recipe.search_steps:
        return recipe.steps * candidates
    return recipe.steps + recipe.search_steps * (candidates - 1)


def finetuning_recipe(recipe: Recipe, how: FineTuning) -> Recipe:
    """How head and upstream are trained together, once the head has been trained by a recipe.

    The head's learning rate is one of the recipe's; all rates rise linearly, and fall linearly to zero.
    """
    steps = max(1, round(recipe.steps * how.share))
    return replace(
        recipe,
        steps=steps,
        eval_every=max(1, steps // how.looks),
        schedule="linear",
        warmup_steps=max(1, round(steps * how.warmup)),
        patience=0,
        search_steps=0,
        finetune=None,
    )


def untrained_recipe(recipe: Recipe) -> Recipe:
    """How a head that is not trained goes by a recipe: on the same features, each layer is tried, best on valid."""
    return Recipe(recipe.name, 0, 1, (0.0,), 1, normalise=recipe.normalise, layers="single")


# The default of the mean-pooled tasks: thousands of updates a second on one core. The search takes 4,800 updates in
# place of 12,000, and moved accuracies on `mini` by -0.2 +- 0.4 (6 upstreams, 3 tasks, 3 seeds; 24 of 54 rates moved).
FAST_UTTERANCE = Recipe(
    name="fast",
    steps=3_000,
    batch_size=32,
    learning_rates=(1e-1, 1e-2, 1e-3, 1e-4),
    eval_every=150,
    search_steps=600,
)
