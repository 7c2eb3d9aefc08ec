"""Bounds on what the settings of a checkpoint may cost in memory and time, held before anything of them is built.

A slip in a file, or a damaged one, must not take all memory: sizes are bounded one by one, and a network is first made
without memory, where what it would hold is counted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn

from core.audio import SAMPLE_RATE
from core.errors import CheckpointError

MOST_LAYERS = 1_000
MOST_OF_ANY = 1_000_000  # of any whole number among the settings: no width, count or table of an encoder has more
MOST_MELS = 1_000
MOST_SAMPLES = 10 * SAMPLE_RATE  # that a frame may read
MOST_HELD = 50_000_000  # numbers in tables that no weight stands for, such as positions: 200 MB
Module = TypeVar("Module", bound=nn.Module)


def number_within(source: str, name: str, value: object, least: float, most: float) -> float:
    """A setting that is a number within bounds.

    Raises: CheckpointError: it is none, or out of bounds.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise CheckpointError(f"{source}: {name} is {value!r:.60}, must be from {least:,} to {most:,}")
    return value


def size_within(source: str, name: str, value: object, most: int = MOST_OF_ANY, least: int = 1) -> int:
    """A setting that is a whole number within bounds; one written as 16.0 is 16.

    Raises: CheckpointError: it is none, or out of bounds.
    """
    number = number_within(source, name, value, least, most)
    if number != int(number):
        raise CheckpointError(f"{source}: {name} is {value!r:.60}, must be a whole number")
    return int(number)


def require_short_frames(source: str, network: Any) -> None:
    """Refuses a network, or an upstream, whose frames are longer, or shortest input is, than anything that is meant.

    Raises: CheckpointError: says how long.
    """
    samples = max(network.min_samples, network.downsample_rate)
    if samples > MOST_SAMPLES:
        raise CheckpointError(
            f"{source}: by its settings a frame takes {samples:,} samples, at most {MOST_SAMPLES:,} can be meant: the "
            f"file is damaged"
        )


def without_memory(source: str, make: Callable[[], Module]) -> Module:
    """A network whose tensors have shapes and no content.

    Args:
        source: what messages call the checkpoint.
        make: gives the network.

    Raises: CheckpointError: besides its weights, it would hold more than can be meant.
    """
    with torch.device("meta"):
        network = make()
    tables = {
        id(value): value.numel()
        for module in network.modules()
        for value in (*vars(module).values(), *module.buffers(recurse=False))
        if isinstance(value, torch.Tensor)
    }
    held = sum(tables.values())
    if held > MOST_HELD:
        raise CheckpointError(
            f"{source}: its settings ask for tables of {held:,} numbers besides the weights, at most {MOST_HELD:,} can "
            f"be meant: the file is damaged"
        )
    return network
