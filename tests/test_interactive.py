"""Classes typed into a notebook: their digest follows the cells that hold their code, or they are refused."""

from __future__ import annotations

import linecache
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import frostbench as fb

ROOT = Path(__file__).parent.parent
UPSTREAM = '''
class Loudness(fb.Upstream):
    """Log energy of 10 ms blocks."""
    card = fb.UpstreamCard(name="loudness", title="Log energy", paper="none")
    num_layers, hidden_size, downsample_rate, min_samples = 1, 1, 160, 160
    def frame_lengths(self, wav_lengths):
        return wav_lengths // 160
    def encode(self, wavs, wav_lengths):
        return fb.HiddenStates((energy(wavs),), self.frame_lengths(wav_lengths))
'''
HELPER = """
def energy(wavs):
    blocks = wavs[:, : wavs.shape[1] // 160 * 160].unflatten(1, (-1, 160))
    return blocks.square().mean(dim=2, keepdim=True) + 0
"""


class Notebook:
    """A session without a file, whose cells are known to `linecache`, as IPython's are."""

    def __init__(self) -> None:
        self.module = ModuleType("notebook_session")
        self.count = 0
        self.run("import frostbench as fb")

    def run(self, cell: str) -> None:
        self.count += 1
        name = f"<ipython-input-{id(self)}-{self.count}>"
        linecache.cache[name] = (len(cell), None, cell.splitlines(keepends=True), name)
        exec(compile(cell, name, "exec"), self.module.__dict__)

    def digest(self) -> str:
        return self.module.Loudness().digest()


@pytest.fixture
def notebook(monkeypatch) -> Iterator[Notebook]:
    made = Notebook()
    monkeypatch.setitem(sys.modules, "notebook_session", made.module)
    return made


def test_the_digest_follows_the_cells(notebook):
    notebook.run(HELPER)
    notebook.run(UPSTREAM)
    first = notebook.digest()
    notebook.run("other = 1")
    notebook.run(UPSTREAM)  # the same cell again has another number
    assert notebook.digest() == first
    notebook.run(HELPER.replace("+ 0", "+ 0 + 0"))
    assert notebook.digest() != first, "a helper in another cell has changed"
    notebook.run(HELPER)
    notebook.run(UPSTREAM.replace("// 160", "// 160 + 0"))
    assert notebook.digest() != first


def test_a_cell_that_registers_can_be_run_twice(notebook):
    decorator = '@fb.register_upstream(fb.UpstreamCard("louder", "Log energy", "none"))'
    cell = UPSTREAM.replace("class Loud", f"{decorator}\nclass Loud")
    notebook.run(HELPER)
    notebook.run(cell)
    notebook.run(cell.replace("Log energy of", "Energy of"))
    assert type(fb.upstream("louder")).__doc__.startswith("Energy of")
    with pytest.raises(fb.BenchmarkError, match="'louder' is registered twice"):
        notebook.run(cell.replace("class Loudness", "class Another"))


def test_code_without_a_source_is_refused(tmp_path):
    code = f"import frostbench as fb\n{HELPER}\n{UPSTREAM}\nfb.evaluate([Loudness()], ['ks'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)},
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert "Loudness: Python keeps no source of it, so that no digest can follow its code; write it in" in done.stderr
    assert list(tmp_path.iterdir()) == []
