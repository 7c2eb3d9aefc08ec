"""`mini`: the built-in synthetic corpus, in the repository bit for bit. See _mini/README.md, its card."""

from pathlib import Path

from core.manifest import Manifest, read_manifest
from tasks.corpora._base import Corpus, register_corpus
from tasks.corpora._lexicon import read_lexicon, with_phones

FOLDER = Path(__file__).parent / "_mini"


def load(root: Path) -> Manifest:
    """The manifest of the built-in corpus, wherever it is asked for."""
    return with_phones(read_manifest(FOLDER, name="mini"), read_lexicon(FOLDER / "lexicon.txt"))


register_corpus(
    Corpus(
        name="mini",
        title="28 synthetic voices: one small corpus for every task but emotion",
        load=load,
        needs_root=False,
    )
)
