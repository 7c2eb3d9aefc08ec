"""fairseq's wav2vec 2.0, HuBERT and data2vec: settings and names of weights in the words of transformers."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Any

import torch

from core.audio import SAMPLE_RATE
from core.errors import CheckpointError
from upstreams._bounds import MOST_LAYERS, MOST_OF_ANY, size_within
from upstreams._encoders.conv_transformer import ConvTransformer
from upstreams.pretrained import _transformers_model

# fairseq's defaults: a file holds the settings that differ from them, and sometimes all.
DEFAULTS: Mapping[str, Any] = {
    "extractor_mode": "default",
    "encoder_layers": 12,
    "encoder_embed_dim": 768,
    "encoder_ffn_embed_dim": 3072,
    "encoder_attention_heads": 12,
    "activation_fn": "gelu",
    "layer_type": "transformer",
    "layer_norm_first": False,
    "conv_feature_layers": "[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2",
    "conv_bias": False,
    "conv_pos": 128,
    "conv_pos_groups": 16,
    "conv_pos_batch_norm": False,
    "pos_conv_depth": 1,
    "quantize_input": False,
}
# Settings that transformers' models have no counterpart for, with the values that can be taken.
SUPPORTED: Mapping[str, tuple[Any, ...]] = {
    "extractor_mode": ("default", "layer_norm"),
    "activation_fn": ("gelu", "relu"),
    "layer_type": ("transformer",),
    "conv_pos_batch_norm": (False, True),
    "quantize_input": (False,),
}
# With stacked positional convolutions transformers has one network, data2vec's.
SUPPORTED_STACKED = {
    **SUPPORTED,
    "extractor_mode": ("layer_norm",),
    "layer_norm_first": (False,),
    "conv_pos_batch_norm": (False,),
}
LEAST_STACKED_KERNEL = 3  # of a stacked positional convolution, which has its share of conv_pos
# The pre-training's: targets, masks and projections to them.
UNUSED = re.compile(r"mask_emb$|label_embs_concat$|(final_proj|project_q|quantizer|target_glu)\b")
NAMES: tuple[tuple[str, str], ...] = (
    (r"^feature_extractor\.conv_layers\.(\d+)\.0\.", r"feature_extractor.conv_layers.\1.conv."),
    # Group norm stands alone, layer norm between two transpositions.
    (r"^feature_extractor\.conv_layers\.(\d+)\.2\.(1\.)?", r"feature_extractor.conv_layers.\1.layer_norm."),
    (r"^post_extract_proj\.", "feature_projection.projection."),
    (r"^layer_norm\.", "feature_projection.layer_norm."),
    (r"^encoder\.pos_conv\.0\.weight_g$", "encoder.pos_conv_embed.conv.parametrizations.weight.original0"),
    (r"^encoder\.pos_conv\.0\.weight_v$", "encoder.pos_conv_embed.conv.parametrizations.weight.original1"),
    (r"^encoder\.pos_conv\.0\.parametrizations\.", "encoder.pos_conv_embed.conv.parametrizations."),
    (r"^encoder\.pos_conv\.0\.bias$", "encoder.pos_conv_embed.conv.bias"),
    (r"^encoder\.pos_conv\.(\d+)\.0\.", r"encoder.pos_conv_embed.layers.\1.conv."),
    (r"\.self_attn\.", ".attention."),
    (r"\.self_attn_layer_norm\.", ".layer_norm."),
    (r"\.fc1\.", ".feed_forward.intermediate_dense."),
    (r"\.fc2\.", ".feed_forward.output_dense."),
)
# A batch norm stands before the convolution, which then has no weight norm.
NAMES_BATCH_NORM: tuple[tuple[str, str], ...] = (
    (r"^encoder\.pos_conv\.0\.", "encoder.pos_conv_embed.batch_norm."),
    (r"^encoder\.pos_conv\.1\.", "encoder.pos_conv_embed.conv."),
)
MOST_CONVOLUTIONS = 100
TASK = {"sample_rate": SAMPLE_RATE, "normalize": False}


def build(source: str, content: Mapping[str, Any]) -> tuple[ConvTransformer, dict[str, Any]]:
    """The encoder of a file that s3prl converted, and all that shapes its output besides the weights.

    Args:
        source: what messages call the checkpoint.
        content: task_cfg, model_cfg and model_weight; dictionaries_symbols tells that it is HuBERT.

    Raises: CheckpointError: a setting is not supported, or the weights do not fit.
    """
    kind = "hubert" if "dictionaries_symbols" in content else "wav2vec2"
    return build_encoder(source, kind, content["model_cfg"], content["task_cfg"], content["model_weight"])


def build_encoder(
    source: str,
    kind: str,
    model_cfg: Mapping[str, Any],
    task_cfg: Mapping[str, Any],
    weights: Mapping[str, torch.Tensor],
) -> tuple[ConvTransformer, dict[str, Any]]:
    """The encoder, and all that shapes its output besides the weights.

    Args:
        source: what messages call the checkpoint.
        kind: wav2vec2, hubert or data2vec_audio; what is computed follows from the settings.
        model_cfg: settings of the model.
        task_cfg: settings of the task, of which the rate and the normalisation of waveforms count.
        weights: by fairseq's names.

    Raises: CheckpointError: a setting is not supported, or the weights do not fit.
    """
    cfg = {**DEFAULTS, **model_cfg}
    model_type, settings = _settings(source, kind, cfg)
    rate, normalize = (task_cfg.get(name, usual) for name, usual in TASK.items())
    if rate != SAMPLE_RATE or not isinstance(normalize, bool):
        raise CheckpointError(
            f"{source}: task_cfg has sample_rate = {rate!r} and normalize = {normalize!r}, must be {SAMPLE_RATE} and "
            f"true or false: it can't be used"
        )
    names = (*NAMES_BATCH_NORM, *NAMES) if settings.get("conv_pos_batch_norm") else NAMES
    tensors = {_renamed(name, names): tensor for name, tensor in weights.items() if not UNUSED.match(name)}
    norm, width = tensors.get("feature_projection.layer_norm.weight"), settings["hidden_size"]
    unprojected = norm is not None and norm.shape == (width,) and settings["conv_dim"][-1] == width
    if unprojected and "feature_projection.projection.weight" not in tensors:
        # fairseq has no projection between equal widths; transformers always has one.
        tensors["feature_projection.projection.weight"] = torch.eye(width)
        tensors["feature_projection.projection.bias"] = torch.zeros(width)
    network = _transformers_model.build(source, model_type, settings, tensors, normalize)
    config = {"kind": kind, "model": settings, "normalize": normalize, "epsilon": _transformers_model.EPSILON}
    return network, config


def _settings(source: str, kind: str, cfg: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Which of transformers' networks computes it, and keywords of its configuration."""

    def size(name: str, most: int = MOST_OF_ANY) -> int:
        return size_within(source, f"model_cfg's {name}", cfg[name], most)

    depth = size("pos_conv_depth", MOST_LAYERS)
    for name, values in (SUPPORTED if depth == 1 else SUPPORTED_STACKED).items():
        if cfg[name] not in values:
            stacked = f" with pos_conv_depth = {depth}" if cfg[name] in SUPPORTED.get(name, (True, False)) else ""
            raise CheckpointError(
                f"{source}: model_cfg has {name} = {cfg[name]!r}{stacked}, supported is "
                f"{' or '.join(map(repr, values))}; for a file that s3prl converted try, with s3prl installed, "
                f"s3prl:hubert_local@FILE or s3prl:wav2vec2_local@FILE"
            )
    dims, kernels, strides = zip(*_convolutions(source, str(cfg["conv_feature_layers"])), strict=True)
    settings = {
        "conv_dim": list(dims),
        "conv_kernel": list(kernels),
        "conv_stride": list(strides),
        "conv_bias": bool(cfg["conv_bias"]),
        "hidden_size": size("encoder_embed_dim"),
        "num_hidden_layers": size("encoder_layers", MOST_LAYERS),
        "num_attention_heads": size("encoder_attention_heads"),
        "intermediate_size": size("encoder_ffn_embed_dim"),
        "hidden_act": str(cfg["activation_fn"]),
        "num_conv_pos_embedding_groups": size("conv_pos_groups"),
    }
    if depth > 1:
        kernel = max(LEAST_STACKED_KERNEL, size("conv_pos") // depth)
        return "data2vec-audio", {**settings, "num_conv_pos_embeddings": depth, "conv_pos_kernel_size": kernel}
    settings |= {
        "feat_extract_norm": "group" if cfg["extractor_mode"] == "default" else "layer",
        "do_stable_layer_norm": bool(cfg["layer_norm_first"]),
        "num_conv_pos_embeddings": size("conv_pos"),
    }
    if cfg["conv_pos_batch_norm"]:  # of which transformers has HuBERT's network alone
        return "hubert", {**settings, "conv_pos_batch_norm": True}
    return "hubert" if kind == "hubert" else "wav2vec2", settings


def _convolutions(source: str, expression: str) -> list[tuple[int, int, int]]:
    """[(width, kernel, stride), ...] out of a sum of multiplied lists, which fairseq and s3prl give to eval."""
    try:
        layers = _value(ast.parse(expression, mode="eval").body)
        if not 1 <= len(layers) <= MOST_CONVOLUTIONS:
            raise ValueError(len(layers))
        sizes = [tuple(size_within(source, "conv_feature_layers", size) for size in layer) for layer in layers]
        return [(width, kernel, stride) for width, kernel, stride in sizes]
    except (SyntaxError, TypeError, ValueError, RecursionError, MemoryError):
        raise CheckpointError(
            f"{source}: model_cfg has conv_feature_layers = {expression!r}, which is no sum of lists of "
            f"(width, kernel, stride) like [(512,10,5)] + [(512,3,2)] * 4"
        ) from None


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _value(node.left) + _value(node.right)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        layers, times = _value(node.left), ast.literal_eval(node.right)
        if not isinstance(times, int) or len(layers) * times > MOST_CONVOLUTIONS:
            raise ValueError(times)
        return layers * times
    return ast.literal_eval(node)


def _renamed(name: str, names: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in names:
        name = re.sub(pattern, replacement, name)
    return name
