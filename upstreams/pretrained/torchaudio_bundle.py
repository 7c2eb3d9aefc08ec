"""torchaudio's pipelines as upstreams: `torchaudio:HUBERT_BASE`, or with its weights `torchaudio:HUBERT_BASE@FILE`.

Every bundle of wav2vec 2.0, HuBERT, XLS-R, VoxPopuli, MMS and WavLM; from those fine-tuned for recognition the encoder
is taken. The weights go into transformers' model of the same network: torchaudio's own normalises over padding, knows
no padding mask for WavLM, and does not report the input of the first block.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from core.errors import CheckpointError
from core.registry import unknown_name
from upstreams._base import UpstreamCard, register_upstream
from upstreams._encoders.network import NetworkUpstream
from upstreams._weight_files import read_torch
from upstreams.pretrained import _transformers_model

WEIGHTS_URL = "https://download.pytorch.org/torchaudio/models/"
NAMES: tuple[tuple[str, str], ...] = (
    (r"^encoder\.feature_projection\.", "feature_projection."),
    (r"^encoder\.transformer\.", "encoder."),
    (r"\.attention\.attention\.out_proj\.", ".attention.out_proj."),  # WavLM's
    # Files from before torch's parametrizations; newer ones have the names of transformers.
    (r"\.conv\.weight_g$", ".conv.parametrizations.weight.original0"),
    (r"\.conv\.weight_v$", ".conv.parametrizations.weight.original1"),
)
PACKED = ".attention.attention.in_proj_"  # WavLM's query, key and value in one tensor


@register_upstream(
    UpstreamCard(
        name="torchaudio",
        title="torchaudio bundle: torchaudio:NAME[@FILE]",
        paper="wav2vec 2.0 arXiv:2006.11477, HuBERT arXiv:2106.07447, WavLM arXiv:2110.13900",
    )
)
class TorchaudioBundle(NetworkUpstream):
    """Hidden states are the input of the first block and the output of every block, as in transformers."""

    @classmethod
    def from_checkpoint(cls, checkpoint: str | None) -> TorchaudioBundle:
        """Loads NAME with weights that torchaudio downloads, or NAME@FILE.

        Raises: CheckpointError: no weights, or they do not fit. UnknownNameError: no bundle of that name.
        """
        if not checkpoint:
            raise CheckpointError("torchaudio: names no bundle: write torchaudio:HUBERT_BASE or another NAME[@FILE]")
        name, at, file = checkpoint.partition("@")
        bundle = _bundle(name)
        source = file if at else f"torchaudio:{name}"
        weights = read_torch(Path(file).expanduser()) if at else _downloaded(name, bundle)
        is_wavlm = bundle._model_type == "WavLM"
        settings = _settings(bundle._params)
        normalize = bool(bundle._normalize_waveform)
        network = _transformers_model.build(
            source, "wavlm" if is_wavlm else "wav2vec2", settings, _renamed(weights), normalize
        )
        return cls(network, name, {"model": settings, "wavlm": is_wavlm, "normalize": normalize})


def _bundle(name: str) -> Any:
    import torchaudio.pipelines

    kinds = torchaudio.pipelines.Wav2Vec2Bundle
    bundles = {key: value for key, value in vars(torchaudio.pipelines).items() if isinstance(value, kinds)}
    if name not in bundles:
        raise unknown_name("torchaudio bundle", name, bundles)
    return bundles[name]


def _downloaded(name: str, bundle: Any) -> dict[str, torch.Tensor]:
    url = WEIGHTS_URL + bundle._path
    try:
        weights: dict[str, torch.Tensor] = torch.hub.load_state_dict_from_url(
            url, map_location="cpu", progress=False, weights_only=True
        )
    except Exception as error:  # no network, a proxy, a full disk: whatever it is, there are no weights
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"torchaudio:{name}: can't download {url} ({reason}); fetch that file elsewhere and write "
            f"torchaudio:{name}@FILE"
        ) from None
    return weights


def _settings(params: Mapping[str, Any]) -> dict[str, Any]:
    dims, kernels, strides = zip(*params["extractor_conv_layer_config"], strict=True)
    settings = {
        "conv_dim": list(dims),
        "conv_kernel": list(kernels),
        "conv_stride": list(strides),
        "conv_bias": bool(params["extractor_conv_bias"]),
        "feat_extract_norm": params["extractor_mode"].removesuffix("_norm"),
        "do_stable_layer_norm": bool(params["encoder_layer_norm_first"]),
        "hidden_size": params["encoder_embed_dim"],
        "num_hidden_layers": params["encoder_num_layers"],
        "num_attention_heads": params["encoder_num_heads"],
        "intermediate_size": params["encoder_ff_interm_features"],
        "num_conv_pos_embeddings": params["encoder_pos_conv_kernel"],
        "num_conv_pos_embedding_groups": params["encoder_pos_conv_groups"],
    }
    if "encoder_num_buckets" in params:
        settings["num_buckets"] = params["encoder_num_buckets"]
        settings["max_bucket_distance"] = params["encoder_max_distance"]
    return settings


def _renamed(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    renamed: dict[str, torch.Tensor] = {}
    for name, tensor in weights.items():
        if name.startswith("aux."):  # the recogniser's output layer
            continue
        for pattern, replacement in NAMES:
            name = re.sub(pattern, replacement, name)
        if PACKED in name:
            stem, kind = name.split(PACKED)
            for part, piece in zip("qkv", tensor.chunk(3), strict=True):
                renamed[f"{stem}.attention.{part}_proj.{kind}"] = piece
        else:
            renamed[name] = tensor
    return renamed
