"""The task contract as a list of checks: one function a promise, over a declaration and a corpus."""

from __future__ import annotations

import pickle
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any

import numpy as np

from core import checks
from core.checks import CheckResult, require
from core.manifest import Manifest, Utterance, slots_of
from core.metrics import Metric, get_metric
from core.registry import unknown_name
from downstreams._base import HEADS
from downstreams._recipe import Recipe
from downstreams._schedules import SCHEDULES
from downstreams.labels._base import ANY_CONTEXT, LABELS, Labels
from tasks._base import TASKS, Task
from tasks._folds import folds_of, in_fold
from tasks._rows import task_rows, values_of
from tasks._scorers import SCORERS
from tasks._trials import Trial, references_of, searches_of, trials_of


@dataclass(frozen=True)
class Assignment:
    """A task, and a corpus it is given for; without one only the declaration is checked."""

    task: Task
    corpus: Manifest | None = None


Check = Callable[[Assignment], None]
MOST_HEARD = 20  # waveforms of test that measures of speech are tried on


def check_declaration_complete(given: Assignment) -> None:
    """Name, title, paper and label are filled in, and there is a recipe."""
    for field in ("name", "title", "paper", "label", "recipes"):
        require(bool(getattr(given.task, field)), f"{field} is empty: fill it in")
    require(given.task.version >= 1, f"version is {given.task.version}: start at 1")


def check_names_resolve(given: Assignment) -> None:
    """Head and metrics exist, one of them chooses on valid, and the head says how it reads labels."""
    head = HEADS.get(given.task.head)
    require(issubclass(head.label_kind, Labels), f"label kind {head.label_kind.__name__} is no subclass of Labels")
    require(head.label_kind in list(LABELS), f"label kind {head.label_kind.__name__} is not registered")
    metrics = [get_metric(name).name for name in given.task.metrics]
    require(len(set(metrics)) == len(metrics) > 0, f"metrics {metrics}: name each once, one at least")
    scorer = given.task.scorer
    require(
        scorer is None or scorer in SCORERS.names(), f"scorer: {unknown_name('scorer', str(scorer), SCORERS.names())}"
    )
    require(
        head.embeds is (scorer is not None),
        f"{given.task.head} gives {'vectors' if head.embeds else 'none'}: a scorer and a head that embeds go together",
    )
    against = given.task.against
    require(
        against is None or (scorer is not None and not head.trains),
        f"against is '{against}': what is searched needs a scorer, and a head that learns nothing",
    )
    require(given.task.selecting in metrics, f"select '{given.task.select}' is none of the metrics {metrics}")


def check_recipes_are_sane(given: Assignment) -> None:
    """Each recipe can be run: its numbers fit together, and the head knows its options; `audio` names recipes."""
    usual = {
        name for task in TASKS.names() for name in TASKS.get(task).recipes
    }  # of whose copy it may be, by replace()
    for name in given.task.audio:
        if name not in given.task.recipes and name not in usual:
            require(False, f"audio: {unknown_name('recipe', name, {*given.task.recipes, *usual})}")
    for name, recipe in given.task.recipes.items():
        require(recipe.name == name, f"recipe '{name}' calls itself '{recipe.name}'")
        for problem in _problems(given.task, recipe):
            require(False, f"recipe '{name}': {problem}")


def check_splits_share_no_recording(given: Assignment) -> None:
    """No utterance id and no piece of audio is in two splits; where nothing is learnt, it may be."""
    if given.corpus is None or given.task.against is not None:
        return
    seen: dict[object, Utterance] = {}
    digests = given.corpus.audio_digests
    for row in given.task.rows_of(given.corpus).utterances:
        for what in (row.id, (digests[row.id], row.start, row.stop)):
            other = seen.setdefault(what, row)
            require(
                other.split == row.split, f"'{row.id}' in {row.split} is the same recording as '{other.id}' elsewhere"
            )


def check_disjoint_holds(given: Assignment) -> None:
    """No value of the key `disjoint`, such as a voice, is in two splits."""
    if given.corpus is None or given.task.disjoint is None:
        return
    splits = defaultdict(set)
    for row in given.task.rows_of(given.corpus).utterances:
        for value in values_of(row, given.task.disjoint):
            splits[value].add("train" if given.task.folds and row.split == "valid" else row.split)
    shared = sorted(value for value, where in splits.items() if len(where) > 1)
    require(not shared, f"{given.task.disjoint} {shared[:3]} are in several splits")


def check_test_labels_occur_in_train(given: Assignment) -> None:
    """Every class of valid and test can be learnt, and every split has rows."""
    if given.corpus is None:
        return
    rows = {split: given.task.rows_of(given.corpus).split(split) for split in given.task.splits}
    if not HEADS.get(given.task.head).label_kind.closed_set:
        return
    classes = {
        split: {pair for row in part for pair in slots_of(row.labels[given.task.label], given.task.label)}
        for split, part in rows.items()
    }
    unseen = sorted((classes["valid"] | classes["test"]) - classes["train"])
    require(not unseen, f"{unseen[:3]} are not in train")


def check_perfect_predictions_score_the_optimum(given: Assignment) -> None:
    """The references themselves get the best value there is."""
    references = _references(given)
    for metric in map(get_metric, given.task.metrics):
        if metric.optimum is not None:
            value = metric.compute(references, references)
            wanted = metric.optimum
            require(value == wanted, f"{metric.name} of perfect predictions is {value}, must be {wanted}")


def check_a_constant_scores_chance_or_worse(given: Assignment) -> None:
    """Whoever says the most frequent thing every time is no better than its share; or gives back what is heard."""
    references = _references(given)
    metric = get_metric(given.task.metrics[0])
    if HEADS.get(given.task.head).label_kind.heard:
        value = metric.compute([np.repeat(each[:1], len(each) - 1, axis=0) for each in references], references)
        require(value != metric.optimum, "what is heard is what it is to be made of: nothing is left to do")
        return
    common, count = Counter(map(str, references)).most_common(1)[0]
    constant = next(reference for reference in references if str(reference) == common)
    value = metric.compute([constant] * len(references), references)
    chance = _chance(metric, references, count)
    require(
        metric.sign * (chance - value) >= -1e-9,
        f"{metric.name} of a constant prediction is {value:.2f}, better than chance ({chance:.2f})",
    )
    require(value != metric.optimum, "a constant prediction is perfect: the test split has one class only")


def check_digest_is_stable_and_its_own(given: Assignment) -> None:
    """The digest follows the meaning: the same after a copy, another for every other task, and for another meaning."""
    task = given.task
    copy = pickle.loads(pickle.dumps(task))  # noqa: S301  # our own bytes
    require(copy.digest() == task.digest(), "the digest of a copy differs")
    require(replace(task, title="another").digest() == task.digest(), "the digest changes with the title")
    for field, value in (
        ("label", "another"),
        ("head", "another"),
        ("metrics", ("another",)),
        ("select", "another"),
        ("scorer", "another"),
        ("against", "another"),
        ("version", -1),
    ):
        changed = replace(task, **{field: value})  # type: ignore[arg-type]
        require(changed.digest() != task.digest(), f"the digest does not change with {field}")
    twins = [other.name for other in TASKS if other.digest() == task.digest() and other.name != task.name]
    require(not twins, f"the digest is that of {twins}")


def check_corpus_is_accepted(given: Assignment) -> None:
    """The planner takes the rows that carry the label, each with a label of its own."""
    if given.corpus is None:
        return
    examples = task_rows(given.corpus, given.task).examples
    taken = given.task.rows_of(given.corpus)
    expected = {split: [row.id for row in taken.split(split)] for split in given.task.splits}
    found = {split: [row.id for row in examples[split]] for split in given.task.splits}
    require(found == expected, "rows were lost")


CHECKS: tuple[Check, ...] = (
    check_declaration_complete,
    check_names_resolve,
    check_recipes_are_sane,
    check_splits_share_no_recording,
    check_disjoint_holds,
    check_test_labels_occur_in_train,
    check_perfect_predictions_score_the_optimum,
    check_a_constant_scores_chance_or_worse,
    check_digest_is_stable_and_its_own,
    check_corpus_is_accepted,
)


def run_check(check: Check, task: Task, corpus: Manifest | None = None) -> CheckResult:
    """Runs one check on a task, and on a corpus that carries its label: on every fold where the task has some.

    A known failure of the corpus has to fail.
    """

    @wraps(check)
    def on_every_fold(given: Assignment) -> None:
        corpora = [None] if corpus is None else [in_fold(corpus, task, fold) for fold in folds_of(corpus, task)]
        for each in corpora:
            check(Assignment(given.task, each))

    return checks.run_check(on_every_fold, Assignment(task, corpus), corpus.known_failures if corpus else None)


def _problems(task: Task, recipe: Recipe) -> list[str]:
    head = HEADS.get(task.head)
    known = set(head.options_type.__dataclass_fields__)
    rates, audio, schedules = recipe.learning_rates, task.audio_of(recipe), SCHEDULES.names()
    rules = (
        (min(recipe.batch_size, recipe.eval_every) >= 1, "batch_size and eval_every start at 1"),
        (recipe.steps >= 1 or not head.trains, "steps start at 1"),
        (head.trains or (recipe.steps, rates) == (0, (0.0,)), f"{task.head} learns nothing: 0 steps, learning rate 0"),
        (recipe.steps % recipe.eval_every == 0, f"eval_every {recipe.eval_every} does not divide {recipe.steps} steps"),
        (len(rates) > 0, "learning_rates is empty"),
        (min(rates, default=1) > 0 or not head.trains, f"learning_rates {rates} vanish"),
        (len(set(rates)) == len(rates), f"learning_rates {rates} repeat"),
        (recipe.clip > 0 and recipe.patience >= 0, "clip must be above zero, patience not below"),
        (recipe.schedule in schedules, f"schedule '{recipe.schedule}' is none of {', '.join(schedules)}"),
        (0 <= recipe.warmup_steps <= recipe.steps, f"warmup_steps {recipe.warmup_steps} are not within the steps"),
        (0 <= recipe.search_steps <= recipe.steps, f"search_steps {recipe.search_steps} are not within the steps"),
        (recipe.search_steps % recipe.eval_every == 0, f"search_steps {recipe.search_steps} end at no look at valid"),
        (recipe.weight_decay >= 0, "weight_decay must not be below zero"),
        (recipe.layers in ("weighted", "single"), f"layers are '{recipe.layers}', must be weighted or single"),
        (recipe.layer is None, "layer is for run --layers to set"),
        (audio.condition is None, "condition is for run --condition to set"),
        (recipe.finetune is None, "finetune is for run --finetune to set"),
        (bool(audio.crop_samples) == bool(audio.crops), "crop_samples and crops go together"),
        (audio.trim is None or min(audio.trim.level, audio.trim.seconds) > 0, "trim needs a level and seconds above 0"),
        (not audio.cuts or not head.label_kind.timed, "recordings are cut, but labels say when something happens"),
        (not (audio.crop_samples and head.hears), "recordings are cut, but not what they are to be made of"),
        (not recipe.balanced or head.label_kind.closed_set, "balanced needs classes"),
        (not recipe.spec_augment or head.needs == "frames", "spec_augment needs a head on frames"),
        *((name in known, str(unknown_name(f"option of {task.head}", name, known))) for name in recipe.head),
    )
    return [problem for holds, problem in rules if not holds]


def _references(given: Assignment) -> list[Any]:
    """What test predictions are compared with; without a corpus the label kind's samples."""
    if given.task.scorer is not None:
        return references_of(_trials(given), given.task.against is not None)
    head = HEADS.get(given.task.head)
    if given.corpus is None:
        train = test = list(head.label_kind.samples)
    elif head.label_kind.heard:
        examples = task_rows(given.corpus, given.task).examples
        known = head.label_kind.from_train([row.label for row in examples["train"]], given.task.label)
        return [known.encode(row.label, ANY_CONTEXT).numpy() for row in examples["test"][:MOST_HEARD]]
    else:
        rows = given.task.rows_of(given.corpus)
        train, test = ([row.labels[given.task.label] for row in rows.split(split)] for split in ("train", "test"))
    labels = head.labels_from_train(train, given.task.label, given.task.recipe(None))
    return [labels.reference(label) for label in test]


def _trials(given: Assignment) -> list[Trial]:
    """Those of test; without a corpus all pairs of the label kind's samples."""
    task, corpus = given.task, given.corpus
    if corpus is None:
        samples = list(enumerate(HEADS.get(task.head).label_kind.samples))
        return [Trial(first, second, one == other) for second, other in samples for first, one in samples[:second]]
    rows = task.rows_of(corpus).split("test")
    if task.against is None:
        return trials_of(corpus, rows, task.label)
    return searches_of(corpus, rows, task.label, task.against)


def _chance(metric: Metric, references: Sequence[Any], count: int) -> float:
    """The share of the most frequent reference; for error rates one edit at least in every other utterance.

    Where a prediction may be right in part, as slots, no share bounds it: a constant only has to miss the optimum.
    """
    if metric.direction == "higher" and metric.align is None:
        return float("inf") if metric.optimum is None else metric.optimum
    if metric.direction == "higher":
        return 100 * count / len(references)
    return 100 * (len(references) - count) / sum(len(str(reference)) for reference in references)
