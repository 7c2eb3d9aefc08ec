"""Query by example: which recordings hold what another one says (QUESST 2014; SUPERB, arXiv:2105.01051)."""

from downstreams._recipe import Recipe
from tasks._audio import AudioRecipe
from tasks._base import Task, register_task

register_task(
    Task(
        name="qbe",
        title="Query by example",
        paper="arXiv:2105.01051",
        label="query",
        head="frames",
        metrics=("mtwv",),
        recipes={
            "fast": Recipe(
                name="fast",
                steps=0,
                batch_size=1,
                learning_rates=(0.0,),
                eval_every=1,
                layers="single",
                head={"frame_samples": 320},
            ),
            "superb": Recipe(
                name="superb", steps=0, batch_size=1, learning_rates=(0.0,), eval_every=1, layers="single"
            ),
        },
        audio={"superb": AudioRecipe(gain_db=-3.0)},
        scorer="dtw",
        against="contains",
    )
)
