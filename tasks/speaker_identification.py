"""Speaker identification: who of a closed set speaks (VoxCeleb1, arXiv:1706.08612; SUPERB, arXiv:2105.01051)."""

from downstreams._recipe import Recipe
from tasks._base import Task, register_task

register_task(
    Task(
        name="sid",
        title="Speaker identification",
        paper="arXiv:1706.08612",
        label="speaker",
        head="utterance_linear",
        metric="accuracy",
        recipes={
            "fast": Recipe(
                name="fast",
                steps=3_000,
                batch_size=32,
                learning_rates=(1e-1, 1e-2, 1e-3, 1e-4),
                eval_every=150,
            ),
        },
    )
)
