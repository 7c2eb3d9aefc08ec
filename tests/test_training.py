"""Head training: seeded, selected on valid alone, stopped by a NaN, taken up where it was."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load

from core.digest import write_json
from core.errors import CheckpointError, TrainingError
from core.lengths import pad, padding_mask
from core.records import RecordStore
from downstreams import _closed_form, _featurizer
from downstreams._base import FeatureShape
from downstreams._checks import Memory
from downstreams._closed_form import ClosedForm, Means, backward_together
from downstreams._data import PooledExamples, evaluation_batches, training_batches
from downstreams._downstream import Downstream, Trained, downstream_of, load_trained, save_trained
from downstreams._featurizer import Featurizer
from downstreams._recipe import Recipe, SpecAugment, updates_of
from downstreams._training import TrainingRun, _mixed, choose, clip_gradients, predict, train, train_together
from downstreams.labels.slots import SlotLabels
from downstreams.labels.text import TextLabels
from downstreams.utterance_linear import UtteranceLinear
from frostbench.grid import cell_jobs
from frostbench.grid.cell_jobs import Folders, run_cell, train_heads
from frostbench.grid.plan import Grid, make_cells
from frostbench.grid.run import run_grid
from frostbench.grid.sweeps import sweeps_of
from frostbench.jobs.local import LocalExecutor
from leaderboard.aggregate import leaderboard
from leaderboard.page import page
from leaderboard.verification import verify
from tasks._base import TASKS

CPU = torch.device("cpu")
RECIPE = Recipe("test", steps=30, batch_size=4, learning_rates=(1e-2,), eval_every=10)
LABELS = SlotLabels.from_train(["a", "b", "c"], "keyword")


def split(count: int, seed: int, scale: float = 1.0) -> PooledExamples:
    """Means that hold their class in one of their places."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(count, 1, 2, 6, generator=generator)
    targets = [LABELS.encode("abc"[index % 3]) for index in range(count)]
    for index, target in enumerate(targets):
        features[index, :, :, int(target)] += 2
    return PooledExamples(scale * features, [[index] for index in range(count)], targets)


def downstream(recipe: Recipe = RECIPE, seed: int = 0) -> Downstream:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Downstream("utterance_linear", 2, FeatureShape(6, 160), LABELS, recipe)


def trained(
    recipe: Recipe = RECIPE, *, seed: int = 0, rate: float = 1e-2, score=None, sign: int = 1, **data
) -> Trained:
    splits = {"train": split(17, 1), "valid": split(9, 2)} | data
    return train(downstream(recipe, seed), splits, score or right, sign, recipe, TrainingRun(rate, seed), CPU)


def right(predictions: list) -> float:
    return 100 * sum(one == "abc"[index % 3] for index, one in enumerate(predictions)) / len(predictions)


def same(one: Trained, other: Trained) -> bool:
    equal = [torch.equal(one.state[name], other.state[name]) for name in one.state]
    return len(equal) == 5 and all(equal) and one.history == other.history


def test_same_seed_same_result_bit_for_bit():
    torch.manual_seed(1)
    first = trained()
    torch.manual_seed(2)
    assert same(first, trained())
    assert not same(first, trained(seed=1))
    assert not same(first, trained(rate=1.1e-2))


def test_the_seed_decides_the_order_and_not_only_the_first_weights():
    data = {"train": split(17, 1), "valid": split(9, 2)}
    one, other = (train(downstream(), data, right, 1, RECIPE, TrainingRun(1e-2, seed), CPU) for seed in (0, 1))
    assert not same(one, other)


@pytest.mark.parametrize("options", [None, {"projector_size": 4, "lstm_size": 4, "dropout": 0.3}])
def test_runs_trained_together_equal_those_trained_alone_bit_for_bit(options):
    """Means in closed form, and frames with dropout by autograd; some runs end early."""
    recipe = replace(RECIPE, schedule="linear", patience=1, head=options or {})
    data, labels, name = {"train": split(17, 1), "valid": split(9, 2)}, LABELS, "utterance_linear"
    if options:
        recipe, name = replace(recipe, spec_augment=SpecAugment(feature_width=2)), "ctc"
        labels = TextLabels.from_train(["ab"], "text")
        data = {split: frames(count, labels) for split, count in (("train", 9), ("valid", 5))}
    runs = [TrainingRun(rate, seed) for seed in (0, 3) for rate in (3e-1, 1e-2, 1e-5)]

    def fresh(run: TrainingRun) -> Downstream:
        torch.manual_seed(run.seed)
        return Downstream(name, 2, FeatureShape(6, 160), labels, recipe)

    def score(predictions: list) -> float:
        return right(predictions) if options is None else -len("".join(predictions))

    steps: list[int] = []
    together = train_together([fresh(run) for run in runs], data, score, 1, recipe, runs, CPU, steps.append)
    assert sum(steps) == recipe.steps * len(runs)
    assert len({outcome.history[-1]["step"] for outcome in together}) > 1, "some end early, others do not"
    for run, outcome in zip(runs, together, strict=True):
        alone = train(fresh(run), data, score, 1, recipe, run, CPU)
        assert alone.history == outcome.history and alone.step == outcome.step
        assert all(torch.equal(alone.state[name], outcome.state[name]) for name in alone.state)


def test_a_search_ends_all_but_the_best_of_each_seed_and_leaves_these_as_they_are_alone():
    recipe = replace(RECIPE, search_steps=10, schedule="linear")
    data = {"train": split(17, 1), "valid": split(9, 2)}
    runs = [TrainingRun(rate, seed) for seed in (0, 3) for rate in (1e-5, 1e-1, 1e-6)]
    models, steps = [downstream(recipe, run.seed) for run in runs], []
    outcomes = train_together(models, data, right, 1, recipe, runs, CPU, steps.append)
    assert [outcome.history[-1]["step"] for outcome in outcomes] == 2 * [10, 30, 10]
    assert sum(steps) == 2 * updates_of(recipe, 3) == 2 * (30 + 10 + 10)
    for run, outcome in zip(runs[1::3], outcomes[1::3], strict=True):
        assert same(train(downstream(recipe, run.seed), data, right, 1, recipe, run, CPU), outcome)
    lowest = train_together(
        [downstream(recipe) for _ in runs[:3]], data, right, -1, recipe, runs[:3], CPU
    )  # of errors the other direction is better
    assert lowest[1].history[-1]["step"] == 10


def test_a_diverged_rate_loses_a_search_and_equals_are_told_apart_by_the_loss():
    recipe = replace(RECIPE, search_steps=10)
    data = {"train": split(17, 1), "valid": split(9, 2)}
    runs = [TrainingRun(rate, 0) for rate in (float("inf"), 1e-1)]
    outcomes = train_together([downstream(recipe) for _ in runs], data, right, 1, recipe, runs, CPU)
    assert outcomes[0].diverged == 10 and outcomes[1].history[-1]["step"] == 30
    runs = [TrainingRun(rate, 0) for rate in (1e-7, 1e-6)]
    outcomes = train_together([downstream(recipe) for _ in runs], data, lambda found: 50.0, 1, recipe, runs, CPU)
    assert [outcome.history[-1]["step"] for outcome in outcomes] == [10, 30]


def frames(count: int, labels: TextLabels) -> Memory:
    generator = torch.Generator().manual_seed(count)
    utterances = [torch.randn(20 + index, 2, 6, generator=generator) for index in range(count)]
    return Memory(utterances, [labels.encode("ab"[: 1 + index % 2]) for index in range(count)])


def test_training_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    trained()
    assert torch.equal(torch.rand(1), expected)


def test_history_has_every_look_and_progress_every_step():
    steps = []
    recipe = replace(RECIPE, steps=25)
    outcome = train(
        downstream(),
        {"train": split(9, 1), "valid": split(9, 2)},
        right,
        1,
        recipe,
        TrainingRun(1e-2, 0),
        CPU,
        steps.append,
    )
    assert [look["step"] for look in outcome.history] == [10, 20, 25]
    assert sum(steps) == 25
    assert set(outcome.history[0]) == {"step", "train_loss", "valid_loss", "valid"}
    assert outcome.history[-1]["train_loss"] < outcome.history[0]["train_loss"]


@pytest.mark.parametrize(("sign", "best"), [(1, 20), (-1, 10)])
def test_the_best_state_on_valid_is_kept_in_the_metrics_direction(sign, best):
    values = iter([1.0, 3.0, 2.0])
    outcome = trained(score=lambda predictions: next(values), sign=sign)
    assert (outcome.step, outcome.valid) == (best, {20: 3.0, 10: 1.0}[best])
    rising = iter([1.0, 2.0])
    until_then = trained(replace(RECIPE, steps=best), score=lambda predictions: next(rising))
    for name, value in until_then.state.items():
        assert torch.equal(outcome.state[name], value)


def test_a_tie_goes_to_the_lower_loss_and_then_to_the_earlier():
    one = Trained(0.1, 10, 50.0, 0.7, [], {})
    for better, sign in (
        (replace(one, valid_loss=0.6), 1),
        (replace(one, valid=51.0, valid_loss=9.0), 1),
        (replace(one, valid=49.0, valid_loss=9.0), -1),
    ):
        assert choose([one, better], sign) is choose([better, one], sign) is better
    twin = replace(one, step=20)
    assert choose([one, twin], 1) is one and choose([twin, one], 1) is twin


def test_patience_ends_a_training_that_no_longer_improves():
    values = iter([1.0, 2.0, *[0.0] * 20])
    steps = []
    recipe = replace(RECIPE, steps=100, patience=3)
    data = {"train": split(9, 1), "valid": split(9, 2)}
    outcome = train(
        downstream(), data, lambda predictions: next(values), 1, recipe, TrainingRun(1e-2, 0), CPU, steps.append
    )
    assert outcome.step == 20
    assert outcome.history[-1]["step"] == 50
    assert sum(steps) == 100  # a progress bar ends at its end


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_told_and_loses(value):
    bad = split(17, 1)
    bad.features[3] = value
    outcome = trained(train=bad)
    assert (outcome.diverged, outcome.valid, outcome.step, outcome.history, outcome.state) == (10, None, None, [], {})
    good = trained()
    assert good.diverged is None
    assert choose([outcome, good], 1) is choose([good, outcome], -1) is good
    with pytest.raises(TrainingError, match=r"with every learning rate \(0\.01 before update 10, 0\.01 before"):
        choose([outcome, outcome], 1)


def test_gradients_are_clipped_and_the_rate_decays():
    """Adam is blind to a gradient's scale, so the first step tells: clipping to nothing leaves hardly a trace."""
    start = downstream().state_dict()
    free, clipped = (trained(replace(RECIPE, steps=10, clip=clip)) for clip in (1.0, 1e-9))

    def moved(outcome: Trained) -> float:
        return max((outcome.state[name] - start[name]).abs().max().item() for name in start)

    assert moved(clipped) < 0.5 * moved(free)
    decayed = trained(replace(RECIPE, steps=10, schedule="linear"))
    assert 0.3 * moved(free) < moved(decayed) < 0.8 * moved(free)


@pytest.mark.parametrize(
    ("schedule", "expected"), [("linear", [1.0, 0.75, 0.5, 0.25]), ("constant", [1.0, 1.0, 1.0, 1.0])]
)
def test_the_rate_of_every_update_by_hand(monkeypatch, schedule, expected):
    """Adam moves by the rate itself under a constant gradient: by all of it at first, by some of it at last."""
    places = []

    def loss(head, logits, lengths, targets):
        if head.training:
            places.append(head.classifier.bias.detach().clone())
        return head.classifier.bias.sum()

    monkeypatch.setattr(UtteranceLinear, "closed_form", False)
    monkeypatch.setattr(UtteranceLinear, "loss", loss)
    looks = iter(range(10))
    recipe = replace(RECIPE, steps=4, eval_every=1, schedule=schedule)
    last = trained(recipe, score=lambda predictions: float(next(looks))).state["head.classifier.bias"]
    steps = torch.stack(places[:-1]) - torch.stack(places[1:])
    steps = torch.cat([steps, (places[-1] - last)[None]])
    torch.testing.assert_close(steps, 1e-2 * torch.tensor(expected)[:, None].expand_as(steps), rtol=1e-4, atol=0)


def test_balanced_batches_draw_every_class_equally_often():
    targets = [LABELS.encode("a")] * 18 + [LABELS.encode("b")] * 2
    data = PooledExamples(torch.zeros(20, 1, 1, 1), [[place] for place in range(20)], targets)
    recipe = replace(RECIPE, balanced=True, batch_size=6)
    stream = training_batches(data, recipe, torch.Generator().manual_seed(0))
    batches = [next(stream) for _ in range(300)]
    drawn = [index >= 18 for batch in batches for index in batch]
    assert {len(batch) for batch in batches} == {6}
    assert 0.45 < sum(drawn) / len(drawn) < 0.55


def test_of_several_crops_every_one_is_drawn():
    data = PooledExamples(torch.arange(3.0)[:, None, None, None], [[0, 1, 2]], [LABELS.encode("a")])
    generator = torch.Generator().manual_seed(0)
    assert {int(data.batch([0], generator).layers) for _ in range(40)} == {0, 1, 2}


@pytest.mark.parametrize("clip", [1e-2, 10.0])
def test_the_closed_form_trains_as_autograd_and_adam_do(clip, monkeypatch):
    recipe = replace(RECIPE, clip=clip, schedule="linear")
    fast = trained(recipe)
    monkeypatch.setattr(UtteranceLinear, "closed_form", False)
    slow = trained(recipe)
    assert not same(fast, slow), "these are two ways"
    for one, other in zip(fast.history, slow.history, strict=True):
        assert one == pytest.approx(other, rel=1e-4)
    for name, value in slow.state.items():
        torch.testing.assert_close(fast.state[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("clip", [1e-2, 10.0])
def test_gradients_are_clipped_as_torch_clips_them(clip, monkeypatch):
    """Frostbench hands the norm to Adam's fused step; here everything is done by torch's own functions."""
    monkeypatch.setattr(UtteranceLinear, "closed_form", False)
    found = trained(replace(RECIPE, clip=clip, steps=10), score=lambda predictions: 0.0)
    data, learner = split(17, 1), downstream()
    optimizer = torch.optim.Adam(learner.parameters(), 1e-2)
    batches = training_batches(data, RECIPE, torch.Generator().manual_seed(0))
    for _ in range(10):
        batch = data.batch(next(batches))
        optimizer.zero_grad()
        learner.head.loss(learner(batch.layers, batch.lengths), batch.lengths, batch.targets).backward()
        torch.nn.utils.clip_grad_norm_(learner.parameters(), clip)
        optimizer.step()
    for name, value in learner.state_dict().items():
        torch.testing.assert_close(found.state[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("count", [2, 9])
def test_the_closed_form_is_the_same_in_either_order_of_its_products(count, monkeypatch):
    """With fewer utterances than classes, and with more."""
    batch = Means.of(split(9, 1).batch(range(count)), LABELS.sizes)
    outcomes = []
    for way in (None, _closed_form._OneLayer, _closed_form._TwoLayers):
        if way is not None:
            monkeypatch.setattr(_closed_form, "_OneLayer", way)
            monkeypatch.setattr(_closed_form, "_TwoLayers", way)
        learner = downstream().double()
        torch.nn.init.normal_(learner.featurizer.weights, generator=torch.Generator().manual_seed(1))
        means = Means(batch.layers.double(), batch.targets.double())
        with torch.no_grad():
            (loss,) = backward_together([ClosedForm(learner.featurizer, learner.head, clip=1.0)], means)
        outcomes.append([loss, *(parameter.grad for parameter in learner.parameters())])
    asked, one, other = outcomes
    torch.testing.assert_close(one, other)
    assert not all(map(torch.equal, one, other)), "these are two ways"
    cheaper = one if count > 3 else other
    assert all(map(torch.equal, asked, cheaper))


@pytest.mark.parametrize("normalise", [False, True])
def test_frames_are_mixed_where_they_lie_as_padded_ones_are(normalise, monkeypatch):
    """In half precision and in blocks, the last of them smaller; on padding stands zero."""
    monkeypatch.setattr(_featurizer, "BLOCK_NUMBERS", 7 * 2 * 6)
    torch.manual_seed(0)
    utterances = [torch.randn(count, 2, 6).half() for count in (20, 7, 33)]
    featurizer = Featurizer(2, normalise)
    torch.nn.init.normal_(featurizer.weights)
    padded, lengths = pad([utterance.float() for utterance in utterances])
    mask = padding_mask(lengths)[:, :, None]
    expected = featurizer(padded).masked_fill(mask, 0)
    found = featurizer(utterances)
    torch.testing.assert_close(found, expected)
    slope = torch.randn_like(expected)
    gradients = [torch.autograd.grad((mixed * slope).sum(), featurizer.weights)[0] for mixed in (expected, found)]
    assert gradients[0].abs().min() > 0
    torch.testing.assert_close(*gradients)


def test_a_batch_of_long_utterances_is_smaller():
    labels = TextLabels.from_train(["ab"], "text")
    data = frames(12, labels)  # 20 to 31 frames
    batches = training_batches(data, replace(RECIPE, batch_size=4), torch.Generator().manual_seed(0), most_frames=70)
    epoch: list[list[int]] = []
    while sum(map(len, epoch)) < 12:
        epoch.append(next(batches))
    assert sorted(index for batch in epoch for index in batch) == list(range(12))
    assert {2, 3} <= {len(batch) for batch in epoch} <= {1, 2, 3}
    assert all(len(batch) * max(data.lengths[index] for index in batch) <= 70 for batch in epoch)
    assert [len(batch) for batch in evaluation_batches(data, 4, most_frames=25)] == [1] * 12, "one is never too many"


def test_spec_augment_plays_in_training_only():
    labels = TextLabels.from_train(["ab"], "text")
    options = {"projector_size": 4, "lstm_size": 4, "dropout": 0.0}
    recipe = replace(RECIPE, head=options, spec_augment=SpecAugment(feature_width=3))
    head = Downstream("ctc", 2, FeatureShape(6, 160), labels, recipe)
    layers, lengths = torch.randn(1, 60, 2, 6), torch.tensor([60])
    assert torch.equal(head.eval()(layers, lengths), head.eval()(layers, lengths))
    assert not torch.equal(head.train()(layers, lengths), head.train()(layers, lengths))


def test_predictions_come_in_the_order_of_the_examples(monkeypatch):
    monkeypatch.setattr("downstreams._training.EVALUATION_BATCH", 2)
    data = split(7, 3, scale=9.0)
    fitted = downstream()
    fitted.load_state_dict(dict(trained(replace(RECIPE, steps=300), train=data, valid=data).state))
    predictions, loss = predict(fitted, data, CPU)
    assert predictions == list("abcabca")
    assert loss < 0.1


@pytest.mark.parametrize("kind", ["utterance_linear", "ctc"])
def test_the_loss_on_valid_is_the_mean_over_utterances_however_they_are_batched(kind, monkeypatch):
    """A last, small batch weighs no more: ties of learning rates are decided by it."""
    labels = LABELS if kind == "utterance_linear" else TextLabels.from_train(["ab"], "text")
    data = split(7, 3) if kind == "utterance_linear" else frames(7, labels)
    options = {"projector_size": 4} if kind == "utterance_linear" else {"projector_size": 4, "lstm_size": 4}
    model = Downstream.fresh(0, kind, 2, FeatureShape(6, 160), labels, replace(RECIPE, head=options))
    losses = []
    for size in (1, 3, 256):
        monkeypatch.setattr("downstreams._training.EVALUATION_BATCH", size)
        losses.append(predict(model, data, CPU)[1])
    assert losses[0] == pytest.approx(losses[2], rel=1e-5)
    assert losses[1] == pytest.approx(losses[2], rel=1e-5)


def test_a_stored_head_is_read_whole_or_not_at_all(tmp_path):
    outcome, recipe = trained(), replace(RECIPE, spec_augment=SpecAugment(time_masks=1))
    path = tmp_path / "head.safetensors"
    save_trained(path, outcome, downstream(recipe).description)
    again, description = load_trained(path)
    assert same(outcome, again)
    assert replace(again, state={}) == replace(outcome, state={})
    assert downstream_of(description, again.state).spec_augment == SpecAugment(time_masks=1)
    whole = path.read_bytes()
    for damage in (whole[:-10], b"", b"\xff" * 50):
        path.write_bytes(damage)
        with pytest.raises(CheckpointError, match=r"head\.safetensors: not a trained head .* delete it and run again"):
            load_trained(path)


@pytest.fixture
def grid(corpus):
    """One cell: FBANK on keywords, two learning rates."""
    recipe = Recipe("tiny", 20, 16, (1e-1, 1e-2), 10)
    return Grid(("fbank",), (replace(TASKS.get("ks"), recipes={"tiny": recipe}),), (0,))


def test_test_is_not_touched_before_the_end(grid, corpus, tmp_path, monkeypatch):
    """Candidates are trained without it, and it is predicted once."""
    folders = Folders(tmp_path / "cache", tmp_path / "results")
    corpus = replace(corpus, utterances=tuple(row for row in corpus.utterances if row.id != "test_6_0"))
    (cell,) = make_cells(grid, corpus).cells
    assert [len(cell.examples[name]) for name in ("valid", "test")] == [12, 11]
    looked, real_train, real_predict = [], cell_jobs.train_together, cell_jobs.predict

    def watched_train(models, data, *rest):
        looked.append(sorted(data))
        return real_train(models, data, *rest)

    def watched_predict(downstream, examples, *rest):
        looked.append(len(examples.targets))
        return real_predict(downstream, examples, *rest)

    monkeypatch.setattr(cell_jobs, "train_together", watched_train)
    monkeypatch.setattr(cell_jobs, "predict", watched_predict)
    run_grid(grid, corpus, folders, LocalExecutor("cpu", 1))
    assert looked == [["train", "valid"], 11]


def test_finished_candidates_are_read_and_not_trained_again(grid, corpus, tmp_path, monkeypatch):
    folders = Folders(tmp_path / "cache", tmp_path / "results")
    with monkeypatch.context() as patched:
        patched.setattr(cell_jobs, "delete_candidates", lambda cell, folders: None)
        run_grid(grid, corpus, folders, LocalExecutor("cpu", 1))
    (record,) = RecordStore(folders.results).all()
    (first, _) = sorted(folders.cache.glob("heads/*.safetensors"))
    first.unlink()  # as if a kill had come between the two candidates
    rates, real = [], cell_jobs.train_together

    def watched(*arguments):
        rates.extend(arguments[5])
        return real(*arguments)

    monkeypatch.setattr(cell_jobs, "train_together", watched)
    again, steps = Folders(folders.cache, tmp_path / "again"), []
    (cell,) = make_cells(grid, corpus).cells
    cell = replace(cell, upstream=replace(cell.upstream, gflops_per_second=record.circumstances["gflops_per_second"]))
    train_heads([(cell, tried) for tried in cell.candidates], again, device="cpu", advance=steps.append)
    assert len(rates) == 1
    assert sum(steps) == 40
    run_cell(cell, again, device="cpu", advance=steps.append)
    assert len(rates) == 1
    (other,) = RecordStore(again.results).all()
    assert other.result() == record.result()


def searched(grid: Grid) -> Grid:
    recipe = replace(grid.tasks[0].recipe(None), search_steps=10, learning_rates=(1e-1, 1e-2, 1e-3))
    return replace(grid, tasks=(replace(grid.tasks[0], recipes={"tiny": recipe}),), seeds=(0, 1))


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_candidates_that_are_compared_on_the_way_are_in_one_job(grid, corpus, workers):
    for runs in sweeps_of(make_cells(searched(grid), corpus).cells, workers):
        counts = Counter(cell.run for cell, _ in runs)
        assert set(counts.values()) == {3}


def test_of_candidates_that_are_compared_all_are_trained_again_if_one_is_missing(grid, corpus, tmp_path, monkeypatch):
    folders = Folders(tmp_path / "cache", tmp_path / "results")
    monkeypatch.setattr(cell_jobs, "delete_candidates", lambda cell, folders: None)
    monkeypatch.setattr("frostbench.grid.run.delete_candidates", lambda cell, folders: None)
    run_grid(searched(grid), corpus, folders, LocalExecutor("cpu", 1))
    record, _ = RecordStore(folders.results).all()
    cells = make_cells(searched(grid), corpus).cells
    cost = record.circumstances["gflops_per_second"]
    cells = [replace(cell, upstream=replace(cell.upstream, gflops_per_second=cost)) for cell in cells]
    kept = {path: path.read_bytes() for path in folders.cache.glob("heads/*.safetensors")}
    assert len(kept) == 6
    min(kept).unlink()
    trained_again, steps, real = [], [], cell_jobs.train_together

    def watched(*arguments):
        trained_again.extend(arguments[5])
        return real(*arguments)

    monkeypatch.setattr(cell_jobs, "train_together", watched)
    runs = [(cell, tried) for cell in cells for tried in cell.candidates]
    train_heads(runs, folders, device="cpu", advance=steps.append)
    assert len(trained_again) == 3 and len({run.seed for run in trained_again}) == 1
    assert sum(steps) == 2 * (20 + 2 * 10)
    assert all(same_weights(path.read_bytes(), kept[path]) for path in kept)


def same_weights(one: bytes, other: bytes) -> bool:
    first, second = load(one), load(other)
    return set(first) == set(second) and all(torch.equal(first[name], second[name]) for name in first)


def test_the_learning_rate_is_chosen_on_valid(grid, corpus, tmp_path):
    folders = Folders(tmp_path / "cache", tmp_path / "results")
    recipe = replace(grid.tasks[0].recipe(None), steps=100, learning_rates=(1e-7, 1e-1))
    task = replace(grid.tasks[0], recipes={"tiny": recipe})
    run_grid(replace(grid, tasks=(task,)), corpus, folders, LocalExecutor("cpu", 1))
    (record,) = RecordStore(folders.results).all()
    assert [tried["learning_rate"] for tried in record.learning_rates] == [1e-7, 1e-1]
    slow, fast = (tried["valid"] for tried in record.learning_rates)
    assert fast > slow
    assert record.learning_rate == 1e-1


@pytest.mark.parametrize("clip", [1e-3, 1e3])
def test_clipped_gradients_give_the_bits_of_a_fused_step_that_divides_them(clip):
    """The numbers of earlier records: a multiplication by the inverse is rounded otherwise."""
    stepped = []
    for way in ("ours", "fused"):
        model = Downstream.fresh(0, "utterance_linear", 2, FeatureShape(6, 160), LABELS, RECIPE)
        optimizer = torch.optim.Adam(model.parameters(), 1e-2, fused=True)
        for step in range(3):
            generator = torch.Generator().manual_seed(step)
            for parameter in model.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in model.parameters()])
            if way == "ours":
                clip_gradients(model, clip)
                clipped = torch.nn.utils.get_total_norm([parameter.grad for parameter in model.parameters()])
                torch.testing.assert_close(clipped, norm.clamp(max=clip))
            else:
                optimizer.grad_scale = ((norm + 1e-6) / clip).clamp(min=1.0)
            optimizer.step()
        stepped.append([parameter.detach().clone() for parameter in model.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*stepped, strict=True))


def test_fresh_weights_follow_from_the_seed_alone_and_leave_no_trace():
    shape, before = FeatureShape(6, 160), torch.get_rng_state()
    one, other, twin = (Downstream.fresh(seed, "utterance_linear", 2, shape, LABELS, RECIPE) for seed in (0, 1, 0))
    assert torch.equal(torch.get_rng_state(), before)
    weights = [made.head.projector.weight for made in (one, other, twin)]
    assert torch.equal(weights[0], weights[2]) and not torch.equal(weights[0], weights[1])


def test_a_cell_begins_with_the_weights_of_its_seed(grid, corpus, tmp_path, monkeypatch):
    begun, real = [], Downstream.fresh.__func__

    def watched(cls: type, seed: int, *rest: object) -> Downstream:
        begun.append(seed)
        return real(cls, seed, *rest)

    monkeypatch.setattr(Downstream, "fresh", classmethod(watched))
    folders = Folders(tmp_path / "cache", tmp_path / "results")
    assert run_grid(replace(grid, seeds=(3, 7)), corpus, folders, LocalExecutor("cpu", 1)).failures == []
    assert set(begun) == {3, 7}


DIVERGING = 1e30
HEADS_OF_BOTH_KINDS = ("utterance_linear", "utterance_attention")  # gradients in closed form, and by autograd


def with_rates(grid: Grid, head: str, *rates: float) -> Grid:
    task = replace(grid.tasks[0].with_head(head), name=f"ks-{len(rates)}-{min(rates):g}")
    recipe = replace(grid.tasks[0].recipe(None), learning_rates=rates)
    return replace(grid, tasks=(replace(task, recipes={"tiny": recipe}),), seeds=(0, 1))


@pytest.mark.parametrize("head", HEADS_OF_BOTH_KINDS)
def test_a_learning_rate_that_diverges_loses_and_disturbs_nobody(grid, corpus, tmp_path, head):
    found = {}
    for name, rates in (("both", (1e-2, DIVERGING)), ("first", (DIVERGING, 1e-2)), ("alone", (1e-2,))):
        folders = Folders(tmp_path / "cache", tmp_path / name)
        report = run_grid(with_rates(grid, head, *rates), corpus, folders, LocalExecutor("cpu", 1))
        assert report.failures == []
        found[name] = sorted(RecordStore(folders.results).all(), key=lambda record: record.seed)
        assert [record.seed for record in found[name]] == [0, 1]
        assert verify(RecordStore(folders.results)) == []
    for both, first, alone in zip(found["both"], found["first"], found["alone"], strict=True):
        good, bad = both.learning_rates
        assert bad == {"learning_rate": DIVERGING, "valid": None, "step": None, "diverged": 10}
        assert [*alone.learning_rates] == [good] and [*first.learning_rates] == [bad, good]
        assert both.learning_rate == first.learning_rate == 1e-2
        assert both.value == first.value == alone.value
        assert both.layer_weights == first.layer_weights == alone.layer_weights, "the same bits as without company"
    board = leaderboard(RecordStore(tmp_path / "both"), custom=True)
    assert page(board)


@pytest.mark.parametrize("head", HEADS_OF_BOTH_KINDS)
def test_only_a_cell_whose_every_rate_diverges_fails(grid, corpus, tmp_path, head):
    folders = Folders(tmp_path / "cache", tmp_path / "results")
    hopeless = with_rates(grid, head, DIVERGING, 10 * DIVERGING)
    tasks = (*hopeless.tasks, *with_rates(grid, head, 1e-2, DIVERGING).tasks)
    report = run_grid(replace(hopeless, tasks=tasks), corpus, folders, LocalExecutor("cpu", 1))
    assert (report.computed, [name for name, _ in report.failures]) == (
        2,
        [f"fbank / {hopeless.tasks[0].shown} / seed {seed}" for seed in (0, 1)],
    )
    assert "training diverged with every learning rate (1e+30 before update 10, 1e+31" in report.failures[0][1]


def test_verify_knows_what_a_diverged_rate_may_say(grid, corpus, tmp_path):
    folders = Folders(tmp_path / "cache", tmp_path / "results")
    run_grid(with_rates(grid, "utterance_linear", 1e-2, DIVERGING), corpus, folders, LocalExecutor("cpu", 1))
    store = RecordStore(folders.results)
    record = store.all()[0]
    good, bad = record.learning_rates
    for lie, problem in (
        ([good, {**bad, "diverged": 20}], "history.json says otherwise of whether it diverged"),
        ([good, {**bad, "valid": 100.0}], "says 100.0, although it diverged"),
        ([{**good, "diverged": 10, "valid": None}, bad], "history.json says otherwise of whether it diverged"),
    ):
        write_json(store.path(record.run), replace(record, learning_rates=lie).sealed())
        assert [problem in finding.problem for finding in verify(store)] == [True]


def test_seeds_draw_dropout_of_their_own():
    """torch's generator on the CPU takes the lowest 32 bits of a seed only."""
    made = {}
    for seed in range(3):
        for step in range(1, 4):
            torch.manual_seed(_mixed(seed, step))
            made[seed, step] = tuple(torch.rand(3).tolist())
    assert len(set(made.values())) == 9


def test_every_update_of_every_seed_draws_dropout_of_its_own_and_all_rates_of_a_seed_share_it(monkeypatch):
    """Also between two looks at valid; a difference between rates is the rate's, then."""
    labels, options = TextLabels.from_train(["ab"], "text"), {"projector_size": 4, "lstm_size": 4, "dropout": 0.3}
    recipe = replace(RECIPE, steps=6, eval_every=3, head=options)
    data = {name: frames(count, labels) for name, count in (("train", 9), ("valid", 5))}
    runs = [TrainingRun(rate, seed) for seed in (0, 1) for rate in (1e-2, 1e-3)]
    states: dict[int, list[bytes]] = {}
    forward = Downstream.forward

    def watched(model: Downstream, *batch) -> torch.Tensor:
        if model.training:
            states.setdefault(id(model), []).append(torch.get_rng_state().numpy().tobytes())
        return forward(model, *batch)

    monkeypatch.setattr(Downstream, "forward", watched)
    models = [Downstream.fresh(run.seed, "ctc", 2, FeatureShape(6, 160), labels, recipe) for run in runs]
    train_together(models, data, lambda found: float(len(found)), 1, recipe, runs, CPU)
    drawn = [states[id(model)] for model in models]
    assert drawn[0] == drawn[1] and drawn[2] == drawn[3]
    assert len({*drawn[0], *drawn[2]}) == 2 * recipe.steps
