"""An eye on the goal while an upstream learns: what small heads on its features get right on keywords and speakers.

Seconds a look: a part of `mini`'s train and valid rows, means over time, two learning rates. Test is not touched.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from core.feature_cache import Kind
from core.manifest import Utterance
from core.metrics import get_metric
from downstreams._base import HEADS, FeatureShape
from downstreams._data import Examples, PooledExamples, encoded
from downstreams._downstream import Downstream
from downstreams._recipe import FAST_UTTERANCE
from downstreams._training import TrainingRun, choose, train_together
from downstreams.labels._base import Labels
from tasks._base import TASKS, Task
from tasks.corpora._base import open_corpus
from upstreams._base import Upstream
from upstreams._extraction.clips import Clip
from upstreams._extraction.encoding import FrozenUpstream
from upstreams._pretraining.data import header_lengths

POOLED: Kind = "pooled"
TASKS_WATCHED = ("ks", "sid")
ROWS = {"train": 300, "valid": 150}
RECIPE = replace(
    FAST_UTTERANCE, name="goal downstream", steps=600, learning_rates=(1e-1, 1e-2), eval_every=100, search_steps=0
)


@dataclass(frozen=True)
class GoalProbe:
    """Looks at an upstream by tasks of a corpus.

    Attributes:
        corpus: its name or folder.
    """

    corpus: str = "mini"

    def __call__(self, upstream: Upstream) -> Mapping[str, float]:
        """Task -> accuracy on valid in percent, the best of the recipe's learning rates."""
        return {name: self._look(upstream, TASKS.get(name)) for name in TASKS_WATCHED}

    def _look(self, upstream: Upstream, task: Task) -> float:
        manifest = open_corpus(self.corpus).with_label(task.label)
        rows = {split: _drawn(manifest.split(split), count) for split, count in ROWS.items()}
        values = [row.labels[task.label] for row in rows["train"]]
        labels = HEADS.get(task.head).labels_from_train(values, task.label, RECIPE)
        known = [row for row in rows["valid"] if row.labels[task.label] in values]
        data: dict[str, Examples] = {
            "train": _examples(upstream, rows["train"], labels, task.label),
            "valid": _examples(upstream, known, labels, task.label),
        }
        references = [labels.reference(row.labels[task.label]) for row in known]
        metric = get_metric(task.selecting)
        shape = FeatureShape(upstream.hidden_size, upstream.frame_samples)
        models = [
            Downstream.fresh(0, task.head, upstream.num_layers, shape, labels, RECIPE) for _ in RECIPE.learning_rates
        ]
        trained = train_together(
            models,
            data,
            lambda predictions: metric.compute(predictions, references),
            metric.sign,
            RECIPE,
            [TrainingRun(rate, 0) for rate in RECIPE.learning_rates],
            torch.device("cpu"),
        )
        best = choose(trained, metric.sign).valid
        assert best is not None, "what is chosen did not diverge"
        return best


def _drawn(rows: tuple[Utterance, ...], count: int) -> list[Utterance]:
    return random.Random(0).sample(list(rows), min(count, len(rows)))


def _examples(upstream: Upstream, rows: list[Utterance], labels: Labels, label: str) -> PooledExamples:
    device = next((parameter.device for parameter in upstream.parameters()), torch.device("cpu"))
    frozen, kinds = FrozenUpstream(upstream, device), frozenset({POOLED})
    clips = [
        Clip(row.id, row.path, samples, kinds, row.start, row.stop)
        for row, samples in zip(rows, header_lengths(rows), strict=True)
    ]
    means: dict[str, torch.Tensor] = {}
    for batch, found in frozen.stream(frozen.batches(clips)):
        means.update(zip((clip.key for clip in batch), found[POOLED], strict=True))
    features = torch.stack([means[clip.key] for clip in clips])  # (utterances, 1, num_layers, hidden_size)
    targets = encoded(labels, [row.labels[label] for row in rows], [1] * len(rows), upstream.frame_samples)
    return PooledExamples(features, [[place] for place in range(len(rows))], targets)
