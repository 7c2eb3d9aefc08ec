"""Optional dependencies: which packages each extra of the installation brings, and what to say where one is absent."""

from __future__ import annotations

import importlib.util
import sys

from core.errors import BenchmarkError

# Extra -> modules that the program imports of it, and only after `require_extra`.
EXTRAS = {
    "hf-datasets": ("datasets",),
    "lora": ("peft",),
    "onnx": ("onnxruntime",),
    "pesq": ("pesq",),
    "pretrain": ("accelerate", "sklearn", "tensorboard"),
    "ray": ("ray",),
    "s3prl": ("s3prl",),
    "trackers": ("accelerate", "tensorboard"),
}


def require_extra(extra: str, purpose: str) -> None:
    """Refuses what an absent extra is needed for.

    Args:
        extra: its name in EXTRAS.
        purpose: what was asked for; begins the message.

    Raises: BenchmarkError: one of its modules is not installed; the message has the command that installs it.
    """
    absent = [module for module in EXTRAS[extra] if not _is_installed(module)]
    if absent:
        verb = "is" if len(absent) == 1 else "are"
        raise BenchmarkError(
            f"{purpose}: {', '.join(absent)} {verb} not installed here; run: pip install 'frostbench[{extra}]'"
        )


def require_package(package: str, purpose: str) -> None:
    """Refuses what an absent package is needed for that no extra brings.

    Args:
        package: its name, which is that of its module.
        purpose: what was asked for; begins the message.

    Raises: BenchmarkError: it is not installed; the message has the command that installs it.
    """
    if not _is_installed(package):
        raise BenchmarkError(f"{purpose}: {package} is not installed here; run: pip install {package}")


def _is_installed(module: str) -> bool:
    return sys.modules.get(module) is not None or importlib.util.find_spec(module) is not None
