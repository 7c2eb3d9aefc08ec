"""Speaker identification: who of a closed set speaks (VoxCeleb1, arXiv:1706.08612; SUPERB, arXiv:2105.01051)."""

from downstreams._recipe import FAST_UTTERANCE, POWERS_OF_TEN, Recipe
from tasks._audio import AudioRecipe
from tasks._base import Task, register_task

register_task(
    Task(
        name="sid",
        title="Speaker identification",
        paper="arXiv:1706.08612",
        label="speaker",
        head="utterance_linear",
        metrics=("accuracy",),
        recipes={
            "fast": FAST_UTTERANCE,
            # s3prl's default rate of 1e-4 loses 14 points against 1e-1 (its issue 268): the grid has both. Its batches
            # of 8 accumulated over 4 are one mean over 32. Its random 8 s crops are new each time only with --exact.
            "superb": Recipe(
                name="superb",
                steps=200_000,
                batch_size=32,
                learning_rates=POWERS_OF_TEN,
                eval_every=5_000,
            ),
        },
        audio={"superb": AudioRecipe(crop_samples=128_000, crops=4)},
    )
)
