"""Emotion recognition: how something is said (IEMOCAP, Busso et al., 2008, doi:10.1007/s10579-008-9076-6; SUPERB)."""

from downstreams._recipe import FAST_UTTERANCE, POWERS_OF_TEN, Recipe
from tasks._base import Task, register_task

register_task(
    Task(
        name="er",
        title="Emotion recognition",
        paper="doi:10.1007/s10579-008-9076-6",
        label="emotion",
        head="utterance_linear",
        metrics=("accuracy",),
        disjoint="voice",
        folds="session",
        recipes={
            "fast": FAST_UTTERANCE,
            # Batches of 4 accumulated over 8 are one mean over 32.
            "superb": Recipe(
                name="superb", steps=30_000, batch_size=32, learning_rates=POWERS_OF_TEN, eval_every=1_000
            ),
        },
    )
)
