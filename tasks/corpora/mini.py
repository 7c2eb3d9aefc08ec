"""`mini`: the built-in synthetic corpus, in the repository bit for bit. See _mini/README.md, its card."""

from pathlib import Path

from core.manifest import Manifest, read_manifest
from tasks.corpora._base import Corpus, register_corpus

FOLDER = Path(__file__).parent / "_mini"


def load(root: Path) -> Manifest:
    """The manifest of the built-in corpus, wherever it is asked for."""
    return read_manifest(FOLDER, name="mini")


register_corpus(
    Corpus(
        name="mini",
        title="28 synthetic voices: KS, SID, IC and ASR in one small corpus",
        load=load,
        needs_root=False,
    )
)
