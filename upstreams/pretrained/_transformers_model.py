"""Weights of wav2vec 2.0's family from elsewhere, put into the transformers model of the same network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from upstreams._bounds import without_memory
from upstreams._encoders.conv_transformer import ConvTransformer
from upstreams._weight_files import load_exactly, require_fitting

EPSILON = 1e-5  # of the waveform's normalisation: fairseq and torchaudio call torch's layer_norm


def build(
    source: str, model_type: str, settings: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], normalize: bool
) -> ConvTransformer:
    """The encoder with these weights.

    Args:
        source: what messages call the checkpoint.
        model_type: wav2vec2, hubert, wavlm or data2vec-audio.
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
        "data2vec-audio": (transformers.Data2VecAudioConfig, transformers.Data2VecAudioModel),
    }
    config_class, model_class = classes[model_type]
    # Without masking in time and features there is no mask embedding, which files may lack.
    config = config_class(**settings, mask_time_prob=0.0, mask_feature_prob=0.0, layerdrop=0.0)
    require_fitting(source, without_memory(source, lambda: model_class(config)).state_dict(), tensors)
    model = model_class(config)
    load_exactly(source, model, tensors)
    return ConvTransformer(model.eval(), normalize, EPSILON)
