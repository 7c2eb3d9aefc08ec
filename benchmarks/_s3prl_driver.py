"""Runs s3prl 0.4.18 in its own environment: its Runner, upstreams, featurizer and heads, on recordings named in a file.

    benchmarks/.s3prl-env/bin/python benchmarks/_s3prl_driver.py SPECIFICATION.json

s3prl's wheel lacks its yaml files and its data sets want the folders of the official corpora, so settings and
recordings come from the specification; everything that computes is s3prl's. Frostbench is not imported here.
The outcome is written to the file that the specification names under `output`.
"""

from __future__ import annotations

import json
import random
import resource
import sys
import time
import types
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from s3prl.downstream.runner import Runner
from torch.utils.data import DataLoader, Dataset, WeightedRandomSampler

Specification = dict[str, Any]


class Recordings(Dataset):
    """Recordings with a class each, read from disk whenever they are asked for, as s3prl's data sets do."""

    def __init__(self, rows: list[tuple[str, str]], classes: list[str], gain_db: float) -> None:
        self.rows, self.classes, self.gain = rows, classes, 10 ** (gain_db / 20)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int, str]:
        path, label = self.rows[index]
        wav, rate = soundfile.read(path, dtype="float32")
        assert rate == 16_000, f"{path}: {rate} Hz, must be 16000"
        return wav * np.float32(self.gain), self.classes.index(label), Path(path).stem

    def collate_fn(self, samples: Iterable[tuple[np.ndarray, int, str]]) -> Iterable[tuple[Any, ...]]:
        """As in s3prl's data sets: waveforms, classes, names."""
        return zip(*samples, strict=True)


def utterance_expert(specification: Specification) -> tuple[type, dict[str, Any]]:
    """s3prl's expert for speaker identification; the one for keyword spotting differs in the order of train alone."""
    from s3prl.downstream.voxceleb1.expert import DownstreamExpert, UtteranceLevel

    class Expert(DownstreamExpert):
        def __init__(self, upstream_dim: int, downstream_expert: dict[str, Any], expdir: str, **_: Any) -> None:
            torch.nn.Module.__init__(self)
            self.datarc, self.expdir = downstream_expert["datarc"], expdir
            classes = sorted({label for _, label in specification["rows"]["train"]})
            for split, rows in specification["rows"].items():
                setattr(self, f"{split}_dataset", Recordings(rows, classes, specification["gain_db"]))
            self.projector = torch.nn.Linear(upstream_dim, 256)
            self.model = UtteranceLevel(input_dim=256, output_dim=len(classes))
            self.objective = torch.nn.CrossEntropyLoss()
            self.register_buffer("best_score", torch.zeros(1))

        def get_train_dataloader(self) -> DataLoader:
            if not specification["balanced"]:
                return super().get_train_dataloader()
            data = self.train_dataset  # as in s3prl/downstream/speech_commands/expert.py
            labels = [label for _, label in data.rows]
            sampler = WeightedRandomSampler([len(labels) / labels.count(label) for label in labels], len(labels))
            size = self.datarc["train_batch_size"]
            return DataLoader(data, size, sampler=sampler, drop_last=True, num_workers=0, collate_fn=data.collate_fn)

        def log_records(self, mode: str, records: dict[str, list[Any]], **_: Any) -> None:
            self.accuracy = 100 * float(np.mean(records["acc"]))

    data = {"train_batch_size": specification["batch_size"], "eval_batch_size": 1, "num_workers": 0}
    return Expert, {"datarc": data}


def speech_expert(specification: Specification) -> tuple[type, dict[str, Any]]:
    """s3prl's expert for speech recognition, on a folder laid out like LibriSpeech."""
    from s3prl.downstream.asr.expert import DownstreamExpert

    folder = Path(specification["librispeech"])
    data = {
        "libri_root": str(folder),
        "bucket_file": str(folder),
        "dict_path": str(folder / "char.dict"),
        "train": ["train"],
        "batch_size": specification["batch_size"],
        "eval_batch_size": 1,
        "num_workers": 0,
        "zero_infinity": True,
        "decoder_args": {"decoder_type": "None"},
    }
    lstm = {
        "module": "LSTM",
        "bidirection": True,
        "dim": [1024, 1024],
        "dropout": [0.2, 0.2],
        "layer_norm": [False, False],
        "proj": [False, False],
        "sample_rate": [1, 1],
        "sample_style": "concat",
        "total_rate": -1,
    }
    return DownstreamExpert, {"datarc": data, "modelrc": {"project_dim": 1024, "select": "RNNs", "RNNs": lstm}}


# SUPERB's for speech recognition.
MASKS = {
    "apply_time_warp": True,
    "time_warp_window": 5,
    "time_warp_mode": "bicubic",
    "apply_time_mask": True,
    "time_mask_width_range": [0, 40],
    "num_time_mask": 2,
    "apply_freq_mask": True,
    "freq_mask_width_range": [0, 50],
    "num_freq_mask": 4,
}


class TimedRunner(Runner):
    """s3prl's Runner, which notes when each update ends."""

    def train(self) -> None:
        """See s3prl."""
        self.ends: list[float] = []
        super().train()

    def _get_optimizer(self, model_params: list[torch.nn.Module]) -> torch.optim.Optimizer:
        optimizer = super()._get_optimizer(model_params)
        optimizer.register_step_post_hook(lambda *_: self.ends.append(time.perf_counter()))
        return optimizer


def runner_of(specification: Specification) -> TimedRunner:
    """A Runner with SUPERB's settings that never evaluates or saves on its way."""
    make = {"utterance": utterance_expert, "speech": speech_expert}[specification["head"]]
    expert, settings = make(specification)
    module = types.ModuleType("s3prl.downstream.frostbench.expert")
    module.DownstreamExpert = expert  # where the Runner looks for what is called "frostbench"
    sys.modules["s3prl.downstream.frostbench"] = types.ModuleType("s3prl.downstream.frostbench")
    sys.modules[module.__name__] = module
    never = specification["updates"] + 1
    config = {
        "runner": {
            "total_steps": specification["updates"],
            "gradient_clipping": 1,
            "gradient_accumulate_steps": specification["accumulate"],
            "log_step": never,
            "eval_step": never,
            "save_step": never,
        },
        "optimizer": {"name": "TorchOptim", "torch_optim_name": "Adam", "lr": specification["learning_rate"]},
        "downstream_expert": settings,
        **({"specaug": MASKS} if specification["head"] == "speech" else {}),
    }
    arguments = Namespace(
        **{"upstream_ckpt": None, "upstream_model_config": None, **specification["upstream"]},
        downstream="frostbench",
        device="cpu",
        seed=specification["seed"],
        expdir=specification["folder"],
        init_ckpt=None,
        upstream_refresh=False,
        upstream_trainable=False,
        upstream_feature_selection="hidden_states",
        upstream_layer_selection=None,
        upstream_feature_normalize=False,
        from_hf_hub=False,
        push_to_hf_hub=False,
    )
    return TimedRunner(arguments, config)


def fingerprint(runner: TimedRunner) -> list[float]:
    """Mean absolute value of each hidden state of one fixed waveform, to compare with the other side's."""
    wav = torch.from_numpy(np.sin(np.arange(16_000) / 7).astype(np.float32) / 2)
    with torch.no_grad():
        return [state.abs().mean().item() for state in runner.upstream.model([wav])["hidden_states"]]


def main() -> None:
    """Trains, and writes what was asked for."""
    specification = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(specification["seed"])
    runner = runner_of(specification)
    outcome: dict[str, Any] = {"fingerprint": fingerprint(runner)}
    runner.train()
    counted = runner.ends[specification["warm_up"] - 1 :]  # each update's seconds lie between two of these
    outcome["seconds_per_update"] = (counted[-1] - counted[0]) / (len(counted) - 1)
    if specification["evaluate"]:
        runner.evaluate("test", logger=False)
        outcome["accuracy"] = runner.downstream.model.accuracy
    outcome["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    Path(specification["output"]).write_text(json.dumps(outcome), encoding="utf-8")


if __name__ == "__main__":
    main()
