"""The processes of a training: this one alone, or several that `accelerate launch` or `torchrun` started."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

import torch

from core.errors import TrainingError

if TYPE_CHECKING:
    from accelerate import Accelerator

Mixed = Literal["no", "bf16", "fp16"]
Tensors = Mapping[str, torch.Tensor]


def open_accelerator(name: str, device: str, mixed_precision: Mixed, skips_layers: bool) -> Accelerator:
    """accelerate's handle on this process and those it trains with.

    Args:
        name: of the training, for messages.
        device: where to train; of several processes each takes its own.
        mixed_precision: of forward and backward.
        skips_layers: whether an update may leave parameters out.

    Raises: TrainingError: the device has no such precision.
    """
    # Imported here: accelerate takes a second, and most commands never train an upstream.
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedDataParallelKwargs

    if mixed_precision == "fp16" and device == "cpu":
        raise TrainingError(f"pretraining {name}: fp16 needs a GPU; take bf16, or leave it out")
    if device.startswith("cuda:") and not many_processes():  # each of those has its own
        torch.cuda.set_device(torch.device(device))
    AcceleratorState._reset_state()  # another training of this process may have had another precision
    return Accelerator(
        cpu=device == "cpu",
        mixed_precision=mixed_precision,
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=skips_layers)],
    )


def many_processes() -> bool:
    """Whether this is one of several processes that train together, as `accelerate launch` starts them."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_first_process() -> bool:
    """Whether this is the process that writes and reports, of one or several."""
    return int(os.environ.get("RANK", "0")) == 0


@contextmanager
def first_process_first(device: str) -> Iterator[None]:
    """Lets the first of several processes through alone; the others enter when it has left, and find what it wrote."""
    from accelerate import PartialState

    # Clustering may take the first one hours, in which the others wait.
    with PartialState(cpu=device == "cpu", timeout=timedelta(days=7)).main_process_first():
        yield


def gathered(parts: Mapping[int, Tensors], processes: int) -> list[Tensors]:
    """What the micro-batches of an update gave, those of all processes in the order of their numbers, on the CPU.

    Args:
        parts: number of a micro-batch -> named tensors, those of this process.
        processes: how many train together; every one of them is given the same.
    """
    found = {number: {name: each.cpu() for name, each in part.items()} for number, part in parts.items()}
    if processes > 1:
        from accelerate.utils import gather_object

        found = dict(gather_object(list(found.items())))
    return [found[number] for number in sorted(found)]
