"""What is measured on: HuBERT with random weights in a folder, and corpora of `mini`'s voices with chosen lengths."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import soundfile
import torch

from core.audio import SAMPLE_RATE, duration_seconds, read_audio
from core.feature_cache import Kind
from core.manifest import Manifest, Utterance, read_manifest
from core.records import RecordStore
from tasks.corpora._base import open_corpus
from upstreams._extraction.fill import Clip

UPSTREAMS = Path(__file__).parent / "_upstreams.py"  # a plug-in: named on the command line, never imported
SIZES = {
    "768x12": {},  # HuBERT base is transformers' default configuration
    "256x4": {
        "hidden_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "intermediate_size": 1024,
    },
}


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder that is gone afterwards."""
    with TemporaryDirectory(prefix="frostbench-") as folder:
        yield Path(folder)


def save_hubert(folder: Path, size: str = "768x12") -> Path:
    """Writes a HuBERT with random weights, always the same ones, as `save_pretrained` does; returns the folder.

    Speed does not ask what the weights are; that both sides of a comparison read the same ones does matter.
    """
    import transformers  # takes seconds, and --help shall not

    transformers.logging.disable_progress_bar()

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.HubertModel(transformers.HubertConfig(**SIZES[size])).save_pretrained(folder)
    # As facebook/hubert-base-ls960 is published.
    transformers.Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=False).save_pretrained(folder)
    return folder


def mixed_lengths(count: int, shortest: float = 2.0, longest: float = 12.0, seed: int = 0) -> list[float]:
    """Seconds: evenly spread from the shortest to the longest, in random order."""
    return np.random.default_rng(seed).permutation(np.linspace(shortest, longest, count)).tolist()


def speech_corpus(folder: Path, lengths: Sequence[float], seed: int = 0) -> Manifest:
    """A corpus of recordings of these lengths in seconds: mini's recordings one behind the other, cut to length.

    Every fifth row is valid and every sixth test; the rest is train. Labels fit all four tasks.
    """
    (folder / "audio").mkdir(parents=True)
    rows = open_corpus("mini").with_label("text").utterances
    order = np.random.default_rng(seed).permutation(len(rows)).tolist()
    at = 0
    lines = []
    for number, seconds in enumerate(lengths):
        pieces, missing, texts = [], round(seconds * SAMPLE_RATE), []
        while missing > 0:
            row = rows[order[at % len(order)]]
            at += 1
            pieces.append(read_audio(row.path)[:missing].numpy())
            missing -= len(pieces[-1])
            texts.append(str(row.labels["text"]))
        name = f"audio/{number:05d}.wav"
        soundfile.write(folder / name, np.concatenate(pieces), SAMPLE_RATE, subtype="PCM_16")
        split = "valid" if number % 6 == 4 else "test" if number % 6 == 5 else "train"
        line = {"file_name": name, "id": f"{number:05d}", "split": split, "text": " ".join(texts)}
        label = "ab"[number // 6 % 2]
        lines.append(json.dumps({**line, "keyword": label, "speaker": label, "intent": label}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return read_manifest(folder)


def write_task(folder: Path, task: str, recipe: str | None, **changes: object) -> str:
    """Writes a file that declares a built-in task with a changed recipe; returns it as `--task` wants it.

    Args:
        folder: where to.
        task: name of the built-in task.
        recipe: name of its recipe; None is its default.
        changes: fields of the recipe and their new values.
    """
    path = folder / f"{task}_{len(list(folder.glob('*.py')))}.py"
    path.write_text(
        "from dataclasses import replace\n"
        "from tasks._base import TASKS\n"
        f"built_in = TASKS.get({task!r})\n"
        f"recipe = replace(built_in.recipe({recipe!r}), **{changes!r})\n"
        "task = replace(built_in, recipes={recipe.name: recipe})\n",
        encoding="utf-8",
    )
    return f"{path}:task"


def clips(manifest: Manifest, kind: Kind, rows: Sequence[Utterance] | None = None) -> list[Clip]:
    """What the extraction is asked for: one kind of features of every row, or of some."""
    return [
        Clip(
            manifest.audio_digests[row.id],
            row.path,
            round(duration_seconds(row.path) * SAMPLE_RATE),
            frozenset({kind}),
        )
        for row in (manifest.utterances if rows is None else rows)
    ]


def scores_of(results: Path) -> list[float]:
    """The values of all records, by seed."""
    return [record.value for record in sorted(RecordStore(results).all(), key=lambda record: record.seed)]
