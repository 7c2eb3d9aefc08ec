"""Result records: one file a run, append-only. The leaderboard reads these and what lies beside them, nothing else.

records/<first 16 of the run>.json     a ResultRecord, and `digest`, its seal: sha256 of all the rest
runs/<first 16 of the run>/            predictions.jsonl, head.safetensors, history.json; their digests are sealed
                                       (and upstream.safetensors, where the upstream was fine-tuned, and
                                       worst_waveforms.safetensors, where a run with waveforms kept some)

A record is sealed and checked as the JSON that lies there, under the schema that it names; only then is it upgraded,
step by step, to today's. So it outlives its schema: reports, `verify` and `merge` work on records of any age.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from core.digest import digest_of, json_text, parsed_json, require_writable, write_json
from core.errors import RecordError
from core.finetuning import FineTuning, is_recorded

SCHEMA_VERSION = 3
FILES = ("predictions.jsonl", "head.safetensors", "history.json")
TUNED_FILE = "upstream.safetensors"  # of a run that fine-tuned its upstream: the parameters that were trained
WORST_FILE = "worst_waveforms.safetensors"  # core/worst_waveforms.py; runs of older versions have none
NAME_LENGTH = 16  # of a run's digest, in file names
# What a training measures: on another machine it differs in the last bits at least. All else follows from the inputs.
MEASURED = ("value", "values", "learning_rate", "learning_rates", "layer_weights", "artifacts")

Content = dict[str, Any]


def files_of(finetuned: bool) -> tuple[str, ...]:
    """Names of what lies beside a record."""
    return (*FILES, TUNED_FILE) if finetuned else FILES


@dataclass(frozen=True)
class ResultRecord:
    """What one run (upstream x task x corpus x recipe x seed) gave, and all that is needed to trace it.

    Two records of one run have to agree in every field but those of `MEASURED` and the circumstances: the inputs, which
    `run` is the digest of, and what follows from them, such as names, counts and the kind of features. What is measured
    is the result of thousands of updates in floating point, so two machines seldom agree in it to the last bit, and
    where two learning rates are equally good on valid they may choose different ones.

    Attributes:
        run: `run_digest` of the run's inputs; names the record's file and its folder of predictions and head.
        upstream: name, digest, params, num_layers, hidden_size, downsample_rate, precision; newer ones its family.
        task: name, title, head, default_head (its own, which the leaderboard is made of), label, metrics, select (the
            metric that chooses on valid), scorer (what compares two recordings, where items are pairs), against (key
            of the recordings that are searched, where some are), version, and code: digest of the code of head, labels
            and metrics where they are not ours.
        corpus: name, digest (of the rows that the task takes); where it is divided, folds (the values that are tested
            on) and undivided (digest of the rows whatever their splits); of a run on a part of train also `drawn`: its
            budget, the seconds that were drawn, and seconds, recordings and digest of the whole.
        recipe: name, digest and every field; of a run on one layer alone, for a curve, also `layer`; of one that
            fine-tuned its upstream also `finetune`: mode, blocks, rank, learning_rates, share of the updates, warmup,
            looks at valid.
        audio: what is made of the recordings: every field; of a run whose test is heard in a condition also
            `condition`, such as noise@20dB.
        protocol: version of the program's protocol.
        live: whether crops passed the upstream anew at every update (`--exact`).
        frames: where the head needs frames: float16 or int8 as they were kept, or recompute; else None.
        fold: value of the key by which the corpus is divided that was tested on; None where splits are fixed.
        custom: True keeps it off the leaderboard: limited data, or a registered task's name with other content.
        seed: of the head's training.
        metrics: all of the task, in its order: name, title, unit, direction ("higher" or "lower" is better), bounds.
        metric: the first of them, which tables show first.
        value: the metric on test, in the unit.
        values: name of each metric -> its value on test.
        learning_rate: chosen on valid.
        learning_rates: every one tried: learning_rate, valid value of the selecting metric, step of the best; where
            training diverged, both are null and `diverged` is the update before which it did; `upstream_rate` is that
            of a fine-tuned upstream.
        counts: utterances of train, valid and test; of pairs also trials, those of test.
        layer_weights: learned softmax weights, one a layer.
        features: kind and number format of what the head was trained on, and departures from the protocol.
        artifacts: file name -> sha256 of what lies in the run's folder.
        circumstances: not part of the result: wall seconds by stage, versions, git commit, machine, time,
            upstream_spec; series, the pattern by which the upstream was asked for as one of a series of checkpoints;
            upstream_checks, those of the contract that the upstream passed before its numbers were
            trusted; leaks, where recordings of test are in another split (two_splits) or in what the upstream was
            trained on (pretraining): count, of, and ids of some; and what is measured beside it: gflops_per_second of
            audio (None where they can't be counted), layer_norms, the mean norm of each layer's features on valid, by
            which layer weights can be compared, and of a fine-tuned upstream `finetuning`: trained_parameters and
            audio_seconds that passed it, and what both are of the frozen one.
        schema_version: of the fields; a record of an older one is upgraded when it is read.
    """

    run: str
    upstream: Mapping[str, Any]
    task: Mapping[str, Any]
    corpus: Mapping[str, Any]
    recipe: Mapping[str, Any]
    audio: Mapping[str, Any]
    protocol: int
    live: bool
    frames: str | None
    fold: str | None
    custom: bool
    seed: int
    metrics: Sequence[Mapping[str, Any]]
    metric: Mapping[str, Any]
    value: float
    values: Mapping[str, float]
    learning_rate: float
    learning_rates: list[Mapping[str, Any]]
    counts: Mapping[str, int]
    layer_weights: list[float]
    features: Mapping[str, Any]
    artifacts: Mapping[str, str]
    circumstances: Mapping[str, Any]
    schema_version: int = SCHEMA_VERSION

    @property
    def layer(self) -> int | None:
        """The only layer that the head was given because it was asked for: no row of a leaderboard, but of a curve."""
        return self.recipe.get("layer")

    @property
    def finetuning(self) -> str | None:
        """How the upstream was fine-tuned, such as full or top:2, for a board of its own; None if it was frozen."""
        content = self.recipe.get("finetune")
        if content is None or not is_recorded(content):
            return None
        return FineTuning(content["mode"], content["blocks"], content["rank"]).label

    @property
    def files(self) -> tuple[str, ...]:
        """Names of what lies beside it."""
        return (*files_of(self.finetuning is not None), *[WORST_FILE] * (WORST_FILE in self.artifacts))

    @property
    def has_row(self) -> bool:
        """Whether it stands in a row of a leaderboard, not on a curve beside it."""
        return self.layer is None and self.drawn is None and self.condition is None

    @property
    def recipe_of_sum(self) -> Content:
        """Fields of the recipe without that layer, and without that fine-tuning."""
        return {key: value for key, value in self.recipe.items() if key not in ("digest", "layer", "finetune")}

    def run_of_sum(self) -> str:
        """The run that differs in this alone: it learns a sum of all layers. Its own, if this is it."""
        if self.layer is None:
            return self.run
        return inputs_digest({**asdict(self), "recipe": self.recipe_of_sum})

    def run_of_frozen(self) -> str:
        """The run that differs in its frozen upstream alone. Its own, if this is it."""
        if self.finetuning is None:
            return self.run
        return inputs_digest({**asdict(self), "recipe": self.recipe_of_sum})

    @property
    def drawn(self) -> Content | None:
        """The part of train that its head was given because of a label budget: no row of a leaderboard, but of a curve.

        None is all of train.
        """
        return self.corpus.get("drawn")

    def run_of_all(self) -> str:
        """The run that differs in this alone: it learns from all of train. Its own, if this is it."""
        if self.drawn is None:
            return self.run
        corpus = {**{key: value for key, value in self.corpus.items() if key != "drawn"}, "digest": self.drawn["whole"]}
        counts = {**self.counts, "train": self.drawn["whole_train"]}
        return inputs_digest({**asdict(self), "corpus": corpus, "counts": counts})

    @property
    def condition(self) -> str | None:
        """What test is heard in by a head that was trained without it: no row of a leaderboard, but of a curve.

        None is as it was recorded.
        """
        return self.audio.get("condition")

    @property
    def clean_audio(self) -> Content:
        """What is made of the recordings besides."""
        return {key: value for key, value in self.audio.items() if key != "condition"}

    def run_of_clean(self) -> str:
        """The run whose head it has, and that differs in the condition alone. Its own, if this is it."""
        return self.run if self.condition is None else inputs_digest({**asdict(self), "audio": self.clean_audio})

    def result(self) -> Content:
        """Everything but the circumstances: equal for equal inputs, however often the run was interrupted."""
        return {key: value for key, value in asdict(self).items() if key != "circumstances"}

    def result_digest(self) -> str:
        """sha256 of the result."""
        return digest_of(self.result())

    def sealed(self) -> Content:
        """The content of its file."""
        return {**asdict(self), "digest": digest_of(self)}

    def inputs_digest(self) -> str:
        """`run_digest` of the inputs that it names; equals `run` unless something was changed."""
        return inputs_digest(asdict(self))


def task_digest(task: Mapping[str, Any]) -> str:
    """sha256 of what decides a result besides recipe and data."""
    keys = ["name", "label", "head", "default_head", "metrics", "select", "version", "code"]
    searched = [["against", task["against"]]] if "against" in task else []
    return digest_of([task[key] for key in keys + ["scorer"] * ("scorer" in task)] + searched)


def run_digest(  # noqa: PLR0913  # each of them by name
    *,
    protocol: int,
    upstream: str,
    task: Mapping[str, Any],
    recipe: object,
    audio: object,
    corpus: str,
    counts: Mapping[str, int],
    live: bool,
    frames: str | None,
    fold: str | None,
    custom: bool,
    seed: int,
    drawn: Mapping[str, Any] | None = None,
) -> str:
    """sha256 of all that decides a result, and of whether it stays off the leaderboard.

    Args:
        protocol: version of the program's protocol.
        upstream: digest of weights, configuration and preprocessing.
        task: name, label, head, default_head, metrics, select, version and code count; the title is for people.
        recipe: every field.
        audio: every field.
        corpus: digest of the rows that the task takes.
        counts: of these rows in each split; they follow from the digest, and are here so that they can be verified.
        live: whether crops passed the upstream anew at every update.
        frames: how they were kept, if they were needed.
        fold: that was tested on, where there are folds.
        custom: whether data are limited, or the task is another one than the registered one of its name.
        seed: of the head's training.
        drawn: what a label budget left of train; None is all of it.
    """
    budget = {} if drawn is None else {"drawn": drawn}
    return digest_of(
        {
            **budget,
            "protocol": protocol,
            "upstream": upstream,
            "task": task_digest(task),
            "recipe": recipe,
            "audio": audio,
            "corpus": corpus,
            "counts": counts,
            "live": live,
            "frames": frames,
            "fold": fold,
            "custom": custom,
            "seed": seed,
        }
    )


def _recipe_fields(content: Content) -> Content:
    return {key: value for key, value in content["recipe"].items() if key != "digest"}


def _inputs_1(content: Content) -> str:
    """Schema 1 had one protocol and one version of each task, and did not repeat them."""
    task = [content["task"][key] for key in ("name", "label", "head")]
    return digest_of(
        {
            "protocol": 1,
            "upstream": content["upstream"]["digest"],
            "task": digest_of([*task, content["metric"]["name"], 1]),
            "recipe": _recipe_fields(content),
            "corpus": content["corpus"]["digest"],
            "live": _live_1(content),
            "seed": content["seed"],
        }
    )


def _inputs_2(content: Content) -> str:
    task = content["task"]
    plugins = [task["code"]] if task.get("code") else []
    return digest_of(
        {
            **{key: content[key] for key in ("protocol", "live", "frames", "seed")},
            "upstream": content["upstream"]["digest"],
            "task": digest_of([*(task[key] for key in ("name", "label", "head", "metric", "version")), *plugins]),
            "recipe": _recipe_fields(content),
            "corpus": content["corpus"]["digest"],
        }
    )


def _inputs_3(content: Content) -> str:
    names = ("protocol", "task", "audio", "counts", "live", "frames", "fold", "custom", "seed")
    return run_digest(
        **{name: content[name] for name in names},
        upstream=content["upstream"]["digest"],
        recipe=_recipe_fields(content),
        corpus=content["corpus"]["digest"],
        drawn=content["corpus"].get("drawn"),
    )


INPUTS: Mapping[int, Callable[[Content], str]] = {1: _inputs_1, 2: _inputs_2, 3: _inputs_3}


def inputs_digest(content: Content) -> str:
    """The digest of the inputs that a record's JSON names, by the rule of its own schema."""
    return INPUTS[content["schema_version"]](content)


def _live_1(content: Content) -> bool:
    """Fixed crops were a departure; without one, a recipe that crops did so at every update."""
    return bool(content["recipe"]["crop_samples"]) and not content["features"]["departures"]


AUDIO_ONCE_IN_RECIPES = ("gain_db", "crop_samples", "crops")  # up to schema 2


def _from_1(content: Content) -> Content:
    """Schema 2 repeats protocol, crops, frames, and all that the task's digest is made of."""
    task = content["task"]
    return {
        **content,
        "task": {**task, "default_head": task["head"], "metric": content["metric"]["name"], "version": 1},
        "protocol": 1,
        "live": _live_1(content),
        "frames": content["features"]["dtype"] if content["features"]["kind"] == "frames" else None,
    }


def _from_2(content: Content) -> Content:
    """Schema 3 has several metrics and says their bounds, and moves what machines measure to the circumstances."""
    metric = {**content["metric"], "bounds": [0.0, 100.0 if content["metric"]["direction"] == "higher" else None]}
    task = {key: value for key, value in content["task"].items() if key != "metric"}
    upstream, features = dict(content["upstream"]), dict(content["features"])
    measured = {
        "gflops_per_second": upstream.pop("gflops_per_second", None),
        "layer_norms": features.pop("layer_norms", []),
    }
    return {
        **content,
        "upstream": upstream,
        "task": {"code": None, **task, "metrics": [metric["name"]], "select": metric["name"]},
        "audio": {key: content["recipe"][key] for key in AUDIO_ONCE_IN_RECIPES if key in content["recipe"]},
        "fold": None,
        "metrics": [metric],
        "metric": metric,
        "values": {metric["name"]: content["value"]},
        "features": features,
        "circumstances": {**measured, **content["circumstances"]},
    }


# Schema -> what makes the next one of it.
UPGRADES: Mapping[int, Callable[[Content], Content]] = {1: _from_1, 2: _from_2}


def upgraded(content: Content) -> ResultRecord:
    """A record's JSON, without its seal, as a record of today's schema.

    Raises: KeyError, TypeError: the content lacks what its schema has, or has what it has not.
    """
    for version in range(content["schema_version"], SCHEMA_VERSION):
        content = {**UPGRADES[version](content), "schema_version": version + 1}
    return ResultRecord(**content)


class RecordStore:
    """The folder of results."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, run: str) -> Path:
        """The record's file."""
        return self.folder / "records" / f"{run[:NAME_LENGTH]}.json"

    def run_folder(self, run: str) -> Path:
        """The folder of the run's files."""
        return self.folder / "runs" / run[:NAME_LENGTH]

    def __contains__(self, run: str) -> bool:
        return self.path(run).is_file()

    def add(self, record: ResultRecord) -> None:
        """Writes a record, once.

        Raises: RecordError: another result stands under the same run.
        """
        if record.run in self:
            if self.read(self.path(record.run)).result_digest() == record.result_digest():
                return
            raise RecordError(
                f"{self.path(record.run)}: holds another result of the same run; move one of the two folders away"
            )
        write_json(self.path(record.run), record.sealed())

    def require_writable(self) -> None:
        """Refuses a folder that no result can be written to, before hours of work instead of after them.

        Raises: OSError: `errno` and `filename` are set.
        """
        for folder in (self.folder, self.folder / "records", self.folder / "runs"):
            require_writable(folder)

    def paths(self) -> list[Path]:
        """The files of all records, in the order of their names."""
        return sorted((self.folder / "records").glob("[!.]*.json"))

    def all(self) -> list[ResultRecord]:
        """Every record, in the order of the file names.

        Raises: RecordError: a file is damaged, changed, or of a newer schema.
        """
        return [self.read(path) for path in self.paths()]

    @staticmethod
    def read(path: Path) -> ResultRecord:
        """Reads one record.

        Raises: RecordError: damaged, changed, or of a newer schema.
        """
        stored = read_stored(path)
        if not stored.holds:
            raise RecordError(
                f"{path}: was changed after it was written; restore it, or delete it and run the cell again"
            )
        return stored.record


@dataclass(frozen=True)
class StoredRecord:
    """A record as it lies in its file.

    Attributes:
        content: the JSON without its seal.
        seal: the digest that it was written with; None of schema 1, which had none.
        record: the content as a record of today's schema.
        text: of the file.
    """

    content: Content
    seal: str | None
    record: ResultRecord
    text: str

    @property
    def holds(self) -> bool:
        """Whether the content is what was sealed."""
        try:
            return self.seal == digest_of(self.content) or (self.seal is None and self.content["schema_version"] == 1)
        except UnicodeEncodeError:  # half of a surrogate pair: nothing that was sealed
            return False

    @property
    def as_written(self) -> bool:
        """Whether the bytes are those that were written, too."""
        seal = {} if self.seal is None else {"digest": self.seal}
        return self.text == json_text({**self.content, **seal})


def read_stored(path: Path) -> StoredRecord:
    """A record with its seal, whether they fit or not.

    Raises: RecordError: damaged, or of a newer schema.
    """
    try:
        text = path.read_text(encoding="utf-8")
        content = parsed_json(text)
        seal = content.pop("digest", None)
        version = content["schema_version"]
        if version <= SCHEMA_VERSION:
            return StoredRecord(content, seal, upgraded(content), text)
    except OSError as error:
        raise RecordError(f"{path}: can't be read ({error.strerror})") from None
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise RecordError(f"{path}: not a result record ({error}); delete it and run the cell again") from None
    raise RecordError(
        f"{path}: has schema {version}, this program reads schemas up to {SCHEMA_VERSION}: update Frostbench to "
        f"{_version_of(content)} or later"
    )


def _version_of(content: Content) -> str:
    """The version that wrote a record of a schema that is not known."""
    circumstances = content.get("circumstances")
    versions = circumstances.get("versions") if isinstance(circumstances, dict) else None
    return str(
        versions.get("frostbench", "the one that wrote it") if isinstance(versions, dict) else "the one that wrote it"
    )
