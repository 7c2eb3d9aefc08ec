"""s3prl's masked-reconstruction transformers: Mockingjay (arXiv:1910.12638) and TERA (arXiv:2007.06028).

BERT's blocks on spectral frames. An input of more than `sequence_length` frames is cut into about equal chunks that run
on their own, positions starting anew: s3prl counts the frames of the padded batch, here each utterance counts its own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from core.errors import CheckpointError
from core.hidden_states import HiddenStates
from core.lengths import pad, padding_mask, unpad
from upstreams._base import full_precision
from upstreams._bounds import MOST_LAYERS, number_within, size_within, without_memory
from upstreams._weight_files import load_exactly, require_fitting
from upstreams.pretrained._preprocessor import FrontEnd, front_end

ACTIVATIONS: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "gelu": functional.gelu,
    "relu": functional.relu,
    "swish": functional.silu,
}
BLOCK = r"^encoder\.layer\.(\d+)\."
NAMES: tuple[tuple[str, str], ...] = (
    (r"gamma$", "weight"),  # TensorFlow's words, in old files
    (r"beta$", "bias"),
    (r"^input_representations\.spec_transform\.", "spec_transform."),
    (r"^input_representations\.LayerNorm\.", "input_norm."),
    (r"^encoder\.LayerNorm\.(\d+)\.", r"norms.\1."),
    (BLOCK + r"attention\.output\.dense\.", r"blocks.\1.self_attn.out_proj."),
    (BLOCK + r"attention\.output\.LayerNorm\.", r"blocks.\1.norm1."),
    (BLOCK + r"intermediate\.dense\.", r"blocks.\1.linear1."),
    (BLOCK + r"output\.dense\.", r"blocks.\1.linear2."),
    (BLOCK + r"output\.LayerNorm\.", r"blocks.\1.norm2."),
)
ALIASES = re.compile(BLOCK + r"(attention\.)?LayerNorm\.")  # second names of the same tensors, with pre_layer_norm
PROJECTIONS = ("query", "key", "value")


@dataclass(frozen=True)
class TransformerSettings:
    """What a checkpoint says of its network, in s3prl's words where they are the same."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    hidden_act: str
    layer_norm_eps: float
    pre_layer_norm: bool
    share_layer: bool
    sequence_length: int


class S3PRLTransformer(nn.Module):
    """Hidden states are the input of the first block and the output of every block: num_hidden_layers + 1.

    Args:
        settings: sizes.
        features: the front end.
        input_size: width of its features.
    """

    window_samples = 1

    def __init__(self, settings: TransformerSettings, features: FrontEnd, input_size: int) -> None:
        super().__init__()
        self.settings = settings
        self.features = features
        self.num_layers = settings.num_hidden_layers + 1
        self.hidden_size = settings.hidden_size
        self.downsample_rate = features.hop_length
        self.min_samples = features.min_samples
        self.spec_transform = nn.Linear(input_size, settings.hidden_size)
        self.input_norm = nn.LayerNorm(settings.hidden_size, eps=settings.layer_norm_eps)
        count = settings.num_hidden_layers
        shared = self._block()
        self.blocks = nn.ModuleList(shared if settings.share_layer else self._block() for _ in range(count))
        # Only pre-norm networks have them; they act on what is reported, not on what the next block reads.
        norms = count + 1 if settings.pre_layer_norm else 0
        self.norms = nn.ModuleList(
            nn.LayerNorm(settings.hidden_size, eps=settings.layer_norm_eps) for _ in range(norms)
        )

    def _block(self) -> nn.TransformerEncoderLayer:
        settings = self.settings
        return nn.TransformerEncoderLayer(
            settings.hidden_size,
            settings.num_attention_heads,
            settings.intermediate_size,
            activation=ACTIVATIONS[settings.hidden_act],
            layer_norm_eps=settings.layer_norm_eps,
            norm_first=settings.pre_layer_norm,
            batch_first=True,
        )

    def frame_lengths(self, wav_lengths: torch.Tensor) -> torch.Tensor:
        """See Upstream.frame_lengths."""
        return self.features.frame_lengths(wav_lengths)

    def encode(self, wavs: torch.Tensor, wav_lengths: torch.Tensor) -> HiddenStates:
        """See Upstream.encode."""
        with full_precision(wavs):
            chunks = [self._chunks(self.features(wav)) for wav in unpad(wavs, wav_lengths)]
        frames, lengths = pad([chunk for parts in chunks for chunk in parts])
        states = torch.stack(self._layers(frames, lengths.to(frames.device)), dim=2)
        pieces = iter(unpad(states, lengths))  # each (frames, num_layers, hidden_size)
        joined, _ = pad([torch.cat([next(pieces) for _ in parts]) for parts in chunks])
        return HiddenStates(joined.unbind(dim=2), self.frame_lengths(wav_lengths))

    def _chunks(self, features: torch.Tensor) -> tuple[torch.Tensor, ...]:
        most = self.settings.sequence_length
        if most <= 0 or len(features) <= most:
            return (features,)
        return features.chunk(math.ceil(len(features) / most))

    def _layers(self, frames: torch.Tensor, lengths: torch.Tensor) -> list[torch.Tensor]:
        positions = _sinusoids(frames.shape[1], self.hidden_size).to(frames)
        hidden = self.input_norm(self.spec_transform(frames) + positions)
        mask = padding_mask(lengths, frames.shape[1])
        layers = [hidden]
        for block in self.blocks:
            layers.append(block(layers[-1], src_key_padding_mask=mask))
        if self.norms:
            return [norm(layer) for norm, layer in zip(self.norms, layers, strict=True)]
        return layers


def _sinusoids(length: int, size: int) -> torch.Tensor:
    """Positions (length, size): even columns sine, odd ones cosine; in double precision, as s3prl's table is."""
    columns = torch.arange(size)
    rates = 10_000.0 ** (-(2 * (columns // 2)).double() / size)
    angles = torch.arange(length).double()[:, None] * rates
    return torch.where(columns % 2 == 0, angles.sin(), angles.cos())


def build(
    source: str, config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]
) -> tuple[S3PRLTransformer, dict[str, Any]]:
    """The network of a Mockingjay or TERA file, and all that shapes its output besides the weights.

    Args:
        source: what messages call the checkpoint.
        config: its upstream settings: transformer, audio and task.
        tensors: its state dict `Transformer`.

    Raises: CheckpointError: a setting is missing or not supported, or the weights do not fit.
    """
    settings = _settings(source, config)
    features = front_end(source, config["audio"])
    renamed = _renamed(source, tensors)
    input_size = renamed["spec_transform.weight"].shape[1] if "spec_transform.weight" in renamed else 0
    width = features(torch.ones(features.min_samples + features.hop_length)).shape[1]
    if input_size not in (0, width):
        raise CheckpointError(
            f"{source}: the audio settings give {width} features a frame, the weights read {input_size}; "
            f"settings and weights are of different models"
        )
    # The front end has no weights, and its filters are looked at as they are made, which needs their content.
    shapes = without_memory(source, lambda: S3PRLTransformer(settings, features, width)).state_dict()
    require_fitting(source, shapes, renamed)
    network = S3PRLTransformer(settings, features, width)
    load_exactly(source, network, renamed)
    return network, {"kind": "transformer", "model": asdict(settings), "audio": config["audio"]}


def _settings(source: str, config: Mapping[str, Any]) -> TransformerSettings:
    missing = [section for section in ("transformer", "audio", "task") if section not in config]
    if missing:
        raise CheckpointError(
            f"{source}: the upstream settings lack {', '.join(missing)} (found: {', '.join(map(str, config))}); "
            f"checkpoints whose features are computed elsewhere can't be used"
        )
    network = config["transformer"]
    settings = TransformerSettings(
        hidden_size=size_within(source, "hidden_size", network["hidden_size"]),
        num_hidden_layers=size_within(source, "num_hidden_layers", network["num_hidden_layers"], MOST_LAYERS),
        num_attention_heads=size_within(source, "num_attention_heads", network["num_attention_heads"]),
        intermediate_size=size_within(source, "intermediate_size", network["intermediate_size"]),
        hidden_act=str(network["hidden_act"]),
        layer_norm_eps=number_within(source, "layer_norm_eps", float(network["layer_norm_eps"]), 0, 1),
        # Files from before these options were there have neither: s3prl can't load them, their meaning is plain.
        pre_layer_norm=bool(network.get("pre_layer_norm", False)),
        share_layer=bool(network.get("share_layer", False)),
        sequence_length=int(config["task"]["sequence_length"]),
    )
    if settings.hidden_act not in ACTIVATIONS:
        raise CheckpointError(f"{source}: hidden_act is {settings.hidden_act!r}, known: {', '.join(ACTIVATIONS)}")
    return settings


def _renamed(source: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    renamed: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        if ALIASES.match(name):
            continue
        for pattern, replacement in NAMES:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    for layer in sorted({match[1] for name in renamed if (match := re.match(BLOCK + r"attention\.self", name))}):
        for kind in ("weight", "bias"):
            names = [f"encoder.layer.{layer}.attention.self.{projection}.{kind}" for projection in PROJECTIONS]
            if not all(name in renamed for name in names):
                raise CheckpointError(f"{source}: weights lack one of {', '.join(names)}; the file is not whole")
            renamed[f"blocks.{layer}.self_attn.in_proj_{kind}"] = torch.cat([renamed.pop(name) for name in names])
    return renamed
