"""The four tasks with recipes of a second, in a file of one's own: `--task tests/tiny_tasks.py:KS`."""

from dataclasses import replace

from downstreams._recipe import Recipe
from tasks._base import TASKS

CLASSIFY = Recipe("tiny", steps=120, batch_size=16, learning_rates=(1e-1, 1e-2), eval_every=30)
TRANSCRIBE = Recipe(
    "tiny",
    steps=300,
    batch_size=8,
    learning_rates=(5e-3,),
    eval_every=75,
    schedule="linear",
    head={"projector_size": 32, "lstm_size": 32, "frame_samples": 320, "dropout": 0.0},
)
DIVERGE = Recipe("diverge", steps=10, batch_size=16, learning_rates=(1e30,), eval_every=5, clip=1e30)

KS = replace(TASKS.get("ks"), recipes={"tiny": CLASSIFY})
SID = replace(TASKS.get("sid"), recipes={"tiny": CLASSIFY})
IC = replace(TASKS.get("ic"), recipes={"tiny": CLASSIFY})
ASR = replace(TASKS.get("asr"), recipes={"tiny": TRANSCRIBE})
BROKEN = replace(TASKS.get("ks"), recipes={"diverge": DIVERGE})
