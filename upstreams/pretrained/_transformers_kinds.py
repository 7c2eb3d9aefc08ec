"""The speech encoders of transformers that can be used, as a table: network, what it reads, where its weights are.

A new kind is an entry here, where one of the wrappers fits it; else a wrapper of its own beside it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from core.audio import SAMPLE_RATE
from upstreams._encoders.conv_transformer import ConvTransformer
from upstreams._encoders.network import Network
from upstreams.pretrained import _codecs, _each_alone
from upstreams.pretrained._whisper import WhisperEncoder

WAVEFORMS, MEL, STACKED_MEL = "Wav2Vec2FeatureExtractor", "WhisperFeatureExtractor", "SeamlessM4TFeatureExtractor"
NORMALISED_MEL, CODEC, DAC = "ParakeetFeatureExtractor", "EncodecFeatureExtractor", "DacFeatureExtractor"


def _batched(model: Any, extractor: Any) -> Network:
    return ConvTransformer(model, bool(extractor.do_normalize))


@dataclass(frozen=True)
class Kind:
    """One kind of encoder.

    Attributes:
        config: its configuration's class in transformers.
        network: its class, there or by the path of a module; given the configuration.
        extractor: its feature extractor in transformers.
        wrap: network and feature extractor -> what stands behind an upstream.
        prefixes: what may stand before the encoder's names in files, the first that is found; of other networks the
            name that transformers has for them.
        whole: whether names without a prefix can be the encoder's.
        part: of config.json which has the encoder's settings; all of it if empty.
        rates: sample rates in hertz that it may be of.
        needed: settings that have to have one of these values, and why.
    """

    config: str
    network: str
    extractor: str = WAVEFORMS
    wrap: Callable[[Any, Any], Network] = _batched
    prefixes: tuple[str, ...] | None = None
    whole: bool = True
    part: str = ""
    rates: tuple[int, ...] = (SAMPLE_RATE,)
    needed: Mapping[str, tuple[tuple[Any, ...], str]] = field(default_factory=dict)

    def network_class(self) -> Any:
        """The class that is given a configuration."""
        module, _, name = self.network.rpartition(".")
        return getattr(importlib.import_module(module or "transformers"), name)


BEHIND_A_DECODER = ("model.encoder.", "encoder.")  # with a head on all of it, and without one
MONO = {"audio_channels": ((1,), "recordings are given in mono")}
CODEC_RATES = (16_000, 24_000, 32_000, 44_100, 48_000)


def _parakeet(part: str) -> Kind:
    return Kind(
        "ParakeetEncoderConfig",
        "transformers.models.parakeet.modeling_parakeet.ParakeetEncoder",
        NORMALISED_MEL,
        _each_alone.of_normalised_mel,
        prefixes=("encoder.",),
        whole=not part,
        part=part,
    )


KINDS: Mapping[str, Kind] = {  # by model_type
    "wav2vec2": Kind("Wav2Vec2Config", "Wav2Vec2Model"),
    "hubert": Kind("HubertConfig", "HubertModel"),
    "wavlm": Kind("WavLMConfig", "WavLMModel"),
    "data2vec-audio": Kind("Data2VecAudioConfig", "Data2VecAudioModel"),
    "unispeech": Kind("UniSpeechConfig", "UniSpeechModel"),
    "unispeech-sat": Kind("UniSpeechSatConfig", "UniSpeechSatModel"),
    "wav2vec2-conformer": Kind(
        "Wav2Vec2ConformerConfig", "Wav2Vec2ConformerModel", wrap=_each_alone.of_waveforms
    ),
    "sew": Kind("SEWConfig", "SEWModel", wrap=_each_alone.of_waveforms),
    "sew-d": Kind("SEWDConfig", "SEWDModel", wrap=_each_alone.of_waveforms),
    "wav2vec2-bert": Kind("Wav2Vec2BertConfig", "Wav2Vec2BertModel", STACKED_MEL, _each_alone.of_stacked_mel),
    "whisper": Kind(
        "WhisperConfig",
        "transformers.models.whisper.modeling_whisper.WhisperEncoder",
        MEL,
        WhisperEncoder,
        prefixes=BEHIND_A_DECODER,
        whole=False,
    ),
    "moonshine": Kind(
        "MoonshineConfig",
        "transformers.models.moonshine.modeling_moonshine.MoonshineEncoder",
        wrap=_each_alone.of_moonshine,
        prefixes=BEHIND_A_DECODER,
        whole=False,
    ),
    "parakeet_encoder": _parakeet(""),
    "parakeet_ctc": _parakeet("encoder_config"),
    "parakeet_rnnt": _parakeet("encoder_config"),
    "parakeet_tdt": _parakeet("encoder_config"),
    "encodec": Kind(
        "EncodecConfig", f"{_codecs.__name__}.EncodecStates", CODEC, _codecs.of_encodec,
        prefixes=(), rates=CODEC_RATES, needed={
            **MONO,
            "chunk_length_s": ((None,), "it reads chunks that overlap, whose frames are of no one place"),
            "normalize": ((False,), "it divides each chunk by its loudness"),
        },
    ),
    "dac": Kind(
        "DacConfig", f"{_codecs.__name__}.DacStates", DAC, _codecs.of_dac, prefixes=(), rates=CODEC_RATES
    ),
    "mimi": Kind(
        "MimiConfig", f"{_codecs.__name__}.MimiStates", CODEC, _codecs.of_encodec,
        prefixes=(), rates=CODEC_RATES, needed={
            **MONO,
            "use_streaming": ((False,), "a recording is read as a whole"),
        },
    ),
}  # fmt: skip
