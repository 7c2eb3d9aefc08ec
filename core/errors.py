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


class BenchmarkError(Exception):
    """Base of all errors with a message that is meant for the user."""


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
        return str(self.args[0])
