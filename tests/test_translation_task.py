"""Translation: a decoder that attends, its loss and search, BLEU, and the task from end to end."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import call
from sacrebleu import corpus_bleu
from torch import nn

from core.errors import MetricError
from core.metrics import get_metric
from core.records import RecordStore
from downstreams._base import FeatureShape
from downstreams._beam_search import beam_search
from downstreams._transformer import Attention, DecoderLayer, EncoderLayer, LayerSizes, sinusoids
from downstreams.attention_decoder import AttentionDecoder, AttentionDecoderOptions
from downstreams.labels.text import TextLabels
from frostbench.grid.cell_jobs import Folders
from frostbench.grid.plan import Grid
from frostbench.grid.run import run_grid
from frostbench.jobs.local import LocalExecutor
from leaderboard.aggregate import leaderboard
from leaderboard.verification import verify
from tasks._base import TASKS

CPU = torch.device("cpu")
ORACLE = Path(__file__).parents[2] / "shared" / "oracles" / "tasks" / "bleu.json"
SMALL = {"size": 16, "heads": 2, "inner_size": 32, "encoder_layers": 2, "decoder_layers": 2, "conv_size": 32}


def head_of(unit: str = "characters", **options) -> AttentionDecoder:
    torch.manual_seed(0)
    labels = TextLabels.from_train(["Ab c", "ba C"], "translation", unit, fold=False)
    return AttentionDecoder(FeatureShape(6, 160), labels, AttentionDecoderOptions(**{**SMALL, **options})).eval()


# The network.


def weights_of(ours: Attention, theirs: nn.MultiheadAttention) -> None:
    parts = (ours.query, ours.key, ours.value)
    theirs.in_proj_weight.data = torch.cat([part.weight for part in parts])
    theirs.in_proj_bias.data = torch.cat([part.bias for part in parts])
    theirs.out_proj.load_state_dict(ours.output.state_dict())


def rest_of(ours: EncoderLayer | DecoderLayer, theirs: nn.Module) -> None:
    theirs.linear1.load_state_dict(ours.network.first.state_dict())
    theirs.linear2.load_state_dict(ours.network.second.state_dict())
    for number, norm in enumerate(ours.norms, 1):
        nn.init.normal_(norm.weight)
        getattr(theirs, f"norm{number}").load_state_dict(norm.state_dict())


def test_layers_are_torchs_with_norms_first():
    torch.manual_seed(0)
    sizes = LayerSizes(16, 4, 24, 0.0)
    frames, texts, lengths = torch.randn(2, 7, 16), torch.randn(2, 5, 16), torch.tensor([7, 4])
    padding = torch.arange(7)[None] >= lengths[:, None]
    encoder, decoder = EncoderLayer(sizes), DecoderLayer(sizes)
    theirs = nn.TransformerEncoderLayer(16, 4, 24, 0.0, batch_first=True, norm_first=True)
    weights_of(encoder.attention, theirs.self_attn)
    rest_of(encoder, theirs)
    expected = theirs(frames, src_key_padding_mask=padding)
    found = encoder(frames, ~padding[:, None, None])
    torch.testing.assert_close(found[~padding], expected[~padding], atol=1e-5, rtol=1e-5)
    theirs = nn.TransformerDecoderLayer(16, 4, 24, 0.0, batch_first=True, norm_first=True)
    weights_of(decoder.before, theirs.self_attn)
    weights_of(decoder.heard, theirs.multihead_attn)
    rest_of(decoder, theirs)
    later = nn.Transformer.generate_square_subsequent_mask(5)
    expected = theirs(texts, frames, tgt_mask=later, memory_key_padding_mask=padding, tgt_is_causal=True)
    found = decoder(texts, decoder.heard.memory_of(frames), ~padding[:, None, None])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_positions_are_told_by_sines_and_cosines():
    found = sinusoids(torch.arange(9), 8)
    for place, number in itertools.product(range(9), range(4)):
        angle = place / 10_000 ** (number / 3)
        assert found[place, number] == pytest.approx(math.sin(angle), abs=1e-6)
        assert found[place, 4 + number] == pytest.approx(math.cos(angle), abs=1e-6)


def test_a_symbol_does_not_see_those_behind_it():
    head = head_of()
    lengths = torch.tensor([20, 13])
    memory = head(torch.randn(2, 20, 6), lengths)
    before = torch.tensor([[0, 1, 2, 3, 4], [0, 4, 3, 2, 1]])
    changed = before.clone()
    changed[:, 3:] = torch.tensor([5, 1])
    first, second = head.scores(memory, lengths, before), head.scores(memory, lengths, changed)
    torch.testing.assert_close(first[:, :3], second[:, :3], atol=1e-6, rtol=0)
    assert (first[:, 3:] - second[:, 3:]).abs().amin(dim=(0, 1)).max() > 1e-3, "those behind the change see it"


def test_frames_behind_the_end_are_not_looked_up():
    head = head_of()
    lengths, features = torch.tensor([20, 13]), torch.randn(2, 20, 6)
    noisy = features.clone()
    noisy[1, 13:] = 1e3
    before = torch.tensor([[0, 1, 2], [0, 4, 3]])
    one, other = (head.scores(head(each, lengths), lengths, before) for each in (features, noisy))
    torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
    alone = head(features[1:, :13], lengths[1:])
    torch.testing.assert_close(head.scores(alone, lengths[1:], before[1:])[0], one[1], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("layers", "samples", "frames"), [(2, 0, (5, 4)), (1, 0, (10, 7)), (2, 320, (3, 2))])
def test_convolutions_leave_every_second_frame_each(layers, samples, frames):
    head = head_of(conv_layers=layers, frame_samples=samples)
    lengths = torch.tensor([20, 13])
    assert head(torch.randn(2, 20, 6), lengths).shape == (2, frames[0], 16)
    assert tuple(head.output_lengths(lengths).tolist()) == frames


# The loss.


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_that_of_smoothed_targets(smoothing):
    """By its formula: 1 - s of the right symbol, s shared by all, and the end is a symbol of each text."""
    head = head_of(smoothing=smoothing)
    lengths, texts = torch.tensor([20, 13]), [head.labels.encode("Ab"), head.labels.encode("ba C")]
    memory = head(torch.randn(2, 20, 6), lengths)
    total = 0.0
    for row, text in enumerate(texts):
        before = torch.cat([torch.tensor([0]), text])
        logs = head.scores(memory[row : row + 1], lengths[row : row + 1], before[None])[0].log_softmax(dim=1)
        for place, symbol in enumerate([*text.tolist(), 0]):
            total -= (1 - smoothing) * logs[place, symbol].item() + smoothing * logs[place].mean().item()
    assert head.loss(memory, lengths, texts).item() == pytest.approx(total / 2, rel=1e-5)


def test_a_batch_loses_the_mean_of_its_texts():
    """Whatever their lengths: no target behind a shorter text counts."""
    head = head_of()
    lengths, texts = torch.tensor([20, 13, 6]), [head.labels.encode(text) for text in ("c", "ba C Ab", "")]
    features = torch.randn(3, 20, 6)
    alone = []
    for row, length in enumerate(lengths.tolist()):
        memory = head(features[row : row + 1, :length], lengths[row : row + 1])
        alone.append(head.loss(memory, lengths[row : row + 1], texts[row : row + 1]).item())
    assert head.loss(head(features, lengths), lengths, texts).item() == pytest.approx(np.mean(alone), rel=1e-5)
    assert len(set(alone)) == 3


# The search. Symbol 0 is the end, 1 is "a", 2 is "b".


def spelling(tables):
    """The step of a decoder whose probabilities are those of a table: recording, text so far -> of end, a, b."""

    def step(last, kept, rows):
        batch, width = last.shape
        before = [""] * (batch * width) if kept is None else [kept[row] for row in rows.tolist()]
        if kept is not None:
            before = [text + "_ab"[symbol] for text, symbol in zip(before, last.flatten().tolist(), strict=True)]
        chances = [tables[number // width].get(text, (1.0, 0.0, 0.0)) for number, text in enumerate(before)]
        return torch.tensor(chances).log().view(batch, width, 3), before

    return step


TABLE = {"": (0.0, 0.6, 0.4), "a": (0.3, 0.2, 0.5), "ab": (0.55, 0.25, 0.2), "b": (0.9, 0.05, 0.05)}
OTHER = {"": (0.9, 0.02, 0.08), "b": (0.1, 0.8, 0.1), "ba": (0.7, 0.1, 0.2), "a": (0.6, 0.2, 0.2)}


def searched(tables, width, most=9):
    found = beam_search(spelling(tables), len(tables), width, most, 0, CPU)
    return ["".join("_ab"[symbol] for symbol in text) for text in found]


def test_a_greedy_search_takes_the_best_symbol_every_time():
    """a (0.6) before b, then b (0.5) before the end (0.3), then the end (0.55)."""
    assert searched([TABLE], 1) == ["ab"]


def test_a_beam_finds_what_is_likelier_for_its_length():
    """ab: ln(0.6 x 0.5 x 0.55) / 3 = -0.60; b: ln(0.4 x 0.9) / 2 = -0.51."""
    assert searched([TABLE], 2) == ["b"]


def test_no_text_is_empty_and_none_is_too_long():
    """The end has 0.9 at first. ba: ln(0.08 x 0.8 x 0.7) / 3 = -1.04; a: ln(0.02 x 0.6) / 2 = -2.2."""
    assert searched([OTHER], 1) == searched([OTHER], 2) == ["ba"]
    assert searched([OTHER], 1, most=1) == ["b"]
    endless = {"a" * count: (0.0, 1.0, 0.0) for count in range(9)}
    assert searched([endless], 2, most=3) == ["aaa"]
    diverged = {"": (math.nan,) * 3, "a": (math.nan,) * 3, "b": (math.nan,) * 3}
    assert len(searched([diverged], 2, most=1)[0]) == 1, "training says so, by its loss"


# What would be better for its length comes after the greedy text has ended; and a recording that takes longer.
LATE = {"": (0.0, 0.9, 0.1), "a": (0.5, 0.45, 0.05), "aa": (0.04, 0.95, 0.01), "aaa": (0.04, 0.95, 0.01)}
LONG = {"b" * count: (0.0, 0.1, 0.9) if count < 7 else (1.0, 0.0, 0.0) for count in range(8)}


def test_recordings_are_searched_side_by_side():
    """A search is over when its own texts have ended, whatever others take."""
    assert searched([LATE], 1) == ["a"]
    for width in (1, 2, 3):
        tables = (TABLE, OTHER, LATE, LONG, TABLE)
        alone = [searched([table], width)[0] for table in tables]
        assert searched(tables, width) == alone


def test_a_wide_beam_finds_the_best_of_all_texts():
    rng, texts = (
        np.random.default_rng(0),
        ["".join(each) for n in range(4) for each in itertools.product("ab", repeat=n)],
    )
    for _ in range(30):
        table = {text: tuple(rng.dirichlet([1, 1, 1])) for text in texts}

        def score(text, table=table):
            steps = [table[text[:place]]["_ab".index(letter)] for place, letter in enumerate(text)]
            return sum(map(math.log, [*steps, table[text][0]])) / (len(text) + 1)

        whole = {text: score(text) for text in texts if text}
        assert searched([table], 20, most=3) == [max(whole, key=whole.get)]


@pytest.mark.parametrize("unit", ["characters", "words"])
def test_symbol_by_symbol_the_decoder_says_what_it_says_of_all_at_once(unit):
    head = head_of(unit, beam=1, most_symbols=7)
    lengths = torch.tensor([20, 13, 6])
    memory = head(torch.randn(3, 20, 6), lengths)
    for row, said in enumerate(head.predict(memory, lengths)):
        before = [0]
        for place in range(8):
            scores = head.scores(memory[row : row + 1], lengths[row : row + 1], torch.tensor([before]))[0, -1]
            scores[0] = -torch.inf if place == 0 else scores[0]
            best = int(scores.argmax())
            if best == 0 or place == 7:
                break
            before.append(best)
        assert said == head.labels.decode(before[1:])


@pytest.mark.parametrize("seed", range(3))
def test_each_text_of_a_beam_keeps_its_own_past(seed):
    """What is kept of the symbols before is as good as to compute all of each text anew."""
    head = head_of(beam=3, most_symbols=6)
    torch.manual_seed(seed)
    for part in head.decoder.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=0.5)
    nn.init.normal_(head.classifier.weight, std=0.3)
    lengths = torch.tensor([20, 13, 6])
    memory = head(torch.randn(3, 20, 6), lengths)

    def anew(last, kept, rows):
        texts = last[:, :, None] if kept is None else torch.cat([kept[rows], last.flatten()[:, None]], dim=1)
        texts = texts.reshape(9, -1)
        said = head.scores(memory.repeat_interleave(3, dim=0), lengths.repeat_interleave(3), texts)
        return said[:, -1].log_softmax(dim=1).view(3, 3, -1), texts

    with torch.no_grad():
        expected = beam_search(anew, 3, 3, 6, 0, CPU)
    assert max(map(len, expected)) > 2
    assert head.predict(memory, lengths) == [head.labels.decode(text) for text in expected]


# BLEU.

BLEU = get_metric("bleu")
PAIRS = [
    ("Mach das Licht im Schlafzimmer an.", "Mach bitte das Licht im Schlafzimmer an."),
    ("Ich will keine Musik.", "Ich will keine Musik."),
    ("es ist kalt.", "Es ist zu kalt hier."),
    ("", "Bring mir meine Socken, bitte!"),
    ("Stell, stell, stell das Licht auf 3,5 % - jetzt sofort und immer", "Stell die Sprache um"),
]


def test_bleu_is_sacrebleus():
    rng = np.random.default_rng(0)
    for size in (1, 2, 3, 5, 5, 5):
        for _ in range(20):
            drawn = [PAIRS[place] for place in rng.integers(0, len(PAIRS), size)]
            said, meant = zip(*drawn, strict=True)
            assert BLEU.compute(said, meant) == pytest.approx(corpus_bleu(said, [meant]).score, abs=1e-9)
    assert BLEU.compute(["ein zwei drei vier fünf sechs"], ["ein zwei sieben acht"]) == pytest.approx(
        100 * (2 / 6 * 1 / 5 * (1 / 2) / 4 * (1 / 4) / 3) ** 0.25
    ), "orders without a match count as half of one, then a quarter"


def test_bleu_of_the_oracle():
    if not ORACLE.is_file():
        pytest.skip(f"no oracles in {ORACLE.parent}: they are not part of the project")
    known = json.loads(ORACLE.read_text())
    for pair in known["pairs"]:
        found = BLEU.statistics(pair["hyp"], pair["ref"])
        assert found[:10] == (*pair["counts"], *pair["totals"], pair["sys_len"], pair["ref_len"])
    said, meant = zip(*((pair["hyp"], pair["ref"]) for pair in known["pairs"]), strict=True)
    assert BLEU.compute(said, meant) == pytest.approx(known["corpus"]["score"], abs=1e-9)


def test_bleu_of_drawn_sentences_is_that_of_the_sentences_repeated():
    rows = np.array([BLEU.statistics(*pair) for pair in PAIRS], dtype=float)
    weights = np.random.default_rng(0).integers(0, 4, (6, len(PAIRS))).astype(float)
    found = BLEU.weighted(rows, np.ones(len(PAIRS)), weights)
    for value, weight in zip(found, weights, strict=True):
        repeated = [pair for pair, count in zip(PAIRS, weight, strict=True) for _ in range(int(count))]
        said, meant = zip(*repeated, strict=True)
        assert value == pytest.approx(corpus_bleu(said, [meant]).score, abs=1e-9)


def test_bleu_needs_a_reference_of_four_tokens():
    """sacreBLEU gives 0 even for what is right, so this is no value."""
    assert BLEU.compute(["ja", "nein"], ["ja", "nein danke, gern"]) == 0
    with pytest.raises(MetricError, match="every reference is empty or too short"):
        BLEU.compute(["ja"], ["ja"])


# From end to end.


@pytest.fixture(scope="module")
def ran(corpus, tmp_path_factory):
    """The folder of results and the record of a small head."""
    folder = tmp_path_factory.mktemp("translation")
    task = TASKS.get("st")
    fast = task.recipe("fast")
    head = {**fast.head, **SMALL, "size": 32, "encoder_layers": 1, "decoder_layers": 1, "dropout": 0.0, "beam": 2}
    recipe = replace(fast, steps=240, batch_size=8, learning_rates=(3e-3,), eval_every=80, warmup_steps=20, head=head)
    grid = Grid(("fbank",), (replace(task, recipes={"fast": recipe}),), (0,))
    report = run_grid(grid, corpus, Folders(folder / "cache", folder / "results"), LocalExecutor("cpu", 1))
    assert (report.failures, report.computed) == ([], 1)
    (record,) = RecordStore(folder / "results").all()
    return folder / "results", record


def rows_of(results, record) -> list[dict]:
    path = results / "runs" / record.run[:16] / "predictions.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_tones_are_translated_in_another_order(ran):
    results, record = ran
    rows = rows_of(results, record)
    said, meant = ([row[key] for row in rows] for key in ("prediction", "reference"))
    assert record.value == pytest.approx(corpus_bleu(said, [meant]).score)
    best = max(BLEU.compute([constant] * len(meant), meant) for constant in set(meant))
    assert record.value > 1.5 * best, "a constant translation is not nearly as good"
    assert any(text != text.lower() for text in said), "letter case counts"
    assert verify(RecordStore(results)) == []


def test_predict_translates_a_recording(ran, corpus):
    results, record = ran
    row = corpus.with_label("translation").split("test")[0]
    said = call("predict", "--json", "--output", results, "--run", record.run[:16], "--device", "cpu", row.path)
    (found,) = json.loads(said.out)["predictions"]
    assert found["prediction"] == {each["id"]: each["prediction"] for each in rows_of(results, record)}[row.id]


def test_the_board_has_its_column_with_an_interval(ran):
    results, record = ran
    (board,) = leaderboard(RecordStore(results), custom=True).boards
    (column,) = board.columns
    assert (column.key, column.metric_title, column.direction) == ("st", "BLEU", "higher")
    cell = board.rows[0].cells["st"]
    assert cell.mean == record.value and cell.speakers == 2
    assert cell.interval is None or 0 <= cell.interval.low <= cell.mean <= cell.interval.high <= 100
