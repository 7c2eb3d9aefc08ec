"""`hf:` on encoders of recognisers and codecs: Moonshine, Parakeet, EnCodec, DAC, Mimi, and MMS with its adapters."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from faulty_checkpoints import CONFIG, PREPROCESSOR, edit, refusal, retensor, save_hubert
from pretrained_files import SMALL, assert_contract_holds, noise, shaken, states_of
from safetensors.torch import load_file, save_file
from small_encoders import KINDS, saved

from core.finetuning import FineTuning
from upstreams._base import Upstream
from upstreams._encoders.fingerprint import fixed_noise
from upstreams._finetuning import opened, trained_tensors
from upstreams._resolve import build_upstream
from upstreams.pretrained import _transformers_kinds


def loaded(name: str, folder: Path) -> tuple[Upstream, Any, Any]:
    _, model, extractor = saved(name, folder)
    return build_upstream(f"hf:{folder}"), model, extractor


@pytest.mark.parametrize("name", KINDS)
def test_encoders_keep_the_contract(name, tmp_path):
    upstream, _, _ = loaded(name, tmp_path)
    sizes = (upstream.num_layers, upstream.hidden_size, upstream.sample_rate, upstream.downsample_rate)
    assert (*sizes, upstream.min_samples) == KINDS[name][1]
    assert upstream.remark == ""
    assert_contract_holds(upstream)


def blocks_seen(blocks: Any, run: Callable[[], object]) -> list[torch.Tensor]:
    """The input of the first block and the output of every one, (frames, hidden_size)."""
    seen: list[torch.Tensor] = []

    def keep_input(_: object, arguments: tuple[torch.Tensor, ...], keywords: dict[str, torch.Tensor]) -> None:
        seen.append(arguments[0] if arguments else keywords["hidden_states"])

    def keep_output(_: object, __: object, output: Any) -> None:
        seen.append(output[0] if isinstance(output, tuple) else output)

    hooks = [blocks[0].register_forward_pre_hook(keep_input, with_kwargs=True)]
    hooks += [block.register_forward_hook(keep_output) for block in blocks]
    with torch.no_grad():
        run()
    for hook in hooks:
        hook.remove()
    return [layer.reshape(-1, layer.shape[-1]) for layer in seen]


@pytest.mark.parametrize("samples", [8_123, 16_000])
def test_moonshine_is_transformers(samples, tmp_path):
    upstream, model, extractor = loaded("moonshine", tmp_path)
    wav = noise(samples)
    inputs = extractor(wav.numpy(), sampling_rate=16_000, return_tensors="pt")
    encoder = model.model.encoder
    seen = blocks_seen(encoder.layers, lambda: encoder(inputs.input_values))
    seen[-1] = encoder.layer_norm(seen[-1]).detach()
    torch.testing.assert_close(states_of(upstream, wav), torch.stack(seen), rtol=0, atol=0)


@pytest.mark.parametrize("samples", [8_123, 20_480])
def test_parakeet_is_transformers(samples, tmp_path):
    upstream, model, extractor = loaded("parakeet_ctc", tmp_path)
    wav = noise(samples)
    inputs = extractor(wav.numpy(), sampling_rate=16_000, return_tensors="pt")
    encoder = model.encoder
    valid = int(encoder(**inputs).attention_mask.sum())
    seen = blocks_seen(encoder.layers, lambda: encoder(**inputs))
    found = states_of(upstream, wav)
    assert found.shape[1] == valid
    torch.testing.assert_close(found, torch.stack([layer[:valid] for layer in seen]), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["encodec", "encodec, group norm"])
def test_encodec_is_transformers(name, tmp_path):
    upstream, model, _ = loaded(name, tmp_path)
    wav = noise(8_123)
    found = states_of(upstream, wav)
    with torch.no_grad():
        torch.testing.assert_close(found[0], model.encoder(wav[None, None])[0].T, rtol=0, atol=0)
        for layer, bandwidth in enumerate(model.config.target_bandwidths, 1):
            codes = model.encode(wav[None, None], bandwidth=bandwidth).audio_codes
            expected = model.quantizer.decode(codes[0].transpose(0, 1))
            torch.testing.assert_close(found[layer], expected[0].T, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["dac", "dac, 44.1 kHz"])
def test_dac_is_transformers(name, tmp_path):
    upstream, model, extractor = loaded(name, tmp_path)
    wav = noise(8_123)
    rate = model.config.sampling_rate
    inputs = torch.as_tensor(extractor(wav.numpy(), sampling_rate=rate, return_tensors="pt").input_values)[:1]
    found = states_of(upstream, wav)
    with torch.no_grad():
        torch.testing.assert_close(found[0], model.encoder(inputs)[0].T, rtol=0, atol=0)
        for count in range(1, model.config.n_codebooks + 1):
            expected = model.encode(inputs, n_quantizers=count).quantized_representation
            torch.testing.assert_close(found[count], expected[0].T, rtol=0, atol=0)


def test_mimi_is_transformers(tmp_path):
    upstream, model, _ = loaded("mimi", tmp_path)
    wav = noise(24_000)
    blocks = next(module for name, module in model.named_modules() if name.endswith("encoder_transformer.layers"))
    seen = blocks_seen(blocks, lambda: model.encode(wav[None, None]))
    torch.testing.assert_close(states_of(upstream, wav), torch.stack(seen), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", KINDS)
def test_blocks_are_fine_tuned_from_the_last_one(name, tmp_path):
    upstream, _, _ = loaded(name, tmp_path)
    last = upstream.trainable_blocks()[-1]
    trained = trained_tensors(opened(upstream, FineTuning.from_text("top:1")))
    assert {id(value) for value in trained.values()} == {id(value) for value in last.parameters()}
    if name.startswith(("moonshine", "parakeet", "mimi")):
        assert len(upstream.trainable_blocks()) == upstream.num_layers - 1


def each_output(upstream: Upstream, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    for module in upstream.modules():
        if isinstance(module, torch.nn.Linear | torch.nn.Conv1d | torch.nn.Conv2d):
            module.register_forward_hook(lambda _, __, output: change(output))


@pytest.mark.parametrize("name", KINDS)
def test_the_digest_follows_what_is_computed_and_no_rounding(name, tmp_path):
    folder, _, _ = saved(name, tmp_path)
    spec, wav = f"hf:{folder}", noise(8_000)
    upstream, rounded, other = (build_upstream(spec) for _ in range(3))
    before = states_of(upstream, wav)
    digest = upstream.digest()
    assert torch.equal(states_of(upstream, wav), before)  # the fingerprint leaves the network as it was
    each_output(rounded, lambda output: output * (1 + 1e-8 * fixed_noise(output.numel()).view(output.shape)))
    each_output(other, lambda output: output + 0.05 * output.abs())  # which no norm takes back
    assert rounded.digest() == digest
    assert other.digest() != digest


@pytest.mark.parametrize("name", KINDS)
def test_what_stands_behind_the_encoder_plays_no_part(name, tmp_path):
    folder, _, _ = saved(name, tmp_path)
    digest = build_upstream(f"hf:{folder}").digest()

    def drop(found: dict[str, torch.Tensor]) -> None:
        for key in [key for key in found if key.removeprefix("model.").startswith(("decoder", "ctc_head", "upsample"))]:
            del found[key]

    retensor(folder, drop)
    assert build_upstream(f"hf:{folder}").digest() == digest


@pytest.mark.parametrize(
    ("name", "file", "settings", "message"),
    [
        ("encodec", CONFIG, {"audio_channels": 2}, "audio_channels = 2, must be 1: recordings are given in mono"),
        ("encodec", CONFIG, {"chunk_length_s": 1.0}, "chunk_length_s = 1.0, must be None: it reads chunks"),
        ("encodec", CONFIG, {"normalize": True}, "normalize = True, must be False: it divides each chunk"),
        (
            "encodec",
            CONFIG,
            {"sampling_rate": 16_000},
            "preprocessor_config.json says 24,000 Hz, config.json 16,000 Hz",
        ),
        ("encodec", CONFIG, {"upsampling_ratios": [8, 5, 4]}, "tensors"),
        ("encodec", PREPROCESSOR, {"sampling_rate": 24_001}, "the model wants 24,001 Hz"),
        ("encodec", PREPROCESSOR, {"feature_size": 2}, "has 1 value a sample, preprocessor_config.json 2"),
        ("mimi", CONFIG, {"use_streaming": True}, "use_streaming = True, must be False"),
        ("mimi", CONFIG, {"num_hidden_layers": 3}, "weights lack 12 tensors of a mimi model"),
        ("dac", CONFIG, {"n_codebooks": 4}, "weights lack 5 tensors of a dac model"),
        ("dac", CONFIG, {"n_codebooks": 10**4}, "n_codebooks = 10000, must be at most 100"),
        ("dac", PREPROCESSOR, {"padding_side": "left"}, "pads on the left"),
        ("moonshine", CONFIG, {"encoder_num_hidden_layers": 10**4}, "must be at most 1,000"),
        ("moonshine", PREPROCESSOR, {"sampling_rate": 8_000}, "the model wants 8,000 Hz"),
        ("parakeet_ctc", CONFIG, {"encoder_config": None}, "has no encoder_config with the settings of the encoder"),
        ("parakeet_ctc", CONFIG, {"quantization_config": {"bits": 4}}, "quantised weights can't be used"),
        (
            "parakeet_ctc",
            PREPROCESSOR,
            {"feature_size": 128},
            "config.json has 80 mel bins, preprocessor_config.json 128",
        ),
        ("parakeet_ctc", PREPROCESSOR, {"win_length": 10**6}, "win_length = 1000000, must be from 1 to 16,000"),
        (
            "parakeet_ctc",
            PREPROCESSOR,
            {"feature_extractor_type": "WhisperFeatureExtractor"},
            "needs a ParakeetFeature",
        ),
    ],
)
def test_settings_that_can_not_be_honoured_are_refused(name, file, settings, message, tmp_path):
    folder, _, _ = saved(name, tmp_path)
    edit(folder, file, **settings)
    assert message in refusal(f"hf:{folder}")


def test_every_kind_is_in_the_table_of_the_docs():
    text = (Path(__file__).parent.parent / "docs" / "checkpoints.md").read_text(encoding="utf-8")
    table = text.split("## Encoders of `hf:`")[1].split("\n## ")[0]
    first = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    named = {name for cell in first for name in re.findall(r"`([\w-]+)`", cell)}
    named |= {f"parakeet{name}" for name in named if name.startswith("_")}
    assert set(_transformers_kinds.KINDS) <= named


MMS = {"do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True, "adapter_attn_dim": 4}
ADAPTER = "adapter.fra"


def save_mms(folder: Path, suffix: str = ".safetensors") -> Any:
    """A model with its first language's adapter inside, and another's in a file of its own."""
    torch.manual_seed(0)
    config = transformers.Wav2Vec2Config(**{**SMALL, **MMS})
    model: Any = shaken(transformers.Wav2Vec2ForCTC(config)).eval()
    model.save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(folder)
    adapter = {name: tensor + 0.2 * torch.randn_like(tensor) for name, tensor in model._get_adapters().items()}
    if suffix == ".bin":
        torch.save(adapter, folder / f"{ADAPTER}.bin")
    else:
        save_file({name: tensor.detach() for name, tensor in adapter.items()}, folder / f"{ADAPTER}.safetensors")
    model.load_state_dict(adapter, strict=False)
    return model


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_an_adapter_of_mms_is_that_of_transformers(suffix, tmp_path):
    model = save_mms(tmp_path, suffix)
    upstream, plain = build_upstream(f"hf:{tmp_path}@{ADAPTER}"), build_upstream(f"hf:{tmp_path}")
    wav = noise(8_123)
    with torch.no_grad():
        outputs = model.wav2vec2(wav[None], output_hidden_states=True)
    expected = torch.cat([*outputs.hidden_states[:-1], outputs.last_hidden_state])
    assert torch.equal(states_of(upstream, wav), expected)
    assert torch.equal(states_of(plain, wav)[0], expected[0])
    assert (states_of(plain, wav)[1] - expected[1]).abs().max() > 0.01
    assert (upstream.display_name, plain.display_name) == (f"{tmp_path.name}@{ADAPTER}", tmp_path.name)
    assert upstream.digest() != plain.digest()
    assert_contract_holds(upstream)


def test_a_model_whose_adapters_all_lie_in_files_names_what_to_write(tmp_path):
    save_mms(tmp_path)
    retensor(tmp_path, lambda found: [found.pop(name) for name in list(found) if "adapter_layer" in name])
    assert f"name the file of one of its adapters, as hf:{tmp_path}@adapter.LANGUAGE" in refusal(f"hf:{tmp_path}")
    assert build_upstream(f"hf:{tmp_path}@{ADAPTER}").num_layers == 3


def test_adapters_that_do_not_fit_are_refused(tmp_path):
    save_mms(tmp_path)
    assert "has no adapter.deu.safetensors and no adapter.deu.bin" in refusal(f"hf:{tmp_path}@adapter.deu")
    assert "has no adapter../x.safetensors" in refusal(f"hf:{tmp_path}@adapter../x")
    file = tmp_path / f"{ADAPTER}.safetensors"
    found = load_file(file)
    removed = next(name for name in found if "adapter_layer" in name)
    save_file({name: tensor for name, tensor in found.items() if name != removed}, file)
    assert "the adapter has 11 tensors, the network of config.json 12 of adapter layers" in refusal(
        f"hf:{tmp_path}@{ADAPTER}"
    )
    save_file({**found, removed: torch.ones(3)}, file)
    assert "has shape (3,) in the file" in refusal(f"hf:{tmp_path}@{ADAPTER}")
    save_hubert(tmp_path / "hubert")
    save_file(found, tmp_path / "hubert" / f"{ADAPTER}.safetensors")
    assert "config.json 0 of adapter layers" in refusal(f"hf:{tmp_path / 'hubert'}@{ADAPTER}")
