"""Which frames a loss hides, and which others it lays beside the true ones: all drawn from a generator."""

from __future__ import annotations

import torch

from core.errors import ContractError


def mask_runs(
    frames: torch.Tensor, lengths: torch.Tensor, proportion: float, run: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Chooses runs of consecutive frames and alters them, one way an utterance as in Mockingjay's paper.

    80 % of the utterances have their chosen frames zeroed, 10 % replaced by other frames of their own, 10 % keep them.

    Args:
        frames: float (batch, frames, size).
        lengths: valid frames, int64 (batch,).
        proportion: of the frames to choose, about.
        run: frames a run; shorter utterances are chosen whole.
        generator: source of randomness.

    Returns: chosen, bool (batch, frames), never on padding; the altered frames, shaped as `frames`.
    """
    chosen = torch.zeros(frames.shape[:2], dtype=torch.bool)
    altered = frames.clone()
    for row, length in enumerate(lengths.tolist()):
        runs = max(1, round(length * proportion / run))
        starts = torch.randperm(max(1, length - run + 1), generator=generator)[:runs]
        positions = (starts[:, None] + torch.arange(run)).flatten().unique()
        positions = positions[positions < length]
        chosen[row, positions] = True
        dice = float(torch.rand(1, generator=generator))
        if dice < 0.8:
            altered[row, positions] = 0
        elif dice < 0.9:
            others = torch.randint(length, (len(positions),), generator=generator)
            altered[row, positions] = frames[row, others]
    return chosen.to(frames.device), altered


def mask_spans(batch: int, frames: int, proportion: float, span: int, generator: torch.Generator) -> torch.Tensor:
    """Spans that may overlap, as many in every row, as fairseq draws them for wav2vec 2.0 and HuBERT.

    Args:
        batch: rows.
        frames: of each row, all of them valid.
        proportion: of the frames, if no two spans overlapped; what is left of a whole number of spans is rounded at
            random, once for all rows.
        span: frames of a span.
        generator: source of randomness.

    Returns: bool (batch, frames), True where a frame is masked: at least one span, where one fits.
    """
    starts = frames - span + 1
    count = max(1, int(proportion * frames / span + float(torch.rand(1, generator=generator))))
    count = max(0, min(count, frames // span, starts))
    mask = torch.zeros(batch, frames, dtype=torch.bool)
    for row in mask:
        first = torch.randperm(max(starts, 0), generator=generator)[:count]
        row[(first[:, None] + torch.arange(span)).flatten()] = True
    return mask


def draw_distractors(mask: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    """For every masked frame other masked frames of its own utterance, drawn with replacement.

    Args:
        mask: bool (batch, frames).
        count: for each frame.
        generator: source of randomness.

    Returns: int64 (masked, count), places among the masked frames in the order of `hidden[mask]`.
    Raises: ContractError: an utterance has one masked frame only, so there is no other to draw.
    """
    drawn, first = [], 0
    for masked in mask.sum(dim=1).tolist():
        if masked == 1:
            raise ContractError("an utterance has one masked frame and no distractor for it: raise mask_frames")
        if masked:
            others = torch.randint(masked - 1, (masked, count), generator=generator)
            others += others >= torch.arange(masked)[:, None]  # the frame itself is passed over
            drawn.append(first + others)
        first += masked
    return torch.cat(drawn)


def mask_bins(batch: int, bins: int, widest: int, generator: torch.Generator) -> torch.Tensor:
    """A run of bins for every row, of a width from 0 to the widest, as TERA's channel alteration draws it.

    Returns: bool (batch, bins).
    """
    widths = torch.randint(widest + 1, (batch,), generator=generator)
    starts = (torch.rand(batch, generator=generator) * (bins - widths)).long()
    places = torch.arange(bins)
    return (places >= starts[:, None]) & (places < (starts + widths)[:, None])


def interpolated(frames: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """Hidden places of dimension 1 filled along a straight line between their nearest neighbours that are not hidden.

    Beyond the outermost of these it stays constant; where all are hidden, zeros stand.

    Args:
        frames: float (batch, places, size).
        hidden: bool (batch, places).
    """
    count = frames.shape[1]
    places = torch.arange(count, device=frames.device).expand(hidden.shape)
    before = places.masked_fill(hidden, -1).cummax(dim=1).values
    behind = places.masked_fill(hidden, count).flip(1).cummin(dim=1).values.flip(1)
    before, behind = (torch.where(before < 0, behind, before), torch.where(behind >= count, before, behind))
    share = (places - before) / (behind - before).clamp(min=1)
    known = (before >= 0) & (before < count)
    ends = [frames.gather(1, end.clamp(0, count - 1)[:, :, None].expand_as(frames)) for end in (before, behind)]
    return torch.lerp(ends[0], ends[1], share[:, :, None].to(frames)) * known[:, :, None]


def mask_starts(lengths: torch.Tensor, frames: int, start: float, run: int, generator: torch.Generator) -> torch.Tensor:
    """Runs that begin anywhere with one probability and may overlap, as BEST-RQ draws them.

    Args:
        lengths: valid frames, int64 (batch,).
        frames: of a row.
        start: probability of a frame to begin a run.
        run: frames of a run; the end of an utterance cuts it.
        generator: source of randomness.

    Returns: bool (batch, frames), never on padding; at least one run in every row.
    """
    begins = torch.rand(len(lengths), frames, generator=generator) < start
    some = (torch.rand(len(lengths), generator=generator) * lengths).long()
    begins[torch.arange(len(lengths)), some] |= ~(begins & (torch.arange(frames) < lengths[:, None])).any(dim=1)
    covered = torch.zeros_like(begins)
    for shift in range(min(run, frames)):
        covered[:, shift:] |= begins[:, : frames - shift]
    return covered & (torch.arange(frames) < lengths[:, None])
