"""Label budgets: what a head learns from a minute, ten, or a tenth of train; smaller parts are within larger ones."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, takewhile
from typing import Any

from core.audio import SAMPLE_RATE
from core.digest import digest_of
from core.errors import BenchmarkError, ManifestError
from downstreams._base import HEADS
from tasks._audio import samples_of
from tasks._base import Task
from tasks._rows import Drawn, Example, TaskRows

SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0}
FORM = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|h|%)")


@dataclass(frozen=True)
class Budget:
    """How much of train a head is given, in seconds of its recordings or as a share of them.

    Attributes:
        seconds: at most so many; 0 where it is a share.
        share: in (0, 1); 0 where it is seconds.
    """

    seconds: float = 0.0
    share: float = 0.0

    @classmethod
    def from_text(cls, text: str) -> Budget | None:
        """What `30s`, `10min`, `1h` or `10%` means; None of `all` and `100%`.

        Raises: BenchmarkError: it is none of these.
        """
        found = FORM.fullmatch(text.strip())
        amount = 0.0 if found is None else float(found[1])
        if text.strip() == "all" or (found is not None and found[2] == "%" and amount == 100):
            return None
        if found is None or amount == 0 or (found[2] == "%" and amount > 100):
            raise BenchmarkError(f"budget '{text}': must be such as 30s, 10min, 1h, 10% or all")
        return cls(share=amount / 100) if found[2] == "%" else cls(seconds=amount * SECONDS[found[2]])

    def __str__(self) -> str:
        if self.share:
            return f"{100 * self.share:g}%"
        unit = next(unit for unit in ("h", "min", "s") if self.seconds >= SECONDS[unit] or unit == "s")
        return f"{self.seconds / SECONDS[unit]:g}{unit}"

    def of(self, seconds: float) -> float:
        """Seconds that it allows of a train of so many."""
        return self.share * seconds if self.share else self.seconds


def asked_budgets(budgets: str | Sequence[str]) -> tuple[Budget | None, ...]:
    """One or several budgets, each once; None is all of train.

    Raises: BenchmarkError: one of them is no budget, or there is none.
    """
    texts = budgets.split(",") if isinstance(budgets, str) else list(budgets)
    if not texts:
        raise BenchmarkError("no budget is given: name at least one, or all")
    return tuple(dict.fromkeys(map(Budget.from_text, texts)))


def drawing_order(examples: Sequence[Example], classes: Sequence[str], seed: int) -> list[int]:
    """Places in train in the order in which budgets take them: a budget is what comes first, so they are nested.

    Each class comes once, the frequent ones first; then its examples are spread evenly, so that any beginning of the
    order has the classes in the proportions of the whole. Chance is in the ids, whatever order the rows are in.

    Args:
        examples: of train.
        classes: of each example; the same for all where labels are no classes.
        seed: of the draw.
    """
    chance = [hashlib.sha256(f"{seed}|{example.id}".encode()).hexdigest() for example in examples]
    members: dict[str, list[int]] = defaultdict(list)
    for place in sorted(range(len(examples)), key=chance.__getitem__):
        members[classes[place]].append(place)
    keyed: list[tuple[int, float, str, int]] = []
    for places in members.values():
        size = len(places)
        keyed.append((0, -size, chance[places[0]], places[0]))
        keyed += [(1, (turn + 0.5) / size, chance[place], place) for turn, place in enumerate(places) if turn]
    return [place for *_, place in sorted(keyed)]


def classes_of(rows: TaskRows, task: Task) -> list[str]:
    """The class of each example of train; where the labels of a task are no classes, one for all."""
    closed = HEADS.get(task.head).label_kind.closed_set
    return [str(example.label) if closed else "" for example in rows.examples["train"]]


def train_seconds(rows: TaskRows) -> float:
    """How long the recordings of train last together, without what is trimmed."""
    return sum(map(samples_of, rows.recordings["train"])) / SAMPLE_RATE


def no_budget(rows: TaskRows, task: Task, budget: Budget) -> str | None:
    """Why there is no such part of a train; None where there is."""
    head = HEADS.get(task.head)
    if task.against is not None or not (head.trains or head.keeps_train()):
        return "nothing is learned from train"
    seconds = train_seconds(rows)
    if budget.of(seconds) >= seconds:
        return f"train has {seconds / 60:.1f} min, which is no more; that is the budget all"
    return None


def within(rows: TaskRows, task: Task, budget: Budget, seed: int) -> TaskRows:
    """The same rows with a part of train: valid and test are the same, as are the classes that a head can answer.

    Budgets of a seed are nested, the smaller in the larger, for all upstreams alike.

    Args:
        rows: what the task takes of the corpus, with all of train.
        task: that takes them.
        budget: how much of train.
        seed: of the draw.

    Raises: ManifestError: nothing fits into the budget, or only one class does.
    """
    classes = classes_of(rows, task)
    seconds = train_seconds(rows)
    order = drawing_order(rows.examples["train"], classes, seed)
    samples = accumulate(samples_of(rows.recordings["train"][place]) for place in order)
    most = budget.of(seconds) * SAMPLE_RATE
    places = sorted(order[: sum(1 for _ in takewhile(lambda total: total <= most, samples))])
    train = [rows.examples["train"][place] for place in places]
    recordings = [rows.recordings["train"][place] for place in places]
    closed = HEADS.get(task.head).label_kind.closed_set
    if not train or (closed and len({classes[place] for place in places}) == 1):
        what = "no recording of train fits into it" if not train else "it holds one class of train alone"
        raise ManifestError(
            f"{task.name}, budget {budget}: {what}; train has {seconds / 60:.1f} min; take a larger one"
        )
    drawn = Drawn(
        budget=str(budget),
        seconds=round(sum(map(samples_of, recordings)) / SAMPLE_RATE, 3),
        whole_seconds=round(seconds, 3),
        whole_train=len(classes),
        whole=rows.digest,
        labels=tuple(_each_class(rows.examples["train"], classes)) if closed else (),
    )
    known = dict(zip(classes, rows.examples["train"], strict=True))
    missing = [_written(known[name].label) for name in sorted(set(known) - {classes[place] for place in places})]
    said = _missing(task, budget, seed, missing, len(known)) if missing else ""
    return replace(
        rows,
        examples={**rows.examples, "train": train},
        recordings={**rows.recordings, "train": recordings},
        digest=digest_of([rows.digest, [example.id for example in train]]),
        doubts=(*rows.doubts, *([said] if said else [])),
        drawn=drawn,
    )


def _each_class(examples: Sequence[Example], classes: Sequence[str]) -> Iterator[Any]:
    """A label of each class, in the order in which they come."""
    first = dict(zip(reversed(classes), reversed(range(len(classes))), strict=True))
    return (examples[place].label for place in sorted(first.values()))


def _written(label: Any) -> str:
    """A class in words; of an intent its slots."""
    return " ".join(map(str, label.values())) if isinstance(label, Mapping) else str(label)


def _missing(task: Task, budget: Budget, seed: int, missing: Sequence[str], classes: int) -> str:
    shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
    return (
        f"{task.name}, budget {budget}, seed {seed}: {len(missing)} of {classes} classes of {task.label} have no "
        f"example ({shown}); their recordings of test count as wrong"
    )
