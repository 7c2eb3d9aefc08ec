"""Who speaks when: turns in seconds, as in RTTM files, to the activity of every speaker in every frame."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any, ClassVar

import torch

from core.audio import SAMPLE_RATE
from core.errors import TrainingError
from downstreams.labels._base import LabelContext, Labels, register_labels

Turn = Mapping[str, Any]  # {"start": 0.12, "stop": 1.84, "speaker": "anna"}
FRAME_SECONDS = 0.02  # of the coarsest frames in use: an encoded turn begins and ends that close to its time


def _two_turns(number: int) -> list[dict[str, Any]]:
    first, second = ("anna", "ben") if number % 2 else ("ben", "anna")
    begin = 0.01 * number
    return [
        {"start": 0.0, "stop": 0.1 + begin, "speaker": first},
        {"start": 0.05 + begin, "stop": 0.2 + begin / 2, "speaker": second},
    ]


@register_labels("activities")
@dataclass(frozen=True)
class ActivityLabels(Labels):
    """Turns as frames: each speaker of a recording has a column, in the order in which they first speak.

    Attributes:
        speakers: columns: the most speakers that a recording of train has.
    """

    timed: ClassVar[bool] = True
    samples: ClassVar[tuple[Any, ...]] = tuple(_two_turns(number) for number in range(8))
    speakers: int

    @classmethod
    def from_train(cls, labels: Sequence[Any], name: str) -> ActivityLabels:
        """Counts the speakers of each recording; see Labels.from_train."""
        return cls(max((len(_spans(turns)) for turns in labels), default=0))

    @property
    def sizes(self) -> list[int]:
        """One question: who of so many speaks."""
        return [self.speakers]

    def encode(self, label: Any, context: LabelContext) -> torch.Tensor:
        """1 where a speaker speaks, float32 (frames, speakers).

        A turn covers the frames from its start to its stop, both rounded to the nearest frame (half to even).

        Raises: TrainingError: more speakers than any recording of train has.
        """
        spans = _spans(label)
        if len(spans) > self.speakers:
            raise TrainingError(f"turns of {len(spans)} speakers ({', '.join(spans)}), but train has {self.speakers}")
        active = torch.zeros(context.frames, self.speakers)
        for column, turns in enumerate(spans.values()):
            for start, stop in turns:
                first, last = (round(seconds * SAMPLE_RATE / context.downsample_rate) for seconds in (start, stop))
                active[first:last, column] = 1
        return active

    def decode(self, encoded: torch.Tensor, context: LabelContext) -> list[dict[str, Any]]:
        """Activity (frames, speakers) -> turns in order of time; speakers are called by their column."""
        turns = []
        for column, active in enumerate(encoded.bool().T):
            edges = torch.diff(active.int(), prepend=torch.zeros(1, dtype=torch.int32).to(active.device),
                               append=torch.zeros(1, dtype=torch.int32).to(active.device))  # fmt: skip
            starts, stops = ((edges == change).nonzero()[:, 0].tolist() for change in (1, -1))
            for start, stop in zip(starts, stops, strict=True):
                turns.append(_turn(context.seconds(start), context.seconds(stop), str(column)))
        return sorted(turns, key=_order)

    def reference(self, label: Any) -> list[dict[str, Any]]:
        """The turns in order of time; those of one speaker that overlap or touch are one."""
        return sorted((_turn(*span, speaker) for speaker, spans in _spans(label).items() for span in spans), key=_order)

    def matches(self, prediction: Any, reference: Any) -> bool:
        """Whether the turns are the same within a frame, whatever the speakers are called."""
        ours, theirs = list(_spans(prediction).values()), list(_spans(reference).values())
        return len(ours) == len(theirs) and any(
            all(_close(one, other) for one, other in zip(order, theirs, strict=True)) for order in permutations(ours)
        )

    def to_json(self) -> dict[str, Any]:
        """See Labels.to_json."""
        return {"kind": "activities", "speakers": self.speakers}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> ActivityLabels:
        """See Labels.from_json."""
        return cls(content["speakers"])


def _spans(turns: Sequence[Turn]) -> dict[str, list[tuple[float, float]]]:
    """Speaker -> where they speak, merged; speakers in the order in which they first do."""
    spans: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for turn in sorted(turns, key=_order):
        start, stop = float(turn["start"]), float(turn["stop"])
        found = spans[str(turn["speaker"])]
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], stop))
        else:
            found.append((start, stop))
    return dict(spans)


def _turn(start: float, stop: float, speaker: str) -> dict[str, Any]:
    return {"start": start, "stop": stop, "speaker": speaker}


def _order(turn: Turn) -> tuple[float, float, str]:
    return float(turn["start"]), float(turn["stop"]), str(turn["speaker"])


def _close(one: Sequence[tuple[float, float]], other: Sequence[tuple[float, float]]) -> bool:
    return len(one) == len(other) and all(
        abs(x - y) <= FRAME_SECONDS for a, b in zip(one, other, strict=True) for x, y in zip(a, b, strict=True)
    )
