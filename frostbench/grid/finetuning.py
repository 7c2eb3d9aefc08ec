"""Fine-tuning: an upstream trained together with the sum and the head that were trained on it while it was frozen.

The head comes first, as in wav2vec 2.0's fine-tuning: a head with random weights would spoil what the upstream knows
before it asks for anything (Kumar et al., arXiv:2202.10054). That head is the frozen run's own, beside its record.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from torch.utils.checkpoint import checkpoint

from core.audio import SAMPLE_RATE
from core.digest import canonical_json, file_digest, parsed_json, written_then_renamed
from core.errors import CheckpointError, RecordError
from core.feature_cache import Kind
from core.finetuning import FineTuning
from core.lengths import bounded_batches, pad
from core.manifest import SPLITS
from core.metrics import get_metric
from core.records import TUNED_FILE, RecordStore
from downstreams._data import Layers, encoded
from downstreams._downstream import ENCODER, Downstream, Encoder, Trained, load_trained, save_trained
from downstreams._recipe import Candidate, finetuning_recipe
from downstreams._training import TrainingRun, train_together
from downstreams.labels._base import Labels
from frostbench.grid.candidates import Folders, candidate_path, labels_of, new_downstream
from frostbench.grid.cell import Cell
from frostbench.grid.judging import items_of, kept_of
from frostbench.grid.live import WaveExamples
from frostbench.jobs.base import Advance
from tasks._audio import samples_of
from upstreams._base import Upstream
from upstreams._extraction.clips import GPU_BATCHES, LONGEST_SECONDS
from upstreams._extraction.encoding import TrainedUpstream
from upstreams._finetuning import every_module_called, fine_tuned, trainable_copy, trained_tensors
from upstreams._resolve import build_upstream


class UpstreamEncoder(Encoder):
    """An upstream that is trained, as what a downstream computes its layers by.

    It stays in evaluation mode, but for dropout: what it computes is what is evaluated, and masks, skipped blocks and
    statistics of batches, which its own pretraining may have, have no part in it.

    Args:
        upstream: of which parameters ask for gradients.
        kind: what the head needs.
        device: where it computes.
    """

    def __init__(self, upstream: Upstream, kind: Kind, device: torch.device) -> None:
        super().__init__()
        self.upstream = upstream.to(device)
        self.encoder = TrainedUpstream(upstream, device)
        self.kind = kind
        self.audio_seconds = 0.0  # that passed so far, padding not counted

    def train(self, mode: bool = True) -> UpstreamEncoder:
        """Dropout alone; and recurrent layers, whose gradients a GPU computes in no other mode."""
        super().train(False)
        for module in self.upstream.modules():
            if isinstance(module, nn.modules.dropout._DropoutNd | nn.RNNBase):
                module.train(mode)
        return self

    def trained(self) -> dict[str, nn.Parameter]:
        """See Encoder.trained."""
        return trained_tensors(self.upstream)

    def forward(self, wavs: Layers) -> torch.Tensor:
        """See Encoder.forward. Recordings pass in batches of about one length, as in extraction.

        Of more audio than a long recording has only what comes out is kept, and computed once more on the way back:
        what a batch of such utterances leaves behind would take tens of gigabytes of a base-size transformer.
        """
        lengths = [len(wav) for wav in wavs]
        rate = self.encoder.sample_rate
        together = 1 if self.encoder.device.type == "cpu" else GPU_BATCHES
        budget = int(self.upstream.batch_seconds * together * rate)
        order = sorted(range(len(wavs)), key=lambda place: -lengths[place])
        again = torch.is_grad_enabled() and sum(lengths) > LONGEST_SECONDS * rate
        self.audio_seconds += sum(lengths) / rate
        rows: dict[int, torch.Tensor] = {}
        with every_module_called():
            for batch in bounded_batches(order, lengths, budget):
                chosen = [wavs[place] for place in batch]
                found = checkpoint(self._rows, *chosen, use_reentrant=False) if again else self._rows(*chosen)
                rows.update(zip(batch, found, strict=True))
        return pad([rows[place] for place in range(len(wavs))])[0]

    def _rows(self, *wavs: torch.Tensor) -> list[torch.Tensor]:
        with every_module_called():  # also where it is called on the way back
            return self.encoder.computed(wavs, {self.kind})[self.kind]


def finetune(cell: Cell, tried: Candidate, folders: Folders, *, device: str, advance: Advance) -> int:
    """A job: trains upstream, sum and head together, and keeps what they became as a candidate.

    Returns: how many updates were computed.
    Raises: RecordError: the frozen run is not there.
    """
    how, recipe = _recipes(cell)
    path = candidate_path(cell, tried, folders)
    if path.is_file():
        advance(recipe.steps)
        return 0
    started = time.monotonic()
    frozen, labels = frozen_head(cell, folders)
    place = torch.device(device)
    encoder = UpstreamEncoder(trainable_copy(cell.upstream.spec, how, cell.seed), cell.kind, place)
    downstream = new_downstream(cell, labels, None)
    downstream.load_state_dict(dict(frozen.state))
    downstream.encoder = encoder
    metric = get_metric(cell.task.selecting)
    items = items_of(cell, "valid", labels)
    (trained,) = train_together(
        [downstream],
        {split: wave_examples(cell, split, labels, encoder) for split in ("train", "valid")},
        lambda found: metric.compute(items.predictions(found), items.references),
        metric.sign,
        recipe,
        [TrainingRun(frozen.learning_rate, cell.seed, None, tried.upstream_rate)],
        place,
        advance,
        kept_of([metric], labels),
    )
    costs = {"seconds": time.monotonic() - started, "audio_seconds": encoder.audio_seconds}
    save_trained(path, trained, {**downstream.description, **costs})
    return trained.diverged or round(trained.history[-1]["step"])


def _recipes(cell: Cell) -> tuple[FineTuning, Any]:
    how = cell.recipe.finetune
    assert how is not None, "only cells that are fine-tuned come here"
    return how, finetuning_recipe(cell.recipe, how)


def updates_of_finetuning(cell: Cell) -> int:
    """Updates of one candidate."""
    return int(_recipes(cell)[1].steps)


def frozen_head(cell: Cell, folders: Folders) -> tuple[Trained, Labels]:
    """The head of the run that differs in this alone: its upstream is frozen.

    Raises: RecordError: that run failed, or its files are gone or others.
    """
    store, run = RecordStore(folders.results), cell.frozen.run
    path = store.run_folder(run) / "head.safetensors"
    if run not in store or not path.is_file():
        raise RecordError(
            f"{cell.name}: fine-tuning begins at the head of {cell.frozen.name}, which is not in {folders.results}; "
            f"look at why that run failed, or restore its files"
        )
    if file_digest(path) != store.read(store.path(run)).artifacts[path.name]:
        raise RecordError(f"{path}: not the head of its run; look at: frostbench verify")
    return load_trained(path)[0], labels_of(cell)


def wave_examples(cell: Cell, split: str, labels: Labels, encoder: UpstreamEncoder) -> WaveExamples:
    """A split as waveforms."""
    crop_samples = cell.audio.crop_samples if split == "train" else 0
    examples = WaveExamples(encoder.encoder, cell.rows.whole(split), [], cell.kind, crop_samples)
    values = [row.label for row in cell.examples[split]]
    return replace(examples, targets=encoded(labels, values, examples.lengths, cell.upstream.frame_samples))


def tuned_upstream(cell: Cell, best: Trained) -> Upstream:
    """The upstream as a fine-tuning left it, frozen."""
    how, _ = _recipes(cell)
    return fine_tuned(build_upstream(cell.upstream.spec), how, split_state(best)[1])


def split_state(trained: Trained) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """What a fine-tuning made of the head, and of the upstream."""
    own = {name: value for name, value in trained.state.items() if not name.startswith(ENCODER)}
    tuned = {name.removeprefix(ENCODER): value for name, value in trained.state.items() if name.startswith(ENCODER)}
    return own, tuned


def save_tuned(folder: Path, cell: Cell, tensors: dict[str, torch.Tensor]) -> None:
    """Writes the parameters that were trained beside the record: what differs from the upstream that was fine-tuned."""
    how, _ = _recipes(cell)
    told = canonical_json({"finetune": how, "upstream": cell.upstream.digest})
    with written_then_renamed(folder / TUNED_FILE) as temporary:
        save_file({name: value.contiguous() for name, value in tensors.items()}, temporary, {"frostbench": told})


def load_tuned(path: Path, digest: str, upstream: Upstream) -> Upstream:
    """The fine-tuned upstream of a run.

    Args:
        path: of its parameters, which `save_tuned` wrote.
        digest: of that file, by the record.
        upstream: that was fine-tuned.

    Raises: CheckpointError: the file is gone or another one, or does not fit the upstream.
    """
    if not path.is_file() or file_digest(path) != digest:
        raise CheckpointError(f"{path}: missing, or not the upstream of this run; look at: frostbench verify")
    try:
        with safe_open(path, framework="pt") as file:
            how = FineTuning.from_json(parsed_json(file.metadata()["frostbench"])["finetune"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: not a fine-tuned upstream ({error})") from None
    return fine_tuned(upstream, how, tensors)


def costs_of(cell: Cell, downstream: Downstream, best: Trained, audio_seconds: float) -> dict[str, float]:
    """What fine-tuning took, beside what the frozen run takes: parameters that are trained, and seconds of audio.

    Args:
        cell: a fine-tuned one.
        downstream: featurizer and head.
        best: what was chosen.
        audio_seconds: that passed the upstream in training, those of looks at valid among them.
    """
    heads = sum(value.numel() for value in downstream.parameters())
    tuned = sum(value.numel() for value in split_state(best)[1].values())
    once = sum(samples_of(clip) for split in SPLITS for clip in cell.rows.recordings[split]) / SAMPLE_RATE
    test = sum(samples_of(clip) for clip in cell.rows.recordings["test"]) / SAMPLE_RATE
    return {
        "trained_parameters": heads + tuned,
        "audio_seconds": audio_seconds + test,
        "frozen_trained_parameters": heads,
        "frozen_audio_seconds": once,
    }
