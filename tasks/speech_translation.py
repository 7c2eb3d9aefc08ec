"""Speech translation: what is said, in another language (CoVoST 2, Wang et al., arXiv:2007.10310; SUPERB-SG)."""

from downstreams._recipe import POWERS_OF_TEN, Recipe
from tasks._base import Task, register_task

register_task(
    Task(
        name="st",
        title="Speech translation",
        paper="arXiv:2007.10310",
        label="translation",
        head="attention_decoder",
        metrics=("bleu",),
        disjoint=None,  # nobody says that the speakers whom CoVoST 2 adds to Common Voice's train are others
        recipes={
            "fast": Recipe(
                name="fast",
                steps=1_000,
                batch_size=16,
                learning_rates=(1e-3,),
                eval_every=200,
                schedule="linear",
                warmup_steps=100,
                head={
                    "size": 128, "heads": 4, "inner_size": 512, "encoder_layers": 2, "decoder_layers": 2,
                    "conv_size": 256, "beam": 4, "most_symbols": 40, "frame_samples": 320, "unit": "words",
                },
            ),
            # Eight batches of 10,000 frames of 20 ms each make an update. Behind the warm-up the rate drops a
            # hundredfold; kept, since the published numbers have it.
            "superb": Recipe(
                name="superb",
                steps=32_000,
                batch_size=1_600,
                batch_seconds=1_600.0,
                learning_rates=POWERS_OF_TEN,
                eval_every=2_000,
                clip=10.0,
                schedule="inverse_sqrt_s3prl",
                warmup_steps=10_000,
                even_batches=True,
            ),
        },
    )
)  # fmt: skip
