"""Upstreams that are trained with their heads (`run --finetune`), beside frozen ones, which nothing of it reaches."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_tasks
import torch
from conftest import call
from torch import nn

import frostbench as fb
from core.audio import read_audio
from core.errors import BenchmarkError, CheckpointError, ContractError
from core.extras import EXTRAS
from core.finetuning import FineTuning
from core.records import RecordStore
from downstreams._recipe import Recipe, candidates_of, finetuning_recipe
from frostbench.grid import finetuning
from frostbench.grid.candidates import Folders, candidate_path
from frostbench.grid.finetuning import UpstreamEncoder
from frostbench.grid.plan import Grid, make_cells
from leaderboard.verification import verify
from tasks._base import TASKS
from upstreams._finetuning import fine_tuned, opened, trainable_copy, trained_tensors
from upstreams._resolve import build_upstream

RECIPE = Recipe("tiny", steps=800, batch_size=16, learning_rates=(1e-2,), eval_every=200)
SID = replace(TASKS.get("sid"), recipes={"tiny": RECIPE})
ASR = replace(tiny_tasks.ASR, recipes={"tiny": replace(tiny_tasks.TRANSCRIBE, steps=60, eval_every=30)})


class Muted(fb.Upstream):
    """Its weights let nothing through, so that only one that learns can tell two recordings apart."""

    card = fb.UpstreamCard(name="muted", title="A spectrum times nothing", paper="none")
    num_layers, hidden_size, downsample_rate, min_samples = 2, 8, 160, 160

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.lower, self.upper, self.unused = nn.Linear(81, 16), nn.Linear(16, 8), nn.Linear(2, 2)
        nn.init.zeros_(self.upper.weight)
        nn.init.zeros_(self.upper.bias)

    def trainable_blocks(self):
        return [self.lower, self.upper]

    def frame_lengths(self, wav_lengths):
        return wav_lengths // 160

    def encode(self, wavs, wav_lengths):
        blocks = wavs[:, : wavs.shape[1] // 160 * 160].unflatten(1, (-1, 160))
        spectrum = (torch.fft.rfft(blocks).abs() + 1e-3).log()
        heard = 100 * self.upper(self.lower(spectrum))
        return fb.HiddenStates((torch.ones_like(heard), heard), self.frame_lengths(wav_lengths))


class Whole(Muted):
    """Says nothing of its blocks."""

    card = fb.UpstreamCard(name="whole", title="A spectrum times nothing", paper="none")

    def trainable_blocks(self):
        return fb.Upstream.trainable_blocks(self)


def evaluated(corpus_folder: Path, place: Path, upstream=None, task=SID, **asked) -> fb.Results:
    asked = {"finetune": "full", "output": place / "results", "cache": place / "cache", **asked}
    return fb.evaluate(upstream or Muted(), task, corpus=corpus_folder, **asked)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("tuned")


@pytest.fixture(scope="module")
def tuned(corpus_folder, place) -> fb.Results:
    return evaluated(corpus_folder, place)


def both(results: fb.Results):
    """The records of a frozen upstream and of the same one fine-tuned."""
    records = sorted(results.records, key=lambda record: record.finetuning or "")
    return records[0], records[-1]


def test_what_learns_passes_what_the_frozen_one_does_not(tuned):
    frozen, full = both(tuned)
    assert (frozen.finetuning, full.finetuning) == (None, "full")
    assert full.value > frozen.value + 30
    assert [tried["upstream_rate"] for tried in full.learning_rates] == [1e-4, 1e-5]
    assert {tried["learning_rate"] for tried in full.learning_rates} == {frozen.learning_rate}
    assert full.run_of_frozen() == frozen.run == frozen.run_of_frozen()
    costs = full.circumstances["finetuning"]
    heads = costs["frozen_trained_parameters"]
    assert costs["trained_parameters"] - heads == 81 * 16 + 16 + 16 * 8 + 8, "what is unused is not trained"
    assert costs["audio_seconds"] > 10 * costs["frozen_audio_seconds"]
    assert full.features["live"] == ["test", "train", "valid"]
    assert full.upstream == frozen.upstream


def test_a_frozen_run_is_what_it_is_without_fine_tuning(tuned, corpus_folder, tmp_path):
    (alone,) = evaluated(corpus_folder, tmp_path, finetune=None).records
    assert both(tuned)[0].result_digest() == alone.result_digest()


def test_the_object_that_is_fine_tuned_stays_as_it_was(corpus_folder, tmp_path):
    upstream = Muted()
    before = {name: value.clone() for name, value in upstream.state_dict().items()}
    first = evaluated(corpus_folder, tmp_path, upstream)
    assert all(torch.equal(before[name], value) for name, value in upstream.state_dict().items())
    assert all(value.requires_grad for value in upstream.parameters()), "given back as it was"
    after = evaluated(corpus_folder, tmp_path / "later", upstream, finetune=None)
    assert both(first)[0].result_digest() == both(after)[0].result_digest()


def test_the_same_seed_gives_the_same_weights_and_another_one_others(tuned, corpus_folder, tmp_path):
    again = evaluated(corpus_folder, tmp_path, seeds=(0, 1))
    digests = {record.seed: record.result_digest() for record in again.records if record.finetuning}
    assert digests[0] == both(tuned)[1].result_digest()
    files = {record.artifacts["upstream.safetensors"] for record in again.records if record.finetuning}
    assert len(files) == 2


def test_a_killed_run_goes_on_at_what_was_trained(tuned, corpus_folder, tmp_path, monkeypatch):
    calls = []
    whole = finetuning.train_together

    def killed(*given):
        calls.append(given)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return whole(*given)

    monkeypatch.setattr(finetuning, "train_together", killed)
    with pytest.raises(KeyboardInterrupt):
        evaluated(corpus_folder, tmp_path)
    assert [record.finetuning for record in RecordStore(tmp_path / "results").all()] == [None]
    again = evaluated(corpus_folder, tmp_path)
    assert (again.skipped, again.computed, len(calls)) == (1, 1, 3), "one candidate was there"
    assert both(again)[1].result_digest() == both(tuned)[1].result_digest()
    assert not list((tmp_path / "cache" / "heads").glob("*.safetensors"))
    assert evaluated(corpus_folder, tmp_path).skipped == 2


def test_without_its_frozen_run_nothing_is_fine_tuned(corpus_folder, tmp_path, monkeypatch):
    first = evaluated(corpus_folder, tmp_path, finetune=None)
    head = RecordStore(first.folder).run_folder(first.records[0].run) / "head.safetensors"
    head.unlink()
    with pytest.raises(BenchmarkError, match="fine-tuning begins at the head of muted / sid / seed 0"):
        evaluated(corpus_folder, tmp_path)
    head.write_bytes(b"another")
    with pytest.raises(BenchmarkError, match="not the head of its run"):
        evaluated(corpus_folder, tmp_path)


def test_everything_beside_the_record_is_verified(tuned, corpus_folder, tmp_path):
    assert verify(RecordStore(tuned.folder)) == []
    again = evaluated(corpus_folder, tmp_path)
    store = RecordStore(again.folder)
    folder = store.run_folder(both(again)[1].run)
    (folder / "upstream.safetensors").write_bytes((folder / "head.safetensors").read_bytes())
    (finding,) = verify(store)
    assert "upstream.safetensors" in str(finding.path)
    with pytest.raises(CheckpointError, match="not the upstream of this run"):
        fb.predict([corpus_folder / "audio" / "a.wav"], folder.name, output=again.folder, upstream=Muted())


def test_a_record_that_names_other_rates_of_the_upstream_is_found(tuned, corpus_folder, tmp_path):
    again = evaluated(corpus_folder, tmp_path)
    store = RecordStore(again.folder)
    record = both(again)[1]
    rates = [{**tried, "upstream_rate": 3e-4} for tried in record.learning_rates]
    changed = replace(record, learning_rates=rates, circumstances={})
    store.path(record.run).write_text(json.dumps(changed.sealed()))
    problems = " ".join(finding.problem for finding in verify(store))
    assert "of the upstream, its recipe has [0.0001, 1e-05]" in problems
    assert "counts other parameters than" in problems


def test_the_number_is_computed_again_from_what_is_kept(tuned, corpus_folder):
    _, full = both(tuned)
    rows = tuned.predictions()
    rows = rows[rows["run"] == full.run].head(6)
    files = {path.stem: path for path in (corpus_folder / "audio").iterdir()}
    found = fb.predict([files[name] for name in rows["id"]], full.run, output=tuned.folder, upstream=Muted())
    assert found == rows["prediction"].tolist()
    with pytest.raises(CheckpointError, match="fine-tuned its upstream"):
        fb.features(Muted(), tuned.folder / "out", corpus=corpus_folder, run=full.run, results=tuned.folder,
                    cache=tuned.folder / "cache")  # fmt: skip


def test_a_board_of_their_own_lays_both_side_by_side(tuned):
    (frozen,) = tuned.board.boards
    (board,) = tuned.board.variants
    assert [row.name for row in frozen.rows] == ["muted"] and not frozen.tunings
    assert {row.name for row in board.rows} == {"muted", "muted (full)"} and not board.superb
    assert board.title == f"{frozen.title}, frozen and fine-tuned"
    (found,) = board.tunings
    (pair,) = board.pairs
    record, full = both(tuned)
    assert (found.upstream, found.name, found.how, found.task) == ("muted", "muted (full)", "full", "sid")
    assert (found.frozen_mean, found.mean) == (record.value, full.value)
    assert found.difference == pytest.approx(full.value - record.value)
    low, high = found.difference_interval
    assert low < found.difference < high
    assert (found.p_holm, found.different) == (pair.p_holm, pair.different)
    costs = full.circumstances["finetuning"]
    assert (found.trained_parameters, found.audio_seconds) == (costs["trained_parameters"], costs["audio_seconds"])
    assert found.seconds == full.circumstances["wall_seconds"]["train"]
    assert found.frozen_seconds == record.circumstances["wall_seconds"]["train"]
    runs = tuned.runs().set_index("run")
    assert runs.loc[full.run, ["upstream", "finetuning", "valid"]].tolist() == [
        "muted (full)", "full", max(tried["valid"] for tried in full.learning_rates)
    ]  # fmt: skip
    assert runs["finetuning"].isna().sum() == 1
    text = tuned.to_markdown()
    assert f"muted (full), SID: {full.value:.1f} after {record.value:.1f} %" in text
    page = tuned.page(tuned.folder / "page.html").read_text()
    assert page.count("Frozen against fine-tuned</h3>") == 1


def test_a_fine_tuned_run_without_its_frozen_one_has_a_board_too(tuned, tmp_path):
    _, full = both(tuned)
    store = RecordStore(tmp_path)
    store.path(full.run).parent.mkdir(parents=True)
    store.path(full.run).write_bytes(RecordStore(tuned.folder).path(full.run).read_bytes())
    (board,) = fb.load(tmp_path, custom=True).board.variants
    assert [row.name for row in board.rows] == ["muted (full)"] and not board.tunings


def test_means_of_live_audio_are_those_of_the_cache(corpus_folder):
    upstream = opened(Muted(), FineTuning("full"))
    nn.init.normal_(upstream.upper.weight, generator=torch.Generator().manual_seed(0))
    wavs = [read_audio(path) for path in sorted((corpus_folder / "audio").iterdir())[:5]]
    encoder = UpstreamEncoder(upstream, "pooled", torch.device("cpu"))
    layers = encoder(wavs)
    assert layers.shape == (5, 1, 2, 8)
    for wav, found in zip(wavs, layers, strict=True):
        states = upstream.extract(wav[None], torch.tensor([len(wav)]))
        expected = torch.stack([layer[0].mean(dim=0) for layer in states.layers])
        torch.testing.assert_close(found[0], expected)


def test_what_is_computed_twice_has_the_same_gradient(monkeypatch):
    upstream = opened(Muted(), FineTuning("full"))
    upstream.upper = nn.Sequential(nn.Dropout(0.5), upstream.upper)
    wavs = [torch.randn(1_600 * count, generator=torch.Generator().manual_seed(count)) for count in (3, 1, 2)]

    def slope() -> torch.Tensor:
        encoder = UpstreamEncoder(upstream, "frames", torch.device("cpu")).train()
        torch.manual_seed(5)
        (encoder(wavs) * torch.arange(8)).sum().backward()
        found = upstream.upper[1].weight.grad.clone()
        upstream.zero_grad()
        return found

    once = slope()
    monkeypatch.setattr(finetuning, "LONGEST_SECONDS", 0.0)
    assert once.abs().sum() > 0
    torch.testing.assert_close(slope(), once)


def test_only_dropout_is_in_training_mode():
    upstream = Muted()
    upstream.lower = nn.Sequential(upstream.lower, nn.Dropout(0.5), nn.BatchNorm1d(16))
    upstream.recurrent = nn.GRU(2, 2)
    encoder = UpstreamEncoder(upstream.freeze(), "pooled", torch.device("cpu")).train()
    training = {type(module) for module in upstream.modules() if module.training}
    assert training == {nn.Dropout, nn.GRU}
    encoder.eval()
    assert not any(module.training for module in upstream.modules())


@pytest.mark.parametrize("spec", ["apc@untrained", "mockingjay@untrained", "hubert@untrained", "cmc@untrained"])
@pytest.mark.parametrize("how", ["full", "top:1"])
def test_gradients_reach_what_is_asked_for_and_nothing_else(spec, how):
    upstream = trainable_copy(spec, FineTuning.from_text(how))
    names = set(trained_tensors(upstream))
    assert names
    if how == "full":
        frozen = {name for name, value in upstream.named_parameters() if not value.requires_grad}
        assert all("masked_spec_embed" in name for name in frozen)
        return
    last = list(upstream.trainable_blocks())[-1]
    assert {id(value) for value in trained_tensors(upstream).values()} == {id(value) for value in last.parameters()}
    wav = torch.randn(1, 16_000, generator=torch.Generator().manual_seed(0)) / 10
    before = build_upstream(spec).extract(wav, torch.tensor([16_000])).layers
    changed = {name: value.detach() + 0.1 for name, value in trained_tensors(upstream).items()}
    after = fine_tuned(build_upstream(spec), FineTuning.from_text(how), changed).extract(wav, torch.tensor([16_000]))
    differing = [not torch.allclose(one, other, atol=1e-4) for one, other in zip(before, after.layers, strict=True)]
    assert differing == [False] * (len(before) - 1) + [True]


@pytest.mark.parametrize("spec", ["mockingjay@untrained", "hubert@untrained"])
def test_low_rank_matrices_change_nothing_until_they_are_trained(spec):
    pytest.importorskip("peft", reason="the extra lora is not installed")
    how = FineTuning.from_text("lora:2")
    upstream = trainable_copy(spec, how)
    trained = trained_tensors(upstream)
    assert trained and all("lora_" in name and 2 in value.shape for name, value in trained.items())
    wav = torch.randn(2, 16_000, generator=torch.Generator().manual_seed(0)) / 10
    given = wav, torch.tensor([16_000, 9_000])
    plain = build_upstream(spec)
    for one, other in zip(upstream.extract(*given).layers, plain.extract(*given).layers, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        for number, value in enumerate(trained.values()):
            value.copy_(torch.randn(value.shape, generator=torch.Generator().manual_seed(number)) / 10)
    encoder = UpstreamEncoder(upstream, "frames", torch.device("cpu"))
    live = encoder([given[0][0]])[0].detach()
    kept = {name: value.detach() for name, value in trained.items()}
    merged = fine_tuned(plain, how, kept).extract(given[0][:1], given[1][:1])
    torch.testing.assert_close(live, torch.stack(merged.layers, dim=2)[0], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(live[:, -1], plain.extract(*given).layers[-1][0], atol=1e-3)
    with pytest.raises(CheckpointError, match="do not fit it"):
        fine_tuned(plain, FineTuning.from_text("lora:3"), kept)


def test_attention_that_reads_its_weights_alone_has_them_beside_its_feed_forward_layers(tmp_path):
    pytest.importorskip("peft", reason="the extra lora is not installed")
    import transformers

    config = transformers.WavLMConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, conv_dim=(8,),
        conv_kernel=(400,), conv_stride=(320,), num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    transformers.WavLMModel(config).save_pretrained(tmp_path)
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(tmp_path)
    names = set(trained_tensors(trainable_copy(f"hf:{tmp_path}", FineTuning.from_text("lora"))))
    assert names and all("_dense." in name for name in names)


def test_a_head_on_frames_is_fine_tuned(corpus_folder, tmp_path):
    results = evaluated(corpus_folder, tmp_path, task=ASR, finetune="top:1", limit=6)
    frozen, tuned = both(results)
    assert (frozen.frames, tuned.frames, tuned.features["dtype"]) == ("float16", "float16", "float32")
    assert tuned.finetuning == "top:1"
    assert verify(RecordStore(results.folder)) == []


def test_several_seeds_and_modes_are_rows_of_their_own(corpus):
    grid = Grid(("apc@untrained",), (SID,), (0, 1), finetune=FineTuning.from_text("top:2"))
    cells = make_cells(grid, corpus).cells
    assert [cell.finetuned for cell in cells] == [False, False, True, True]
    assert len({cell.run for cell in cells}) == 4
    assert cells[2].row == "apc (untrained) (top:2)" and cells[2].frozen.run == cells[0].run
    whole = make_cells(replace(grid, finetune=FineTuning.from_text("full")), corpus).cells
    other = make_cells(replace(grid, finetune=replace(FineTuning.from_text("full"), learning_rates=(1e-3,))), corpus)
    assert len({whole[2].run, cells[2].run, other.cells[2].run}) == 3
    assert whole[0].run == cells[0].run
    folders = Folders(Path("kept"), Path("out"))
    assert len({candidate_path(cells[2], tried, folders) for tried in cells[2].candidates}) == 2


def test_the_recipe_of_both_together_follows_from_the_heads():
    how = FineTuning.from_text("lora:4")
    recipe = finetuning_recipe(replace(RECIPE, search_steps=50, patience=3, finetune=how), how)
    assert (recipe.steps, recipe.eval_every, recipe.warmup_steps, recipe.schedule) == (80, 8, 8, "linear")
    assert (recipe.search_steps, recipe.patience, recipe.finetune) == (0, 0, None)
    tried = candidates_of(replace(RECIPE, finetune=how), 3)
    assert [(each.learning_rate, each.layer, each.upstream_rate) for each in tried] == [
        (0, None, 1e-3),
        (0, None, 1e-4),
    ]
    assert str(tried[0]) == "learning rate 0.001 of the upstream"
    assert FineTuning.from_json(json.loads(json.dumps(how.__dict__))) == how


@pytest.mark.parametrize("text", ["", "all", "top", "top:0", "top:-1", "top:x", "full:2", "lora:", "lora:0", "top:1.5"])
def test_what_is_no_fine_tuning_is_refused(text):
    with pytest.raises(BenchmarkError, match="write full, top:N"):
        FineTuning.from_text(text)


def loudness(wav):
    return wav[:, : wav.shape[1] // 160 * 160].unflatten(1, (-1, 160)).abs()


@pytest.mark.parametrize(
    ("upstream", "asked", "message"),
    [
        ("fbank", {}, "fbank: has no weights in torch"),
        ("mfcc", {"finetune": "top:1"}, "mfcc: has no weights in torch"),
        (Muted(), {"finetune": "top:3"}, "muted: top:3 can't be fine-tuned, it has 2 blocks"),
        (Whole(), {"finetune": "top:1"}, "whole: top:1 can't be fine-tuned, it does not say what its blocks are"),
        (Muted(), {"layers": 1}, "leave out the layers"),
        (Muted(), {"precision": "bfloat16"}, "leave out the precision"),
        (Muted(), {"task": TASKS.get("qbe")}, "qbe: nothing is trained"),
        (Muted(), {"finetune": "most"}, "--finetune 'most'"),
    ],
)
def test_what_can_not_be_fine_tuned_is_refused_before_any_work(corpus_folder, tmp_path, upstream, asked, message):
    with pytest.raises(BenchmarkError, match=message):
        evaluated(corpus_folder, tmp_path, upstream, **asked)
    assert not (tmp_path / "results").exists()


def test_a_function_has_no_gradient():
    layer = nn.Linear(160, 4)
    with pytest.raises(ContractError, match="no gradient of its hidden states reaches"):
        opened(fb.from_function(lambda wav: layer(loudness(wav)), 160, name="function"), FineTuning("full"))


def test_low_rank_matrices_need_attention_and_peft(monkeypatch):
    pytest.importorskip("peft", reason="the extra lora is not installed")
    with pytest.raises(ContractError, match=r"apc \(untrained\): has no attention"):
        trainable_copy("apc@untrained", FineTuning.from_text("lora"))
    monkeypatch.setitem(EXTRAS, "lora", ("a_module_that_is_not_there",))
    with pytest.raises(BenchmarkError, match=r"pip install 'frostbench\[lora\]'"):
        trainable_copy("hubert@untrained", FineTuning.from_text("lora"))


def test_an_object_that_can_not_be_copied_is_refused(corpus_folder, tmp_path):
    upstream = Muted()
    upstream.held = open(corpus_folder / "metadata.jsonl")  # noqa: SIM115, PTH123
    with upstream.held, pytest.raises(ContractError, match="can't be copied"):
        evaluated(corpus_folder, tmp_path, upstream)


def test_the_command_fine_tunes_what_it_is_asked_for(corpus_folder, tasks_file, tmp_path):
    places = ("--output", tmp_path / "results", "--cache", tmp_path / "cache", "--workers", 1)
    command = ("run", "--upstream", "cmc@untrained", "--task", f"{tasks_file}:KS", "--corpus", corpus_folder, *places)
    done = call(*command, "--finetune", "top:1")
    assert done.code == 0, done.err
    assert "cmc (untrained) (top:1)" in done.out
    refused = call(*command, "--finetune", "bottom:1")
    assert refused.code == 2 and "write full, top:N" in refused.err
