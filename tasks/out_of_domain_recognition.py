"""Speech recognition elsewhere: other languages, spontaneous speech (Tsai et al., ACL 2022; SUPERB-SG's OOD-ASR)."""

from downstreams._recipe import POWERS_OF_TEN, Recipe, SpecAugment
from tasks._base import Task, register_task

# Without slots, "marked" is characters with an end symbol that no space stands before, as s3prl has them here.
HEAD = {"projections": True, "frame_samples": 320, "unit": "marked"}

register_task(
    Task(
        name="ood_asr",
        title="Out-of-domain speech recognition",
        paper="arXiv:2203.06849",
        label="text",
        head="ctc",
        metrics=("wer", "cer"),
        select="cer",  # Mandarin has no words to count; of the others either rate would choose
        disjoint="voice",
        recipes={
            "fast": Recipe(
                name="fast",
                steps=800,
                batch_size=16,
                batch_seconds=64.0,
                learning_rates=(4e-3,),
                eval_every=100,
                schedule="linear",
                head={**HEAD, "projector_size": 128, "lstm_size": 128},
            ),
            "superb": Recipe(
                name="superb",
                steps=500_000,
                batch_size=16,
                learning_rates=POWERS_OF_TEN,
                eval_every=2_000,
                even_batches=True,
                spec_augment=SpecAugment(),
                head={**HEAD, "drop_frames": True, "end_marks": True},
            ),
        },
    )
)
