"""Altered views of a recording's log mel frames: random pieces, channels, levels, noises and masks.

Every draw is a clip's own and comes from the generator. The order matters: what changes energies is done to the raw
spectrum, before a recording is normalised, and masks are laid last, so that zero is the mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional

DECIBEL = math.log(10) / 10  # in the natural logarithm of an energy
COSINES = 4  # that an equaliser's curve is summed from
NOISE_SHARE = 0.5  # of the clips that get noise
NOISE_DB = 20.0  # it is up to so much fainter than the clip
NOISE_ROUGHNESS = 0.5  # deviation of a bin's log energy from frame to frame, for stationary noise
RESIZED_BY = (0.6, 1.5)  # BYOL-A's (arXiv:2103.06695): smallest and largest piece of the plane, in time and in bins
PLANE = 1.5  # it reaches so far in time, the clip in its middle

Normalise = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class ViewsConfig:
    """What a view is altered by. `strength` scales all of it, and 0 leaves only another piece and the level.

    Attributes:
        piece_frames: mel frames of a view, a random piece of the clip; a clip is at least so long.
        strength: factor on everything below.
        equaliser_db: deviation of a smooth curve over the bins, constant in time.
        gain_db: the level changes by up to so much; nothing that normalises the level notices.
        noise: whether half of the clips get noise, up to 20 dB fainter.
        mixup: proportion of energy that another clip gives at most.
        shift_bins: the spectrum moves by up to so many bins, as another vocal tract would move it.
        fade: the level changes by up to so much from start to end, in deviations.
        resize: whether pieces are stretched in time and in bins, as BYOL-A does.
        time_mask: frames of a masked run at most.
        bin_mask: bins of a masked run at most.
    """

    piece_frames: int = 64
    strength: float = 1.0
    equaliser_db: float = 6.0
    gain_db: float = 6.0
    noise: bool = True
    mixup: float = 0.2
    shift_bins: int = 0
    fade: float = 0.0
    resize: bool = False
    time_mask: int = 10
    bin_mask: int = 10

    def view(
        self, mel: torch.Tensor, normalise: Normalise, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A view of each clip, and the same piece of it unaltered.

        Args:
            mel: raw log mel frames, float (clips, frames, bins), without padding; it is not written to.
            normalise: brings the frames of one clip (frames, bins) to a common level.
            generator: source of randomness.

        Returns: twice float (clips, piece_frames, bins).
        """
        strength = self.strength
        clean = torch.stack([normalise(clip) for clip in mel])
        if self.noise:
            mel = noise(mel, strength, generator)
        mel = mixup(mel, min(1.0, self.mixup * strength), generator)
        mel = equaliser(mel, self.equaliser_db * strength, generator)
        mel = gain(mel, self.gain_db * strength, generator)
        mel = shift_bins(mel, round(self.shift_bins * strength), generator)
        mel = torch.stack([normalise(clip) for clip in mel])
        both = torch.stack([mel, clean], dim=1)  # cut alike: (clips, 2, frames, bins)
        if self.resize:
            both = resize(both, self.piece_frames, strength, generator)
        else:
            both = another_piece(both, self.piece_frames, generator)
        mel, clean = both.unbind(dim=1)
        mel = fade(mel, self.fade * strength, generator)
        return mask(mel, round(self.time_mask * strength), round(self.bin_mask * strength), generator), clean


def _uniform(clips: int, low: float, high: float, generator: torch.Generator) -> torch.Tensor:
    return low + (high - low) * torch.rand(clips, generator=generator)


def another_piece(mel: torch.Tensor, frames: int, generator: torch.Generator) -> torch.Tensor:
    """A random piece of each clip, the same of all versions of it (clips, versions, frames, bins)."""
    starts = torch.randint(mel.shape[2] - frames + 1, (len(mel),), generator=generator).tolist()
    return torch.stack([clip[:, start : start + frames] for clip, start in zip(mel, starts, strict=True)])


def equaliser(mel: torch.Tensor, decibels: float, generator: torch.Generator) -> torch.Tensor:
    """Adds a smooth curve of that deviation over the bins, the same in all frames: another room or microphone."""
    bins = mel.shape[2]
    places = (torch.arange(bins) + 0.5) / bins
    cosines = torch.cos(math.pi * torch.arange(1, COSINES + 1)[:, None] * places)  # their mean square is a half
    weights = torch.randn(len(mel), COSINES, generator=generator) * (decibels * DECIBEL * math.sqrt(2 / COSINES))
    return mel + (weights @ cosines).to(mel)[:, None]


def gain(mel: torch.Tensor, decibels: float, generator: torch.Generator) -> torch.Tensor:
    """Changes the level of each clip by up to so much."""
    return mel + _uniform(len(mel), -decibels, decibels, generator).to(mel)[:, None, None] * DECIBEL


def noise(mel: torch.Tensor, strength: float, generator: torch.Generator) -> torch.Tensor:
    """Adds stationary noise of a smooth random spectrum to half of the clips, 0 to 20 dB fainter than they are.

    Args:
        mel: raw log mel frames (clips, frames, bins).
        strength: factor on the energy of the noise; 0 adds none.
        generator: source of randomness.
    """
    level = mel.logsumexp(dim=(1, 2)) - math.log(mel.shape[1] * mel.shape[2])
    fainter = _uniform(len(mel), 0, NOISE_DB, generator).to(mel) * DECIBEL
    chosen = torch.rand(len(mel), generator=generator).to(mel) < NOISE_SHARE
    shape = equaliser(torch.zeros_like(mel), 6.0, generator)
    rough = torch.randn(mel.shape, generator=generator).to(mel) * NOISE_ROUGHNESS
    if strength == 0:
        return mel
    added = shape + rough + (level - fainter + math.log(strength))[:, None, None]
    return torch.where(chosen[:, None, None], torch.logaddexp(mel, added), mel)


def mixup(mel: torch.Tensor, proportion: float, generator: torch.Generator) -> torch.Tensor:
    """Mixes another clip of the batch into each, ln((1 - l) e^x + l e^y), with l up to the proportion.

    One clip alone stays as it is.
    """
    shares = _uniform(len(mel), 0, proportion, generator).to(mel)[:, None, None]
    if len(mel) == 1 or proportion == 0:
        return mel
    step = int(torch.randint(1, len(mel), (1,), generator=generator))  # nobody is its own partner
    return torch.logaddexp(mel + torch.log1p(-shares), mel.roll(step, dims=0) + shares.log())


def shift_bins(mel: torch.Tensor, most: int, generator: torch.Generator) -> torch.Tensor:
    """Moves the spectrum of each clip by up to so many bins; the outermost bin fills the gap."""
    moves = torch.randint(-most, most + 1, (len(mel),), generator=generator)
    places = torch.arange(mel.shape[2]) - moves[:, None]
    places = places.clamp(0, mel.shape[2] - 1)[:, None].expand(mel.shape)
    return mel.gather(2, places.to(mel.device))


def fade(mel: torch.Tensor, most: float, generator: torch.Generator) -> torch.Tensor:
    """Adds a straight line in time to each clip, from 0 to at most so much or the other way round."""
    ends = _uniform(len(mel), -most, most, generator).to(mel)
    return mel + ends[:, None, None] * torch.linspace(0, 1, mel.shape[1]).to(mel)[None, :, None]


def resize(mel: torch.Tensor, frames: int, strength: float, generator: torch.Generator) -> torch.Tensor:
    """A random rectangle of each clip, stretched to (frames, bins) by bicubic interpolation.

    All versions of a clip (clips, versions, frames, bins) are cut alike. The clip lies in the middle of a plane of its
    mean that is half as long again. Strength draws the sides' factors nearer to 1 or farther from it.
    """
    clips, versions, length, bins = mel.shape
    width = max(frames, round(PLANE * length))
    low, high = (1 + (factor - 1) * strength for factor in RESIZED_BY)
    sides = _uniform(2 * clips, max(low, 0.1), high, generator).reshape(clips, 2)
    where = torch.rand(clips, 2, generator=generator)
    plane = mel.new_zeros(clips, versions, width, bins)
    first = (width - length) // 2
    plane[:, :, first : first + length] = mel
    cut = []
    for clip, (time, pitch), (x, y) in zip(plane, sides.tolist(), where.tolist(), strict=True):
        tall, wide = min(width, max(2, round(frames * time))), min(bins, max(2, round(bins * pitch)))
        top, left = round(x * (width - tall)), round(y * (bins - wide))
        piece = clip[None, :, top : top + tall, left : left + wide]
        cut.append(functional.interpolate(piece, (frames, bins), mode="bicubic", align_corners=True)[0])
    return torch.stack(cut)


def mask(mel: torch.Tensor, most_frames: int, most_bins: int, generator: torch.Generator) -> torch.Tensor:
    """Sets a run of frames and a run of bins of each clip to zero, of any width up to the most."""
    covered = _runs(len(mel), mel.shape[1], most_frames, generator)[:, :, None]
    covered = covered | _runs(len(mel), mel.shape[2], most_bins, generator)[:, None]
    return mel.masked_fill(covered.to(mel.device), 0)


def _runs(clips: int, size: int, most: int, generator: torch.Generator) -> torch.Tensor:
    """A run of True in each row of (clips, size), of any width from 0 to the most and anywhere."""
    widths = torch.randint(min(most, size) + 1, (clips,), generator=generator)
    starts = (torch.rand(clips, generator=generator) * (size - widths + 1)).long()
    places = torch.arange(size)
    return (places >= starts[:, None]) & (places < (starts + widths)[:, None])
