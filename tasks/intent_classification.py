"""Intent classification: what is wanted, in slots (Fluent Speech Commands, arXiv:1904.03670; SUPERB)."""

from downstreams._recipe import FAST_UTTERANCE, POWERS_OF_TEN, Recipe
from tasks._base import Task, register_task

register_task(
    Task(
        name="ic",
        title="Intent classification",
        paper="arXiv:1904.03670",
        label="intent",
        head="utterance_linear",
        metrics=("accuracy",),
        disjoint="voice",
        recipes={
            "fast": FAST_UTTERANCE,
            # The prediction is not held to the 31 valid combinations of slots, in s3prl neither.
            "superb": Recipe(
                name="superb",
                steps=200_000,
                batch_size=32,
                learning_rates=POWERS_OF_TEN,
                eval_every=5_000,
            ),
        },
    )
)
