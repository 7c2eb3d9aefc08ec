"""`s3prl-ckpt:` on small files in the true layouts, made here: recognition, refusals, and the upstream contract."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from pretrained_files import (
    KALDI,
    MEL,
    WIDTH,
    apc_content,
    assert_contract_holds,
    fairseq_content,
    noise,
    norm,
    states_of,
    tensors,
    transformer_content,
)

from core.errors import CheckpointError
from upstreams._base import Upstream
from upstreams._resolve import build_upstream
from upstreams.pretrained._preprocessor import StftFrontEnd

LAYER_NORM = {"extractor_mode": "layer_norm", "layer_norm_first": True, "normalize": True}
CONTENTS = {
    "apc": lambda: apc_content(),
    "vq_apc": lambda: apc_content(vq=True),
    "mel": lambda: transformer_content(sequence_length=30),
    "kaldi": lambda: transformer_content(audio=KALDI, sequence_length=30),
    "pre_norm": lambda: transformer_content(pre_layer_norm=True, hidden_act="relu"),
    "hubert": lambda: fairseq_content(),
    "hubert_ln": lambda: fairseq_content(**LAYER_NORM),
    "wav2vec2": lambda: fairseq_content(hubert=False),
    "wav2vec2_ln": lambda: fairseq_content(hubert=False, **LAYER_NORM),
}
KINDS = {"mel": "transformer", "kaldi": "transformer", "pre_norm": "transformer", "vq_apc": "apc"}


def loaded(folder: Path, content: object, name: str = "file") -> Upstream:
    torch.save(content, folder / name)
    return build_upstream(f"s3prl-ckpt:{folder / name}")


@pytest.mark.parametrize("name", CONTENTS)
def test_a_file_is_recognised_by_its_content_and_keeps_the_contract(name, tmp_path):
    upstream = loaded(tmp_path, CONTENTS[name](), "no suffix tells")
    assert upstream.configuration()["kind"] == KINDS.get(name, name.removesuffix("_ln"))
    assert upstream.display_name == "no suffix tells"
    assert upstream.hidden_size == WIDTH
    assert upstream.num_layers == (2 if "apc" in name else 3)
    assert_contract_holds(upstream)


def test_an_unknown_kind_is_told_what_was_looked_for_and_found(tmp_path):
    with pytest.raises(CheckpointError, match=r"rnn_layers.*Transformer.*model_weight.*Found: encoder, step"):
        loaded(tmp_path, {"encoder": {}, "step": 3})
    with pytest.raises(CheckpointError, match=r"Found: cfg, model\. It looks like fairseq's own file, which fairseq:"):
        loaded(tmp_path, {"cfg": {}, "model": {}})


class Command:
    """Unpickled freely, it would run a shell."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.trace}",)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("spec", ["s3prl-ckpt:{}", "fairseq:{}", "torchaudio:WAV2VEC2_BASE@{}"])
def test_a_malicious_pickle_is_refused_and_not_run(spec, zipped, tmp_path):
    content = apc_content() | {"Optimizer": Command(tmp_path / "trace")}
    torch.save(content, tmp_path / "file", _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"object of \w+\.system, and unpickling it could run any code"):
        build_upstream(spec.format(tmp_path / "file"))
    assert not (tmp_path / "trace").exists()


def test_an_expression_in_the_settings_is_not_run(tmp_path):
    """fairseq and s3prl give this one to eval."""
    expression = f"[(8,10,5)] * len(open({str(tmp_path / 'trace')!r}, 'w').name)"
    with pytest.raises(CheckpointError, match="is no sum of lists"):
        loaded(tmp_path, fairseq_content(conv_feature_layers=expression))
    assert not (tmp_path / "trace").exists()


def test_damaged_and_missing_files_give_one_line(tmp_path):
    torch.save(apc_content(), tmp_path / "whole")
    data = (tmp_path / "whole").read_bytes()
    for name, bytes_ in {"cut": data[: len(data) // 2], "empty": b"", "text": b"no checkpoint" * 50}.items():
        (tmp_path / name).write_bytes(bytes_)
        with pytest.raises(CheckpointError, match=f"{name}: (not a readable torch.save file|is empty)") as caught:
            build_upstream(f"s3prl-ckpt:{tmp_path / name}")
        assert "\n" not in str(caught.value)
    with pytest.raises(CheckpointError, match="no such file"):
        build_upstream(f"s3prl-ckpt:{tmp_path / 'nowhere'}")
    with pytest.raises(CheckpointError, match="holds a list"):
        loaded(tmp_path, [1, 2])


@pytest.mark.parametrize("name", ["s3prl-ckpt", "fairseq", "torchaudio", "s3prl", "s3prl-expert"])
def test_a_name_alone_is_told_what_to_write(name):
    with pytest.raises(CheckpointError, match=f"write {name}:"):
        build_upstream(name)
    with pytest.raises(CheckpointError, match=f"write {name}:"):
        build_upstream(f"{name}:")


def without(content: dict, part: str, name: str) -> dict:
    del content[part][name]
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            lambda: without(apc_content(), "model", "rnn_layers.0.bias_ih_l0"),
            r"1 tensors are missing \(such as rnn_layers\.0\.bias_ih_l0\)",
        ),
        (lambda: apc_content() | {"config": {}}, r"recognised as .*APC.*KeyError: 'data'"),
        (lambda: apc_content(frame_length=20), "frame_length = 20 is not supported"),
        (lambda: apc_content(feat_dim=30), r"has shape \(48, 20\), the settings ask for \(48, 30\)"),
        (lambda: without(transformer_content(), "Config", "audio"), "lack audio"),
        (lambda: transformer_content(hidden_size=12), "settings and weights are of different models"),
        (lambda: transformer_content(hidden_act="tanh"), "hidden_act is 'tanh', known: gelu, relu, swish"),
        (lambda: transformer_content(num_hidden_layers=3), "are missing"),
        (lambda: transformer_content(audio=MEL | {"n_mels": 30}), "give 30 features a frame, the weights read 20"),
        (lambda: transformer_content(audio=MEL | {"input": {"feat_type": "phase"}}), "'phase' is not supported"),
        (lambda: transformer_content(audio={"input": {}}), "can't be read"),
        (lambda: transformer_content(audio=KALDI | {"delta": {"mode": "x"}}), "delta setting 'mode' is not supported"),
        (
            lambda: transformer_content(audio=KALDI | {"kaldi": {"fbank": {"dither": 1.0}}}),
            "kaldi.fbank setting 'dither' is not supported",
        ),
        (lambda: fairseq_content(layer_type="conformer"), "layer_type = 'conformer', supported is 'transformer'"),
        (lambda: fairseq_content(conv_feature_layers="[(8,10)]"), "is no sum of lists"),
        (lambda: fairseq_content(conv_feature_layers="[(8,10,5)] * 10**9"), "is no sum of lists"),
        (lambda: fairseq_content(encoder_layers=3), "are missing"),
        (lambda: without(fairseq_content(), "model_weight", "layer_norm.bias"), "feature_projection.layer_norm.bias"),
        (lambda: fairseq_content(encoder_attention_heads=3), "settings make no network"),
    ],
)
def test_files_that_do_not_fit_are_refused(content, message, tmp_path):
    with pytest.raises(CheckpointError, match=message):
        loaded(tmp_path, content())


def test_settings_that_shape_the_output_are_in_the_digest(tmp_path):
    digests = [
        loaded(tmp_path, content).digest()
        for content in (
            fairseq_content(),
            fairseq_content(normalize=True),
            fairseq_content(hubert=False),
            transformer_content(),
            transformer_content(sequence_length=30),
            transformer_content(audio=MEL | {"target_level": -20}),
            transformer_content(num_attention_heads=4),
            apc_content(),
            apc_content(cmvn=False),
        )
    ]
    assert len(set(digests)) == len(digests)
    assert loaded(tmp_path, apc_content(), "other name").digest() == digests[-2]


def test_the_quantiser_behind_the_states_plays_no_part(tmp_path):
    wav = noise(8_000)
    with_one, without_one = (loaded(tmp_path, apc_content(vq=vq)) for vq in (True, False))
    assert torch.equal(states_of(with_one, wav), states_of(without_one, wav))


def test_old_names_and_places_of_mockingjay_mean_the_same(tmp_path):
    wav, new = noise(8_000), transformer_content()
    old = {
        "Config": {"runner": {}},
        "Upstream_Config": new["Config"],
        "Transformer": {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
            for name, tensor in new["Transformer"].items()
        },
    }
    assert torch.equal(states_of(loaded(tmp_path, old), wav), states_of(loaded(tmp_path, new), wav))


def test_long_inputs_run_in_chunks_of_their_own(tmp_path):
    upstream = loaded(tmp_path, transformer_content(audio=KALDI, sequence_length=30))
    wav, other = noise(400 + 44 * 160), noise(400 + 44 * 160, seed=1)  # 45 frames: chunks of 23 and 22
    mixed = torch.cat([wav[: 400 + 26 * 160], other[400 + 26 * 160 :]])  # deltas look two frames ahead
    before, after = states_of(upstream, wav), states_of(upstream, mixed)
    assert torch.equal(before[:, :23], after[:, :23])
    assert (before[:, 23:] - after[:, 23:]).abs().max() > 0.1


def test_a_waveform_is_brought_to_the_target_level():
    """CMVN all but hides the level, so hidden states don't show an error in it."""
    wav = noise(8_000)
    scaled = wav * 10 ** (-25 / 20) / wav.square().mean().sqrt()
    plain, levelled = (StftFrontEnd("linear", log=False, use_cmvn=False, target_level=level) for level in (None, -25))
    torch.testing.assert_close(levelled(wav), plain(scaled), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(levelled(0.01 * wav), plain(scaled), rtol=1e-4, atol=1e-6)


def test_pre_norm_layers_are_reported_after_norms_of_their_own(tmp_path):
    content = transformer_content(pre_layer_norm=True)
    upstream, wav = loaded(tmp_path, content), noise(8_000)
    before = states_of(upstream, wav)
    content["Transformer"]["encoder.LayerNorm.1.bias"] += 1
    after = states_of(loaded(tmp_path, content), wav)
    assert torch.equal(before[[0, 2]], after[[0, 2]])
    assert torch.allclose(after[1] - before[1], torch.ones(WIDTH), atol=1e-5)


def test_equal_widths_need_no_projection(tmp_path):
    content = fairseq_content(conv_feature_layers="[(8,10,5)] + [(8,3,2)] * 4 + [(8,2,2)] + [(16,2,2)]")
    weights = content["model_weight"]
    weights |= tensors({"feature_extractor.conv_layers.6.0.weight": (WIDTH, 8, 2)} | norm("layer_norm"))
    del weights["post_extract_proj.weight"], weights["post_extract_proj.bias"]
    wav, without_one = noise(8_000), loaded(tmp_path, content)
    weights |= {"post_extract_proj.weight": torch.eye(WIDTH), "post_extract_proj.bias": torch.zeros(WIDTH)}
    assert torch.equal(states_of(without_one, wav), states_of(loaded(tmp_path, content), wav))
