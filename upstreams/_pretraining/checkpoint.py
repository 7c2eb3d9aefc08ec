"""Frostbench's own checkpoints: one safetensors file whose metadata names the upstream and its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from core.digest import canonical_json, parsed_json, written_then_renamed
from core.errors import CheckpointError
from upstreams._weight_files import load_exactly, read_safetensors, require_whole_safetensors

FORMAT = "frostbench-checkpoint-1"
Config = TypeVar("Config")


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
        content = dict(parsed_json(metadata[FORMAT]))
        return {key: content[key] for key in ("upstream", "configuration", "notes")}
    except (ValueError, KeyError) as error:
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
        return kind(**metadata["configuration"])
    except TypeError as error:
        raise CheckpointError(f"{path}: its configuration is not one of '{name}' ({error}); train it anew") from None


def load_weights(path: Path, module: nn.Module, ignored: tuple[str, ...] = ()) -> None:
    """Loads a checkpoint's weights, all of them and no others.

    Args:
        path: of the checkpoint.
        module: whose weights they become.
        ignored: beginnings of names that older files hold besides.

    Raises: CheckpointError: names or shapes do not fit.
    """
    load_exactly(str(path), module, read_safetensors(path, ignored))
