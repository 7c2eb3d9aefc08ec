"""What a checkpoint's settings may cost in memory and time is bounded before anything of them is built."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from faulty_checkpoints import CONFIG, PREPROCESSOR, edit, refusal, save_hubert, save_whisper
from pretrained_files import KALDI, MEL, SMALL, WIDTH, apc_content, fairseq_content, shaken, transformer_content
from torch import nn

from core.errors import CheckpointError
from upstreams import _bounds
from upstreams._resolve import build_upstream

MOST_SECONDS, MOST_MEGABYTES = 5.0, 200


def save_conformer(folder: Path) -> Path:
    shaken(transformers.Wav2Vec2ConformerModel(transformers.Wav2Vec2ConformerConfig(**SMALL))).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(folder)
    return folder


def save_w2v_bert(folder: Path) -> Path:
    config = transformers.Wav2Vec2BertConfig(
        hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, output_hidden_size=WIDTH,
        position_embeddings_type="relative",
    )  # fmt: skip
    shaken(transformers.Wav2Vec2BertModel(config)).save_pretrained(folder)
    transformers.SeamlessM4TFeatureExtractor().save_pretrained(folder)
    return folder


def changed(save: Callable[[Path], Path], file: str = CONFIG, **values: Any) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        edit(save(folder), file, **values)
        return f"hf:{folder}"

    return write


def of_s3prl(content: dict[str, Any], *way: str, **values: Any) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        place, whole = content, content
        for key in way:
            place[key] = dict(place[key])
            place = place[key]
        place.update(values)
        torch.save(whole, folder / "file.ckpt")
        return f"s3prl-ckpt:{folder / 'file.ckpt'}"

    return write


AUDIO = ("Config", "audio")
COSTLY: dict[str, tuple[Callable[[Path], str], str]] = {
    "positions of a conformer": (changed(save_conformer, max_source_positions=10**7), "max_source_positions"),
    "positions and width": (changed(save_conformer, max_source_positions=10**5, hidden_size=10**4), "besides the weig"),
    "positions of w2v-BERT": (changed(save_w2v_bert, max_source_positions=10**5, hidden_size=10**4), "besides the wei"),
    "width": (changed(save_hubert, hidden_size=10**8), "hidden_size = 100000000, must be at most 1,000,000"),
    "inner width": (changed(save_hubert, intermediate_size=10**6), "has shape"),
    "window of an hour": (changed(save_whisper, PREPROCESSOR, chunk_length=3_600), "chunk_length = 3600"),
    "odd spectrum": (changed(save_whisper, PREPROCESSOR, n_fft=401), "n_fft = 401, must be even"),
    "fairseq's width": (of_s3prl(fairseq_content(), "model_cfg", encoder_embed_dim=10**5), "settings ask for"),
    "fairseq's layers": (of_s3prl(fairseq_content(), "model_cfg", encoder_layers=10**7), "encoder_layers is 10000000"),
    "fairseq's kernel": (of_s3prl(fairseq_content(), "model_cfg", conv_pos=10**9), "conv_pos is 1000000000"),
    "fairseq's two widths": (
        of_s3prl(fairseq_content(), "model_cfg", encoder_embed_dim=10**5, conv_feature_layers="[(100_000, 10, 5)]"),
        "missing",
    ),
    "fairseq's strides": (
        of_s3prl(fairseq_content(), "model_cfg", conv_feature_layers="[(8,10,5)]+[(8,3,1000)]*4+[(8,2,1000)]*2"),
        "by its settings a frame takes 5,000,000,000,000,000,000 samples",
    ),
    "BERT's width": (of_s3prl(transformer_content(), "Config", "transformer", hidden_size=10**5), "settings ask for"),
    "BERT's layers": (of_s3prl(transformer_content(), "Config", "transformer", num_hidden_layers=10**7), "10000000"),
    "APC's width": (of_s3prl(apc_content(), "config", "model", "paras", hidden_size=2 * 10**4), "settings ask for"),
    "APC's layers": (of_s3prl(apc_content(), "config", "model", "paras", num_layers=10**7), "num_layers is 10000000"),
    "APC's bands": (of_s3prl(apc_content(), "config", "data", "audio", feat_dim=10**6), "feat_dim is 1000000"),
    "bins of a spectrum": (of_s3prl(transformer_content(), *AUDIO, n_freq=10**8), "n_freq is 100000000"),
    "bands of a spectrum": (of_s3prl(transformer_content(), *AUDIO, n_mels=10**6), "n_mels is 1000000"),
    "window": (of_s3prl(transformer_content(), *AUDIO, win_ms=1e300), "win_ms is 1e+300"),
    "no step": (of_s3prl(transformer_content(), *AUDIO, hop_ms=0), "hop_ms is 0"),
    "no number": (of_s3prl(transformer_content(), *AUDIO, hop_ms=float("nan")), "hop_ms is nan"),
    "derivatives": (of_s3prl(transformer_content(), *AUDIO, "input", delta=10**6), "delta is 1000000"),
    "Kaldi's window": (of_s3prl(transformer_content(audio=KALDI), *AUDIO, "kaldi", "fbank", frame_length=1e7),
                       "frame_length is 10000000.0"),
    "Kaldi's bands": (of_s3prl(transformer_content(audio=KALDI), *AUDIO, "kaldi", "fbank", num_mel_bins=10**6),
                      "num_mel_bins is 1000000"),
    "Kaldi's derivatives": (of_s3prl(transformer_content(audio=KALDI), *AUDIO, "delta", order=10**5),
                            "delta's order is 100000"),
}  # fmt: skip


@pytest.mark.parametrize("case", COSTLY)
def test_a_costly_setting_is_refused_before_anything_is_built(case, tmp_path):
    write, message = COSTLY[case]
    spec = write(tmp_path)
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    assert message in refusal(spec)
    assert time.monotonic() - started < MOST_SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_000 * MOST_MEGABYTES


@pytest.mark.parametrize("save", [save_conformer, save_w2v_bert, save_hubert, save_whisper])
def test_positions_of_usual_numbers_are_used(save, tmp_path):
    assert build_upstream(f"hf:{save(tmp_path)}").hidden_size == WIDTH


@pytest.mark.parametrize("audio", [MEL, KALDI])
def test_usual_front_ends_are_used(audio, tmp_path):
    torch.save(transformer_content(audio=audio), tmp_path / "file.ckpt")
    assert build_upstream(f"s3prl-ckpt:{tmp_path / 'file.ckpt'}").hidden_size == WIDTH


def test_tables_of_any_module_count_and_no_tensor_twice(monkeypatch):
    class Held(nn.Module):
        def __init__(self, where: str) -> None:
            super().__init__()
            table = torch.zeros(6, 10)
            if where == "buffer":
                self.register_buffer("table", table, persistent=False)
            else:
                self.table = table
            self.weight = nn.Parameter(torch.zeros(1_000))

    class Twice(nn.Module):
        def __init__(self, where: str) -> None:
            super().__init__()
            self.first, self.second = Held(where), Held(where)
            self.second.table = self.first.table

    for where in ("buffer", "attribute"):
        monkeypatch.setattr(_bounds, "MOST_HELD", 59)
        with pytest.raises(CheckpointError, match="tables of 60 numbers"):
            _bounds.without_memory("file", lambda where=where: nn.Sequential(Held(where)))
        monkeypatch.setattr(_bounds, "MOST_HELD", 60)
        made = _bounds.without_memory("file", lambda where=where: Twice(where))
        assert {name: value.shape for name, value in made.named_parameters()}["first.weight"] == (1_000,)
        assert all(value.is_meta for value in made.parameters())


@pytest.mark.parametrize("value", [None, True, "16", [], 0, 17, -1, 1e300, float("nan"), 2.5])
def test_a_size_is_a_whole_number_within_bounds(value):
    with pytest.raises(CheckpointError, match="size is "):
        _bounds.size_within("file", "size", value, 16)
    assert [_bounds.size_within("file", "size", size, 16) for size in (1, 16, 8.0)] == [1, 16, 8]
