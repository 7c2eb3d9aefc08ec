"""Files of `torch.save`, read without running what they say, and what kind of checkpoint one is."""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from core.errors import CheckpointError

# Besides tensors and plain values. s3prl's pre-training keeps its command line under `Args`.
HARMLESS: list[Any] = [argparse.Namespace]
REFUSED_CLASS = re.compile(r"GLOBAL ([\w.]+\.\w+)")


def read(path: Path) -> dict[str, Any]:
    """The dictionary in a file, by torch's restricted unpickler.

    Raises: CheckpointError: missing, damaged, not a dictionary, or with objects in it that could run code.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; correct the path")
    try:
        with torch.serialization.safe_globals(HARMLESS), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected pickle protocol|'torch.load' received a zip file")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damage shows as an error of any kind, depending on where it is
        raise _refusal(path, error) from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, a checkpoint is a dictionary")
    return content


def _refusal(path: Path, error: Exception) -> CheckpointError:
    found = REFUSED_CLASS.search(str(error)) if isinstance(error, pickle.UnpicklingError) else None
    if found is None:
        told = isinstance(error, RuntimeError | OSError)  # the others' words are about bytes
        reason = re.split(r"[.\n]", str(error).strip(), maxsplit=1)[0] if told else "its pickle is damaged or none"
        return CheckpointError(f"{path}: not a readable torch.save file ({reason}); fetch or save it again")
    return CheckpointError(
        f"{path}: holds an object of {found[1]}, and unpickling it could run any code; allowed are tensors, plain "
        f"values and {', '.join(f'{cls.__module__}.{cls.__qualname__}' for cls in HARMLESS)}. Save the file anew "
        f"without that object"
    )


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
    "fairseq": ("task_cfg, model_cfg and model_weight (wav2vec 2.0, HuBERT converted by s3prl)", _is_fairseq),
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
        hint = " It looks like fairseq's own file: convert it with s3prl's upstream/hubert/convert.py or wav2vec2's."
    raise CheckpointError(f"{path}: unknown kind of checkpoint. Looked for {looked_for}. Found: {found}.{hint}")
