"""What an upstream has to pass before its numbers are trusted: the cheap checks of the contract."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from core.digest import tensors_digest
from core.errors import BenchmarkError, ContractError
from core.hidden_states import HiddenStates
from upstreams import _checks
from upstreams._base import Upstream

ROWS = 2  # of a batch: one that is padded, and one that is not
QUICK: Mapping[str, Callable[[Any], None]] = {
    "check_sizes_hold": partial(_checks.check_sizes_hold, rows=ROWS),
    "check_frame_lengths_exact": _checks.check_frame_lengths_exact,
    "check_padding_changes_nothing": partial(_checks.check_padding_changes_nothing, rows=ROWS),
    "check_same_input_same_bits": partial(_checks.check_same_input_same_bits, rows=ROWS),
    "check_silence_is_finite": _checks.check_silence_is_finite,
    "check_digest_knows_the_weights": _checks.check_digest_knows_the_weights,  # last: some load theirs when first used
}


@dataclass(frozen=True)
class Passed:
    """What an upstream passed.

    Attributes:
        checks: names of those that it passed.
        known_failures: names of those that its card says it can't pass, which were left out.
    """

    checks: tuple[str, ...]
    known_failures: tuple[str, ...]


class _Remembering:
    """An upstream that computes a batch once for all checks, and again where one check asks for it twice.

    Args:
        upstream: whose hidden states they are.
    """

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.computed: dict[str, HiddenStates] = {}
        self.answered: set[str] = set()  # of the check that runs

    def __getattr__(self, name: str) -> Any:
        return getattr(self.upstream, name)

    def extract(self, wavs: torch.Tensor, wav_lengths: torch.Tensor) -> HiddenStates:
        """See Upstream.extract."""
        key = tensors_digest({"wavs": wavs, "wav_lengths": wav_lengths})
        if key in self.answered or key not in self.computed:
            self.computed[key] = self.upstream.extract(wavs, wav_lengths)
        self.answered.add(key)
        return self.computed[key]


def require_contract(upstream: Upstream) -> Passed:
    """Runs the quick checks, but those that the card lists as known failures.

    Args:
        upstream: frozen, on the CPU.

    Raises: ContractError: one does not pass; names it, in its words. Exception: whatever a plug-in raises.
    """
    known = [name for name in QUICK if name in upstream.card.known_failures]
    subject = _Remembering(upstream)
    passed = [name for name in QUICK if name not in known]
    for name in passed:
        subject.answered.clear()
        try:
            QUICK[name](subject)
        except BenchmarkError as error:
            raise ContractError(f"{name}: {error}") from None
    return Passed(tuple(passed), tuple(known))
