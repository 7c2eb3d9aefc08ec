"""What config.json and preprocessor_config.json of a checkpoint say, held against each other and what is computed here.

Sizes are held within bounds before a network of them is built: a slip in a file must not take all memory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from core.audio import SAMPLE_RATE
from core.errors import CheckpointError
from upstreams._bounds import MOST_LAYERS, MOST_MELS, MOST_OF_ANY, MOST_SAMPLES
from upstreams.pretrained._transformers_files import CONFIG, PREPROCESSOR
from upstreams.pretrained._transformers_kinds import CODEC, DAC, KINDS, MEL, NORMALISED_MEL, STACKED_MEL

# How outputs are handed over and by which kernels they are computed, which is decided here.
NOT_OURS = (
    "attn_implementation", "_attn_implementation", "_attn_implementation_internal", "_attn_implementation_autoset",
    "experts_implementation", "_experts_implementation", "output_attentions", "output_hidden_states", "return_dict",
    "use_return_dict", "torchscript", "auto_map", "use_cache", "gradient_checkpointing",
)  # fmt: skip
MOST = {  # setting -> largest value; those of the network's width are also held against the weights
    "num_hidden_layers": MOST_LAYERS,
    "encoder_layers": MOST_LAYERS,
    "decoder_layers": MOST_LAYERS,
    "num_adapter_layers": MOST_LAYERS,
    "num_labels": 100_000,
    "vocab_size": 100_000_000,  # of decoders, which are not built
    "encoder_num_hidden_layers": MOST_LAYERS,
    "decoder_num_hidden_layers": MOST_LAYERS,
    "num_residual_layers": 100,
    "num_lstm_layers": 100,
    "num_quantizers": 100,
    "n_codebooks": 100,
    "codebook_size": 100_000,
    "squeeze_factor": 100,
    "num_conv_pos_embeddings": 2_000,  # of data2vec it is a number of layers
    "max_source_positions": 100_000,
}
MOST_CONVOLUTIONS = 100
MOST_OF_EXTRACTOR = {  # setting of the feature extractor -> largest value
    "feature_size": MOST_MELS,
    "num_mel_bins": MOST_MELS,
    "hop_length": SAMPLE_RATE,
    "n_fft": SAMPLE_RATE,
    "win_length": SAMPLE_RATE,
    "chunk_length": 600,  # seconds, 30 in every Whisper
    "stride": 100,
}
RATES = ("sampling_rate", "sample_rate")


def model_type_of(spec: str, config: Mapping[str, Any]) -> str:
    """The kind of network, if it is one that can be used.

    Raises: CheckpointError: it is another kind, or not named.
    """
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in KINDS:
        raise CheckpointError(
            f"{spec}: {f'is a {model_type!r} model' if model_type else 'config.json names no model_type'}; supported "
            f"are {', '.join(KINDS)}. Others can be wrapped in a file of your own: FILE.py:CLASS"
        )
    return model_type


def settings_of_encoder(spec: str, model_type: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of config.json that has the encoder's settings, with what the kind needs.

    Raises: CheckpointError: there is no such part, or a setting has a value that can't be used.
    """
    kind = KINDS[model_type]
    part = config.get(kind.part) if kind.part else config
    if not isinstance(part, Mapping):
        raise CheckpointError(f"{spec}: {CONFIG} has no {kind.part} with the settings of the encoder; fetch it again")
    for name, (values, reason) in kind.needed.items():
        if part.get(name, values[0]) not in values:
            raise CheckpointError(
                f"{spec}: {CONFIG} has {name} = {part[name]!r:.60}, must be {' or '.join(map(repr, values))}: {reason}"
            )
    quantised = {name: config[name] for name in ("quantization_config",) if name in config}
    return {**part, **quantised}


def plain_config(spec: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the network alone, within bounds.

    Raises: CheckpointError: weights are quantised, or a size is out of bounds.
    """
    if config.get("quantization_config"):
        raise CheckpointError(
            f"{spec}: {CONFIG} has a quantization_config: quantised weights can't be used; "
            f"save the model in float32, float16 or bfloat16"
        )
    for name, value in config.items():
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, int) and not isinstance(part, bool) and abs(part) > MOST.get(name, MOST_OF_ANY):
                raise _out_of_bounds(spec, name, part, f"at most {MOST.get(name, MOST_OF_ANY):,}")
    _require_bounded_convolutions(spec, config)
    return {name: value for name, value in config.items() if name not in NOT_OURS}


def _require_bounded_convolutions(spec: str, config: Mapping[str, Any]) -> None:
    for name in ("conv_dim", "conv_kernel", "conv_stride"):
        values = config.get(name, [1])
        fit = isinstance(values, list) and all(isinstance(value, int) and value >= 1 for value in values)
        if not fit or not 1 <= len(values) <= MOST_CONVOLUTIONS:
            raise _out_of_bounds(spec, name, values, f"1 to {MOST_CONVOLUTIONS} whole numbers above 0")
    kernels, strides = config.get("conv_kernel", [1]), config.get("conv_stride", [1])
    samples = 1  # that a frame reads
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=False):
        samples = (samples - 1) * stride + kernel
    if max(samples, math.prod(strides)) > MOST_SAMPLES:
        raise _out_of_bounds(spec, "conv_stride", strides, f"such that a frame has at most {MOST_SAMPLES:,} samples")


def _out_of_bounds(spec: str, name: str, value: object, bounds: str) -> CheckpointError:
    shown = f"{value!r:.60}"
    return CheckpointError(f"{spec}: {CONFIG} has {name} = {shown}, must be {bounds}; the file is damaged")


def require_fitting_extractor(
    spec: str, model_type: str, config: Mapping[str, Any], preprocessor: Mapping[str, Any]
) -> None:
    """Refuses a feature extractor that gives the network something else than it was trained on.

    Raises: CheckpointError: it is another model's, of another sampling rate, or other sizes.
    """
    kind = KINDS[model_type]
    wanted, found = kind.extractor, preprocessor.get("feature_extractor_type") or kind.extractor
    if found != wanted:
        raise CheckpointError(
            f"{spec}: {PREPROCESSOR} is of a {found}, a {model_type} model needs a {wanted}: "
            f"it belongs to another model"
        )
    _require_rate(spec, kind.rates, config, preprocessor)
    bins = {
        MEL: config.get("num_mel_bins", 80),
        NORMALISED_MEL: config.get("num_mel_bins", 80),
        STACKED_MEL: preprocessor.get("num_mel_bins", 80),
    }.get(wanted, 1)
    size = preprocessor.get("feature_size", 80 if wanted in (MEL, NORMALISED_MEL, STACKED_MEL) else 1)
    if size != bins:
        unit = "value a sample" if bins == 1 else "mel bins"
        raise CheckpointError(
            f"{spec}: {CONFIG} has {bins} {unit}, {PREPROCESSOR} {size}: they are of different models"
        )
    _require_plain_extraction(spec, preprocessor)
    if wanted == MEL:
        _require_whole_window(spec, config, preprocessor)
    if wanted == STACKED_MEL:
        _require_stacked_width(spec, config, preprocessor)
    if wanted in (NORMALISED_MEL, CODEC, DAC) and preprocessor.get("padding_side", "right") != "right":
        raise CheckpointError(f"{spec}: {PREPROCESSOR} pads on the left, which would move the frames")


def _require_rate(
    spec: str, known: tuple[int, ...], config: Mapping[str, Any], preprocessor: Mapping[str, Any]
) -> None:
    """Both files say the same rate, if any, and it is one that the kind may be of."""
    said = None
    for file, settings in ((PREPROCESSOR, preprocessor), (CONFIG, config)):
        for rate in [settings[name] for name in RATES if settings.get(name) is not None]:
            shown = f"{rate:,} Hz" if isinstance(rate, int | float) else repr(rate)
            if rate not in known:
                given = ", ".join(f"{each:,}" for each in known)
                raise CheckpointError(
                    f"{spec}: the model wants {shown} ({file}), Frostbench gives {given} Hz: it can't be used"
                )
            if said not in (None, rate):
                raise CheckpointError(f"{spec}: {PREPROCESSOR} says {said:,} Hz, {CONFIG} {shown}: of different models")
            said = rate


def _require_plain_extraction(spec: str, preprocessor: Mapping[str, Any]) -> None:
    for name in ("do_normalize", "return_attention_mask"):
        if not isinstance(preprocessor.get(name, True), bool | None):
            raise CheckpointError(f"{spec}: {PREPROCESSOR} has {name} = {preprocessor[name]!r}, must be true or false")
    for name, most in MOST_OF_EXTRACTOR.items():
        value = preprocessor.get(name, 1)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            raise CheckpointError(f"{spec}: {PREPROCESSOR} has {name} = {value!r:.60}, must be from 1 to {most:,}")


def _require_whole_window(spec: str, config: Mapping[str, Any], preprocessor: Mapping[str, Any]) -> None:
    if preprocessor.get("n_fft", 400) % 2:
        raise CheckpointError(
            f"{spec}: {PREPROCESSOR} has n_fft = {preprocessor['n_fft']}, must be even: of an odd one the window has "
            f"a frame less than the network reads"
        )
    seconds, hop = preprocessor.get("chunk_length", 30), preprocessor.get("hop_length", 160)
    for name in ("dither", "padding_value"):
        if preprocessor.get(name, 0) != 0:
            raise CheckpointError(f"{spec}: {PREPROCESSOR} has {name} = {preprocessor[name]!r}, only 0 can be used")
    if preprocessor.get("padding_side", "right") != "right":
        raise CheckpointError(f"{spec}: {PREPROCESSOR} pads on the left, which would move the frames")
    frames, positions = seconds * SAMPLE_RATE // (2 * hop), config.get("max_source_positions", 1_500)
    if frames != positions:
        raise CheckpointError(
            f"{spec}: {PREPROCESSOR} gives {frames:,} frames (chunk_length {seconds}, hop_length {hop}), "
            f"{CONFIG} has max_source_positions {positions}: they are of different models"
        )


def _require_stacked_width(spec: str, config: Mapping[str, Any], preprocessor: Mapping[str, Any]) -> None:
    width = preprocessor.get("num_mel_bins", 80) * preprocessor.get("stride", 2)
    if width != config.get("feature_projection_input_dim", 160):
        raise CheckpointError(
            f"{spec}: {PREPROCESSOR} gives {width} values a frame, {CONFIG} has feature_projection_input_dim "
            f"{config.get('feature_projection_input_dim', 160)}: they are of different models"
        )
