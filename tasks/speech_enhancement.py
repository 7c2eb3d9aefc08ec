"""Speech enhancement: clean speech out of noisy (Valentini-Botinhao et al., Interspeech 2016; SUPERB-SG)."""

from downstreams._recipe import POWERS_OF_TEN, Recipe
from tasks._base import Task, register_task

register_task(
    Task(
        name="se",
        title="Speech enhancement",
        paper="doi:10.21437/Interspeech.2016-159",
        label="clean",
        head="spectral_masks",
        metrics=("pesq", "stoi", "si_sdri"),
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
                name="superb", steps=150_000, batch_size=8, learning_rates=POWERS_OF_TEN, eval_every=1_250
            ),
        },
        disjoint="voice",
    )
)
