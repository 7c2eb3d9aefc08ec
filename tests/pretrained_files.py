"""Small checkpoint contents in the true layouts of s3prl and transformers, and what tests of loaders share."""

from __future__ import annotations

import argparse

import torch

from upstreams import _checks
from upstreams._base import Upstream

WIDTH = 16
CONVOLUTIONS = [(8, 10, 5)] + [(8, 3, 2)] * 4 + [(8, 2, 2)] * 2
CONVOLUTIONS_AS_TEXT = "[(8,10,5)] + [(8,3,2)] * 4 + [(8,2,2)] * 2"

# Of transformers' configurations.
SMALL = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "conv_dim": [size for size, _, _ in CONVOLUTIONS],
    "conv_kernel": [kernel for _, kernel, _ in CONVOLUTIONS],
    "conv_stride": [stride for _, _, stride in CONVOLUTIONS],
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 4,
    "vocab_size": 12,
}


def shaken(model: torch.nn.Module) -> torch.nn.Module:
    """Fresh weights leave norms and biases where mistakes don't show."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
        for name, buffer in model.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer += 0.5 * torch.rand_like(buffer)
    return model


def tensors(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: 0.2 * torch.randn(shape, generator=generator) + 0.1 for name, shape in shapes.items()}


def linear(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def norm(name: str, size: int = WIDTH) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (size,), f"{name}.bias": (size,)}


def apc_content(*, layers: int = 2, vq: bool = False, **audio: object) -> dict:
    shapes = linear("postnet", WIDTH, 20)
    for layer in range(layers):
        shapes |= {
            f"rnn_layers.{layer}.weight_ih_l0": (3 * WIDTH, WIDTH if layer else 20),
            f"rnn_layers.{layer}.weight_hh_l0": (3 * WIDTH, WIDTH),
            f"rnn_layers.{layer}.bias_ih_l0": (3 * WIDTH,),
            f"rnn_layers.{layer}.bias_hh_l0": (3 * WIDTH,),
        }
    paras = {"num_layers": layers, "hidden_size": WIDTH, "dropout": 0.1, "residual": True}
    if vq:
        paras["vq"] = {"codebook_size": [4], "code_dim": [WIDTH], "gumbel_temperature": 0.5}
    weights = tensors(shapes)
    if vq:
        weights |= tensors(linear("vq_layers.0.vq_logits", WIDTH, 4))
    settings = {"feat_type": "fbank", "feat_dim": 20, "frame_length": 25, "frame_shift": 10, "cmvn": True}
    return {
        "config": {"data": {"audio": settings | audio}, "model": {"paras": paras}},
        "model": weights,
        "Args": argparse.Namespace(seed=1),
    }


MEL = {
    "target_level": -25,
    "win_ms": 25,
    "hop_ms": 10,
    "n_freq": 201,
    "n_mels": 20,
    "input": {"feat_type": "mel", "channel": 0, "log": True, "delta": 0, "cmvn": True},
}
KALDI = {
    "kaldi": {"feat_type": "fbank", "fbank": {"num_mel_bins": 10, "frame_length": 25.0, "frame_shift": 10.0}},
    "delta": {"order": 1, "win_length": 5},
    "cmvn": {"use_cmvn": False},
}


def transformer_content(*, audio: dict = MEL, sequence_length: int = 0, **network: object) -> dict:
    settings = {
        "hidden_size": WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "layer_norm_eps": 1e-12,
    } | network
    shapes = linear("input_representations.spec_transform", 20, WIDTH) | norm("input_representations.LayerNorm")
    for layer in range(2):
        block = f"encoder.layer.{layer}"
        for projection in ("query", "key", "value"):
            shapes |= linear(f"{block}.attention.self.{projection}", WIDTH, WIDTH)
        shapes |= linear(f"{block}.attention.output.dense", WIDTH, WIDTH) | norm(f"{block}.attention.output.LayerNorm")
        shapes |= linear(f"{block}.intermediate.dense", WIDTH, 24) | linear(f"{block}.output.dense", 24, WIDTH)
        shapes |= norm(f"{block}.output.LayerNorm")
    weights = tensors(shapes)
    if network.get("pre_layer_norm"):
        for layer in range(2):  # s3prl's second names of the same tensors
            for kind in ("weight", "bias"):
                block = f"encoder.layer.{layer}"
                weights[f"{block}.attention.LayerNorm.{kind}"] = weights[f"{block}.attention.output.LayerNorm.{kind}"]
                weights[f"{block}.LayerNorm.{kind}"] = weights[f"{block}.output.LayerNorm.{kind}"]
        for layer in range(3):
            weights |= tensors(norm(f"encoder.LayerNorm.{layer}"), seed=layer)
    config = {"transformer": settings, "audio": audio, "task": {"sequence_length": sequence_length}}
    return {"Config": config, "Transformer": weights, "SpecHead": {}}


def fairseq_content(*, hubert: bool = True, normalize: bool = False, **cfg: object) -> dict:
    settings = {
        "_name": "hubert",
        "encoder_layers": 2,
        "encoder_embed_dim": WIDTH,
        "encoder_ffn_embed_dim": 24,
        "encoder_attention_heads": 2,
        "conv_feature_layers": CONVOLUTIONS_AS_TEXT,
        "conv_pos": 8,
        "conv_pos_groups": 4,
    } | cfg
    shapes: dict[str, tuple[int, ...]] = {"mask_emb": (WIDTH,)} | linear("final_proj", WIDTH, 4)
    inputs = 1
    for layer, (outputs, kernel, _) in enumerate(CONVOLUTIONS):
        shapes[f"feature_extractor.conv_layers.{layer}.0.weight"] = (outputs, inputs, kernel)
        if settings.get("extractor_mode") == "layer_norm":
            shapes |= norm(f"feature_extractor.conv_layers.{layer}.2.1", outputs)
        inputs = outputs
    if settings.get("extractor_mode", "default") == "default":
        shapes |= norm("feature_extractor.conv_layers.0.2", 8)
    shapes |= norm("layer_norm", 8) | norm("encoder.layer_norm")
    if settings["encoder_embed_dim"] != 8:
        shapes |= linear("post_extract_proj", 8, WIDTH)
    shapes |= {"encoder.pos_conv.0.bias": (WIDTH,), "encoder.pos_conv.0.weight_g": (1, 1, 8)}
    shapes |= {"encoder.pos_conv.0.weight_v": (WIDTH, WIDTH // 4, 8)}
    for layer in range(2):
        block = f"encoder.layers.{layer}"
        for projection in ("k", "v", "q", "out"):
            shapes |= linear(f"{block}.self_attn.{projection}_proj", WIDTH, WIDTH)
        shapes |= norm(f"{block}.self_attn_layer_norm") | norm(f"{block}.final_layer_norm")
        shapes |= linear(f"{block}.fc1", WIDTH, 24) | linear(f"{block}.fc2", 24, WIDTH)
    content = {"task_cfg": {"normalize": normalize}, "model_cfg": settings, "model_weight": tensors(shapes)}
    return content | ({"dictionaries_symbols": [["0", "1"]]} if hubert else {})


def states_of(upstream: Upstream, wav: torch.Tensor) -> torch.Tensor:
    """(num_layers, frames, hidden_size)."""
    return torch.stack(upstream.extract(wav[None], torch.tensor([len(wav)])).layers)[:, 0]


def noise(samples: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(seed))


def assert_contract_holds(upstream: Upstream) -> None:
    results = [_checks.run_check(check, upstream) for check in _checks.CHECKS]
    assert [result for result in results if not result.passed] == []


# Parts of transformers' names -> of fairseq's.
OF_FAIRSEQ = (
    ("feature_projection.projection.", "post_extract_proj."),
    ("feature_projection.layer_norm.", "layer_norm."),
    (".attention.", ".self_attn."),
    (".feed_forward.intermediate_dense.", ".fc1."),
    (".feed_forward.output_dense.", ".fc2."),
    ("pos_conv_embed.conv.parametrizations.weight.original0", "pos_conv.0.weight_g"),
    ("pos_conv_embed.conv.parametrizations.weight.original1", "pos_conv.0.weight_v"),
    ("pos_conv_embed.batch_norm.", "pos_conv.0."),
    ("masked_spec_embed", "mask_emb"),
)


def fairseq_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The weights of one of transformers' models by fairseq's names, with what its pre-training leaves beside them."""
    layer_norms = getattr(model.config, "feat_extract_norm", "layer") == "layer"  # data2vec has no other
    batch_norm = getattr(model.config, "conv_pos_batch_norm", False)
    weights = {"final_proj.weight": torch.ones(4, WIDTH), "final_proj.bias": torch.ones(4)}
    for name, tensor in model.state_dict().items():
        parts = name.split(".")
        if name.startswith("feature_extractor."):
            place = "0" if parts[3] == "conv" else "2.1" if layer_norms else "2"
            name = f"feature_extractor.conv_layers.{parts[2]}.{place}.{parts[-1]}"
        elif "pos_conv_embed.layers" in name:
            name = f"encoder.pos_conv.{parts[3]}.0.{parts[-1]}"
        elif parts[1:2] == ["layers"] and parts[3] == "layer_norm":
            name = f"encoder.layers.{parts[2]}.self_attn_layer_norm.{parts[-1]}"
        for ours, theirs in (*OF_FAIRSEQ, ("pos_conv_embed.conv.", f"pos_conv.{int(batch_norm)}.")):
            name = name.replace(ours, theirs)
        weights[name] = tensor
    return weights


def fairseq_file(content: dict) -> dict:
    """What s3prl converted, as fairseq's trainer had written it."""
    cfg = {"model": content["model_cfg"], "task": {**content["task_cfg"], "sample_rate": 16_000}}
    return {"args": None, "cfg": cfg, "model": content["model_weight"], "extra_state": {"metrics": []}}
