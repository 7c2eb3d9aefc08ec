"""Beam search: the text that a decoder finds most likely for its length, among those that begin well."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

# Last symbols (batch, width), what the decoder kept, and of which row each text is the continuation (batch * width,)
# -> log probabilities (batch, width, symbols), and what it keeps now.
Step = Callable[[torch.Tensor, Any, torch.Tensor], tuple[torch.Tensor, Any]]


def beam_search(step: Step, batch: int, width: int, most: int, boundary: int, device: torch.device) -> list[list[int]]:
    """The best text of each recording, without its end; a search of width 1 is greedy.

    A text is judged by the mean log probability of its symbols, the end among them. The search of a recording is over
    when as many of its texts have ended as the beam is wide (fairseq's rule). No text is empty.

    Args:
        step: of the decoder; it is called with the symbols that texts end with, first with the boundary.
        batch: recordings.
        width: texts of a recording that are followed.
        most: symbols of a text, the end apart.
        boundary: the symbol before the first, and behind the last.
        device: where it computes.
    """
    kept: Any = None
    last = torch.full((batch, width), boundary, device=device)
    sums = torch.full((batch, width), -torch.inf, device=device)
    sums[:, 0] = 0  # all begin alike: only one of them counts
    first_rows = width * torch.arange(batch, device=device)[:, None]
    rows = (first_rows + torch.arange(width, device=device)).flatten()
    texts = torch.empty(batch, width, 0, dtype=torch.int64, device=device)
    ended: list[list[tuple[float, list[int]]]] = [[] for _ in range(batch)]
    for length in range(1, most + 2):
        log_probs, kept = step(last, kept, rows)
        symbols = log_probs.shape[2]
        if length == 1:
            log_probs[:, :, boundary] = -torch.inf
        if length > most:
            log_probs[:, :, [place for place in range(symbols) if place != boundary]] = -torch.inf
        best, where = (sums[:, :, None] + log_probs).flatten(1).topk(min(2 * width, width * symbols), dim=1)
        origins, found = where.div(symbols, rounding_mode="floor"), where % symbols
        at_end = found == boundary
        for row, place in at_end[:, :width].nonzero().tolist():
            if len(ended[row]) < width and best[row, place] > -torch.inf:
                text = texts[row, origins[row, place]].tolist()
                ended[row].append((best[row, place].item() / length, text))
        if length > most or all(len(each) == width for each in ended):
            break
        on = at_end.to(torch.int8).argsort(dim=1, stable=True)[:, :width]  # the best of those that go on
        sums = best.masked_fill(at_end, -torch.inf).gather(1, on)
        last, origins = found.gather(1, on), origins.gather(1, on)
        texts = torch.cat([texts.gather(1, origins[:, :, None].expand_as(texts)), last[:, :, None]], dim=2)
        rows = (first_rows + origins).flatten()
    # Without any end, as of a decoder that has diverged, it is the text so far.
    return [max(each, key=lambda pair: pair[0])[1] if each else texts[row, 0].tolist()
            for row, each in enumerate(ended)]  # fmt: skip
