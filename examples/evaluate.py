# ruff: noqa: D100, T201
# A notebook in the percent format: an editor runs it cell by cell, `python examples/evaluate.py` as a whole.
# The first cell takes a minute or two on a laptop; `FROSTBENCH_EXAMPLE_LIMIT=40` makes it a quick try.

# %% Frozen upstreams on tasks: what is finished is skipped, so this cell can be run again.
import os

import torch
from my_upstream import Loudness

import frostbench as fb

UPSTREAMS = os.environ.get("FROSTBENCH_EXAMPLE_UPSTREAMS", "fbank hf:microsoft/wavlm-base-plus").split()
LIMIT = int(os.environ.get("FROSTBENCH_EXAMPLE_LIMIT", "0")) or None

results = fb.evaluate(UPSTREAMS, ["ks", "sid"], corpus="mini", seeds=(0, 1, 2), limit=LIMIT)

# %% One row an upstream and task, over the seeds.
print(results.cells())

# %% One row a run; one a test utterance and run; one a layer.
print(results.runs()[["upstream", "task", "seed", "value", "learning_rate", "seconds"]])
print(results.predictions().query("task == 'ks' and prediction != reference").head())
print(results.layers().groupby(["upstream", "task", "layer"])["weight"].mean())

# %% Everything as one page, and the table as Markdown.
results.page("leaderboard.html")
print(results.to_markdown())

# %% What a folder of results holds.
print(fb.load("results", custom=LIMIT is not None).cells().pivot(index="upstream", columns="task", values="mean"))

# %% An upstream of one's own: its contract, then its results, in this process.
fb.check(Loudness())
own = fb.evaluate([Loudness()], ["ks"], limit=LIMIT)
print(own.cells()[["upstream", "task", "mean", "low", "high"]])

# %% Hidden states alone.
wavs, lengths = fb.pad([torch.randn(16_000) / 10, torch.randn(12_000) / 10])
states = fb.upstream(UPSTREAMS[-1]).extract(wavs, lengths)
print(len(states.layers), "layers of", tuple(states.layers[0].shape), "with", states.lengths.tolist(), "valid frames")
