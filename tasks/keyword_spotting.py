"""Keyword spotting: which of a few command words is said (Warden, arXiv:1804.03209; SUPERB, arXiv:2105.01051)."""

from downstreams._recipe import Recipe
from tasks._base import Task, register_task

register_task(
    Task(
        name="ks",
        title="Keyword spotting",
        paper="arXiv:1804.03209",
        label="keyword",
        head="utterance_linear",
        metric="accuracy",
        disjoint="voice",
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
