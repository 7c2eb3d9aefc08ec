"""Every error that a user, a file or a plug-in can cause.

    BenchmarkError
    ├── AudioError         a recording can't be read, or holds nothing usable
    ├── ManifestError      a manifest row, label or split is wrong
    ├── UnknownNameError   no upstream, head, task, metric or corpus of that name
    ├── CheckpointError    a checkpoint is missing, damaged or of another architecture
    ├── ContractError      an upstream, head or task breaks a promise of its contract
    ├── TrainingError      training can't go on: NaN loss, no trainable example
    ├── CacheError         the feature cache can't be read or written
    ├── RecordError        a result record is damaged or contradicts another
    ├── MetricError        a metric is not defined on the predictions it was given
    └── EvaluationError    cells of a grid failed; the others are recorded

Every message says what was wrong with which value, where, and what to do. The CLI prints it and exits with 2.
"""

import re

# What values of a file can bring into a message, and would break its line or its output: control characters, line
# breaks, halves of characters. Our own lists begin each line with two spaces.
UNPRINTABLE = re.compile("[\x00-\t\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]|\n(?!  )")


class BenchmarkError(Exception):
    """Base of all errors with a message that is meant for the user, in which odd characters are spelled out."""

    def __str__(self) -> str:
        return UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), super().__str__())


class AudioError(BenchmarkError):
    """A recording can't be read, or holds nothing usable."""


class ManifestError(BenchmarkError):
    """A manifest row, label or split is wrong."""


class UnknownNameError(BenchmarkError):
    """No entry of that name in a registry."""


class CheckpointError(BenchmarkError):
    """A checkpoint is missing, damaged or of another architecture."""


class ContractError(BenchmarkError):
    """An upstream, head or task breaks a promise of its contract."""


class TrainingError(BenchmarkError):
    """Training can't go on."""


class CacheError(BenchmarkError):
    """The feature cache can't be read or written."""


class RecordError(BenchmarkError):
    """A result record is damaged or contradicts another."""


class MetricError(BenchmarkError):
    """A metric is not defined on the predictions it was given."""


class EvaluationError(BenchmarkError):
    """Cells of a grid failed; the others are recorded.

    Attributes:
        failures: (name of the job, error), each once.
    """

    def __init__(self, message: str, failures: tuple[tuple[str, str], ...]) -> None:
        super().__init__(message, failures)
        self.failures = failures

    def __str__(self) -> str:
        return str(BenchmarkError(self.args[0]))
