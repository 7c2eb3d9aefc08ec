"""Speaker diarisation: who speaks when, where two may speak at once (LibriMix, arXiv:2005.11262; SUPERB)."""

from downstreams._recipe import POWERS_OF_TEN, Recipe
from tasks._base import Task, register_task

register_task(
    Task(
        name="sd",
        title="Speaker diarisation",
        paper="arXiv:2005.11262",
        label="turns",
        head="frame_activity",
        metrics=("der",),
        recipes={
            "fast": Recipe(
                name="fast",
                steps=600,
                batch_size=16,
                learning_rates=(5e-3,),
                eval_every=100,
                schedule="linear",
                head={"lstm_size": 128, "frame_samples": 320},
            ),
            # Batches of 8 accumulated over 4.
            "superb": Recipe(name="superb", steps=30_000, batch_size=32, learning_rates=POWERS_OF_TEN, eval_every=500),
        },
        disjoint="voice",
    )
)
