"""Entries of any kind, however they are named: what `check`, `run` and the contract tests of plug-ins begin with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from core import checks
from core.checks import CheckResult
from core.errors import BenchmarkError, ContractError, UnknownNameError
from core.manifest import Manifest
from core.metrics import METRICS, Metric
from core.registry import load_module, unknown_name
from downstreams import _checks as head_checks
from downstreams._base import HEADS, Head
from frostbench.instances import built
from tasks import _checks as task_checks
from tasks import _metric_checks as metric_checks
from tasks._base import TASKS, Task, resolve_task
from upstreams import _checks as upstream_checks
from upstreams._base import UPSTREAMS, Upstream
from upstreams._resolve import build_upstream

DECLARATION_CHECKS = (
    task_checks.check_declaration_complete,
    task_checks.check_names_resolve,
    task_checks.check_recipes_are_sane,
)
KINDS: Mapping[str, Callable[[Any], bool]] = {
    "upstream": lambda value: isinstance(value, Upstream) or _is_subclass(value, Upstream),
    "head": lambda value: _is_subclass(value, Head),
    "task": lambda value: isinstance(value, Task),
    "metric": lambda value: isinstance(value, Metric),
}


@dataclass(frozen=True)
class BoundCheck:
    """A check and what it is of.

    Attributes:
        name: of the check.
        function: raises where the promise is broken.
        subject: its argument.
        known_failures: name of a check -> reason why it can't hold.
    """

    name: str
    function: Callable[[Any], None]
    subject: Any
    known_failures: Mapping[str, str] = field(default_factory=dict)

    def run(self) -> CheckResult:
        """How it ends; a known failure has to fail."""
        return checks.run_check(self.function, self.subject, self.known_failures)

    def __call__(self) -> None:
        """Raises where the promise is broken."""
        self.function(self.subject)


@dataclass(frozen=True)
class Subject:
    """An entry and its contract.

    Attributes:
        kind: upstream, head, task or metric.
        name: of the entry.
        title: kind, name and sizes in one line.
        checks: the contract.
        known_failures: name of a check -> reason.
        upstream: that is checked, built; None where the entry is none.
    """

    kind: str
    name: str
    title: str
    checks: tuple[BoundCheck, ...]
    known_failures: Mapping[str, str] = field(default_factory=dict)
    upstream: Upstream | None = None


def subject_of(entry: Any, corpus: Manifest | None = None) -> Subject:
    """The contract of an entry.

    Args:
        entry: an object or class, a name, a specification of an upstream, or `FILE.py:NAME`.
        corpus: a task is checked on it as well; other entries have no use for one.

    Raises: UnknownNameError: nothing has that name. ContractError: it is no entry of any kind.
    """
    found = resolved(entry) if isinstance(entry, str) else entry
    kind = kind_of_entry(found)
    if kind is None:
        raise ContractError(
            f"{entry!r} is no entry: give an upstream, a head's class, a task or a metric, or the name of one"
        )
    if corpus is not None and kind != "task":
        raise ContractError(f"{kind} {_name_of(found, kind)}: only a task is checked on a corpus; leave it out")
    return _SUBJECTS[kind](found) if kind != "task" else _task_subject(found, corpus)


def resolved(spec: str) -> Any:
    """The entry that a text names: an upstream's specification first, then heads, tasks and metrics.

    Raises: UnknownNameError: nothing has that name. ContractError: the file has nothing of that name.
    """
    file, colon, name = spec.partition(".py:")
    if colon:
        return in_file(Path(f"{file}.py"), name)
    if spec.endswith(".py"):
        raise ContractError(f"{spec}: name one entry of it, as {spec}:NAME ({_listed(load_module(Path(spec)))})")
    for registry in (HEADS, TASKS, METRICS):
        if spec in registry.names():
            return registry.get(spec)
    if ":" in spec or "@" in spec or spec in UPSTREAMS.names():
        return build_upstream(spec)
    names = [*UPSTREAMS.names(), *HEADS.names(), *TASKS.names(), *METRICS.names()]
    raise unknown_name("upstream, head, task or metric", spec, names)


def in_file(file: Path, name: str) -> Any:
    """The entry of that name in a Python file; of an upstream `NAME@CHECKPOINT`, built.

    Raises: ContractError: no such file, or nothing of that name in it.
    """
    module = load_module(file)
    plain = name.partition("@")[0]
    found = getattr(module, plain, None)
    kind = kind_of_entry(found)
    if kind is None:
        raise ContractError(f"{file}: has no upstream, head, task or metric '{plain}' ({_listed(module)})")
    return build_upstream(f"{file}:{name}") if kind == "upstream" and isinstance(found, type) else found


def entries_in(module: ModuleType) -> Iterator[tuple[str, str]]:
    """(kind, name) of all entries that a module defines; classes that it only imports are left out."""
    for name, value in vars(module).items():
        kind = kind_of_entry(value)
        if kind is not None and getattr(value, "__module__", module.__name__) in (module.__name__, *_VALUES):
            yield kind, name


def kind_of_entry(value: Any) -> str | None:
    """upstream, head, task or metric; None where it is none of them."""
    return next((kind for kind, is_one in KINDS.items() if is_one(value)), None)


def checked_task(task: str | Task, head: str | type[Head] | None = None) -> Task:
    """A task whose declaration holds, asked of another head if one is given.

    Raises: UnknownNameError: no such task or head. ContractError: the declaration can't be run; says what to mend.
    """
    found = resolve_task(task) if isinstance(task, str) else task
    if not isinstance(found, Task):
        raise ContractError(f"{task!r} is no task: give a name, FILE.py:NAME or a frostbench.Task")
    if head is not None:
        found = found.with_head(checked_head(head))
    _require(f"task '{found.name}'", DECLARATION_CHECKS, task_checks.Assignment(found))
    return found


def checked_head(head: str | type[Head]) -> str:
    """The registered name of a head whose declaration holds.

    Args:
        head: a name, `FILE.py:CLASS`, or a class.

    Raises: UnknownNameError: no such head. ContractError: it is no head, not registered, or not declared whole.
    """
    if isinstance(head, str) and head.endswith(".py"):
        raise ContractError(f"{head}: name one head of it, as {head}:CLASS ({_listed(load_module(Path(head)))})")
    if isinstance(head, str) and ".py:" not in head:
        HEADS.get(head)
        return head
    found = in_file(*_split(head)) if isinstance(head, str) else head
    if not _is_subclass(found, Head):
        raise ContractError(f"{head!r} is no head: give a name, FILE.py:CLASS or a class that inherits frostbench.Head")
    name = _registered_name(found)
    _require(f"head '{name}'", (head_checks.check_declaration_complete,), name)
    return name


def _require(title: str, promises: tuple[Callable[[Any], None], ...], subject: Any) -> None:
    for promise in promises:
        try:
            promise(subject)
        except UnknownNameError:
            raise
        except BenchmarkError as error:
            raise ContractError(f"{title}: {error}") from None


def _registered_name(head: type[Head]) -> str:
    for name in HEADS.names():
        if HEADS.get(name) is head:
            return name
    raise ContractError(f"{head.__qualname__} has no name: decorate it with @frostbench.register_head('a_name')")


def _split(spec: str) -> tuple[Path, str]:
    file, _, name = spec.rpartition(":")
    return Path(file), name


def _is_subclass(value: Any, cls: type) -> bool:
    return isinstance(value, type) and issubclass(value, cls) and value is not cls


def _name_of(entry: Any, kind: str) -> str:
    if kind == "upstream":
        return entry.card.name if hasattr(entry, "card") else str(getattr(entry, "__qualname__", type(entry).__name__))
    return str(getattr(entry, "name", getattr(entry, "__qualname__", "")))


def _listed(module: ModuleType) -> str:
    found = ", ".join(f"{kind} {name}" for kind, name in entries_in(module))
    return f"found: {found or 'none'}"


def _upstream_subject(entry: Upstream | type[Upstream]) -> Subject:
    upstream = built(entry).freeze()
    frames = "one vector an utterance" if upstream.utterance_level else f"{upstream.downsample_rate} samples a frame"
    count = upstream.num_params()
    title = (
        f"{upstream.display_name}: {upstream.num_layers} layers of {upstream.hidden_size}, {frames}, "
        f"{'unknown number of' if count is None else f'{count:,}'} parameters"
    )
    known = upstream.card.known_failures
    return Subject(
        "upstream", upstream.display_name, title, _bound(upstream_checks.CHECKS, upstream, known), known, upstream
    )


def _head_subject(entry: type[Head]) -> Subject:
    name = _registered_name(entry)
    return Subject("head", name, f"head {name}: needs {entry.needs}", _bound(head_checks.CHECKS, name))


def _task_subject(task: Task, corpus: Manifest | None) -> Subject:
    known = corpus.known_failures if corpus is not None else {}
    on = "" if corpus is None else f", on {corpus.name}"
    title = f"task {task.name}: label '{task.label}', head {task.head}{on}"
    return Subject(
        "task", task.name, title, _bound(task_checks.CHECKS, task_checks.Assignment(task, corpus), known), known
    )


def _metric_subject(metric: Metric) -> Subject:
    title = f"metric {metric.name}: {metric.title} {metric.unit}, {metric.direction} is better"
    return Subject("metric", metric.name, title, _bound(metric_checks.CHECKS, metric))


def _bound(
    functions: tuple[Callable[[Any], None], ...], subject: Any, known: Mapping[str, str] | None = None
) -> tuple[BoundCheck, ...]:
    return tuple(BoundCheck(function.__name__, function, subject, known or {}) for function in functions)


_SUBJECTS: Mapping[str, Callable[[Any], Subject]] = {
    "upstream": _upstream_subject,
    "head": _head_subject,
    "metric": _metric_subject,
}
_VALUES = (Task.__module__, Metric.__module__)  # an object's `__module__` is its class's
