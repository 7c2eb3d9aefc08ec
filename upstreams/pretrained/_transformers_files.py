"""The files of a checkpoint of transformers, in a folder or on the hub: settings as plain JSON, weights as tensors.

They are read here and not by transformers' `from_pretrained`, which looks for more than is asked for: code that a
folder brings (`auto_map`), adapters, kernels and quantisers that a configuration names, and weights of its own making
where a tensor is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from core.digest import canonical_json, parsed_json
from core.errors import CheckpointError
from upstreams._weight_files import read_safetensors, read_torch, require_content

CONFIG, PREPROCESSOR, PROCESSOR, ADAPTER = (
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",  # which holds the preprocessor's settings as a part, as transformers 5 writes it
    "adapter_config.json",
)
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
NEEDED = "needed are config.json, preprocessor_config.json and model.safetensors, in a folder or on the hub"
MOST_JSON_BYTES = 50_000_000  # an index of weights has a line a tensor, a configuration a line a label
NO_CODE = (
    "Frostbench never runs code of a checkpoint. Wrap the model in a file of your own, FILE.py:CLASS, if you trust it"
)


MERGE = "merge them with peft's merge_and_unload() and save_pretrained(), and name the folder that this writes"


class CheckpointFiles:
    """Files of one checkpoint by their names.

    Args:
        spec: what messages call it: `hf:...`.
        source: a folder, or else an id of the hub.
    """

    def __init__(self, spec: str, source: str) -> None:
        self.spec = spec
        self.source = source
        self.folder = Path(source) if Path(source).is_dir() else None

    def path(self, name: str) -> Path | None:
        """Where a file lies on this machine, after it was fetched if need be; None if there is none.

        Raises: CheckpointError: the hub has no such repository, or is out of reach.
        """
        if self.folder is not None:
            return self.folder / name if (self.folder / name).is_file() else None
        # Imported here: transformers takes seconds, and most commands never load a checkpoint of it.
        from transformers.utils.hub import cached_file

        try:
            found = cached_file(self.source, name, _raise_exceptions_for_missing_entries=False)
        except Exception as error:  # no network, no such repository, a gated one: whatever it is, there is no file
            raise unusable(self.spec, error) from None
        return None if found is None else Path(found)

    def json(self, name: str) -> dict[str, Any] | None:
        """The object in a JSON file; None if there is no such file.

        Raises: CheckpointError: it is no JSON object.
        """
        path = self.path(name)
        if path is None:
            return None
        require_content(path)
        try:
            if path.stat().st_size > MOST_JSON_BYTES:
                raise ValueError(f"{path.stat().st_size:,} bytes are too many")
            content = parsed_json(path.read_text(encoding="utf-8-sig"))
            canonical_json(content).encode()  # half of a character could be written nowhere
        except (ValueError, RecursionError, OSError) as error:
            raise CheckpointError(f"{self.spec}: {name} is no readable JSON ({error}); fetch it again") from None
        if not isinstance(content, dict):
            raise CheckpointError(f"{self.spec}: {name} holds a {type(content).__name__}, must be an object")
        return content

    def config(self) -> dict[str, Any]:
        """The model's settings.

        Raises: CheckpointError: there are none, or what is there is no model.
        """
        adapter = self.json(ADAPTER)
        if adapter is not None:
            model = f"'{adapter.get('base_model_name_or_path', 'unknown')}'"
            what = f"an adapter ({adapter.get('peft_type', 'LoRA')}, {ADAPTER}) of the model {model}"
            if any(self.path(name) or self.path(f"{name}.index.json") for name in WEIGHTS):
                raise CheckpointError(
                    f"{self.spec}: holds weights of a model and {what}, so which of them is meant is open: {MERGE}, "
                    f"or take {ADAPTER} away if the weights are merged or meant without it"
                )
            raise CheckpointError(f"{self.spec}: holds {what}, which alone is no encoder: {MERGE}")
        config = self.json(CONFIG)
        if config is None:
            raise CheckpointError(f"{self.spec}: can't be loaded (it has no {CONFIG}); {NEEDED}")
        self._require_no_code(CONFIG, config)
        return config

    def preprocessor(self) -> dict[str, Any]:
        """The settings of the feature extractor.

        Raises: CheckpointError: there are none.
        """
        settings, name = self.json(PREPROCESSOR), PREPROCESSOR
        if settings is None:
            settings, name = (self.json(PROCESSOR) or {}).get("feature_extractor"), PROCESSOR
        if not isinstance(settings, dict):
            raise CheckpointError(f"{self.spec}: can't be loaded (it has no {PREPROCESSOR}); {NEEDED}")
        self._require_no_code(name, settings)
        return settings

    def tensors(self) -> dict[str, torch.Tensor]:
        """All weights by their names in the file, or in the files that an index names.

        Raises: CheckpointError: there are none, a file is a pointer, cut off, damaged or holds what could run code.
        """
        for name in WEIGHTS:
            path = self.path(name)
            if path is not None:
                return self._read(path)
            index = self.json(f"{name}.index.json")
            if index is not None:
                return self._sharded(f"{name}.index.json", index)
        raise CheckpointError(f"{self.spec}: can't be loaded (it has no {' and no '.join(WEIGHTS)}); {NEEDED}")

    def adapter(self, name: str) -> dict[str, torch.Tensor]:
        """Weights of the adapter in a file `NAME.safetensors` or `NAME.bin`, as MMS has one a language.

        Raises: CheckpointError: there is none, or it is damaged or holds what could run code.
        """
        names = [f"{name}{suffix}" for suffix in (".safetensors", ".bin")]
        for path in map(self.path, names if Path(name).name == name else ()):
            if path is not None:
                return self._read(path)
        raise CheckpointError(f"{self.spec}: has no {' and no '.join(names)}; correct what stands behind '@'")

    def _sharded(self, name: str, index: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        places = index.get("weight_map")
        if not isinstance(places, dict) or not all(isinstance(file, str) for file in places.values()):
            raise CheckpointError(f"{self.spec}: {name} has no weight_map of tensors and files; fetch it again")
        tensors: dict[str, torch.Tensor] = {}
        for file in sorted(set(places.values())):
            path = self.path(file) if Path(file).name == file else None
            if path is None:
                raise CheckpointError(f"{self.spec}: {name} names '{file}', which is not there; fetch it")
            found, listed = self._read(path), {tensor for tensor, place in places.items() if place == file}
            if found.keys() != listed:
                odd = min(found.keys() ^ listed)
                raise CheckpointError(
                    f"{self.spec}: by {name} '{odd}' is {'' if odd in listed else 'not '}in {file}, which has it "
                    f"{'not' if odd in listed else 'all the same'}: they are of different checkpoints"
                )
            tensors |= found
        return tensors

    def _read(self, path: Path) -> dict[str, torch.Tensor]:
        content = read_safetensors(path) if path.suffix == ".safetensors" else read_torch(path)
        foreign = [name for name, value in content.items() if not isinstance(value, torch.Tensor)]
        if foreign:
            raise CheckpointError(f"{self.spec}: {path.name} holds '{foreign[0]}', which is no tensor: no weights file")
        return content

    def _require_no_code(self, name: str, settings: Mapping[str, Any]) -> None:
        code = settings.get("auto_map") or {}
        parts = code if isinstance(code, dict) else {"auto_map": code}
        # A tokenizer is not loaded, and neither is a processor, which joins one to the feature extractor.
        ours = [str(value) for part, value in parts.items() if part not in ("AutoTokenizer", "AutoProcessor")]
        if ours:
            raise CheckpointError(f"{self.spec}: {name} says that its own code computes it ({ours[0]}); {NO_CODE}")


def unusable(spec: str, error: Exception) -> CheckpointError:
    """What transformers or its hub said of a checkpoint, in one line."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()] or [type(error).__name__]
    reason = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    return CheckpointError(f"{spec}: can't be loaded ({reason}); {NEEDED}")
