"""Slot filling: what is said, with the marks of its slots (Audio SNIPS, Lai et al., arXiv:2010.13826; SUPERB)."""

from downstreams._recipe import POWERS_OF_TEN, Recipe, SpecAugment
from tasks._base import Task, register_task

register_task(
    Task(
        name="sf",
        title="Slot filling",
        paper="arXiv:2010.13826",
        label="marked",
        head="ctc",
        metrics=("slot_type_f1", "slot_value_cer"),
        disjoint="voice",
        recipes={
            # An eighth of SUPERB's widths, at 50 frames a second, as speech recognition's.
            "fast": Recipe(
                name="fast",
                steps=800,
                batch_size=16,
                batch_seconds=64.0,
                learning_rates=(4e-3,),
                eval_every=100,
                schedule="linear",
                head={"projector_size": 128, "lstm_size": 128, "frame_samples": 320, "unit": "marked"},
            ),
            # The head of speech recognition, with two outputs more for each kind of slot. Targets end with a symbol for
            # the end; kept, since the published numbers have it.
            "superb": Recipe(
                name="superb",
                steps=200_000,
                batch_size=32,
                learning_rates=POWERS_OF_TEN,
                eval_every=2_000,
                even_batches=True,
                spec_augment=SpecAugment(),
                head={"unit": "marked", "end_marks": True},
            ),
        },
    )
)
