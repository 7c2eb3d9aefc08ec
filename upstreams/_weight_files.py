"""Files of weights, looked at before any library reads them: what is no file of weights is called what it is.

safetensors holds nothing but tensors, and files of `torch.save` are read by torch's restricted unpickler, so that no
code in a file runs.
"""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from core.digest import parsed_json
from core.errors import CheckpointError

POINTER = b"version https://git-lfs"
WEB_PAGE = re.compile(rb"\s*<(!doctype|html|\?xml|head)\b", re.IGNORECASE)
BEGINNING_BYTES = 256
SIZE_BYTES = 8  # at the beginning of a safetensors file: the length of its header
MOST_HEADER_BYTES = 100_000_000  # the format's own limit
# Besides tensors and plain values. s3prl's pre-training keeps its command line under `Args`.
HARMLESS: list[Any] = [argparse.Namespace]
REFUSED_CLASS = re.compile(r"GLOBAL ([\w.]+\.\w+)")


def require_content(path: Path) -> None:
    """Refuses a file that is missing or empty, or stands for one that was not downloaded.

    Raises: CheckpointError: says which, and what to do.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; correct the path")
    with path.open("rb") as file:
        beginning = file.read(BEGINNING_BYTES)
    if beginning.startswith(POINTER):
        raise CheckpointError(
            f"{path}: is a git-lfs pointer ({path.stat().st_size} bytes), not the file itself: run 'git lfs pull' "
            f"in its repository, or fetch it with 'hf download'"
        )
    if WEB_PAGE.match(beginning):
        raise CheckpointError(
            f"{path}: is a web page, such as a site gives in place of a file that asks for a login, not the file "
            f"itself: fetch it with 'hf download'"
        )
    if not beginning:
        raise CheckpointError(f"{path}: is empty; fetch or save it again")


def read_safetensors(path: Path, leave_out: tuple[str, ...] = ()) -> dict[str, torch.Tensor]:
    """All tensors of a safetensors file.

    Args:
        path: of the file.
        leave_out: beginnings of names that are not read.

    Raises: CheckpointError: missing, a pointer, cut off or damaged.
    """
    require_whole_safetensors(path)
    try:
        with safe_open(path, framework="pt") as file:
            names = [name for name in file.keys() if not name.startswith(leave_out)]  # noqa: SIM118
            return {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error}); fetch or save it again") from None


def require_whole_safetensors(path: Path) -> None:
    """Refuses a safetensors file that is missing, a pointer, or shorter than its header says.

    Raises: CheckpointError: says which, and what to do.
    """
    require_content(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(SIZE_BYTES), "little")
        if size < SIZE_BYTES or header_bytes > MOST_HEADER_BYTES:
            raise CheckpointError(f"{path}: not a readable safetensors file (no header); fetch or save it again")
        try:
            entries = parsed_json(file.read(header_bytes))
            ends = [int(entry["data_offsets"][1]) for name, entry in entries.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
            cut = size < SIZE_BYTES + header_bytes
            reason = "it is cut off within its header" if cut else "its header is damaged"
            raise CheckpointError(
                f"{path}: not a readable safetensors file ({reason}); fetch or save it again"
            ) from None
    whole = SIZE_BYTES + header_bytes + max(ends, default=0)
    if size < whole:
        raise CheckpointError(
            f"{path}: not a readable safetensors file (cut off: {size:,} bytes, its header tells of {whole:,}); "
            f"fetch it again"
        )


def read_torch(path: Path, stand_ins: Mapping[str, Callable[..., Any]] | None = None) -> dict[str, Any]:
    """The dictionary in a file of `torch.save`, by torch's restricted unpickler.

    Args:
        path: of the file.
        stand_ins: names of classes -> what is made in their place, which must do nothing but keep what it is given;
            the classes themselves are never imported.

    Raises: CheckpointError: missing, damaged, not a dictionary, or with objects in it that could run code.
    """
    require_content(path)
    allowed = [*HARMLESS, *((stand_in, name) for name, stand_in in (stand_ins or {}).items())]
    try:
        with torch.serialization.safe_globals(allowed), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected pickle protocol|'torch.load' received a zip file")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damage shows as an error of any kind, depending on where it is
        raise _refusal(path, error) from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, a checkpoint is a dictionary")
    return content


def _refusal(path: Path, error: Exception) -> CheckpointError:
    found = REFUSED_CLASS.search(str(error)) if isinstance(error, pickle.UnpicklingError) else None
    if found is None:
        told = isinstance(error, RuntimeError | OSError)  # the others' words are about bytes
        reason = re.split(r"[.\n]", str(error).strip(), maxsplit=1)[0] if told else "its pickle is damaged or none"
        return CheckpointError(f"{path}: not a readable torch.save file ({reason}); fetch or save it again")
    return CheckpointError(
        f"{path}: holds an object of {found[1]}, and unpickling it could run any code; allowed are tensors, plain "
        f"values and {', '.join(f'{cls.__module__}.{cls.__qualname__}' for cls in HARMLESS)}. Save the file anew "
        f"without that object"
    )


def load_exactly(source: str, model: torch.nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Loads all weights and no others.

    Args:
        source: what messages call the checkpoint.
        model: whose weights they become.
        tensors: weights by their names in the model.

    Raises: CheckpointError: names or shapes do not fit.
    """
    require_fitting(source, model.state_dict(), tensors)
    model.load_state_dict(dict(tensors))


def require_fitting(source: str, own: Mapping[str, torch.Tensor], tensors: Mapping[str, torch.Tensor]) -> None:
    """Refuses weights that are not those of a network.

    Args:
        source: what messages call the checkpoint.
        own: the network's tensors, which may be without memory.
        tensors: weights by their names in the network.

    Raises: CheckpointError: names or shapes do not fit.
    """
    lacking, foreign = set(own) - set(tensors), set(tensors) - set(own)
    if lacking or foreign:
        raise CheckpointError(
            f"{source}: weights do not fit the settings: {len(lacking)} tensors are missing{such_as(lacking)}, "
            f"{len(foreign)} are not known{such_as(foreign)}; it is a checkpoint of another architecture or not whole"
        )
    for name, tensor in own.items():
        if tensor.shape != tensors[name].shape:
            raise CheckpointError(
                f"{source}: {name} has shape {tuple(tensors[name].shape)}, the settings ask for {tuple(tensor.shape)}; "
                f"settings and weights are of different models"
            )
        if tensor.is_floating_point() and not tensors[name].is_floating_point():
            raise CheckpointError(
                f"{source}: {name} is {str(tensors[name].dtype).removeprefix('torch.')}: quantised weights can't be "
                f"used; save the model in float32, float16 or bfloat16"
            )


def such_as(names: Collection[str]) -> str:
    """The first of some names, for a message."""
    return f" (such as {min(names)})" if names else ""
