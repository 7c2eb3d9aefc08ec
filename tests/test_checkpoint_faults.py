"""`hf:` on checkpoints with one fault each: refused in one line, in words of what is wrong."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from conftest import call
from faulty_checkpoints import (
    CONFIG,
    POINTER,
    PREPROCESSOR,
    WEIGHTS,
    edit,
    refusal,
    retensor,
    save_hubert,
    save_whisper,
)
from pretrained_files import (
    SMALL,
    WIDTH,
    noise,
    shaken,
    states_of,
)

from frostbench.grid.cell_jobs import Folders
from frostbench.grid.plan import Grid
from frostbench.grid.run import run_grid
from frostbench.jobs.local import LocalExecutor
from frostbench.jobs.progress import Watcher
from tasks._base import resolve_task
from upstreams._resolve import build_upstream

ADAPTER = json.dumps({"peft_type": "LORA", "base_model_name_or_path": "facebook/hubert-base-ls960"})
# What is done to a sound checkpoint -> what has to be in the message.
HUBERT: dict[str, tuple[Callable[[Path], object], str]] = {
    "rate of the preprocessor": (
        lambda folder: edit(folder, PREPROCESSOR, sampling_rate=24_000),
        "the model wants 24,000 Hz (preprocessor_config.json), Frostbench gives 16,000 Hz",
    ),
    "rate of the model": (
        lambda folder: edit(folder, CONFIG, sampling_rate=8_000),
        "the model wants 8,000 Hz (config.json)",
    ),
    "biases without a place": (
        lambda folder: retensor(
            folder,
            lambda found: found.update(
                {f"feature_extractor.conv_layers.{i}.conv.bias": torch.ones(8) for i in range(7)}
            ),
        ),
        "hold 7 tensors (such as feature_extractor.conv_layers.0.conv.bias) that the network of config.json",
    ),
    "a block without a place": (
        lambda folder: edit(folder, CONFIG, num_hidden_layers=1),
        "hold 16 tensors (such as encoder.layers.1.attention.k_proj.bias)",
    ),
    "a front end of its own": (
        lambda folder: retensor(folder, lambda found: found.update({"frontend.sinc": torch.ones(3)})),
        "such as frontend.sinc",
    ),
    "a block missing": (lambda folder: edit(folder, CONFIG, num_hidden_layers=3), "weights lack 16 tensors"),
    "a tensor missing": (
        lambda folder: retensor(folder, lambda found: found.pop("encoder.layer_norm.bias")),
        "weights lack 1 tensors of a hubert model (such as encoder.layer_norm.bias)",
    ),
    "another shape": (
        lambda folder: edit(folder, CONFIG, intermediate_size=28),
        "encoder.layers.0.feed_forward.intermediate_dense.bias has shape (24,) in the file, config.json asks for (28,)",
    ),
    "quantised tensor": (
        lambda folder: retensor(
            folder, lambda found: found.update({"encoder.layer_norm.bias": torch.ones(WIDTH, dtype=torch.int8)})
        ),
        "encoder.layer_norm.bias is int8: quantised weights can't be used",
    ),
    "quantised by its settings": (
        lambda folder: edit(folder, CONFIG, quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True}),
        "quantised weights can't be used",
    ),
    "extractor of another model": (
        lambda folder: transformers.WhisperFeatureExtractor().save_pretrained(folder),
        "preprocessor_config.json is of a WhisperFeatureExtractor, a hubert model needs a Wav2Vec2FeatureExtractor",
    ),
    "normalisation as text": (
        lambda folder: edit(folder, PREPROCESSOR, do_normalize="false"),
        "do_normalize = 'false', must be true or false",
    ),
    "pointer": (lambda folder: (folder / WEIGHTS).write_text(POINTER), "is a git-lfs pointer ("),
    "pointer for settings": (lambda folder: (folder / CONFIG).write_text(POINTER), "config.json: is a git-lfs pointer"),
    "cut off": (
        lambda folder: os.truncate(folder / WEIGHTS, (folder / WEIGHTS).stat().st_size - 100),
        "cut off: ",
    ),
    "cut off early": (lambda folder: os.truncate(folder / WEIGHTS, 100), "it is cut off within its header"),
    "empty": (lambda folder: os.truncate(folder / WEIGHTS, 0), "model.safetensors: is empty"),
    "empty settings": (lambda folder: os.truncate(folder / CONFIG, 0), "config.json: is empty"),
    "a web page": (
        lambda folder: (folder / WEIGHTS).write_text("<!DOCTYPE html>\n<html>Please log in</html>"),
        "model.safetensors: is a web page",
    ),
    "half a character": (
        lambda folder: (folder / CONFIG).write_text('{"model_type": "hubert", "a": "\\ud800"}'),
        "config.json is no readable JSON",
    ),
    "rate of the model by another name": (
        lambda folder: edit(folder, CONFIG, sample_rate=24_000),
        "the model wants 24,000 Hz (config.json)",
    ),
    "an update beside the weights": (
        lambda folder: retensor(
            folder,
            lambda found: found.update(
                {f"encoder.layers.0.attention.q_proj.lora_{part}.weight": torch.ones(2, 2) for part in "AB"}
            ),
        ),
        "the weights hold 2 tensors of an adapter that is not merged (such as encoder.layers.0.attention.q_proj.lora_A",
    ),
    "a prefix, and none": (
        lambda folder: retensor(
            folder, lambda found: found.update({f"hubert.{name}": tensor + 1 for name, tensor in found.items()})
        ),
        "tensors of the encoder with the prefix 'hubert.' and without it",
    ),
    "two names of a tensor": (
        lambda folder: retensor(
            folder,
            lambda found: found.update(
                {
                    "encoder.pos_conv_embed.conv.weight_g": found[
                        "encoder.pos_conv_embed.conv.parametrizations.weight.original0"
                    ]
                    + 1
                }
            ),
        ),
        "hold encoder.pos_conv_embed.conv.parametrizations.weight.original0 under two names",
    ),
    "an index of other tensors": (
        lambda folder: (
            (folder / WEIGHTS).rename(folder / "a.safetensors"),
            (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": {"b": "a.safetensors"}})),
        ),
        "they are of different checkpoints",
    ),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), "it has no model.safetensors and no pytorch_model.bin"),
    "no preprocessor": (lambda folder: (folder / PREPROCESSOR).unlink(), "it has no preprocessor_config.json"),
    "deep JSON": (lambda folder: (folder / CONFIG).write_text("[" * 100_000), "config.json is no readable JSON"),
    "a list": (lambda folder: (folder / CONFIG).write_text("[]"), "config.json holds a list, must be an object"),
    "no kind": (lambda folder: edit(folder, CONFIG, model_type=None), "config.json names no model_type"),
    "another kind": (lambda folder: edit(folder, CONFIG, model_type="bert"), "is a 'bert' model; supported are"),
    "no activation": (lambda folder: edit(folder, CONFIG, hidden_act="swoosh"), "can't be loaded"),
    "size as text": (lambda folder: edit(folder, CONFIG, hidden_size="16"), "expected int, got str"),
    "more weights than memory": (lambda folder: edit(folder, CONFIG, hidden_size=2**19), "has shape"),
    "more layers than time": (
        lambda folder: edit(folder, CONFIG, num_hidden_layers=10**7),
        "num_hidden_layers = 10000000, must be at most 1,000",
    ),
    "more labels than memory": (lambda folder: edit(folder, CONFIG, num_labels=10**9), "num_labels = 1000000000"),
    "frames of an hour": (lambda folder: edit(folder, CONFIG, conv_stride=[1_000] * 7), "conv_stride = [1000, "),
    "an index out of the folder": (
        lambda folder: (
            (folder / WEIGHTS).rename(folder.parent / WEIGHTS),
            (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": {"a": f"../{WEIGHTS}"}})),
        ),
        f"names '../{WEIGHTS}', which is not there",
    ),
    "adapter": (
        lambda folder: (
            (folder / "adapter_config.json").write_text(ADAPTER),
            (folder / WEIGHTS).rename(folder / "adapter_model.safetensors"),
        ),
        "holds an adapter (LORA, adapter_config.json) of the model 'facebook/hubert-base-ls960', which alone is no",
    ),
    "adapter beside a model": (
        lambda folder: (folder / "adapter_config.json").write_text(ADAPTER),
        "holds weights of a model and an adapter (LORA, adapter_config.json) of the model 'facebook/hubert-base-ls960'",
    ),
}
WHISPERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "mel bins": (
        lambda folder: transformers.WhisperFeatureExtractor(feature_size=128).save_pretrained(folder),
        "config.json has 80 mel bins, preprocessor_config.json 128",
    ),
    "mel bins of the model": (
        lambda folder: edit(folder, CONFIG, num_mel_bins=128),
        "config.json has 128 mel bins, preprocessor_config.json 80",
    ),
    "extractor of another model": (
        lambda folder: transformers.Wav2Vec2FeatureExtractor().save_pretrained(folder),
        "preprocessor_config.json is of a Wav2Vec2FeatureExtractor, a whisper model needs a WhisperFeatureExtractor",
    ),
    "rate": (lambda folder: edit(folder, PREPROCESSOR, sampling_rate=8_000), "the model wants 8,000 Hz"),
    "window": (
        lambda folder: edit(folder, PREPROCESSOR, chunk_length=20),
        "gives 1,000 frames (chunk_length 20, hop_length 160), config.json has max_source_positions 1500",
    ),
    "noise": (lambda folder: edit(folder, PREPROCESSOR, dither=1.0), "dither = 1.0, only 0 can be used"),
    "more bins than memory": (
        lambda folder: (
            edit(folder, PREPROCESSOR, feature_size=10**9),
            edit(folder, CONFIG, num_mel_bins=10**9),
        ),
        "feature_size = 1000000000, must be from 1 to 1,000",
    ),
    "a block missing": (lambda folder: edit(folder, CONFIG, encoder_layers=3), "weights lack 15 tensors"),
    "a block without a place": (lambda folder: edit(folder, CONFIG, encoder_layers=1), "hold 15 tensors"),
}


@pytest.mark.parametrize("fault", HUBERT)
def test_a_checkpoint_that_says_something_else_than_what_is_computed_is_refused(fault, tmp_path):
    change, message = HUBERT[fault]
    folder = save_hubert(tmp_path / "model")
    build_upstream(f"hf:{folder}")
    change(folder)
    assert message in refusal(f"hf:{folder}")


@pytest.mark.parametrize("fault", WHISPERS)
def test_whisper_with_settings_of_another_model_is_refused(fault, tmp_path):
    change, message = WHISPERS[fault]
    folder = save_whisper(tmp_path / "model")
    change(folder)
    assert message in refusal(f"hf:{folder}")


def test_a_whisper_decoder_of_any_size_plays_no_part(tmp_path):
    folder, wav = save_whisper(tmp_path), noise(8_000)
    before = build_upstream(f"hf:{folder}")
    retensor(folder, lambda found: [found.pop(name) for name in list(found) if "decoder" in name])
    edit(folder, CONFIG, vocab_size=50_000_000)
    assert torch.equal(states_of(build_upstream(f"hf:{folder}"), wav), states_of(before, wav))


@pytest.mark.parametrize("head", ["CTC", "SequenceClassification"])
def test_a_head_on_the_encoder_is_left_out(head, tmp_path):
    """Also where files have no prefix, as of somebody who saved the encoder with the head's names beside it."""
    model = shaken(getattr(transformers, f"HubertFor{head}")(transformers.HubertConfig(**SMALL)))
    model.save_pretrained(tmp_path)
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(tmp_path)
    wav, upstream = noise(8_000), build_upstream(f"hf:{tmp_path}")
    model.hubert.save_pretrained(tmp_path)
    assert torch.equal(states_of(upstream, wav), states_of(build_upstream(f"hf:{tmp_path}"), wav))
    retensor(tmp_path, lambda found: found.update({"lm_head.weight": torch.ones(3), "classifier.bias": torch.ones(3)}))
    assert torch.equal(states_of(upstream, wav), states_of(build_upstream(f"hf:{tmp_path}"), wav))


def test_what_lies_beside_the_encoder_is_named(corpus, tasks_file, tmp_path):
    model = shaken(transformers.HubertForCTC(transformers.HubertConfig(**SMALL)))
    folder = tmp_path / "model"
    model.save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(folder)
    assert build_upstream(f"hf:{folder}").remark == ""
    digest = build_upstream(f"hf:{folder}").digest()
    retensor(folder, lambda found: found.update({f"emotion.{part}": torch.ones(3) for part in ("weight", "bias")}))
    named = "2 tensors of its file (such as emotion.bias) lie beside the encoder and are left out as a head's"
    upstream = build_upstream(f"hf:{folder}")
    assert upstream.digest() == digest
    assert upstream.remark == f"hf:{folder}: {named}"
    checked = call("check", f"hf:{folder}")
    assert (checked.code, checked.out.count(named)) == (0, 1)
    said: list[str] = []
    watcher = Watcher()
    watcher.say = said.append  # type: ignore[method-assign]
    task = resolve_task(f"{tasks_file}:KS")
    task = replace(task, recipes={"tiny": replace(task.recipe("tiny"), steps=2, eval_every=1)})
    folders = Folders(tmp_path / "cache", tmp_path / "results")
    for seeds in ((0,), (0, 1)):  # also where facts are known
        said.clear()
        run_grid(Grid((f"hf:{folder}",), (task,), seeds), corpus, folders, LocalExecutor("cpu", 1), watcher)
        assert [line for line in said if named in line] == [f"note: hf:{folder}: {named}"]
