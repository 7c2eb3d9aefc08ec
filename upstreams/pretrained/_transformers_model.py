"""Weights of wav2vec 2.0's family from elsewhere, put into the transformers model of the same network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from core.errors import CheckpointError
from upstreams._encoders.conv_transformer import ConvTransformer

EPSILON = 1e-5  # of the waveform's normalisation: fairseq and torchaudio call torch's layer_norm


def build(
    source: str, model_type: str, settings: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], normalize: bool
) -> ConvTransformer:
    """The encoder with these weights.

    Args:
        source: what messages call the checkpoint.
        model_type: wav2vec2, hubert or wavlm.
        settings: keywords of the transformers configuration.
        tensors: weights by their names in transformers.
        normalize: whether a waveform is brought to zero mean and unit variance first.

    Raises: CheckpointError: the weights do not fit the settings.
    """
    # Imported here: transformers takes seconds, and most commands never load a checkpoint of it.
    import transformers

    classes = {
        "wav2vec2": (transformers.Wav2Vec2Config, transformers.Wav2Vec2Model),
        "hubert": (transformers.HubertConfig, transformers.HubertModel),
        "wavlm": (transformers.WavLMConfig, transformers.WavLMModel),
    }
    config_class, model_class = classes[model_type]
    # Without masking in time and features there is no mask embedding, which files may lack.
    config = config_class(**settings, mask_time_prob=0.0, mask_feature_prob=0.0, layerdrop=0.0)
    model = model_class(config)
    load(source, model, tensors)
    return ConvTransformer(model.eval(), normalize, EPSILON)


def load(source: str, model: torch.nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Loads all weights and no others.

    Raises: CheckpointError: names or shapes do not fit.
    """
    own = model.state_dict()
    lacking = sorted(set(own) - set(tensors))
    foreign = sorted(set(tensors) - set(own))
    if lacking or foreign:
        raise CheckpointError(
            f"{source}: weights do not fit the settings: {len(lacking)} tensors are missing{_such_as(lacking)}, "
            f"{len(foreign)} are not known{_such_as(foreign)}; it is a checkpoint of another architecture or not whole"
        )
    for name, tensor in own.items():
        if tensor.shape != tensors[name].shape:
            raise CheckpointError(
                f"{source}: {name} has shape {tuple(tensors[name].shape)}, the settings ask for {tuple(tensor.shape)}; "
                f"settings and weights are of different models"
            )
    model.load_state_dict(dict(tensors))


def _such_as(names: list[str]) -> str:
    return f" (such as {names[0]})" if names else ""
