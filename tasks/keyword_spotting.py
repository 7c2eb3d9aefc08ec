"""Keyword spotting: which of a few command words is said (Warden, arXiv:1804.03209; SUPERB, arXiv:2105.01051)."""

from downstreams._recipe import FAST_UTTERANCE, POWERS_OF_TEN, Recipe
from tasks._audio import AudioRecipe
from tasks._base import Task, register_task

register_task(
    Task(
        name="ks",
        title="Keyword spotting",
        paper="arXiv:1804.03209",
        label="keyword",
        head="utterance_linear",
        metrics=("accuracy",),
        disjoint="voice",
        recipes={
            "fast": FAST_UTTERANCE,
            # Classes are drawn equally often and the level is lowered by 3 dB, as in s3prl. Its valid score is drawn
            # at random, too; ours looks at every recording once, so that the choice of a rate can be repeated.
            "superb": Recipe(
                name="superb",
                steps=200_000,
                batch_size=32,
                learning_rates=POWERS_OF_TEN,
                eval_every=5_000,
                balanced=True,
            ),
        },
        audio={"superb": AudioRecipe(gain_db=-3.0)},
    )
)
