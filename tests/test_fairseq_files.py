"""`fairseq:` on files as fairseq's trainer writes them, made of transformers' models: the same hidden states."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import transformers
from faulty_checkpoints import refusal
from pretrained_files import (
    CONVOLUTIONS_AS_TEXT,
    SMALL,
    WIDTH,
    assert_contract_holds,
    fairseq_content,
    fairseq_file,
    fairseq_weights,
    noise,
    shaken,
    states_of,
)

from upstreams._base import Upstream
from upstreams._resolve import build_upstream

SETTINGS = {
    "encoder_layers": 2,
    "encoder_embed_dim": WIDTH,
    "encoder_ffn_embed_dim": 24,
    "encoder_attention_heads": 2,
    "conv_feature_layers": CONVOLUTIONS_AS_TEXT,
    "conv_pos": 8,
    "conv_pos_groups": 4,
    "activation_fn": "gelu",
    "dropout": 0.1,
    "latent_temp": (2, 0.5, 0.999995),
}
LAYER_NORM = {"extractor_mode": "layer_norm", "layer_norm_first": True, "conv_bias": True}
LAYER_NORM_HERE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
# Name in fairseq, its settings; transformers' network, its settings.
MODELS: dict[str, tuple[str, dict[str, Any], str, dict[str, Any]]] = {
    "wav2vec2": ("wav2vec2", {}, "Wav2Vec2", {}),
    "wav2vec2_ln": ("wav2vec2", LAYER_NORM, "Wav2Vec2", LAYER_NORM_HERE),
    "hubert": ("hubert", {}, "Hubert", {}),
    "hubert_ln": ("hubert", LAYER_NORM, "Hubert", LAYER_NORM_HERE),
    "hubert_bn": ("hubert", {"conv_pos_batch_norm": True}, "Hubert", {"conv_pos_batch_norm": True}),
    "data2vec": (
        "data2vec_audio",
        {"extractor_mode": "layer_norm", "conv_pos": 15, "pos_conv_depth": 3},
        "Data2VecAudio",
        {"conv_pos_kernel_size": 5, "num_conv_pos_embeddings": 3},
    ),
}


def model_of(name: str) -> torch.nn.Module:
    _, _, kind, settings = MODELS[name]
    config = getattr(transformers, f"{kind}Config")(**{**SMALL, **settings})
    return shaken(getattr(transformers, f"{kind}Model")(config)).eval()


def content_of(name: str, normalize: bool = False) -> tuple[dict[str, Any], torch.nn.Module]:
    model = model_of(name)
    kind, settings, _, _ = MODELS[name]
    cfg = {
        "model": {"_name": kind, **SETTINGS, **settings, "max_update": "${optimization.max_update}"},
        "task": {"_name": "audio_pretraining", "normalize": normalize, "sample_rate": 16_000, "labels": None},
        "common": {"seed": 1},
    }
    return {"args": None, "cfg": cfg, "model": fairseq_weights(model), "optimizer_history": [{"num_updates": 1}]}, model


def loaded(folder: Path, content: object, *, zipped: bool = True) -> Upstream:
    torch.save(content, folder / "file.pt", _use_new_zipfile_serialization=zipped)
    return build_upstream(f"fairseq:{folder / 'file.pt'}")


def expected_states(model: Any, wav: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        outputs = model(wav[None], output_hidden_states=True)
    return torch.cat([*outputs.hidden_states[:-1], outputs.last_hidden_state])


@pytest.mark.parametrize("name", MODELS)
def test_a_file_gives_the_hidden_states_of_transformers_model(name, tmp_path):
    content, model = content_of(name)
    upstream, wav = loaded(tmp_path, content), noise(8_123)
    assert torch.equal(states_of(upstream, wav), expected_states(model, wav))
    assert upstream.configuration()["kind"] == MODELS[name][0]
    assert upstream.display_name == "file"


@pytest.mark.parametrize("name", MODELS)
def test_files_keep_the_contract(name, tmp_path):
    assert_contract_holds(loaded(tmp_path, content_of(name)[0]))


def test_waveforms_are_normalised_where_the_task_says_so(tmp_path):
    content, model = content_of("wav2vec2_ln", normalize=True)
    wav = 0.3 * noise(8_123) + 0.05
    expected = expected_states(model, torch.nn.functional.layer_norm(wav, wav.shape))
    torch.testing.assert_close(states_of(loaded(tmp_path, content), wav), expected, rtol=0, atol=2e-5)


def as_namespace(content: dict[str, Any]) -> dict[str, Any]:
    """As fairseq wrote it in 2020: all settings on one level."""
    cfg = content["cfg"]
    args = {**cfg["task"], **cfg["model"], "arch": cfg["model"]["_name"]}
    args.pop("_name")
    return {"args": argparse.Namespace(**args), "model": content["model"]}


def fine_tuned(content: dict[str, Any]) -> dict[str, Any]:
    model = {f"w2v_encoder.w2v_model.{name}": tensor for name, tensor in content["model"].items()}
    model |= {"w2v_encoder.proj.weight": torch.ones(3, WIDTH), "w2v_encoder.proj.bias": torch.ones(3)}
    cfg = {"model": {"_name": "wav2vec_ctc", "w2v_args": content["cfg"]}, "task": {"normalize": "${model.normalize}"}}
    return {"args": None, "cfg": cfg, "model": model}


def fine_tuned_namespace(content: dict[str, Any]) -> dict[str, Any]:
    inner, outer = as_namespace(content)["args"], fine_tuned(content)
    return {"args": argparse.Namespace(arch="wav2vec_ctc", w2v_args=inner), "model": outer["model"]}


def sequence_to_sequence(content: dict[str, Any]) -> dict[str, Any]:
    content = fine_tuned(content)
    content["cfg"]["model"]["_name"] = "wav2vec_seq2seq"
    model = {name.removeprefix("w2v_"): tensor for name, tensor in content["model"].items()}
    return {**content, "model": {**model, "decoder.layers.0.fc1.weight": torch.ones(3, 3)}}


def with_teacher(content: dict[str, Any]) -> dict[str, Any]:
    return {**content, "model": {**content["model"], "_ema": {"layers.0.fc1.weight": torch.ones(3)}}}


def in_half_precision(content: dict[str, Any]) -> dict[str, Any]:
    return {**content, "model": {name: tensor.half() for name, tensor in content["model"].items()}}


LAYOUTS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "namespace": as_namespace,
    "fine-tuned": fine_tuned,
    "fine-tuned, namespace": fine_tuned_namespace,
    "sequence to sequence": sequence_to_sequence,
    "teacher": with_teacher,
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_of_a_file_is_the_same_upstream(layout, zipped, tmp_path):
    for name in ("wav2vec2_ln", "data2vec"):
        content, _ = content_of(name, normalize=True)
        plain = loaded(tmp_path, content)
        assert loaded(tmp_path, LAYOUTS[layout](content), zipped=zipped).digest() == plain.digest()


def test_half_precision_becomes_single(tmp_path):
    content, _ = content_of("hubert")
    upstream = loaded(tmp_path, in_half_precision(content))
    assert {parameter.dtype for parameter in upstream.parameters()} == {torch.float32}
    wav = noise(8_000)
    difference = states_of(upstream, wav) - states_of(loaded(tmp_path, content), wav)
    assert 0 < difference.abs().max() < 0.05


@pytest.fixture
def fake_class(monkeypatch) -> Callable[[str], type]:
    """A class that is pickled by a name; what it does when it is unpickled leaves a trace."""

    def make(path: str) -> type:
        module, name = path.rsplit(".", 1)
        made = type(name, (), {"__module__": module, "__setstate__": lambda self, state: Traces.append(path)})
        for depth in range(module.count(".") + 1):
            parent = ".".join(module.split(".")[: depth + 1])
            monkeypatch.setitem(sys.modules, parent, ModuleType(parent))
        setattr(sys.modules[module], name, made)
        return made

    return make


Traces: list[str] = []


def instance(kind: type, **state: Any) -> Any:
    made = kind()
    made.__dict__.update(state)
    return made


@pytest.mark.parametrize("zipped", [True, False])
def test_objects_of_omegaconf_and_fairseq_are_data(fake_class, monkeypatch, zipped, tmp_path):
    """With their classes' names in the pickle, whether these can be imported or not; none of them is."""
    content, _ = content_of("hubert", normalize=True)
    plain = loaded(tmp_path, content)
    classes = {
        name: fake_class(f"omegaconf.{place}.{name}")
        for place, name in (("dictconfig", "DictConfig"), ("listconfig", "ListConfig"), ("nodes", "AnyNode"))
    }
    monkeypatch.setitem(sys.modules, "omegaconf.nodes", sys.modules["omegaconf.nodes"])
    metadata = instance(fake_class("omegaconf.base.ContainerMetadata"), ref_type=dict, element_type=Any, key_type=str)

    def node(value: Any, parent: Any = None) -> Any:
        if isinstance(value, dict | list | tuple):
            made = instance(classes["DictConfig" if isinstance(value, dict) else "ListConfig"], _metadata=metadata)
            parts = value.items() if isinstance(value, dict) else enumerate(value)
            inner = {key: node(part, made) for key, part in parts}
            made._content, made._parent = inner if isinstance(value, dict) else list(inner.values()), parent
            return made
        return instance(classes["AnyNode"], _metadata=metadata, _parent=parent, _val=value)

    dictionary = instance(fake_class("fairseq.data.dictionary.Dictionary"), symbols=["0", "1"], indices={"0": 0})
    content |= {"cfg": node(content["cfg"]), "task_state": {"dictionaries": [dictionary]}}
    Traces.clear()
    upstream = loaded(tmp_path, content, zipped=zipped)
    assert upstream.digest() == plain.digest()
    assert Traces == []


class Command:
    """Unpickled freely, it would run a shell."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.trace}",)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", ["extra_state", "cfg", "model"])
def test_code_in_a_file_is_refused_and_not_run(place, zipped, tmp_path):
    content, _ = content_of("wav2vec2")
    content[place] = {**content.get(place, {}), "more": Command(tmp_path / "trace")}
    torch.save(content, tmp_path / "file.pt", _use_new_zipfile_serialization=zipped)
    message = refusal(f"fairseq:{tmp_path / 'file.pt'}")
    assert "system, and unpickling it could run any code" in message
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("path", ["fairseq.tasks.text.Task", "omegaconf.resolvers.Run", "fairseq_signals.Model"])
def test_other_classes_are_refused_by_name(path, fake_class, tmp_path):
    content, _ = content_of("wav2vec2")
    torch.save({**content, "task_state": instance(fake_class(path), a=1)}, tmp_path / "file.pt")
    assert f"holds an object of {path}, and unpickling it" in refusal(f"fairseq:{tmp_path / 'file.pt'}")


def test_an_expression_in_the_settings_is_not_run(tmp_path):
    content, _ = content_of("wav2vec2")
    content["cfg"]["model"]["conv_feature_layers"] = f"[(8,10,5)] * len(open({str(tmp_path / 'trace')!r}, 'w').name)"
    torch.save(content, tmp_path / "file.pt")
    assert "is no sum of lists" in refusal(f"fairseq:{tmp_path / 'file.pt'}")
    assert not (tmp_path / "trace").exists()


def test_settings_that_hold_themselves_or_each_other_are_read_in_no_time(tmp_path):
    content, _ = content_of("wav2vec2")
    plain = loaded(tmp_path, content)
    doubled: list[Any] = []
    for _ in range(100):
        doubled = [doubled, doubled]
    content["cfg"]["model"] |= {"doubled": doubled, "itself": content["cfg"]["model"]}
    assert loaded(tmp_path, content).digest() == plain.digest()


def model_settings(**settings: Any) -> Callable[[dict[str, Any]], object]:
    return lambda content: content["cfg"]["model"].update(settings)


FAULTS: dict[str, tuple[str, Callable[[dict[str, Any]], object], str]] = {
    "another model": ("wav2vec2", model_settings(_name="wav2vec"), "called 'wav2vec', known are wav2vec2, hubert,"),
    "data2vec 2.0": ("data2vec", model_settings(_name="data2vec_multi"), "called 'data2vec_multi'"),
    "no name": ("wav2vec2", model_settings(_name=None), "called None"),
    "no settings": ("wav2vec2", lambda content: content.pop("cfg"), "no checkpoint of fairseq's trainer"),
    "no weights": ("wav2vec2", lambda content: content.pop("model"), "Found: args, cfg, optimizer_history"),
    "settings as text": ("wav2vec2", lambda content: content["cfg"].update(model="x"), "no checkpoint of fairseq's"),
    "a conformer": ("wav2vec2", model_settings(layer_type="conformer"), "layer_type = 'conformer', supported is"),
    "quantised input": ("wav2vec2", model_settings(quantize_input=True), "quantize_input = True, supported is False"),
    "stacked, group norm": (
        "data2vec",
        model_settings(extractor_mode="default"),
        "extractor_mode = 'default' with pos_conv_depth = 3, supported is 'layer_norm'",
    ),
    "stacked, norm first": ("data2vec", model_settings(layer_norm_first=True), "layer_norm_first = True with pos_conv"),
    "rate": ("wav2vec2", lambda content: content["cfg"]["task"].update(sample_rate=8_000), "sample_rate = 8000"),
    "layers": ("wav2vec2", model_settings(encoder_layers=3), "16 tensors are missing"),
    "no number": ("wav2vec2", model_settings(encoder_layers="two"), "model_cfg's encoder_layers is 'two'"),
    "heads": ("wav2vec2", model_settings(encoder_attention_heads=3), "its settings make no network"),
    "a tensor too many": (
        "hubert",
        lambda content: content["model"].update({"encoder.gate.weight": torch.ones(2)}),
        "1 are not known (such as encoder.gate.weight)",
    ),
    "no tensor": (
        "hubert",
        lambda content: content["model"].update({"encoder.gate": {}}),
        "model holds 'encoder.gate', which is no tensor",
    ),
    "a fine-tuned model without settings": (
        "wav2vec2",
        lambda content: content["cfg"]["model"].update({"_name": "hubert_ctc", "w2v_args": None}),
        "neither the encoder's (w2v_encoder.w2v_model.) nor a head's",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_can_not_be_computed_is_refused(fault, tmp_path):
    name, change, message = FAULTS[fault]
    content, _ = content_of(name)
    change(content)
    torch.save(content, tmp_path / "file.pt")
    assert message in refusal(f"fairseq:{tmp_path / 'file.pt'}")


def test_a_fine_tuned_model_needs_the_settings_of_its_encoder(tmp_path):
    content = fine_tuned(content_of("wav2vec2")[0])
    content["cfg"]["model"]["w2v_args"] = None
    torch.save(content, tmp_path / "file.pt")
    assert "lacks the settings of its encoder (w2v_args)" in refusal(f"fairseq:{tmp_path / 'file.pt'}")


def test_a_file_that_s3prl_converted_is_the_same(tmp_path):
    content = fairseq_content(normalize=True)
    torch.save(content, tmp_path / "converted.pt")
    converted, raw = build_upstream(f"s3prl-ckpt:{tmp_path / 'converted.pt'}"), loaded(tmp_path, fairseq_file(content))
    wav = noise(8_000)
    assert torch.equal(states_of(converted, wav), states_of(raw, wav))
    assert f"which fairseq:{tmp_path / 'file.pt'} reads" in refusal(f"s3prl-ckpt:{tmp_path / 'file.pt'}")
    assert "Found: dictionaries_symbols, model_cfg" in refusal(f"fairseq:{tmp_path / 'converted.pt'}")


def test_stacked_positional_convolutions_are_read_of_converted_files_too(tmp_path):
    content, model = content_of("data2vec")
    converted = {"task_cfg": content["cfg"]["task"], "model_cfg": content["cfg"]["model"]}
    torch.save({**converted, "model_weight": content["model"]}, tmp_path / "converted.pt")
    wav = noise(8_000)
    found = states_of(build_upstream(f"s3prl-ckpt:{tmp_path / 'converted.pt'}"), wav)
    assert torch.equal(found, expected_states(model, wav))
