"""Before a run trusts an upstream: the quick checks of its contract, once for each digest."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from core.digest import parsed_json, write_json
from core.errors import ContractError
from frostbench.grid.stages import Stages
from frostbench.jobs.base import Advance, Job, Outcome
from upstreams._facts import UpstreamFacts
from upstreams._quick_checks import QUICK, require_contract
from upstreams._resolve import build_upstream

FOLDER = "checked"


def check_upstreams(upstreams: Iterable[UpstreamFacts], cache: Path, stages: Stages) -> list[Outcome]:
    """Checks those that were not checked before.

    Returns: an outcome for each that was checked now; one with an error is not to be trusted.
    """
    todo = unchecked(upstreams, cache)
    if not todo:
        return []
    jobs = [Job(upstream.title, check_upstream, (upstream, cache)) for upstream in todo]
    return stages.run("checking upstreams", "upstreams", jobs, [stages.costs.checking(upstream) for upstream in todo])


def unchecked(upstreams: Iterable[UpstreamFacts], cache: Path) -> list[UpstreamFacts]:
    """Those that were not checked before."""
    return [upstream for upstream in upstreams if not passed_checks(upstream.digest, cache)]


def check_upstream(upstream: UpstreamFacts, cache: Path, *, device: str, advance: Advance) -> None:
    """A job: runs the checks, on the CPU wherever the job runs, so that they end the same on every machine.

    Raises: ContractError: names the check that does not pass, in its words.
    """
    started = time.monotonic()
    try:
        passed = require_contract(build_upstream(upstream.spec))
    except ContractError as error:
        raise ContractError(f"{error}; all checks: frostbench check {upstream.spec}") from None
    content = {
        "upstream": upstream.name,
        "checks": passed.checks,
        "known_failures": passed.known_failures,
        "seconds": round(time.monotonic() - started, 2),
    }
    write_json(_marker(upstream.digest, cache), content)
    advance(1)


def passed_checks(digest: str, cache: Path) -> dict[str, Any]:
    """What is known of an upstream's checks, for its records: those passed and those left out; empty if nothing is."""
    try:
        content = parsed_json(_marker(digest, cache).read_text(encoding="utf-8"))
        found = {"passed": sorted(content["checks"]), "known_failures": sorted(content["known_failures"])}
    except (OSError, ValueError, KeyError, TypeError):  # absent, or of a disk that was full: they are run again
        return {}
    names = set(QUICK)
    return found if names == {*found["passed"], *found["known_failures"]} else {}


def _marker(digest: str, cache: Path) -> Path:
    return cache / FOLDER / f"{digest[:32]}.json"
