"""Frostbench's own checkpoints: one safetensors file whose metadata names the upstream and its configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from core.digest import canonical_json, parsed_json, written_then_renamed
from core.errors import CheckpointError
from upstreams._bounds import MOST_LAYERS, MOST_OF_ANY, require_short_frames, without_memory
from upstreams._weight_files import load_exactly, read_safetensors, require_fitting, require_whole_safetensors

FORMAT = "frostbench-checkpoint-1"
Config = TypeVar("Config")
Trained = TypeVar("Trained", bound=Any)


def save(path: Path, name: str, configuration: Mapping[str, Any], module: nn.Module, notes: Mapping[str, Any]) -> None:
    """Writes weights, configuration and notes (how it was trained) atomically."""
    # One entry: safetensors writes several in an order that changes from process to process.
    metadata = {FORMAT: canonical_json({"upstream": name, "configuration": configuration, "notes": notes})}
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in module.state_dict().items()}
    with written_then_renamed(path) as temporary:
        save_file(tensors, temporary, metadata)


def read_metadata(path: Path) -> dict[str, Any]:
    """A checkpoint's upstream, configuration and notes.

    Raises: CheckpointError: missing, damaged, or not one of ours.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint; train one with: frostbench pretrain")
    require_whole_safetensors(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error})") from None
    if FORMAT not in metadata:
        raise CheckpointError(f"{path}: not a Frostbench checkpoint; its metadata has {sorted(metadata) or 'nothing'}")
    try:
        content = parsed_json(metadata[FORMAT])
        content = {key: content[key] for key in ("upstream", "configuration", "notes")}
        if not isinstance(content["configuration"], dict) or not isinstance(content["notes"], dict):
            raise TypeError("configuration and notes must be objects")
        canonical_json(content).encode()  # which a lone surrogate can't be
        return content
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path}: its metadata is damaged ({error}); train it anew") from None


def configuration_for(path: Path, name: str, kind: type[Config]) -> Config:
    """The configuration, of its dataclass, stored in a checkpoint of the upstream `name`.

    Raises: CheckpointError: it is another upstream's, or holds what this version does not know.
    """
    metadata = read_metadata(path)
    if metadata["upstream"] != name:
        raise CheckpointError(
            f"{path}: is a checkpoint of '{metadata['upstream']}', not of '{name}'; write {metadata['upstream']}@{path}"
        )
    try:
        stored = metadata["configuration"]
        config = kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in stored.items()})
        for field in fields(config):  # type: ignore[arg-type]  # a dataclass
            _require_like(field.name, getattr(config, field.name), field.default)
    except (TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path}: its configuration is not one of '{name}' ({reason}); train it anew") from None
    return config


def _require_like(name: str, value: object, usual: object) -> None:
    """Raises: ValueError: a value is of another kind than the default, or out of all bounds."""
    if isinstance(usual, bool | int | float | str):
        fits = isinstance(value, type(usual)) or (isinstance(usual, float) and isinstance(value, int))
        if not fits or isinstance(value, bool) != isinstance(usual, bool):
            raise ValueError(f"{name} = {value!r:.60}, must be like {usual!r}")
    most = MOST_LAYERS if name.endswith(("layers", "blocks")) else MOST_OF_ANY
    if isinstance(value, int | float) and not -most <= value <= most:
        raise ValueError(f"{name} = {value!r:.60}, must be at most {most:,}")


def built(path: Path, make: Callable[[], Trained], ignored: tuple[str, ...] = ()) -> Trained:
    """An upstream with a checkpoint's weights, all of them and no others.

    Args:
        path: of the checkpoint.
        make: gives the upstream with random weights.
        ignored: beginnings of names that older files hold besides.

    Raises: CheckpointError: names or shapes do not fit, or the configuration makes no network.
    """
    tensors = read_safetensors(path, ignored)
    try:
        shapes = _shapes(str(path), make)
        if shapes is not None:
            require_fitting(str(path), shapes, tensors)
        upstream = make()
        load_exactly(str(path), upstream.encoder, tensors)
        upstream.eval()
        require_short_frames(str(path), upstream)
        shortest = torch.zeros(1, upstream.min_samples)
        with torch.no_grad():  # some settings are read as late as this
            upstream.encode(shortest, torch.tensor([upstream.min_samples]))
    except CheckpointError:
        raise
    except Exception as error:  # of a library's constructors and functions, whatever they raise for such settings
        reason = (str(error).strip().splitlines() or [""])[0]
        raise CheckpointError(
            f"{path}: its configuration makes no network ({type(error).__name__}: {reason}); train it anew"
        ) from error
    return upstream


def _shapes(source: str, make: Callable[[], Any]) -> dict[str, torch.Tensor] | None:
    """The encoder's tensors without memory, which a slip in a size would take all of; None where it needs some."""
    try:
        return dict(without_memory(source, lambda: make().encoder).state_dict())
    except CheckpointError:
        raise
    except Exception:  # whatever stands in the way shows again, and is said, when it is built
        return None
