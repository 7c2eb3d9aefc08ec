"""Digests of plug-ins: each line of code that they are made of counts, wherever it lies, and nothing else does."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import tasks._base
from core.code import code_digest, tree_digest
from core.errors import ContractError
from core.metrics import get_metric
from core.records import RecordStore
from core.registry import load_module
from downstreams._base import HEADS
from tasks._base import TASKS
from upstreams._base import UPSTREAMS
from upstreams._resolve import build_upstream

ROOT = Path(__file__).parent.parent
UPSTREAM = '''
"""Mean and peak of each hundredth of a second."""
import torch
{imports}
from core.hidden_states import HiddenStates
from upstreams._base import Upstream, UpstreamCard

class Loudness(Upstream):
    card = UpstreamCard(name="loudness", title="mean and peak", paper="none")
    num_layers, hidden_size, downsample_rate, min_samples = 1, 2, 160, 160

    def frame_lengths(self, wav_lengths):
        return wav_lengths // 160

    def encode(self, wavs, wav_lengths):
        frames = wavs[:, : wavs.shape[1] // 160 * 160].abs().unflatten(1, (-1, 160))
        layer = torch.stack([(frames ** {power}).mean(dim=2), frames.amax(dim=2)], dim=2)
        return HiddenStates((layer,), self.frame_lengths(wav_lengths))
'''
EDITS = {  # what is replaced, by what, and whether it counts
    "a number": ("// 160 * 160", "// 160 * 160 * 1", True),
    "a comment": ("return wav", "# whole frames\n        return wav", False),
    "a docstring": ("hundredth", "160 samples", False),
    "a method's docstring": ("):\n        return wav", '):\n        """Whole."""\n        return wav', False),
    "line breaks": ("HiddenStates((layer,), ", "HiddenStates(\n            (layer,), ", False),
    "a name": ("layer", "state", True),
    "None": ("class", "FLAG = None\n\nclass", True),
}


def written(folder: Path, power: str = "2", imports: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "own.py"
    file.write_text(UPSTREAM.format(power=power, imports=imports))
    return file


def digest_of_file(file: Path) -> str:
    return build_upstream(f"{file}:Loudness").digest()


@pytest.mark.parametrize("edit", EDITS)
def test_what_an_edit_changes(tmp_path, edit):
    file = written(tmp_path / "plain")
    before, text = digest_of_file(file), file.read_text()
    old, new, counts = EDITS[edit]
    assert old in text
    elsewhere = tmp_path / "edited" / "own.py"
    elsewhere.parent.mkdir()
    elsewhere.write_text(text.replace(old, new))
    assert (digest_of_file(elsewhere) != before) is counts


def test_where_a_file_lies_and_what_it_is_called_does_not_count(tmp_path):
    file = written(tmp_path)
    copy = tmp_path / "copy" / "another.py"
    copy.parent.mkdir()
    copy.write_text(file.read_text())
    assert digest_of_file(copy) == digest_of_file(file)


def test_two_classes_of_one_card_are_two_upstreams(tmp_path):
    file = written(tmp_path)
    file.write_text(file.read_text() + "\nclass Louder(Loudness):\n    pass\n")
    assert build_upstream(f"{file}:Louder").digest() != build_upstream(f"{file}:Loudness").digest()


@pytest.mark.parametrize(
    "place", ["sizes_beside.py", "sizes_beside/__init__.py", "sizes_beside/deep/more.py", "sizes_beside/without.py"]
)
def test_a_module_beside_the_file_can_be_imported_and_counts(tmp_path, place):
    """Also one in a folder without `__init__.py`, which is a package for Python all the same."""
    digests = []
    for power in ("2", "3", "2"):
        folder = tmp_path / f"{len(digests)}"
        file = written(folder, "sizes_beside.power", "import sizes_beside")
        (folder / "sizes_beside" / "deep").mkdir(parents=True)
        for name in ("sizes_beside/__init__.py", "sizes_beside/deep/__init__.py"):
            (folder / name).write_text("power = 2\n")
        if place in ("sizes_beside.py", "sizes_beside/without.py"):
            (folder / "sizes_beside" / "__init__.py").unlink()
        if place == "sizes_beside/without.py":
            file.write_text(
                file.read_text().replace("import sizes_beside", "import sizes_beside.without as sizes_beside")
            )
        (folder / place).write_text(f"power = {power}\n")
        (folder / "not_imported.py").write_text(f"length = {len(digests)}\n")
        digests.append(digest_of_file(file))
        for name in [name for name in sys.modules if name.split(".")[0] == "sizes_beside"]:
            del sys.modules[name]
    assert digests[0] == digests[2] != digests[1]


def test_a_module_beside_the_file_is_not_taken_for_another_of_its_name(tmp_path):
    for number in (0, 1):
        folder = tmp_path / f"{number}"
        written(folder, "named_alike.power", "import named_alike")
        (folder / "named_alike.py").write_text(f"power = {number + 2}\n")
    load_module(tmp_path / "0" / "own.py")
    with pytest.raises(ContractError, match=r"imports 'named_alike', which is .*0/named_alike.py.*rename the file"):
        load_module(tmp_path / "1" / "own.py")
    del sys.modules["named_alike"]


def test_a_module_beside_a_plug_in_is_found_by_its_own_code_alone(tmp_path):
    """Later as well, and by the modules beside it; elsewhere it would stand for a package that is not installed."""
    before = list(sys.path)
    (tmp_path / "only_here.py").write_text("import only_there\npower = only_there.power\n")
    (tmp_path / "only_there.py").write_text("power = 4\n")
    (tmp_path / "own.py").write_text(
        "import importlib\n\ndef later():\n    import only_here\n    return only_here.power\n\n"
        "def by_name():\n    return importlib.import_module('only_there').power\n"
    )
    module = load_module(tmp_path / "own.py")
    assert sys.path == before
    for name in ("only_here", "only_there"):
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module(name)
    try:
        assert (module.by_name(), module.later()) == (4, 4)
    finally:
        for name in ("only_here", "only_there"):
            sys.modules.pop(name, None)


def test_a_file_that_was_edited_is_imported_again(tmp_path):
    file = written(tmp_path)
    first = load_module(file)
    assert load_module(file) is first
    before = digest_of_file(file)
    written(tmp_path, power="5")
    assert load_module(file) is not first
    assert digest_of_file(file) != before


def installed(folder: Path, module: str, text: str, group: str, name: str) -> None:
    """A package as pip would install it, with an entry point to `module`:Entry."""
    (folder / "loud_package" / "nested").mkdir(parents=True, exist_ok=True)
    for package in ("loud_package", "loud_package/nested"):
        (folder / package / "__init__.py").touch()
    (folder / "loud_package" / module).write_text(text)
    information = folder / "loud_package-1.dist-info"
    information.mkdir(exist_ok=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: loud_package\nVersion: 1\n")
    point = f"loud_package.{module.removesuffix('.py').replace('/', '.')}:Entry"
    (information / "entry_points.txt").write_text(f"[{group}]\n{name} = {point}\n")


def test_every_module_of_an_installed_package_counts(tmp_path, monkeypatch):
    digests = []
    for power in ("2", "3"):
        folder = tmp_path / power
        text = UPSTREAM.format(power="POWER", imports="from loud_package.sizes import POWER").replace(
            "Loudness", "Entry"
        )
        installed(folder, "nested/model.py", text, "frostbench.upstreams", "loudness")
        (folder / "loud_package" / "sizes.py").write_text(f"POWER = {power}\n")
        with monkeypatch.context() as patch:
            patch.syspath_prepend(folder)
            patch.setattr(UPSTREAMS, "_discovered", False)
            patch.setattr(UPSTREAMS, "_entries", dict(UPSTREAMS._entries))
            digests.append(build_upstream("loudness").digest())
        for name in [name for name in sys.modules if name.split(".")[0] == "loud_package"]:
            del sys.modules[name]
        importlib.invalidate_caches()
    assert len(set(digests)) == 2


HEAD = """
from downstreams.utterance_linear import UtteranceLinear
{imports}

class Entry(UtteranceLinear):
    scale = {scale}

    def forward(self, features, lengths):
        return super().forward(features, lengths) * self.scale
"""


@pytest.mark.parametrize("entry_file", ["model.py", "scale.py"])
def test_an_edited_head_is_trained_anew(corpus_folder, tasks_file, tmp_path, entry_file):
    """In processes of their own, as a user would: the package is edited, and the command is typed again."""
    answers = []
    for scale in ("1.0", "1.0  # times", "2.0"):
        inline = entry_file == "model.py"
        text = HEAD.format(scale=scale if inline else "SCALE", imports="from loud_package.scale import SCALE")
        installed(tmp_path, "model.py", text, "frostbench.heads", "scaled")
        (tmp_path / "loud_package" / "scale.py").write_text(f"SCALE = {'1.0' if inline else scale}\n")
        folders = ("--output", tmp_path / "results", "--cache", tmp_path / "cache", "--workers", "1", "--device", "cpu")
        task = ("--upstream", "mfcc", "--task", f"{tasks_file}:KS", "--head", "scaled", "--corpus", corpus_folder)
        command = [sys.executable, ROOT / "run_benchmark.py", "run", *task, *folders]
        paths = {"PYTHONPATH": os.pathsep.join(map(str, (tmp_path, ROOT)))}
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | paths, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        answers.append(next(line for line in done.stdout.splitlines() if "computed" in line))
    assert [answer.split(",")[0] for answer in answers] == ["1 cells computed", "0 cells computed", "1 cells computed"]
    records = RecordStore(tmp_path / "results").all()
    assert len({record.task["code"] for record in records} - {None}) == 2


def test_an_edited_metric_is_computed_anew(monkeypatch, tmp_path):
    digests = []
    for factor in ("1", "2"):
        file = tmp_path / factor / "metric.py"
        file.parent.mkdir()
        file.write_text(
            f"def statistics(prediction, reference):\n    return (float(prediction == reference), {factor})\n"
        )
        ours = get_metric("accuracy")
        part = next(name for name, value in vars(ours).items() if callable(value))
        metric = replace(ours, **{part: load_module(file).statistics})
        monkeypatch.setattr(tasks._base, "get_metric", {"accuracy": metric}.get)
        digests.append(TASKS.get("ks").digest())
    assert len(set(digests)) == 2


def test_our_own_entries_are_known_by_their_versions():
    entries = [entry for registry in (UPSTREAMS, HEADS) for entry in registry]
    assert {entry: code_digest(entry) for entry in entries} == dict.fromkeys(entries)
    assert {task.name: task.recorded()["code"] for task in TASKS} == dict.fromkeys(TASKS.names())


def test_a_file_that_cannot_be_read_as_python_counts_by_its_bytes(tmp_path):
    file = tmp_path / "template.py"
    digests = []
    for text in ("print 'old'", "print 'older'"):
        file.write_text(text)
        digests.append(tree_digest(file))
    assert len(set(digests)) == 2


MODERN = """
async def f(a, /, b: int = 1, *c, d=None, **e) -> dict[str, float]:
    async with a as g, b:
        x: list = [*c, -1, 1.5e3, 2j, b"x", ..., True, f"{a!r:>{b}} and {{}}"]
    match x:
        case {"k": [1, *_], **rest} if (y := len(rest)) > 2:
            return {**e, "y": lambda z: z[1:2, ::3]}
    try:
        yield
    except (ValueError, OSError) as error:
        raise RuntimeError from error
"""


def test_the_digest_of_a_file_is_the_same_in_every_version_of_python(tmp_path):
    """`ast.dump` is not: this one was made with 3.11, and the suite runs under others as well."""
    file = tmp_path / "modern.py"
    file.write_text(MODERN)
    assert tree_digest(file) == "569b4088d1964e450f425458f71a1ff4daecfcc31b4266bbb06067e87f768e7d"
