"""One linear classifier on the mean over time: SUPERB's head for KS, SID, IC and ER (arXiv:2105.01051)."""

from __future__ import annotations

import torch

from core.lengths import mean_over_valid
from downstreams._base import register_head
from downstreams._utterance import UtteranceHead


@register_head("utterance_linear")
class UtteranceLinear(UtteranceHead):
    """Linear -> mean over valid frames -> Linear over the classes of all slots. No activation anywhere.

    Both layers and the mean are linear, so the mean over time may as well be taken first: that is what "pooled" means.
    """

    needs = "pooled"
    closed_form = True

    def pool(self, hidden: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """The mean over the valid frames."""
        return mean_over_valid(hidden, lengths)
