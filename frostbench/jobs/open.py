"""From what is typed on the command line to an executor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from core.errors import BenchmarkError
from core.extras import require_extra
from frostbench.jobs.base import Executor


def open_executor(
    kind: str,
    address: str | None,
    device: str | None,
    workers: int | None,
    shared: Sequence[Path],
    most: int | None = None,
    preload: str | None = None,
) -> Executor:
    """The executor of that kind, not yet entered.

    Args:
        kind: local or ray.
        address: of a Ray cluster; None lets Ray find or start one.
        device: as typed; None is the best there is.
        workers: jobs at a time; None is one a device, or one a core.
        shared: folders that every machine must see.
        most: jobs that will come, where that is known: no more workers than that.
        preload: module that worker processes of this machine import as soon as they start.

    Raises: BenchmarkError: no such device, no Ray, or an address without Ray.
    """
    if kind == "local":
        if address is not None:
            raise BenchmarkError(f"--ray-address {address} is for --executor ray: add that, or leave the address out")
        from frostbench.jobs.local import LocalExecutor

        return LocalExecutor(device, workers, most, preload)
    require_extra("ray", "--executor ray")
    from frostbench.jobs.ray_cluster import RayExecutor

    return RayExecutor(address, device, workers, shared, most)
