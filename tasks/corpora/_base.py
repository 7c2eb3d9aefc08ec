"""The corpus contract: a name, and a function from a folder to a manifest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from core.errors import ManifestError
from core.extras import require_extra
from core.manifest import FILE_NAME, Manifest, read_manifest
from core.registry import Registry, unknown_name
from tasks.corpora._columns import parse_columns


@dataclass(frozen=True)
class Corpus:
    """A corpus that Frostbench knows by name.

    Attributes:
        name: what one types.
        title: one line for `list`.
        load: the folder where it lies -> manifest.
        needs_root: whether that folder has to be named; the built-in corpus knows its own.
    """

    name: str
    title: str
    load: Callable[[Path], Manifest]
    needs_root: bool = True


CORPORA: Registry[Corpus] = Registry("corpus", "tasks.corpora", group="frostbench.corpora")


def register_corpus(corpus: Corpus) -> Corpus:
    """Enters a corpus in the registry."""
    CORPORA.add(corpus.name, corpus)
    return corpus


def open_corpus(
    spec: str, root: Path | None = None, columns: str | None = None, cache: Path = Path("cache")
) -> Manifest:
    """The manifest behind `--corpus`.

    Args:
        spec: a known corpus, a folder, a metadata.jsonl, or a Hugging Face dataset as `hf:ORG/NAME[:CONFIG]` or
            `hf:FOLDER`.
        root: the folder where a known corpus lies.
        columns: which columns of a Hugging Face dataset make which label: `text=sentence,speaker=speaker_id`.
        cache: where its embedded audio is kept as files.

    Raises: UnknownNameError: neither a name nor a path. ManifestError: the path holds no manifest, or a wrong one.
        BenchmarkError: `datasets` is not installed.
    """
    if spec.startswith("hf:"):
        require_extra("hf-datasets", f"corpus {spec}")
        from tasks.corpora._huggingface import load_huggingface  # importing `datasets` takes a second

        return load_huggingface(spec.removeprefix("hf:"), parse_columns(columns), cache)
    if columns is not None:
        raise ManifestError(f"--columns is for hf: datasets; the rows of '{spec}' name their labels themselves")
    if spec in CORPORA.names():
        corpus = CORPORA.get(spec)
        if corpus.needs_root and root is None:
            raise ManifestError(f"corpus '{spec}': where does it lie? Add --root FOLDER")
        return corpus.load(root or Path())
    path = Path(spec)
    if path.exists():
        return read_manifest(path)
    if path.suffix or len(path.parts) > 1:
        raise ManifestError(f"{spec}: no such folder or file; name a folder with a {FILE_NAME}")
    raise unknown_name("corpus", spec, CORPORA.names())
