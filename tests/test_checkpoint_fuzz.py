"""Checkpoints with settings of any content: refused in one line, or computed with, in bounded time and memory."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from conftest import fuzzed
from hypothesis import given
from hypothesis import strategies as st
from pretrained_files import (
    SMALL,
    WIDTH,
    apc_content,
    fairseq_content,
    fairseq_file,
    noise,
    shaken,
    transformer_content,
)
from safetensors.torch import save_file
from small_encoders import saved

from core.errors import BenchmarkError
from upstreams._facts import UpstreamFacts
from upstreams._pretraining.checkpoint import FORMAT
from upstreams._resolve import build_upstream
from upstreams.generative.apc import APC, APCConfig
from upstreams.generative.mockingjay import Mockingjay, MockingjayConfig

MOST_SECONDS = 20.0
WHISPER = {
    "d_model": WIDTH, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_layers": 1,
    "decoder_attention_heads": 2, "decoder_ffn_dim": 24, "vocab_size": 12, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2, "decoder_start_token_id": 1, "max_source_positions": 50,
}  # fmt: skip
# Kind -> network and settings, extractor.
KINDS: dict[str, tuple[str, dict[str, Any], Any]] = {
    "hubert": ("Hubert", SMALL, transformers.Wav2Vec2FeatureExtractor()),
    "wav2vec2": ("Wav2Vec2", {**SMALL, "feat_extract_norm": "layer", "do_stable_layer_norm": True},
                 transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True)),
    "wavlm": ("WavLM", SMALL, transformers.Wav2Vec2FeatureExtractor()),
    "data2vec": ("Data2VecAudio", {**SMALL, "conv_pos_kernel_size": 5, "num_conv_pos_embeddings": 3},
                 transformers.Wav2Vec2FeatureExtractor()),
    "conformer": ("Wav2Vec2Conformer", SMALL, transformers.Wav2Vec2FeatureExtractor()),
    "sew_d": ("SEWD", {**SMALL, "squeeze_factor": 2, "position_buckets": 8, "max_position_embeddings": 16},
              transformers.Wav2Vec2FeatureExtractor()),
    "w2v_bert": ("Wav2Vec2Bert", {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2,
                                  "intermediate_size": 24, "feature_projection_input_dim": 160},
                 transformers.SeamlessM4TFeatureExtractor()),
    "whisper": ("Whisper", WHISPER, transformers.WhisperFeatureExtractor(chunk_length=1)),
}  # fmt: skip
extremes = st.sampled_from(
    [None, True, False, 0, 1, -1, 2, 3, 7, 16, 1_000, 10**6, 10**8, 10**10, 10**40, 0.0, 0.5, -1.0, 1e-40, 1e300, "",
     "16", "gelu", "relu", "layer", "group", "rotary", "relative", "\ud800", "\0", "a\nb", [], [1], [8] * 7, [0] * 7,
     {}, "false"]
)  # fmt: skip
values = st.recursive(
    extremes | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """A sound checkpoint of each kind."""
    made = {}
    for kind, (name, settings, extractor) in KINDS.items():
        made[kind] = tmp_path_factory.mktemp(kind)
        torch.manual_seed(0)
        config = getattr(transformers, f"{name}Config")(**settings)
        shaken(getattr(transformers, f"{name}Model")(config)).save_pretrained(made[kind])
        extractor.save_pretrained(made[kind])
    for kind in ("moonshine", "parakeet_ctc", "encodec", "dac", "mimi"):
        made[kind], _, _ = saved(kind, tmp_path_factory.mktemp(kind))
    return made


def used_or_refused(spec: str) -> bool:
    """Whether it is refused; else it has facts, and computes or says why not."""
    started = time.monotonic()
    try:
        upstream = build_upstream(spec)
        UpstreamFacts.of(spec, upstream)
        upstream.extract(noise(8_000)[None], torch.tensor([8_000]))
    except BenchmarkError as error:
        assert "\n" not in str(error)
        str(error).encode()
        return True
    finally:
        assert time.monotonic() - started < MOST_SECONDS
    return False


def drawn_changes(data: st.DataObject, content: dict[str, Any], more: tuple[str, ...] = ()) -> dict[str, Any]:
    """Settings with one to three of them changed, dropped or added."""
    keys = st.sampled_from([*sorted(content), *more]) | st.text(max_size=8)
    changed = dict(content)
    for key in data.draw(st.lists(keys, min_size=1, max_size=3)):
        if data.draw(st.integers(0, 5)):
            changed[key] = data.draw(values)
        else:
            changed.pop(key, None)
    return changed


@given(data=st.data())
@fuzzed(250)
def test_any_settings_of_a_transformers_checkpoint(folders, data):
    folder = folders[data.draw(st.sampled_from(sorted(folders)))]
    name = data.draw(st.sampled_from(["config.json", "config.json", "preprocessor_config.json"]))
    file = folder / name
    before = file.read_text()
    more = (
        "quantization_config",
        "auto_map",
        "sampling_rate",
        "_attn_implementation",
        "torch_dtype",
        "dtype",
        "adapter",
    )
    try:
        file.write_text(json.dumps(drawn_changes(data, json.loads(before), more)))
        used_or_refused(f"hf:{folder}")
    finally:
        file.write_text(before)


@given(data=st.data())
@fuzzed(100)
def test_any_settings_of_our_own_checkpoints(tmp_path, data):
    kind, config = data.draw(
        st.sampled_from(
            [
                (APC, APCConfig(num_layers=2, hidden_size=8, num_mel_bins=4)),
                (Mockingjay, MockingjayConfig(num_layers=1, hidden_size=8, num_heads=2, feedforward_size=8)),
            ]
        )
    )
    upstream, path = kind(config), tmp_path / "own.safetensors"
    content = {
        "upstream": kind.card.name,
        "configuration": dict(upstream.configuration()),
        "notes": {"corpus": {"name": "a"}},
    }
    place = data.draw(st.sampled_from(["configuration", "notes", "all", "text"]))
    if place == "text":
        text = data.draw(st.text(max_size=20) | st.builds(json.dumps, values))
    elif place == "all":
        text = json.dumps(drawn_changes(data, content))
    else:
        text = json.dumps({**content, place: drawn_changes(data, content[place])})
    tensors = {name: tensor.contiguous() for name, tensor in upstream.encoder.state_dict().items()}
    save_file(tensors, path, {FORMAT: text})
    used_or_refused(f"{kind.card.name}@{path}")


FILES: dict[str, Callable[[], dict[str, Any]]] = {
    "apc": apc_content,
    "transformer": transformer_content,
    "fairseq": fairseq_content,
    "fairseq's own": lambda: fairseq_file(fairseq_content()),
}
SETTINGS = {
    "apc": [("config",), ("config", "data", "audio"), ("config", "model", "paras")],
    "transformer": [("Config",), ("Config", "transformer"), ("Config", "audio"), ("Config", "audio", "input")],
    "fairseq": [("task_cfg",), ("model_cfg",)],
    "fairseq's own": [("cfg",), ("cfg", "task"), ("cfg", "model")],
}


def loader_of(kind: str) -> str:
    return "fairseq" if kind == "fairseq's own" else "s3prl-ckpt"


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")  # torch's, of a size of 0, which is refused
@given(data=st.data())
@fuzzed(100)
def test_any_settings_of_a_file(tmp_path, data):
    kind = data.draw(st.sampled_from(sorted(FILES)))
    content = FILES[kind]()
    *way, last = data.draw(st.sampled_from(SETTINGS[kind]))
    place = content
    for key in way:
        place = place[key] = dict(place[key])
    place[last] = drawn_changes(data, place[last], ("sample_rate", "target_level", "encoder_layers", "conv_pos_groups"))
    torch.save(content, tmp_path / "file.ckpt")
    used_or_refused(f"{loader_of(kind)}:{tmp_path / 'file.ckpt'}")


def test_sound_ones_are_used(folders, tmp_path):
    assert not any(used_or_refused(f"hf:{folder}") for folder in folders.values())
    for kind, content in FILES.items():
        torch.save(content(), tmp_path / kind)
        assert not used_or_refused(f"{loader_of(kind)}:{tmp_path / kind}")
