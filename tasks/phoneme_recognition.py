"""Phoneme recognition: what is said, in phonemes by a lexicon (LibriSpeech, Panayotov et al., ICASSP 2015; SUPERB)."""

from downstreams._recipe import POWERS_OF_TEN, Recipe
from tasks._base import Task, register_task

# Linear all through, so it is the frames that have to tell phonemes apart.
HEAD = {"projector_size": 256, "lstm_layers": 0, "unit": "words", "fold": False}

register_task(
    Task(
        name="pr",
        title="Phoneme recognition",
        paper="arXiv:2105.01051",
        label="phones",
        head="ctc",
        metrics=("per",),
        disjoint="voice",
        recipes={
            "fast": Recipe(
                name="fast",
                steps=600,
                batch_size=16,
                batch_seconds=64.0,
                learning_rates=(1e-2,),
                eval_every=100,
                schedule="linear",
                head={**HEAD, "frame_samples": 320},
            ),
            # Batches of 16 accumulated over 2 are one mean over 32. Targets end with a symbol for the end; kept, since
            # the published numbers have it.
            "superb": Recipe(
                name="superb",
                steps=100_000,
                batch_size=32,
                learning_rates=POWERS_OF_TEN,
                eval_every=1_000,
                even_batches=True,
                head={**HEAD, "end_marks": True},
            ),
        },
    )
)
