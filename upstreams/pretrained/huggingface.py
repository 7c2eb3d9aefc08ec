"""Any Hugging Face speech encoder, by hub id or local folder: `hf:ORG/NAME`, `hf:./folder`.

wav2vec 2.0, HuBERT, WavLM, data2vec-audio, UniSpeech and Whisper's encoder. Whether a waveform is normalised is read
from the checkpoint's own preprocessor configuration. Remote code is never run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from core.errors import CheckpointError
from upstreams._base import UpstreamCard, register_upstream
from upstreams._encoders.conv_transformer import MODEL_TYPES, ConvTransformer
from upstreams._encoders.network import NetworkUpstream
from upstreams.pretrained._whisper import WhisperEncoder

# Training-time tensors that checkpoints may lack: they mask inputs and play no part here.
UNUSED_TENSORS = {"masked_spec_embed"}


@register_upstream(
    UpstreamCard(
        name="hf",
        title="Hugging Face speech encoder: hf:ID_OR_FOLDER",
        paper="wav2vec 2.0 arXiv:2006.11477, HuBERT arXiv:2106.07447, WavLM arXiv:2110.13900, "
        "data2vec arXiv:2202.03555, Whisper arXiv:2212.04356",
    )
)
class HuggingFaceUpstream(NetworkUpstream):
    """Hidden states are the input of the first block and the output of every block."""

    @classmethod
    def from_checkpoint(cls, checkpoint: str | None) -> HuggingFaceUpstream:
        """Loads a folder written by `save_pretrained`, or a repository of the hub.

        Raises: CheckpointError: missing, incomplete or of an unsupported kind.
        """
        if not checkpoint:
            raise CheckpointError("hf: names no checkpoint: write hf:ORG/NAME or hf:FOLDER")
        return from_transformers(checkpoint)


def from_transformers(checkpoint: str) -> HuggingFaceUpstream:
    """Builds the upstream from a folder or hub id.

    Raises: CheckpointError: missing, incomplete or of an unsupported kind.
    """
    # Imported here: transformers takes seconds, and most commands never load a checkpoint of it.
    import transformers

    if checkpoint.startswith((".", "/", "~")) and not Path(checkpoint).expanduser().is_dir():
        raise CheckpointError(f"hf:{checkpoint}: no such folder; correct the path")
    source = str(Path(checkpoint).expanduser()) if Path(checkpoint).expanduser().is_dir() else checkpoint
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        config = transformers.AutoConfig.from_pretrained(source)
        _require_supported(checkpoint, config.model_type)
        extractor = transformers.AutoFeatureExtractor.from_pretrained(source)
        model, info = transformers.AutoModel.from_pretrained(
            source, config=config, dtype=torch.float32, output_loading_info=True
        )
    except CheckpointError:
        raise
    except Exception as error:  # transformers raises many kinds for one cause: this is no usable checkpoint
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckpointError(
            f"hf:{checkpoint}: can't be loaded ({reason[0]}); needed are config.json, preprocessor_config.json "
            f"and model.safetensors, in a folder or on the hub"
        ) from error
    lacking = [
        name
        for name in info["missing_keys"]
        if name.split(".")[-1] not in UNUSED_TENSORS and not name.startswith("decoder.")
    ]
    if lacking:
        raise CheckpointError(
            f"hf:{checkpoint}: weights lack {len(lacking)} tensors of a {config.model_type} model, "
            f"such as {sorted(lacking)[0]}; it is a checkpoint of another architecture or not whole"
        )
    settings = {"model": _without_provenance(config.to_dict()), "preprocessor": extractor.to_dict()}
    network: ConvTransformer | WhisperEncoder
    if config.model_type == "whisper":
        network = WhisperEncoder(model, extractor)
    else:
        network = ConvTransformer(model, bool(extractor.do_normalize))
    return HuggingFaceUpstream(network, Path(source).name, settings)


def _require_supported(checkpoint: str, model_type: str) -> None:
    supported = (*MODEL_TYPES, "whisper")
    if model_type not in supported:
        raise CheckpointError(
            f"hf:{checkpoint}: is a '{model_type}' model; supported are {', '.join(supported)}. "
            f"Others can be wrapped in a file of your own: FILE.py:CLASS"
        )


def _without_provenance(config: dict[str, Any]) -> dict[str, Any]:
    """The settings that shape the output: who saved the file and with which version does not."""
    return {key: value for key, value in config.items() if key not in {"_name_or_path", "transformers_version"}}
