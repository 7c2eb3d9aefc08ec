"""Upstreams that a program holds as objects: they enter a grid as they are, and come back as they were."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch

from core.code import has_file
from core.errors import ContractError
from upstreams._base import Upstream
from upstreams._resolve import INSTANCE, at_hand


@contextmanager
def specifications(upstreams: Sequence[str | Upstream | type[Upstream]]) -> Iterator[list[str]]:
    """What a grid is given for each upstream: text as it is, for objects a text that stands for them meanwhile.

    Objects are frozen and may move to another device meanwhile; afterwards parameters ask for gradients, modules train
    and stand where they did before. Classes are built without a checkpoint.

    Raises: ContractError: something else than that, or an upstream without a card.
    """
    specs, instances = [], {}
    with ExitStack() as stack:
        for given in upstreams:
            if isinstance(given, str):
                specs.append(given)
                continue
            instance = built(given)
            stack.enter_context(_given_back(instance))
            spec = f"{INSTANCE}{_described(instance)}"
            instances[spec] = instance
            specs.append(spec)
        stack.enter_context(at_hand(instances))
        yield specs


def built(upstream: object) -> Upstream:
    """An object as it is, or one of a class.

    Raises: ContractError: neither, or one without a card.
    """
    if isinstance(upstream, type) and issubclass(upstream, Upstream):
        _require_card(upstream, upstream)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # as of one that is named
            return upstream.from_checkpoint(None)
    if not isinstance(upstream, Upstream):
        raise ContractError(
            f"{upstream!r} is no upstream: give a specification such as 'fbank' or 'hf:ORG/NAME', an object of a class "
            f"that inherits frostbench.Upstream, or what frostbench.from_function makes"
        )
    _require_card(upstream, type(upstream))
    return upstream


def _require_card(upstream: object, cls: type[Upstream]) -> None:
    if not hasattr(upstream, "card"):
        raise ContractError(
            f"{cls.__qualname__} has no card: write `card = frostbench.UpstreamCard(name=..., title=..., "
            f"paper=...)` in the class, or decorate it with @frostbench.register_upstream(UpstreamCard(...))"
        )


def _described(instance: Upstream) -> str:
    """For records: whose class it is, where its code was read from, and which content it had."""
    cls = type(instance)
    where = "file" if has_file(cls.__module__) else "cells of a notebook"
    return f"{cls.__module__}.{cls.__qualname__} (code from {where}, digest {instance.digest()[:16]})"


@contextmanager
def _given_back(instance: Upstream) -> Iterator[None]:
    """Notes how an object stands, and puts it back so."""
    training = [(module, module.training) for module in instance.modules()]
    asking = [(parameter, parameter.requires_grad) for parameter in instance.parameters()]
    devices = {tensor.device for tensor in (*instance.parameters(), *instance.buffers())}
    try:
        yield
    finally:
        if len(devices) == 1:
            instance.to(devices.pop())
        for module, was in training:
            module.training = was
        for parameter, asked in asking:
            parameter.requires_grad_(asked)
