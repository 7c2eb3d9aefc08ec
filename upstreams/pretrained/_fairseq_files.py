"""What a checkpoint file of fairseq holds, without fairseq: settings as plain values, and the encoder's weights.

fairseq's trainer saves the settings as a dictionary (`cfg`), in files of 2020 as an `argparse.Namespace` (`args`) or an
object of omegaconf, with `model` beside it; fine-tuned models hold the settings of the encoder that they began with
(`w2v_args`), and its weights under a prefix. Objects of fairseq and omegaconf become `Inert` ones by their names alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from core.errors import CheckpointError
from upstreams._weight_files import read_torch, such_as


class Inert:
    """Stands for an object of a file: keeps what it is given, and does nothing."""

    arguments: tuple[Any, ...]
    state: Any = None

    def __new__(cls, *arguments: Any) -> Inert:
        """Of any arguments: a pickle calls this, or the class."""
        made = super().__new__(cls)
        made.arguments = arguments
        return made

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _dictionary(*_: Any) -> dict[Any, Any]:
    return {}


# Classes that files of fairseq hold besides tensors and plain values: settings, vocabularies, meters of the training.
STAND_INS: Mapping[str, Any] = {
    "collections.defaultdict": _dictionary,
    "typing.Any": Inert,
    **{f"builtins.{name}": Inert
       for name in ("bool", "bytes", "dict", "float", "int", "list", "object", "str", "tuple")},
    **{f"{module}.scalar": Inert for module in ("numpy.core.multiarray", "numpy._core.multiarray")},
    "numpy.dtype": Inert,
    "omegaconf.dictconfig.DictConfig": Inert,
    "omegaconf.listconfig.ListConfig": Inert,
    "omegaconf.base.Metadata": Inert,
    "omegaconf.base.ContainerMetadata": Inert,
    "omegaconf.base.UnionNode": Inert,
    **{f"omegaconf.nodes.{name}Node": Inert
       for name in ("Any", "Boolean", "Bytes", "Enum", "Float", "Integer", "InterpolationResult", "Path", "String")},
    "fairseq.data.dictionary.Dictionary": Inert,
    **{f"{module}.{name}": Inert for module in ("fairseq.meters", "fairseq.logging.meters")
       for name in ("AverageMeter", "SumMeter", "TimeMeter", "StopwatchMeter", "MetersDict")},
}  # fmt: skip
# What a model is called in its settings -> the kind of encoder.
KINDS = {"wav2vec2": "wav2vec2", "hubert": "hubert", "data2vec_audio": "data2vec_audio"}
FINE_TUNED = ("wav2vec_ctc", "wav2vec_seq2seq", "hubert_ctc", "hubert_seq2seq")
PREFIX = "w2v_encoder.w2v_model."  # of the encoder in a fine-tuned model
PREFIX_SEQ2SEQ = "encoder.w2v_model."
HEADS = ("w2v_encoder.proj.", "encoder.proj.", "decoder.")
TEACHER = "_ema"  # data2vec's, a dictionary of its own


class FairseqFile(NamedTuple):
    """An encoder in fairseq's words.

    Attributes:
        kind: wav2vec2, hubert or data2vec_audio.
        model_cfg: settings of the encoder.
        task_cfg: of the task that it was trained on: rate and normalisation of waveforms.
        weights: by fairseq's names, without a prefix.
    """

    kind: str
    model_cfg: dict[str, Any]
    task_cfg: dict[str, Any]
    weights: dict[str, torch.Tensor]


def read(path: Path) -> FairseqFile:
    """The encoder in a file.

    Raises: CheckpointError: missing, damaged, not fairseq's, with objects that are not known, or of another model.
    """
    content = read_torch(path, STAND_INS)
    model, task = _settings(path, content)
    name = _name(model)
    weights = content["model"]
    if name in FINE_TUNED:
        encoder = _part(model, "w2v_args")
        inner = _part(encoder, "model") or encoder  # of a Namespace there is one level alone
        task = {**_given(_part(encoder, "task") or encoder), **_given(task)}
        weights = _of_encoder(path, weights, PREFIX if "ctc" in name else PREFIX_SEQ2SEQ)
        model, name = inner, _name(inner)
        if not model:
            raise CheckpointError(
                f"{path}: is a fine-tuned model that lacks the settings of its encoder (w2v_args): name the file of "
                f"the pre-trained one"
            )
    if name not in KINDS:
        raise CheckpointError(
            f"{path}: holds a model of fairseq called {name!r}, known are {', '.join((*KINDS, *FINE_TUNED))}"
        )
    foreign = [key for key, value in weights.items() if not isinstance(value, torch.Tensor) and key != TEACHER]
    if foreign:
        raise CheckpointError(f"{path}: model holds '{foreign[0]}', which is no tensor: the file is damaged")
    weights = {key: value for key, value in weights.items() if key != TEACHER}
    return FairseqFile(KINDS[name], _given(model), _given(task), weights)


def _settings(path: Path, content: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings of the model and of the task; in old files both are in one."""
    settings = _plain(content.get("cfg"))
    if isinstance(settings, dict) and isinstance(settings.get("model"), dict):
        model, task = settings["model"], settings.get("task") or {}
    else:
        model = task = _plain(content.get("args"))
    if not isinstance(content.get("model"), Mapping) or not isinstance(model, dict) or not isinstance(task, dict):
        raise CheckpointError(
            f"{path}: no checkpoint of fairseq's trainer, which has model and cfg (with model and task) or args. "
            f"Found: {', '.join(sorted(map(str, content))[:12]) or 'nothing'}"
        )
    return model, task


def _name(model: Mapping[str, Any]) -> Any:
    return model.get("_name") or model.get("arch")


def _part(settings: Mapping[str, Any], name: str) -> dict[str, Any]:
    part = settings.get(name)
    return part if isinstance(part, dict) else {}


def _of_encoder(path: Path, weights: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    foreign = [key for key in weights if not key.startswith((prefix, *HEADS))]
    if foreign:
        raise CheckpointError(
            f"{path}: is a fine-tuned model, and holds {len(foreign)} tensors{such_as(foreign)} that are neither the "
            f"encoder's ({prefix}) nor a head's: its hidden states would be computed without them"
        )
    return {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}


def _given(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Without what stands for another setting's value, or for none."""
    return {
        name: value
        for name, value in settings.items()
        if value is not None and not (isinstance(value, str) and (value == "???" or value.startswith("${")))
    }


def _plain(value: Any, seen: dict[int, Any] | None = None) -> Any:
    """Settings as dictionaries, lists and plain values; what a file has in many places is converted once."""
    seen = {} if seen is None else seen
    if not isinstance(value, Inert | argparse.Namespace | dict | list | tuple):
        return value
    if id(value) in seen:
        return seen[id(value)]
    seen[id(value)] = None  # of something that holds itself
    if isinstance(value, dict):
        plain: Any = {name: _plain(part, seen) for name, part in value.items()}
    elif isinstance(value, list | tuple):
        plain = [_plain(part, seen) for part in value]
    else:
        plain = _plain(_content(value), seen)
    seen[id(value)] = plain
    return plain


def _content(held: Inert | argparse.Namespace) -> Any:
    if isinstance(held, argparse.Namespace):
        return vars(held)
    state = held.state if isinstance(held.state, dict) else {}
    for name in ("_content", "_val"):  # of omegaconf's containers, and of its nodes
        if name in state:
            return state[name]
    return held.arguments[0] if len(held.arguments) == 1 else None  # a member of an enumeration
