"""From what is typed on the command line to a frozen upstream.

fbank   apc   apc@checkpoints/apc-tiny.safetensors   apc@untrained   hf:ORG/NAME   hf:./folder
s3prl-ckpt:file   fairseq:file
torchaudio:BUNDLE[@file]   s3prl:NAME[@file]   s3prl-expert:folder   my_module.py:MyUpstream[@checkpoint]

The name alone of an upstream that is trained here means the checkpoint that comes with the program.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import torch

from core.checks import described, source_of
from core.digest import path_digest
from core.errors import BenchmarkError, CheckpointError, ContractError, UnknownNameError
from core.fingerprints import Fingerprint
from core.registry import load_module, unknown_name
from upstreams._base import UPSTREAMS, Upstream, is_plug_in
from upstreams._pretraining.contract import trainable
from upstreams._shipped import UNTRAINED, shipped_checkpoint

INSTANCE = "instance:"  # begins the specification of an object that a program holds
_at_hand: dict[str, Upstream] = {}


@contextmanager
def at_hand(instances: Mapping[str, Upstream]) -> Iterator[None]:
    """A context in which `build_upstream` gives these objects for these specifications, in this process alone."""
    _at_hand.update(instances)
    try:
        yield
    finally:
        for spec in instances:
            _at_hand.pop(spec, None)


def upstream_class(spec: str) -> tuple[type[Upstream], str | None]:
    """The class a specification names, and the checkpoint it is to be built from; None where there is none.

    Raises: UnknownNameError: no such upstream. ContractError: the user's file has no such class. CheckpointError: no
        checkpoint comes with the program.
    """
    if spec.startswith(INSTANCE):
        raise UnknownNameError(
            f"upstream '{spec}' was an object of a Python program; make it again, and hand over the object itself"
        )
    prefix, colon, rest = spec.partition(":")
    if colon and not prefix.endswith(".py"):
        if prefix not in UPSTREAMS.names():
            raise UnknownNameError(
                f"unknown kind of upstream '{prefix}:' in '{spec}': write NAME, NAME@CHECKPOINT, hf:ID_OR_FOLDER, "
                f"s3prl-ckpt:FILE, fairseq:FILE, torchaudio:BUNDLE or FILE.py:CLASS[@CHECKPOINT]"
            )
        return UPSTREAMS.get(prefix), rest
    name, at, checkpoint = spec.partition("@")
    if at and not checkpoint:
        raise CheckpointError(f"upstream '{spec}' names no checkpoint behind '@': write one, or {name} alone")
    if name.endswith(".py"):
        known = ", ".join(_classes_in(load_module(Path(name)))) or "none"
        raise ContractError(f"{name}: name one class of it, as {name}:CLASS (found: {known})")
    if ".py:" in name:
        upstream = _class_in_file(*name.rsplit(":", 1))
    elif name in UPSTREAMS.names():
        upstream = UPSTREAMS.get(name)
    else:
        raise unknown_name("upstream", name, UPSTREAMS.names())
    return upstream, _checkpoint_of(upstream, checkpoint if at else None)


def build_upstream(spec: str) -> Upstream:
    """Builds and freezes the upstream a specification names.

    Raises: BenchmarkError: unknown name, missing or unfit checkpoint, or a plug-in that can't be built.
    """
    if spec in _at_hand:
        return _at_hand[spec].to("cpu").freeze()  # a job before may have moved it
    upstream, checkpoint = upstream_class(spec)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # an untrained upstream is the same one everywhere
            built = upstream.from_checkpoint(checkpoint).freeze()
    except BenchmarkError:
        raise
    except FileNotFoundError as error:
        raise CheckpointError(f"{spec}: {error.filename or error} does not exist; correct the path") from None
    except (Exception, SystemExit) as error:
        if not is_plug_in(upstream):
            raise
        raise ContractError(f"{spec}: can't be built: {described(error, source_of(upstream))}") from error
    if checkpoint is not None and is_plug_in(upstream):
        # Its weights may lie outside torch, where no state_dict has them.
        built.checkpoint_digest = path_digest(Path(checkpoint).expanduser())
    return built


def heard_in_pretraining(spec: str) -> Mapping[str, Fingerprint]:
    """Fingerprints of recordings that an upstream was trained on; empty where that is unknown.

    Raises: BenchmarkError: unknown name, or a damaged checkpoint.
    """
    if spec.startswith(INSTANCE):  # an object that a program holds
        return {}
    upstream, checkpoint = upstream_class(spec)
    return upstream.heard_in_pretraining(checkpoint)


def _checkpoint_of(upstream: type[Upstream], typed: str | None) -> str | None:
    """The checkpoint that is meant by what stands behind `@`."""
    if not trainable(upstream):
        return typed
    if typed == UNTRAINED:
        return None
    return str(shipped_checkpoint(upstream)) if typed is None and not is_plug_in(upstream) else typed


def _class_in_file(file: str, name: str) -> type[Upstream]:
    module = load_module(Path(file))
    found = getattr(module, name, None)
    if not (isinstance(found, type) and issubclass(found, Upstream)):
        known = ", ".join(_classes_in(module)) or "none"
        raise ContractError(f"{file}: has no upstream class '{name}' (found: {known})")
    if not hasattr(found, "card"):
        raise ContractError(f"{file}: {name} has no card; decorate it with @register_upstream(UpstreamCard(...))")
    return found


def _classes_in(module: ModuleType) -> list[str]:
    """The upstreams that a module defines; what it only imports is left out."""
    classes = {name: value for name, value in vars(module).items() if isinstance(value, type)}
    return [name for name, value in classes.items()
            if issubclass(value, Upstream) and value.__module__ == module.__name__]  # fmt: skip
