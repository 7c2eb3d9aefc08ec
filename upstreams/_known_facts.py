"""Facts of upstreams, kept under the content of all they follow from: who needs nothing else of one need not build it.

To build one takes seconds where transformers has to be imported, and a command with nothing left to do builds them all.
"""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from dataclasses import asdict
from functools import cache
from pathlib import Path

from core.digest import digest_of, parsed_json, path_digest, write_json
from upstreams._base import Precision, is_plug_in
from upstreams._facts import UpstreamFacts
from upstreams._resolve import build_upstream, upstream_class

ROOT = Path(__file__).parent.parent
OUR_CODE = ("core", "upstreams")
PACKAGES = ("torch", "torchaudio", "transformers", "numpy", "safetensors", "soxr")


def facts_of(spec: str, precision: Precision, folder: Path | None = None) -> UpstreamFacts:
    """Facts of the upstream that a specification names; see `build_upstream`.

    Args:
        spec: as typed.
        precision: in which it computes.
        folder: where facts are kept; None builds the upstream always.

    Raises: BenchmarkError: it can't be built.
    """
    content = None if folder is None else _content(spec)
    if folder is None or content is None:
        return UpstreamFacts.of(spec, build_upstream(spec), precision)
    path = folder / f"{digest_of([content, spec, precision])[:32]}.json"
    try:
        return UpstreamFacts(**parsed_json(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        facts = UpstreamFacts.of(spec, build_upstream(spec), precision)
        write_json(path, asdict(facts))
        return facts


def _content(spec: str) -> str | None:
    """Digest of all that decides the facts of NAME and NAME@CHECKPOINT; None of what only building it tells.

    That is a plug-in, whose code may read anything, and what another package finds by a name.
    """
    if ":" in spec:
        return None
    kind, checkpoint = upstream_class(spec)
    if is_plug_in(kind) or (checkpoint is not None and not Path(checkpoint).exists()):
        return None
    return digest_of([_code_and_versions(), None if checkpoint is None else path_digest(Path(checkpoint))])


@cache
def _code_and_versions() -> str:
    """Of untrained upstreams the weights follow from code and torch; of others, how files are read and computed on."""
    files = sorted(path for folder in OUR_CODE for path in (ROOT / folder).rglob("*.py"))
    code = {path.relative_to(ROOT).as_posix(): path_digest(path) for path in files}
    return digest_of([code, {name: _version(name) for name in PACKAGES}, sys.version, platform.machine()])


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
