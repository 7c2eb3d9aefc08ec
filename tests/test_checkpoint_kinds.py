"""Checkpoints of one kind after the other: sound ones are what they were, odd ones are refused in one line."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch
import transformers
from faulty_checkpoints import (
    CONFIG,
    POINTER,
    WEIGHTS,
    edit,
    refusal,
    retensor,
    save_hubert,
)
from pretrained_files import (
    KALDI,
    MEL,
    SMALL,
    assert_contract_holds,
    fairseq_content,
    noise,
    shaken,
    states_of,
    transformer_content,
)
from safetensors.torch import load_file, save_file

from upstreams._base import Upstream
from upstreams._resolve import build_upstream


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

    upstream, path = build_upstream("apc@untrained"), tmp_path / "apc.safetensors"
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


SPECS = ("s3prl-ckpt:{}", "fairseq:{}", "torchaudio:WAV2VEC2_BASE@{}", "apc@{}", "mockingjay@{}")


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

    upstream = build_upstream("apc@untrained")
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
