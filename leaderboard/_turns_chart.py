"""Who speaks when in a recording, and who was said to: a drawing over time, two bars a speaker."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from leaderboard._charts import Panel
from leaderboard._marks import Series, tip
from leaderboard._svg import CHARACTER_WIDTH, Scale, element, line, shortened, text
from leaderboard.board_errors import Turn, WrongTurns

WIDTH, TOP = 420.0, 6.0
BAR, LANE = 9.0, 30.0  # heights of a bar, and of a speaker's two with the room around them
LONGEST_NAME = 14
NOBODY = "nobody"  # in whose lane those stand who share time with no speaker


def turns_chart(series: Series, label: str, wrong: WrongTurns) -> Panel:
    """A lane a speaker: what was said above, in grey, and what was found below, in the upstream's colour.

    Args:
        series: how the upstream looks.
        label: stands above it.
        wrong: the recording.
    """
    turns = (*wrong.reference, *wrong.prediction)
    lanes = sorted(dict.fromkeys(turn.speaker for turn in turns), key=lambda name: not name)  # nobody last
    names = [shortened(name or NOBODY, LONGEST_NAME) for name in lanes]
    left = max(map(len, names)) * CHARACTER_WIDTH + 14
    scale = Scale(0, max(turn.stop for turn in turns), left, WIDTH - 10)
    bottom = TOP + LANE * len(lanes)
    parts = []
    for tick in scale.ticks(6):
        parts += [line(scale(tick), TOP, scale(tick), bottom, "grid"),
                  text(f"{tick:g}", scale(tick), bottom + 15, "tick", "middle")]  # fmt: skip
    parts.append(text("seconds", (left + WIDTH) / 2, bottom + 31, "axis-title", "middle"))
    for place, (lane, name) in enumerate(zip(lanes, names, strict=True)):
        top = TOP + LANE * place
        meant, found = (
            [turn for turn in turns if turn.speaker == lane] for turns in (wrong.reference, wrong.prediction)
        )
        told = tip(lane or NOBODY, [("Speaks", _seconds(meant)), ("Was found to", _seconds(found))])
        bars = [*_bars(meant, top + 4, "meant", scale), *_bars(found, top + 6 + BAR, series.classes("mark"), scale)]
        parts += [text(name, left - 8, top + LANE / 2 + 4, "tick", "end"), element("g", *bars, data_tip=told)]
    share = f" ({100 * wrong.errors / wrong.total:.0f} %)" if wrong.total else ""
    description = f"{wrong.errors:.1f} of {wrong.total:.1f} s of speech wrong{share}, seed {wrong.seed}"
    return Panel(label, description, WIDTH, bottom + 38, Markup("").join(parts), series.key)


def _bars(turns: Sequence[Turn], y: float, class_: str, scale: Scale) -> list[Markup]:
    return [element("rect", x=scale(turn.start), y=y, width=max(0.5, scale(turn.stop) - scale(turn.start)), height=BAR,
                    class_=class_) for turn in turns]  # fmt: skip


def _seconds(turns: Sequence[Turn]) -> str:
    return f"{sum(turn.stop - turn.start for turn in turns):.1f} s"
