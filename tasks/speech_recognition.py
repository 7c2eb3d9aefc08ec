"""Speech recognition: what is said, in characters (LibriSpeech, Panayotov et al., ICASSP 2015; SUPERB)."""

from downstreams._recipe import POWERS_OF_TEN, Recipe, SpecAugment
from tasks._base import Task, register_task

register_task(
    Task(
        name="asr",
        title="Speech recognition",
        paper="arXiv:2105.01051",
        label="text",
        head="ctc",
        metrics=("wer",),
        disjoint="voice",
        recipes={
            # An eighth of SUPERB's widths, at 25 frames a second. An update costs what its audio costs: small batches
            # give more of them, and CTC leaves its blanks sooner. One rate: a search would halve the updates.
            "fast": Recipe(
                name="fast",
                steps=1_350,
                batch_size=8,
                batch_seconds=64.0,
                learning_rates=(4e-3,),
                eval_every=150,
                schedule="linear",
                warmup_steps=75,
                head={"projector_size": 128, "lstm_size": 128, "frame_samples": 640},
            ),
            # s3prl says 32 but halves every batch, since it compares frames with samples: 16 is what was run. Targets
            # end with a symbol for the end; kept, since the published numbers have it.
            "superb": Recipe(
                name="superb",
                steps=200_000,
                batch_size=16,
                learning_rates=POWERS_OF_TEN,
                eval_every=2_000,
                even_batches=True,
                spec_augment=SpecAugment(),
                head={"end_marks": True},
            ),
        },
    )
)
