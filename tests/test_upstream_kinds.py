"""Upstreams unlike the usual: other sample rates, one vector an utterance, layers of several widths, ONNX."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch
from conftest import call

from core.audio import SAMPLE_RATE, read_audio
from core.errors import ContractError
from core.hidden_states import HiddenStates
from core.records import RecordStore
from downstreams._base import HEADS
from frostbench.grid.measures import gflops_per_second
from leaderboard.aggregate import leaderboard
from leaderboard.exports import to_csv
from leaderboard.page import page
from leaderboard.tables import to_markdown
from upstreams import _checks
from upstreams._base import UPSTREAMS, Upstream, UpstreamCard
from upstreams._extraction.clips import Clip
from upstreams._extraction.encoding import FrozenUpstream
from upstreams._extraction.fill import caches_of, extract
from upstreams._facts import UpstreamFacts
from upstreams._pretraining.plan import planned
from upstreams._resolve import build_upstream
from upstreams.generative.apc import APC

CPU = torch.device("cpu")
PLUG_INS = '''
import torch
from core.hidden_states import HiddenStates
from upstreams._base import Upstream, UpstreamCard, register_upstream

@register_upstream(UpstreamCard(name="wide", title="energies at 24 kHz", paper="none", family="tests",
                                licence="CC0-1.0", training_data="nothing"))
class Wide(Upstream):
    """Root mean square of each hundredth of a second, and of its differences, in which high frequencies show."""
    sample_rate = 24_000
    num_layers, hidden_size, downsample_rate, min_samples = 1, 2, 240, 240

    def frame_lengths(self, wav_lengths):
        return wav_lengths // 240

    def encode(self, wavs, wav_lengths):
        frames = wavs[:, : wavs.shape[1] // 240 * 240].unflatten(1, (-1, 240))
        parts = frames.square().mean(dim=2), frames.diff(dim=2).square().mean(dim=2)
        return HiddenStates((torch.stack(parts, dim=2).sqrt(),), self.frame_lengths(wav_lengths))

@register_upstream(UpstreamCard(name="vector", title="statistics of an utterance", paper="none"))
class Vector(Upstream):
    """Level and zero crossings of the whole utterance in two layers."""
    utterance_level = True
    num_layers, hidden_size, min_samples = 2, 2, 400

    def encode(self, wavs, wav_lengths):
        rows = [wav[:length] for wav, length in zip(wavs, wav_lengths.tolist())]
        crossings = torch.stack([(row[1:].sign() != row[:-1].sign()).float().mean() for row in rows])
        level = torch.stack([row.square().mean() for row in rows])
        layer = torch.stack([100 * level, crossings], dim=1)[:, None]
        return HiddenStates((layer, layer.square()), self.frame_lengths(wav_lengths))
'''


@pytest.fixture
def plug_ins(tmp_path) -> Path:
    path = tmp_path / "plug_ins.py"
    path.write_text(PLUG_INS)
    return path


def tone(path: Path, hertz: float, rate: int, seconds: float = 1.0) -> Path:
    time = np.arange(int(seconds * rate)) / rate
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * hertz * time), rate, subtype="FLOAT")
    return path


def clip(path: Path, samples: int, start: int = 0, stop: int | None = None) -> Clip:
    return Clip(path.name, path, samples, frozenset({"frames"}), start, stop)


def run(*arguments: object) -> object:
    return call("run", "--workers", 1, "--device", "cpu", *arguments)


def test_audio_is_resampled_once_from_the_rate_of_the_file(tmp_path):
    path = tone(tmp_path / "high.wav", 10_000, 48_000)
    raw = soundfile.read(path, dtype="float32")[0]
    wav = read_audio(path, sample_rate=24_000)
    np.testing.assert_allclose(wav.numpy(), soxr.resample(raw, 48_000, 24_000, quality="HQ"), atol=1e-5)
    assert wav.square().mean() == pytest.approx(0.125, rel=0.02)  # at 16 kHz nothing is left of 10 kHz
    assert read_audio(path).square().mean() < 1e-4
    piece = read_audio(path, 4_000, 8_000, sample_rate=24_000)
    assert torch.equal(piece, wav[6_000:12_000])
    own = tone(tmp_path / "own.wav", 440, 24_000)
    assert torch.equal(read_audio(own, 4_000, 8_000, 24_000), read_audio(own, sample_rate=24_000)[6_000:12_000])
    assert read_audio(own, sample_rate=24_000).numpy().tolist() == soundfile.read(own, dtype="float32")[0].tolist()


def test_an_upstream_gets_the_rate_that_it_wants(plug_ins, tmp_path):
    upstream = build_upstream(f"{plug_ins}:Wide")
    caches = caches_of(tmp_path / "cache", "wide", ("frames",))
    clips = [
        clip(tone(tmp_path / "high.wav", 10_000, 48_000), 16_000),
        clip(tone(tmp_path / "piece.wav", 300, 48_000, 2.0), 8_000, 8_000, 16_000),
    ]
    seconds = []
    extract(upstream, FrozenUpstream(upstream, CPU).batches(clips), caches, CPU, seconds.append)
    assert sum(seconds) == pytest.approx(1.5)
    high, piece = (caches["frames"].get(each.key) for each in clips)
    assert (len(high), len(piece)) == (100, 50)
    np.testing.assert_allclose(high[5:95, 0, 0], 0.5**0.5 / 2, rtol=0.02)  # of a tone that 16 kHz can't hold
    assert high[50, 0, 1] > 10 * piece[25, 0, 1]


def test_long_recordings_at_another_rate_pass_in_pieces(plug_ins, tmp_path):
    upstream = FrozenUpstream(build_upstream(f"{plug_ins}:Wide"), CPU)
    wav = torch.randn(70 * 24_000, generator=torch.Generator().manual_seed(0)) / 8
    passed = []
    whole = upstream.upstream.encode
    upstream.upstream.encode = lambda wavs, lengths: passed.append(int(lengths[0])) or whole(wavs, lengths)
    (rows,) = upstream.rows([clip(tmp_path, 70 * 16_000)], [wav], {"frames"})["frames"]
    assert len(passed) == 2  # by samples alone there would be three
    expected = whole(wav[None], torch.tensor([len(wav)])).layers[0][0]
    assert len(rows) == 7_000
    torch.testing.assert_close(rows[:, 0], expected)
    passed.clear()
    upstream.rows([clip(tmp_path, 35 * 16_000)], [wav[: 35 * 24_000]], {"frames"})  # more samples, but not longer
    assert len(passed) == 1


def test_messages_and_facts_know_the_rate(plug_ins, tmp_path):
    upstream = build_upstream(f"{plug_ins}:Wide")
    with pytest.raises(ContractError, match=r"has 200 samples at 24 kHz, the shortest legal input of wide is 240"):
        FrozenUpstream(upstream, CPU).rows([clip(tmp_path, 133)], [torch.zeros(200)], {"frames"})
    with pytest.raises(ContractError, match=r"an utterance has 120 samples \(0\.005 s\)"):
        upstream.extract(torch.zeros(1, 120), torch.tensor([120]))
    facts = UpstreamFacts.of("wide", upstream)
    assert (facts.sample_rate, facts.downsample_rate, facts.frame_samples) == (24_000, 240, 160)
    assert (facts.family, facts.licence, facts.training_data) == ("tests", "CC0-1.0", "nothing")
    before = upstream.digest()
    upstream.sample_rate = 48_000
    assert upstream.digest() != before


def test_own_upstreams_have_the_family_of_their_folder():
    families = {entry.card.name: entry.card.family for entry in UPSTREAMS}
    assert (families["apc"], families["fbank"], families["hf"]) == ("generative", "spectral", "pretrained")


def test_training_is_at_16_kilohertz_only(monkeypatch):
    monkeypatch.setattr(APC, "sample_rate", 24_000)
    with pytest.raises(ContractError, match="'apc' wants 24000 Hz, and upstreams are trained at 16000 Hz only"):
        planned("apc", "tiny")


@pytest.mark.parametrize("name", ["Wide", "Vector"])
@pytest.mark.parametrize("check", _checks.CHECKS, ids=lambda check: check.__name__)
def test_the_contract_holds_for_them(name, check, plug_ins):
    result = _checks.run_check(check, build_upstream(f"{plug_ins}:{name}"))
    assert result.passed, result.error


def test_they_are_evaluated_like_others(plug_ins, corpus_folder, tasks_file, tmp_path):
    specs = [part for name in ("Wide", "Vector") for part in ("--upstream", f"{plug_ins}:{name}")]
    where = ["--corpus", corpus_folder, "--output", tmp_path / "results", "--cache", tmp_path / "cache"]
    done = run(*specs, "--task", f"{tasks_file}:KS", *where)
    assert done.code == 0, done.err
    records = {record.upstream["name"]: record for record in RecordStore(tmp_path / "results").all()}
    assert records["wide"].upstream["sample_rate"] == 24_000
    assert records["wide"].upstream["family"] == "tests"
    assert records["vector"].upstream["downsample_rate"] is None
    refused = run("--upstream", f"{plug_ins}:Vector", "--task", f"{tasks_file}:ASR", *where)
    assert refused.code == 2
    assert "vector gives one vector an utterance, but " in refused.err
    assert "read frames: leave these tasks out for it" in refused.err
    frames = run("--upstream", f"{plug_ins}:Wide", "--task", f"{tasks_file}:ASR", *where)
    assert frames.code == 0, frames.err
    assert HEADS.get("ctc").needs == "frames"


def test_a_long_recording_gives_one_vector_by_the_mean_of_its_pieces(plug_ins, tmp_path):
    upstream = FrozenUpstream(build_upstream(f"{plug_ins}:Vector"), CPU)
    wav = torch.randn(50 * SAMPLE_RATE, generator=torch.Generator().manual_seed(0)) / 8
    wav[30 * SAMPLE_RATE :] *= 0.1
    (row,) = upstream.rows([clip(tmp_path, len(wav))], [wav], {"pooled"})["pooled"]
    assert row.shape == (1, 2, 2)
    assert float(row[0, 0, 0]) == pytest.approx(100 * float(wav.square().mean()), rel=1e-3)


class Uneven(Upstream):
    card = UpstreamCard(name="uneven", title="two widths", paper="none")
    num_layers, hidden_size, downsample_rate, min_samples = 2, 4, 160, 160

    def frame_lengths(self, wav_lengths):
        return wav_lengths // 160

    def encode(self, wavs, wav_lengths):
        frames = wavs.unflatten(1, (-1, 160))
        return HiddenStates((frames[..., :4], frames[..., :6]), self.frame_lengths(wav_lengths))


class Formless(Uneven):
    frame_lengths = Upstream.frame_lengths


def test_layers_of_several_widths_are_refused_with_a_way_out():
    with pytest.raises(ContractError, match=r"layers have the widths 4, 6; .* or pad narrow ones with zeros"):
        Uneven().extract(torch.zeros(1, 1_600), torch.tensor([1_600]))


def test_frames_need_a_formula():
    with pytest.raises(ContractError, match="has no frame_lengths: write it, or set utterance_level = True"):
        Formless().frame_lengths(torch.tensor([1_600]))


ONNX = '''
import numpy as np
import onnxruntime
import torch
from core.hidden_states import HiddenStates
from upstreams._base import Upstream, UpstreamCard, register_upstream

@register_upstream(UpstreamCard(name="onnx-conv", title="a convolution in ONNX", paper="none"))
class OnnxConv(Upstream):
    """One convolution over 320 samples, run by ONNX Runtime."""
    num_layers, hidden_size, downsample_rate, min_samples = 1, 4, 320, 320

    def __init__(self, path):
        super().__init__()
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    @classmethod
    def from_checkpoint(cls, checkpoint):
        return cls(checkpoint)

    def frame_lengths(self, wav_lengths):
        return wav_lengths // 320

    def encode(self, wavs, wav_lengths):
        (frames,) = self.session.run(None, {"wavs": wavs[:, None].numpy()})
        return HiddenStates((torch.from_numpy(frames).transpose(1, 2),), self.frame_lengths(wav_lengths))
'''


def save_onnx(path: Path, seed: int) -> Path:
    onnx = pytest.importorskip("onnx", reason="the extra [onnx] is not installed")
    pytest.importorskip("onnxruntime", reason="the extra [onnx] is not installed")
    weights = np.random.default_rng(seed).normal(size=(4, 1, 320)).astype(np.float32)
    node = onnx.helper.make_node("Conv", ["wavs", "weights"], ["frames"], strides=[320])
    graph = onnx.helper.make_graph(
        [node],
        "conv",
        [onnx.helper.make_tensor_value_info("wavs", onnx.TensorProto.FLOAT, ["batch", 1, "samples"])],
        [onnx.helper.make_tensor_value_info("frames", onnx.TensorProto.FLOAT, ["batch", 4, "frames"])],
        [onnx.numpy_helper.from_array(weights, "weights")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


@pytest.fixture
def onnx_spec(tmp_path) -> str:
    model = save_onnx(tmp_path / "model.onnx", 0)
    (tmp_path / "onnx_upstream.py").write_text(ONNX)
    return f"{tmp_path / 'onnx_upstream.py'}:OnnxConv@{model}"


def test_weights_outside_torch_are_in_the_digest(onnx_spec, tmp_path):
    first = build_upstream(onnx_spec)
    assert first.digest() == build_upstream(onnx_spec).digest()
    save_onnx(tmp_path / "model.onnx", 1)
    assert build_upstream(onnx_spec).digest() != first.digest()
    save_onnx(tmp_path / "model.onnx", 0)
    assert build_upstream(onnx_spec).digest() == first.digest()
    moved = (tmp_path / "model.onnx").rename(tmp_path / "moved.onnx")
    assert build_upstream(f"{onnx_spec.partition('@')[0]}@{moved}").digest() == first.digest()


@pytest.mark.parametrize("check", _checks.CHECKS, ids=lambda check: check.__name__)
def test_the_contract_holds_for_onnx(check, onnx_spec):
    result = _checks.run_check(check, build_upstream(onnx_spec))
    assert result.passed, result.error


def test_a_digest_that_can_not_know_the_weights_fails_the_check(onnx_spec):
    built = build_upstream(onnx_spec)
    built.checkpoint_digest = None  # as if it had loaded them from a place of its own
    result = _checks.run_check(_checks.check_digest_knows_the_weights, built)
    assert not result.passed
    assert "session (InferenceSession)" in result.error
    built.configuration = lambda: {"sha256": "0" * 64}
    assert _checks.run_check(_checks.check_digest_knows_the_weights, built).passed


def test_what_is_not_known_is_not_nought(onnx_spec, corpus_folder, tasks_file, tmp_path):
    built = build_upstream(onnx_spec)
    assert built.num_params() is None
    assert build_upstream("fbank").num_params() == 0
    assert gflops_per_second(onnx_spec, device="cpu", advance=lambda done: None) is None
    done = run("--upstream", onnx_spec, "--task", f"{tasks_file}:KS", "--corpus", corpus_folder,
               "--output", tmp_path / "results", "--cache", tmp_path / "cache")  # fmt: skip
    assert done.code == 0, done.err
    store = RecordStore(tmp_path / "results")
    (record,) = store.all()
    assert record.upstream["params"] is None
    board = leaderboard(store, custom=True, published=True)
    (row,) = next(each for each in board.boards if each.rows).rows
    assert row.params is None
    assert " ? " in to_markdown(board)
    assert page(board)
    assert to_csv(board)
    assert json.dumps(record.upstream)
