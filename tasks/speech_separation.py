"""Speech separation: each of two voices that speak at once (LibriMix, arXiv:2005.11262; SUPERB-SG)."""

from downstreams._recipe import POWERS_OF_TEN, Recipe
from tasks._base import Task, register_task

register_task(
    Task(
        name="ss",
        title="Speech separation",
        paper="arXiv:2005.11262",
        label="targets",
        head="spectral_masks",
        metrics=("si_sdri",),
        recipes={
            "fast": Recipe(
                name="fast",
                steps=400,
                batch_size=8,
                learning_rates=(4e-3,),
                eval_every=100,
                schedule="linear",
                head={"lstm_size": 128, "lstm_layers": 2, "dropout": 0.1, "frame_samples": 320},
            ),
            "superb": Recipe(
                name="superb", steps=150_000, batch_size=8, learning_rates=POWERS_OF_TEN, eval_every=2_000
            ),
        },
        disjoint="voice",
    )
)
