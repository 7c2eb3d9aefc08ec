"""What a recipe can say besides: schedules, warm-up, weight decay, layers one at a time, heads that learn nothing."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import call
from test_mixtures import MOOD, RATE, sine, write

from core.errors import BenchmarkError, ContractError
from core.lengths import mean_over_valid, pad
from core.manifest import Manifest, read_manifest
from core.records import RecordStore
from downstreams import _checks as head_checks
from downstreams._base import HEADS, FeatureShape, Head, register_head
from downstreams._data import Batch, PooledExamples
from downstreams._downstream import Downstream, downstream_of, load_trained
from downstreams._featurizer import Featurizer
from downstreams._recipe import Candidate, Recipe, candidates_of
from downstreams._schedules import SCHEDULES
from downstreams._training import TrainingRun, train
from downstreams._utterance import UtteranceOptions
from downstreams.labels.slots import SlotLabels
from frostbench.grid.cell_jobs import Folders
from frostbench.grid.plan import Grid
from frostbench.grid.run import run_grid
from frostbench.jobs.local import LocalExecutor
from leaderboard import frames
from tasks import _checks
from tasks._base import TASKS, Task

CPU = torch.device("cpu")
LABELS = SlotLabels.from_train(["a", "b", "c"], "label")


# Schedules.


def factors(schedule: str, steps: int, warmup: int) -> list[float]:
    return [SCHEDULES.get(schedule)(step, steps, warmup) for step in range(1, steps + 1)]


def test_schedules():
    assert factors("constant", 4, 0) == [1, 1, 1, 1]
    assert factors("constant", 4, 2) == [0.5, 1, 1, 1]
    assert factors("linear", 4, 0) == [1, 0.75, 0.5, 0.25]
    assert factors("linear", 6, 2) == [0.5, 1, 1, 0.75, 0.5, 0.25]
    assert factors("inverse_sqrt", 8, 2) == [0.5, 1, *(math.sqrt(2 / step) for step in range(3, 9))]
    assert factors("inverse_sqrt", 2, 0) == [1, math.sqrt(0.5)]
    assert factors("inverse_sqrt_s3prl", 4, 2) == [0.5, 1, 1 / math.sqrt(3), 0.5]
    assert SCHEDULES.names() == ["constant", "inverse_sqrt", "inverse_sqrt_s3prl", "linear"]


def ks(**changes) -> Task:
    return replace(TASKS.get("ks"), audio={}, recipes={"fast": replace(TASKS.get("ks").recipe("fast"), **changes)})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schedule": "cosine"}, "schedule 'cosine' is none of constant, inverse_sqrt"),
        ({"warmup_steps": 3_001}, "warmup_steps 3001"),
        ({"weight_decay": -0.1}, "weight_decay"),
        ({"layers": "last"}, "layers are 'last'"),
        ({"learning_rates": (0.0,)}, "vanish"),
        ({"steps": 0}, "steps start at 1"),
    ],
)
def test_a_recipe_that_can_not_be_is_refused_at_its_declaration(changes, said):
    error = _checks.run_check(_checks.check_recipes_are_sane, ks(**changes)).error
    assert error is not None and said in error


def in_memory(count: int = 12) -> PooledExamples:
    features = torch.randn(count, 1, 2, 4, generator=torch.Generator().manual_seed(0))
    targets = [LABELS.encode("abc"[number % 3]) for number in range(count)]
    return PooledExamples(features, [[number] for number in range(count)], targets)


def trained(recipe: Recipe, head: str = "utterance_linear") -> tuple[Downstream, Downstream]:
    """A downstream before its training, and the same after it."""
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        models.append(Downstream(head, 2, FeatureShape(4, 160), LABELS, recipe))
    data = in_memory()
    found = train(models[1], {"train": data, "valid": data}, lambda p: 0.0, 1, recipe, TrainingRun(0.1, 0), CPU)
    models[1].load_state_dict(dict(found.state))
    return models[0], models[1]


ONE = Recipe("one", 1, 12, (0.1,), 1, head={"projector_size": 8})


def test_an_unknown_schedule_does_not_train_as_another():
    with pytest.raises(BenchmarkError, match="unknown schedule 'linaer': did you mean 'linear'"):
        trained(replace(ONE, schedule="linaer"))


@pytest.mark.parametrize("head", ["utterance_linear", "utterance_attention"])
def test_weight_decay_takes_its_share_off_every_weight(head):
    """The first update of Adam is the rate times the gradient's sign; AdamW's is that, from weights that shrank."""
    if head == "utterance_attention":
        HEADS.get(head)  # autograd with and without decay
    before, plain = trained(ONE, head)
    _, decayed = trained(replace(ONE, weight_decay=0.5), head)
    weight = "classifier.weight"
    start, one, other = (dict(each.head.named_parameters())[weight] for each in (before, plain, decayed))
    torch.testing.assert_close(other, one - 0.1 * 0.5 * start, rtol=1e-4, atol=1e-6)
    assert not decayed.closed_form


@pytest.mark.parametrize("schedule", ["constant", "linear"])
def test_warm_up_scales_the_first_updates(schedule):
    before, full = trained(replace(ONE, steps=4, eval_every=4, schedule="constant"))
    _, warm = trained(replace(ONE, steps=1, warmup_steps=1, schedule=schedule))
    _, half = trained(replace(ONE, steps=2, eval_every=1, warmup_steps=2, schedule=schedule))
    _, once = trained(ONE)
    torch.testing.assert_close(warm.head.classifier.weight, once.head.classifier.weight)
    assert full.head.classifier.weight.ne(before.head.classifier.weight).all()
    moved = (half.head.classifier.bias - before.head.classifier.bias).abs()
    assert (moved < 0.16).all(), "0.05 and 0.1 at most"


# Layers one at a time.


def test_a_single_layer_is_all_that_the_head_is_given():
    layers = torch.randn(5, 7, 3, 4)
    plain = Featurizer(3, layer=1)
    assert torch.equal(plain(layers), layers[:, :, 1])
    assert plain.layer_weights().tolist() == [0, 1, 0]
    assert list(plain.parameters()) == []
    ragged = [torch.randn(6, 3, 4).half(), torch.randn(2, 3, 4).half()]
    assert torch.equal(plain(ragged), pad([utterance[:, 1].float() for utterance in ragged])[0])
    normal = Featurizer(3, normalise=True, layer=2)
    torch.testing.assert_close(normal(layers).std(dim=-1, correction=0), torch.ones(5, 7), rtol=1e-3, atol=1e-3)
    learned = Featurizer(3)
    learned.weights.data = torch.tensor([-torch.inf, 0, -torch.inf])
    torch.testing.assert_close(learned(layers), plain(layers))
    torch.testing.assert_close(learned(ragged), plain(ragged))


def test_every_layer_is_tried_with_every_rate():
    single = replace(ONE, learning_rates=(0.1, 0.01), layers="single")
    assert candidates_of(single, 2) == [Candidate(0.1, 0), Candidate(0.01, 0), Candidate(0.1, 1), Candidate(0.01, 1)]
    assert candidates_of(replace(single, layers="weighted"), 2) == [Candidate(0.1), Candidate(0.01)]
    assert (str(Candidate(0.1, 1)), str(Candidate(1e-3))) == ("learning rate 0.1, layer 1", "learning rate 0.001")


UPSTREAM = '''
"""Two layers: one that tells nothing, and the energies of three bands, of which each mood has one."""

import torch

from core.hidden_states import HiddenStates
from upstreams._base import Upstream, UpstreamCard


class Bands(Upstream):
    """Energies of bands."""

    card = UpstreamCard("bands", "Energies of bands", "none")
    num_layers, hidden_size, downsample_rate, min_samples = 2, 4, 160, 160

    def frame_lengths(self, wav_lengths):
        return wav_lengths // 160

    def encode(self, wavs, wav_lengths):
        frames = wavs[:, : wavs.shape[1] // 160 * 160].unflatten(1, (-1, 160))
        energies = torch.fft.rfft(frames).abs().square()
        bands = [energies[..., low:high].sum(-1) for low, high in ((1, 6), (6, 20), (20, 60))]
        told = torch.stack([*bands, torch.zeros_like(bands[0])], dim=-1)
        return HiddenStates((torch.zeros_like(told), told), self.frame_lengths(wav_lengths))
'''


class Loudest(Head):
    """The class whose number is that of the largest feature: learns nothing."""

    needs = "frames"
    trains = False
    labels: SlotLabels
    label_kind = SlotLabels
    options_type = UtteranceOptions

    def forward(self, features, lengths):
        return mean_over_valid(features, lengths)[:, : sum(self.labels.sizes)]

    def predict(self, logits, lengths):
        return [
            self.labels.decode([int(slot.argmax()) for slot in row.split(self.labels.sizes)])
            for row in torch.nn.functional.pad(logits, (0, sum(self.labels.sizes) - logits.shape[1]))
        ]


@pytest.fixture
def loudest():
    register_head("loudest")(Loudest)


@pytest.fixture(scope="module")
def moods(tmp_path_factory) -> Manifest:
    import soundfile

    folder = tmp_path_factory.mktemp("moods")
    rows = []
    for split, count in (("train", 4), ("valid", 3), ("test", 3)):
        for number in range(count):
            for name, hertz in (("calm", 300), ("glad", 1_200), ("wild", 3_000)):
                file = f"{split}_{name}_{number}.wav"
                soundfile.write(folder / file, sine(hertz, 4_800, len(rows)), RATE)
                rows.append({"file_name": file, "split": split, "mood": name, "voice": f"{split}{number}"})
    return read_manifest(write(folder, rows))


def ran(task: Task, moods: Manifest, folder: Path):
    (folder / "bands.py").write_text(UPSTREAM)
    folders = Folders(folder / "cache", folder / "results")
    grid = Grid((f"{folder / 'bands.py'}:Bands",), (task,), (0,))
    report = run_grid(grid, moods, folders, LocalExecutor("cpu", 1))
    assert (report.failures, report.computed) == ([], 1)
    store = RecordStore(folders.results)
    (record,) = store.all()
    return record, store


def checked(store: RecordStore) -> None:
    """What `verify` and `report` make of the results."""
    for command in (("verify",), ("report", "--html", store.folder / "page.html")):
        done = call(*command, "--output", store.folder)
        assert done.code == 0, done.err


UNTRAINED = Recipe("none", 0, 1, (0.0,), 1, layers="single")


def test_a_head_that_learns_nothing_takes_the_best_layer_on_valid(moods, loudest, tmp_path):
    task = replace(MOOD, head="loudest", recipes={"none": UNTRAINED})
    for check in _checks.CHECKS:
        assert _checks.run_check(check, task, moods).error is None
    record, store = ran(task, moods, tmp_path)
    assert record.value == 100
    assert record.layer_weights == [0, 1]
    assert [(each["layer"], each["step"]) for each in record.learning_rates] == [(0, 0), (1, 0)]
    assert record.learning_rates[0]["valid"] < record.learning_rates[1]["valid"] == 100
    assert frames.runs([record])["valid"].tolist() == [100], "of the layer that was chosen"
    found, description = load_trained(store.run_folder(record.run) / "head.safetensors")
    assert (found.layer, list(found.state)) == (1, ["featurizer.weights"])
    assert downstream_of(description, found.state).featurizer.layer_weights().tolist() == [0, 1]
    checked(store)


@pytest.mark.parametrize("head", ["utterance_linear", "utterance_attention"])
def test_an_existing_head_is_a_probe_of_every_layer(moods, tmp_path, head):
    recipe = Recipe("probe", 40, 12, (1e-2, 1e-3), 20, layers="single", normalise=True)
    record, store = ran(replace(MOOD, head=head, recipes={"probe": recipe}), moods, tmp_path)
    assert record.value == 100
    assert record.layer_weights == [0, 1]
    tried = [(each["layer"], each["learning_rate"]) for each in record.learning_rates]
    assert tried == [(0, 1e-2), (0, 1e-3), (1, 1e-2), (1, 1e-3)]
    assert record.learning_rates[0]["valid"] == pytest.approx(100 / 3), "the other layer tells nothing"
    assert frames.runs([record])["valid"].tolist() == [100], "of the layer that was chosen"
    history = json.loads((store.run_folder(record.run) / "history.json").read_text())
    assert [(each["layer"], each["learning_rate"], len(each["history"])) for each in history] == [
        (*pair, 2) for pair in tried
    ]
    checked(store)


@pytest.mark.parametrize("check", head_checks.CHECKS, ids=lambda check: check.__name__)
def test_a_head_that_learns_nothing_holds_the_contract(check, loudest):
    assert head_checks.run_check(check, "loudest").error is None


def test_what_a_head_that_learns_nothing_must_not_have(loudest):
    class Liar(Loudest):
        """Says it learns nothing."""

        def __init__(self, shape, labels, options):
            super().__init__(shape, labels, options)
            self.scale = torch.nn.Parameter(torch.ones(1))

    class Lossless(Loudest):
        """Says it learns."""

        trains = True

    register_head("liar")(Liar)
    register_head("lossless")(Lossless)
    error = head_checks.run_check(head_checks.check_every_parameter_gets_a_gradient, "liar").error
    assert "has parameters" in error
    assert "no loss" in head_checks.run_check(head_checks.check_declaration_complete, "lossless").error
    head = Lossless(FeatureShape(4, 160), LABELS, UtteranceOptions())
    with pytest.raises(ContractError, match="Lossless has no loss"):
        head.loss(torch.zeros(1, 3), torch.ones(1), [])
    assert (
        "0 steps, learning rate 0"
        in _checks.run_check(_checks.check_recipes_are_sane, replace(MOOD, head="loudest")).error
    )
    assert Batch(torch.zeros(1), torch.ones(1), []).targets == []
