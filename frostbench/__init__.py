"""Frostbench: how good are the frozen representations of a speech encoder?

    import frostbench as fb
    results = fb.evaluate(["fbank", "hf:microsoft/wavlm-base-plus"], ["ks", "sid"], corpus="mini", seeds=(0, 1, 2))
    results.cells()

Everything that README.md and docs/ name is here. Names are imported when they are first used, so that
`import frostbench` itself takes no time and loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from frostbench._namesakes import require_own_packages

if TYPE_CHECKING:
    from core.checks import CheckResult
    from core.errors import (
        AudioError,
        BenchmarkError,
        CacheError,
        CheckpointError,
        ContractError,
        EvaluationError,
        ManifestError,
        MetricError,
        RecordError,
        TrainingError,
        UnknownNameError,
    )
    from core.hidden_states import HiddenStates
    from core.lengths import mean_over_valid, pad, padding_mask
    from core.metrics import Metric, register_metric
    from downstreams._base import FeatureShape, Head, register_head
    from downstreams._recipe import Recipe, SpecAugment
    from downstreams.labels._base import LabelContext, Labels, register_labels
    from downstreams.labels.activities import ActivityLabels
    from downstreams.labels.numbers import NumberLabels
    from downstreams.labels.slots import SlotLabels
    from downstreams.labels.text import TextLabels
    from frostbench.api import check, evaluate, features, load, plan, predict, upstream
    from frostbench.functions import from_function
    from frostbench.results import Results
    from tasks._audio import AudioRecipe, Trim
    from tasks._base import Task, register_task
    from upstreams._base import Upstream, UpstreamCard, register_upstream

require_own_packages()

_MODULES = {
    "core.checks": ("CheckResult",),
    "core.errors": (
        "AudioError",
        "BenchmarkError",
        "CacheError",
        "CheckpointError",
        "ContractError",
        "EvaluationError",
        "ManifestError",
        "MetricError",
        "RecordError",
        "TrainingError",
        "UnknownNameError",
    ),
    "core.hidden_states": ("HiddenStates",),
    "core.lengths": ("mean_over_valid", "pad", "padding_mask"),
    "core.metrics": ("Metric", "register_metric"),
    "downstreams._base": ("FeatureShape", "Head", "register_head"),
    "downstreams._recipe": ("Recipe", "SpecAugment"),
    "downstreams.labels._base": ("LabelContext", "Labels", "register_labels"),
    "downstreams.labels.activities": ("ActivityLabels",),
    "downstreams.labels.numbers": ("NumberLabels",),
    "downstreams.labels.slots": ("SlotLabels",),
    "downstreams.labels.text": ("TextLabels",),
    "frostbench.api": ("check", "evaluate", "features", "load", "plan", "predict", "upstream"),
    "frostbench.functions": ("from_function",),
    "frostbench.results": ("Results",),
    "tasks._audio": ("AudioRecipe", "Trim"),
    "tasks._base": ("Task", "register_task"),
    "upstreams._base": ("Upstream", "UpstreamCard", "register_upstream"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "ActivityLabels",
    "AudioError",
    "AudioRecipe",
    "BenchmarkError",
    "CacheError",
    "CheckResult",
    "CheckpointError",
    "ContractError",
    "EvaluationError",
    "FeatureShape",
    "Head",
    "HiddenStates",
    "LabelContext",
    "Labels",
    "ManifestError",
    "Metric",
    "MetricError",
    "NumberLabels",
    "Recipe",
    "RecordError",
    "Results",
    "SlotLabels",
    "SpecAugment",
    "Task",
    "TextLabels",
    "TrainingError",
    "Trim",
    "UnknownNameError",
    "Upstream",
    "UpstreamCard",
    "check",
    "evaluate",
    "features",
    "from_function",
    "load",
    "mean_over_valid",
    "pad",
    "padding_mask",
    "plan",
    "predict",
    "register_head",
    "register_labels",
    "register_metric",
    "register_task",
    "register_upstream",
    "upstream",
]


def __getattr__(name: str) -> Any:
    """A public name, imported when it is first used."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'frostbench' has no attribute '{name}'")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """What completion offers."""
    return sorted({*globals(), *__all__})
