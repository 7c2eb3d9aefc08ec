"""`hf:` and its relatives on checkpoints with one fault each: refused in one line, in words of what is wrong."""

from __future__ import annotations

import builtins
import io
import json
import os
import pickle
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from conftest import call
from pretrained_files import (
    KALDI,
    MEL,
    SMALL,
    WIDTH,
    apc_content,
    assert_contract_holds,
    fairseq_content,
    noise,
    shaken,
    states_of,
    transformer_content,
)  # fmt: skip
from safetensors.torch import load_file, save_file

from core.errors import CheckpointError, ManifestError
from frostbench.grid.cell_jobs import Folders
from frostbench.grid.plan import Grid
from frostbench.grid.run import run_grid
from frostbench.jobs.local import LocalExecutor
from frostbench.jobs.progress import Watcher
from tasks._base import resolve_task
from upstreams._base import Upstream
from upstreams._resolve import build_upstream

WEIGHTS, CONFIG, PREPROCESSOR = "model.safetensors", "config.json", "preprocessor_config.json"
WHISPER = {
    "d_model": WIDTH, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_layers": 1,
    "decoder_attention_heads": 2, "decoder_ffn_dim": 24, "vocab_size": 12, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2, "decoder_start_token_id": 1,
}  # fmt: skip
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 378000000\n"


def save_hubert(folder: Path, **settings: Any) -> Path:
    shaken(transformers.HubertModel(transformers.HubertConfig(**SMALL, **settings))).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    return folder


def save_whisper(folder: Path, **settings: Any) -> Path:
    model = transformers.WhisperForConditionalGeneration(transformers.WhisperConfig(**WHISPER, **settings))
    shaken(model).save_pretrained(folder)
    transformers.WhisperFeatureExtractor(feature_size=80).save_pretrained(folder)
    return folder


def edit(folder: Path, file: str, **values: Any) -> None:
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**content, **values}))


def retensor(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})


def refusal(spec: object) -> str:
    with pytest.raises(CheckpointError) as caught:
        build_upstream(str(spec))
    assert "\n" not in str(caught.value)
    return str(caught.value)


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
    "more weights than memory": (lambda folder: edit(folder, CONFIG, hidden_size=2**26), "has shape"),
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


@pytest.mark.parametrize(
    ("task", "message"), [({"sample_rate": 8_000}, "sample_rate = 8000"), ({"normalize": "no"}, "'no'")]
)
def test_the_task_of_a_fairseq_file_has_to_fit(task, message, tmp_path):
    content = fairseq_content()
    torch.save(content, tmp_path / "file.pt")
    build_upstream(f"s3prl-ckpt:{tmp_path / 'file.pt'}")
    torch.save({**content, "task_cfg": {**content["task_cfg"], **task}}, tmp_path / "file.pt")
    assert message in refusal(f"s3prl-ckpt:{tmp_path / 'file.pt'}")


@pytest.mark.parametrize("audio", [MEL, KALDI])
def test_a_front_end_of_another_rate_is_refused(audio, tmp_path):
    torch.save(transformer_content(audio={**audio, "sample_rate": 8_000}), tmp_path / "file.ckpt")
    assert "sample_rate 8000 is not supported" in refusal(f"s3prl-ckpt:{tmp_path / 'file.ckpt'}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": "wide"}, "hidden_size = 'wide', must be like 512"),
        ({"hidden_size": 200_000}, "the settings ask for"),  # of more memory than there is
        ({"num_layers": 10**7}, "num_layers = 10000000, must be at most 1,000"),
        ({"window_type": "none"}, "its configuration makes no network"),
        ({"residual": 1}, "residual = 1, must be like True"),
        ({"steps_ahead": "\ud800"}, "metadata is damaged"),
    ],
)
def test_an_own_checkpoint_of_odd_settings_is_refused(change, message, tmp_path):
    from upstreams._pretraining.checkpoint import FORMAT, read_metadata

    upstream, path = build_upstream("apc"), tmp_path / "apc.safetensors"
    upstream.save(path, {})
    content = read_metadata(path)
    text = json.dumps({**content, "configuration": {**content["configuration"], **change}})
    save_file(load_file(path), path, {FORMAT: text})
    assert message in refusal(f"apc@{path}")


def test_a_missing_mask_embedding_is_no_chance(tmp_path):
    folder = save_hubert(tmp_path)
    retensor(folder, lambda found: found.pop("masked_spec_embed"))
    digests = set()
    for seed in range(2):
        torch.manual_seed(seed)
        digests.add(build_upstream(f"hf:{folder}").digest())
    assert len(digests) == 1


def test_shards_and_torch_files_are_the_same_upstream(tmp_path):
    folder = save_hubert(tmp_path)
    whole = build_upstream(f"hf:{folder}")
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    old = {name.replace("parametrizations.weight.original0", "weight_g"): tensor for name, tensor in tensors.items()}
    old = {name.replace("parametrizations.weight.original1", "weight_v"): tensor for name, tensor in old.items()}
    torch.save(old, folder / "pytorch_model.bin")
    assert build_upstream(f"hf:{folder}").digest() == whole.digest()
    (folder / "pytorch_model.bin").unlink()
    names = sorted(tensors)
    for number, part in enumerate((names[:20], names[20:])):
        save_file({name: tensors[name] for name in part}, folder / f"part-{number}.safetensors")
    places = {name: f"part-{int(number >= 20)}.safetensors" for number, name in enumerate(names)}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": places}))
    assert build_upstream(f"hf:{folder}").digest() == whole.digest()


def test_settings_of_how_outputs_are_handed_over_change_nothing(tmp_path):
    folder = save_hubert(tmp_path)
    before = build_upstream(f"hf:{folder}").digest()
    edit(folder, CONFIG, return_dict=False, _attn_implementation="somebody/kernel", torchscript=True)
    assert build_upstream(f"hf:{folder}").digest() == before


def test_batch_norm_before_the_positional_convolution_stays_within_the_recording(tmp_path):
    model = transformers.HubertModel(transformers.HubertConfig(**SMALL, conv_pos_batch_norm=True))
    norm = shaken(model).encoder.pos_conv_embed.batch_norm
    norm.bias.data.normal_(), norm.running_mean.normal_(), norm.running_var.uniform_(0.5, 2)
    model.save_pretrained(tmp_path)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(tmp_path)
    upstream, wav = build_upstream(f"hf:{tmp_path}"), noise(8_000)
    assert_contract_holds(upstream)
    with torch.no_grad():
        expected = model.eval()(wav[None], output_hidden_states=True).hidden_states
    torch.testing.assert_close(states_of(upstream, wav)[:-1], torch.cat(expected)[:-1], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("Wav2Vec2Conformer", {}),
        ("SEW", {"squeeze_factor": 2}),
        ("SEWD", {"squeeze_factor": 2, "position_buckets": 8, "max_position_embeddings": 16}),
    ],
)
def test_hidden_states_are_the_input_of_the_first_block_and_every_output(kind, settings, tmp_path):
    model = shaken(getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**SMALL, **settings)))
    model.save_pretrained(tmp_path)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(tmp_path)
    seen: list[torch.Tensor] = []
    encoder = model.eval().encoder
    blocks = (
        (encoder if hasattr(encoder, "layers") else encoder.encoder).layers if kind != "SEWD" else encoder.encoder.layer
    )
    blocks[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    for block in blocks:
        block.register_forward_hook(
            lambda _, __, output: seen.append(output[0] if isinstance(output, tuple) else output)
        )
    wav = noise(8_000)
    with torch.no_grad():
        model(wav[None])
    if kind == "Wav2Vec2Conformer":
        seen[-1] = encoder.layer_norm(seen[-1]).detach()
    found = states_of(build_upstream(f"hf:{tmp_path}"), wav)
    torch.testing.assert_close(found, torch.cat([layer.reshape(1, *layer.shape[-2:]) for layer in seen]))


CODE = """
import pathlib
pathlib.Path({marker!r}).touch()
from transformers import HubertConfig as Config, HubertModel as Model, Wav2Vec2FeatureExtractor as Extractor
from transformers import Wav2Vec2CTCTokenizer as Tokenizer, Wav2Vec2Processor as Processor
Config.model_type = "my_encoder"
"""
OWN_CODE: dict[str, tuple[str, dict[str, Any]]] = {
    "configuration": (CONFIG, {"model_type": "my_encoder", "auto_map": {"AutoConfig": "code.Config"}}),
    "configuration of a known kind": (CONFIG, {"auto_map": {"AutoConfig": "code.Config"}}),
    "model": (CONFIG, {"auto_map": {"AutoModel": "code.Model"}}),
    "model of another repository": (CONFIG, {"auto_map": {"AutoModel": "somebody/repo--code.Model"}}),
    "feature extractor": (PREPROCESSOR, {"auto_map": {"AutoFeatureExtractor": "code.Extractor"}}),
    "text": (CONFIG, {"auto_map": "code.Model"}),
}
NO_MATTER = {
    "tokenizer": (CONFIG, {"auto_map": {"AutoTokenizer": ["code.Tokenizer", None]}}),
    "tokenizer of its own": ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["code.Tokenizer", None]}}),
    "processor": (PREPROCESSOR, {"auto_map": {"AutoProcessor": "code.Processor"}}),
}


@pytest.fixture
def nobody_asks(monkeypatch):
    """A question on the terminal would be answered with yes."""
    asked: list[str] = []
    monkeypatch.setattr(builtins, "input", lambda question="": asked.append(question) or "y")
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\ny\n"))
    monkeypatch.setattr("signal.alarm", lambda seconds: asked.append("alarm") or 0)
    yield
    assert asked == []


def plant(folder: Path, file: str, values: dict[str, Any]) -> Path:
    marker = folder / "RAN"
    (folder / "code.py").write_text(CODE.format(marker=str(marker)))
    if not (folder / file).exists():
        (folder / file).write_text("{}")
    edit(folder, file, **values)
    return marker


@pytest.mark.parametrize("place", OWN_CODE)
def test_code_of_a_checkpoint_is_not_run_and_nobody_is_asked(place, tmp_path, nobody_asks):
    folder = save_hubert(tmp_path)
    marker = plant(folder, *OWN_CODE[place])
    message = refusal(f"hf:{folder}")
    assert "Frostbench never runs code of a checkpoint" in message
    assert OWN_CODE[place][0] in message
    assert not marker.exists()


@pytest.mark.parametrize("place", NO_MATTER)
def test_code_of_parts_that_are_not_loaded_does_not_matter(place, tmp_path, nobody_asks):
    folder = save_hubert(tmp_path)
    marker = plant(folder, *NO_MATTER[place])
    build_upstream(f"hf:{folder}")
    assert not marker.exists()


class Touch:
    """Unpickled freely, it would run a shell."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


def pickled_model(folder: Path, marker: Path) -> str:
    save_hubert(folder)
    (folder / WEIGHTS).unlink()
    torch.save({"encoder": Touch(marker)}, folder / "pytorch_model.bin")
    return f"hf:{folder}"


def pickled_shard(folder: Path, marker: Path) -> str:
    save_hubert(folder)
    (folder / WEIGHTS).unlink()
    torch.save({"encoder": Touch(marker)}, folder / "part.bin")
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"encoder": "part.bin"}}))
    return f"hf:{folder}"


def named_safetensors(folder: Path, marker: Path) -> str:
    save_hubert(folder)
    torch.save({"encoder": Touch(marker)}, folder / WEIGHTS)
    return f"hf:{folder}"


def plain_pickle(spec: str) -> Callable[[Path, Path], str]:
    def write(folder: Path, marker: Path) -> str:
        (folder / "file").write_bytes(pickle.dumps({"model": Touch(marker)}))
        return spec.format(folder / "file")

    return write


def numpy_pickle(spec: str) -> Callable[[Path, Path], str]:
    def write(folder: Path, marker: Path) -> str:
        np.save(folder / "file.npy", np.array([Touch(marker)], dtype=object), allow_pickle=True)
        return spec.format(folder / "file.npy")

    return write


def torch_pickle(spec: str) -> Callable[[Path, Path], str]:
    def write(folder: Path, marker: Path) -> str:
        torch.save(apc_content() | {"Optimizer": Touch(marker)}, folder / "file.ckpt")
        return spec.format(folder / "file.ckpt")

    return write


SPECS = ("s3prl-ckpt:{}", "torchaudio:WAV2VEC2_BASE@{}", "apc@{}", "mockingjay@{}")
PICKLES: dict[str, Callable[[Path, Path], str]] = {
    "pytorch_model.bin": pickled_model,
    "a shard": pickled_shard,
    "a pickle named safetensors": named_safetensors,
    **{f"{kind.__name__} {spec}": kind(spec) for kind in (plain_pickle, numpy_pickle, torch_pickle) for spec in SPECS},
}


@pytest.mark.parametrize("kind", PICKLES)
def test_no_pickle_runs_whatever_reads_it(kind, tmp_path):
    marker = tmp_path / "RAN"
    spec = PICKLES[kind](tmp_path, marker)
    with pytest.raises(CheckpointError):
        build_upstream(spec)
    assert not marker.exists()


@pytest.mark.parametrize("spec", [*SPECS, "hf:{}", "wav2vec2@{}"])
def test_a_pointer_is_called_one_by_every_loader(spec, tmp_path):
    path = tmp_path / "file"
    if spec[:2] in ("hf", "wa"):
        save_hubert(path)
        (path / "frostbench.json").write_text(json.dumps({"upstream": "wav2vec2", "notes": {}}))
        (path / WEIGHTS).write_text(POINTER)
    else:
        path.write_text(POINTER)
    message = refusal(spec.format(path))
    assert "git-lfs pointer" in message and "git lfs pull" in message and "hf download" in message


@pytest.mark.parametrize("change", ["missing", "foreign", "shape", "int8"])
def test_own_checkpoints_take_all_tensors_and_no_others(change, tmp_path):
    from upstreams._pretraining.checkpoint import FORMAT, read_metadata

    upstream = build_upstream("apc")
    path = tmp_path / "apc.safetensors"
    upstream.save(path, {})
    tensors, metadata = load_file(path), {FORMAT: json.dumps(read_metadata(path))}
    name = next(iter(tensors))
    changes: dict[str, Callable[[], object]] = {
        "missing": lambda: tensors.pop(name),
        "foreign": lambda: tensors.update({"more": torch.ones(2)}),
        "shape": lambda: tensors.update({name: torch.ones(3, 3)}),
        "int8": lambda: tensors.update({name: torch.ones(tensors[name].shape, dtype=torch.int8)}),
    }
    assert isinstance(build_upstream(f"apc@{path}"), Upstream)
    changes[change]()
    save_file(tensors, path, metadata)
    assert "settings" in refusal(f"apc@{path}") or change == "int8"


def test_a_data_set_with_a_script_is_not_run(tmp_path):
    from tasks.corpora._base import open_corpus

    folder = tmp_path / "set"
    folder.mkdir()
    marker = tmp_path / "RAN"
    (folder / "set.py").write_text(f"import pathlib\npathlib.Path({str(marker)!r}).touch()\n")
    with pytest.raises(ManifestError, match="scripts are no longer supported"):
        open_corpus(f"hf:{folder}", cache=tmp_path / "cache")
    assert not marker.exists()
