"""What kind of checkpoint a file of `torch.save` is, told by what it holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from core.errors import CheckpointError


def _is_apc(content: Mapping[str, Any]) -> bool:
    return _has(content, "config", "model") and "rnn_layers.0.weight_ih_l0" in content["model"]


def _is_transformer(content: Mapping[str, Any]) -> bool:
    return _has(content, "Config", "Transformer")


def _is_fairseq(content: Mapping[str, Any]) -> bool:
    return _has(content, "task_cfg", "model_cfg", "model_weight")


def _has(content: Mapping[str, Any], *keys: str) -> bool:
    return all(isinstance(content.get(key), Mapping) for key in keys)


# What a file is -> how it is told, and the test.
KINDS: Mapping[str, tuple[str, Callable[[Mapping[str, Any]], bool]]] = {
    "apc": ("config and model with rnn_layers (APC, VQ-APC)", _is_apc),
    "transformer": ("Config and Transformer (Mockingjay, TERA)", _is_transformer),
    "fairseq": ("task_cfg, model_cfg and model_weight (wav2vec 2.0, HuBERT, data2vec converted by s3prl)", _is_fairseq),
}


def kind_of(path: Path, content: Mapping[str, Any]) -> str:
    """The kind of a checkpoint, told by what it holds.

    Raises: CheckpointError: none of those known.
    """
    for kind, (_, recognises) in KINDS.items():
        if recognises(content):
            return kind
    looked_for = "; ".join(words for words, _ in KINDS.values())
    found = ", ".join(sorted(map(str, content))[:12]) or "nothing"
    hint = ""
    if {"cfg", "args"} & set(content) and "model" in content:
        hint = f" It looks like fairseq's own file, which fairseq:{path} reads."
    raise CheckpointError(f"{path}: unknown kind of checkpoint. Looked for {looked_for}. Found: {found}.{hint}")
