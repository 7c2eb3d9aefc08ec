"""Any Hugging Face speech encoder, by hub id or local folder: `hf:ORG/NAME`, `hf:./folder`, with `@adapter.fra` of MMS.

wav2vec 2.0, its Conformer, HuBERT, WavLM, data2vec-audio, UniSpeech, SEW, w2v-BERT 2.0, the encoders of Whisper,
Moonshine and Parakeet, the codecs EnCodec, DAC and Mimi: `_transformers_kinds.py` has the table. Whether a
waveform is normalised is read from the checkpoint's own preprocessor configuration. A checkpoint that says something
else than what is computed here is refused. Code that a checkpoint brings is never run, and nothing asks for it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from core.errors import CheckpointError
from core.fingerprints import Fingerprint
from upstreams._base import UpstreamCard, register_upstream
from upstreams._bounds import require_short_frames, without_memory
from upstreams._encoders.network import NetworkUpstream
from upstreams._encoders.notes import heard_by_folder
from upstreams._weight_files import load_exactly, such_as
from upstreams.pretrained._transformers_files import MERGE, CheckpointFiles, unusable
from upstreams.pretrained._transformers_kinds import KINDS, Kind
from upstreams.pretrained._transformers_settings import (
    model_type_of,
    plain_config,
    require_fitting_extractor,
    settings_of_encoder,
)

# Training-time tensors that checkpoints may lack or have: they mask inputs, count batches, and play no part here.
UNUSED_TENSORS = {"masked_spec_embed", "num_batches_tracked"}
# What pre-training and fine-tuning put on an encoder, in files whose encoder has no prefix.
HEADS = re.compile(
    r"(lm_head|ctc_proj|classifier|projector|tdnn|objective|layer_weights|quantizer|project_hid|project_q"
    r"|dropout_features|final_proj|label_embeddings_concat|speaker_proj|adapter|decoder|proj_out|ctc_head|joint"
    r"|encoder_projector|decoder_transformer|downsample|upsample)(\.|$)"
)
# torch's two names of a weight norm: of old files, and of the parametrization that stands in its place.
WEIGHT_NORM = ((".weight_g", ".parametrizations.weight.original0"), (".weight_v", ".parametrizations.weight.original1"))
# Of MMS: a pair of small layers in each block, of which there is a file a language.
ADAPTER_FILE, ADAPTER_LAYER = "adapter.", ".adapter_layer."
# Of peft: low-rank updates, and the layers that they stand beside, which then have another name.
ADAPTER_PARTS = re.compile(
    r"(\.|^)(lora_(A|B|E|embedding_A|embedding_B|magnitude_vector)|base_layer|ia3_l|hada_w\d_.)(\.|$)"
)


@register_upstream(
    UpstreamCard(
        name="hf",
        title="Hugging Face speech encoder: hf:ID_OR_FOLDER",
        paper="wav2vec 2.0 arXiv:2006.11477, HuBERT arXiv:2106.07447, WavLM arXiv:2110.13900, "
        "data2vec arXiv:2202.03555, Whisper arXiv:2212.04356, Moonshine arXiv:2410.15608, Parakeet arXiv:2305.05084, "
        "EnCodec arXiv:2210.13438, DAC arXiv:2306.06546, Mimi arXiv:2410.00037",
    )
)
class HuggingFaceUpstream(NetworkUpstream):
    """Hidden states are the input of the first block and the output of every block."""

    @classmethod
    def heard_in_pretraining(cls, checkpoint: str | None) -> Mapping[str, Fingerprint]:
        """See Upstream.heard_in_pretraining; of the folders that there are, those tell that `pretrain` wrote."""
        return {} if checkpoint is None else heard_by_folder(Path(checkpoint).expanduser())

    @classmethod
    def from_checkpoint(cls, checkpoint: str | None) -> HuggingFaceUpstream:
        """Loads a folder written by `save_pretrained`, or a repository of the hub.

        Raises: CheckpointError: missing, incomplete or of an unsupported kind.
        """
        if not checkpoint:
            raise CheckpointError("hf: names no checkpoint: write hf:ORG/NAME or hf:FOLDER")
        return from_transformers(checkpoint)

    def configuration(self) -> Mapping[str, Any]:
        """See NetworkUpstream.configuration.

        Raises: CheckpointError: its settings make a network that computes nothing.
        """
        try:
            return super().configuration()
        except Exception as error:  # of transformers, which reads some settings as late as this
            raise unusable(f"hf:{self.label}", error) from error


def from_transformers(checkpoint: str) -> HuggingFaceUpstream:
    """Builds the upstream from a folder or hub id.

    Raises: CheckpointError: missing, incomplete, of an unsupported kind, or settings and weights of different models.
    """
    # Imported here: transformers takes seconds, and most commands never load a checkpoint of it.
    import transformers

    spec = f"hf:{checkpoint}"
    source, adapter = _parts(checkpoint)
    if source.startswith((".", "/", "~")) and not Path(source).expanduser().is_dir():
        raise CheckpointError(f"{spec}: no such folder; correct the path")
    source = str(Path(source).expanduser()) if Path(source).expanduser().is_dir() else source
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    files = CheckpointFiles(spec, source)
    written = files.config()
    model_type = model_type_of(spec, written)
    kind = KINDS[model_type]
    preprocessor = files.preprocessor()
    written = settings_of_encoder(spec, model_type, written)
    require_fitting_extractor(spec, model_type, written, preprocessor)
    written = plain_config(spec, written)
    try:
        config = getattr(transformers, kind.config).from_dict(written)
        config.dtype = torch.float32  # whatever the file holds
        extractor = getattr(transformers, kind.extractor).from_dict(preprocessor)
        tensors, ours = files.tensors(), {} if adapter is None else files.adapter(adapter)
        model, left_out = _model(spec, model_type, config, tensors, ours)
        network = kind.wrap(model, extractor)
        require_short_frames(spec, network)
    except CheckpointError:
        raise
    except Exception as error:  # transformers raises many kinds for one cause: this is no usable checkpoint
        raise unusable(spec, error) from error
    settings = {"model": _without_provenance(config.to_dict()), "preprocessor": extractor.to_dict()}
    label = Path(source).name if adapter is None else f"{Path(source).name}@{adapter}"
    upstream = HuggingFaceUpstream(network, label, settings)
    if left_out:
        upstream.remark = (
            f"{spec}: {len(left_out)} tensors of its file{such_as(left_out)} lie beside the encoder and are left out "
            f"as a head's"
        )
    return upstream


def _parts(checkpoint: str) -> tuple[str, str | None]:
    """The folder or hub id, and the name of an adapter's file that stands behind it: ORG/NAME@adapter.LANGUAGE."""
    source, at, name = checkpoint.rpartition("@")
    if not at or not name.startswith(ADAPTER_FILE) or Path(checkpoint).expanduser().is_dir():
        return checkpoint, None
    return source, name


def _model(
    spec: str,
    model_type: str,
    config: Any,
    tensors: Mapping[str, torch.Tensor],
    adapter: Mapping[str, torch.Tensor],
) -> tuple[torch.nn.Module, list[str]]:
    """transformers' network with exactly these weights, in evaluation mode, and what is left out as a head unheard of.

    Raises: CheckpointError: weights and network do not fit.
    """
    kind: Kind = KINDS[model_type]
    network = kind.network_class()
    shapes = without_memory(spec, lambda: network(config)).state_dict()
    prefixes = (f"{network.base_model_prefix}.",) if kind.prefixes is None else kind.prefixes
    _require_no_adapter(spec, tensors)
    taken, left_out = _taken(spec, tensors, shapes, prefixes, whole=kind.whole)
    taken |= _of_adapter(spec, adapter, shapes, prefixes)
    lacking = {key for key in set(shapes) - set(taken) if key.split(".")[-1] not in UNUSED_TENSORS}
    if lacking:
        raise CheckpointError(
            f"{spec}: weights lack {len(lacking)} tensors of a {model_type} model{such_as(lacking)}; "
            f"it is a checkpoint of another architecture or not whole{_adapters_hint(spec, lacking)}"
        )
    for key, tensor in taken.items():
        if tensor.shape != shapes[key].shape:
            raise CheckpointError(
                f"{spec}: {key} has shape {tuple(tensor.shape)} in the file, config.json asks for "
                f"{tuple(shapes[key].shape)}: settings and weights are of different models"
            )
    model: torch.nn.Module = network(config)
    unused = {key: torch.zeros_like(value) for key, value in model.state_dict().items() if key not in taken}
    load_exactly(spec, model, {**taken, **unused})
    return model.eval(), left_out


def _of_adapter(
    spec: str, adapter: Mapping[str, torch.Tensor], shapes: Mapping[str, torch.Tensor], prefixes: tuple[str, ...]
) -> dict[str, torch.Tensor]:
    """The weights of an adapter by their names in the network, without the recogniser's output layer.

    Raises: CheckpointError: they are not those of all adapter layers that the network has.
    """
    taken = {name: tensor for name, tensor in adapter.items() if not HEADS.match(name)}
    for prefix in prefixes:
        taken = {name.removeprefix(prefix): tensor for name, tensor in taken.items()}
    places = {name for name in shapes if ADAPTER_LAYER in name} if adapter else set()
    if adapter and (not places or taken.keys() != places):
        odd = taken.keys() ^ places
        raise CheckpointError(
            f"{spec}: the adapter has {len(taken)} tensors, the network of config.json {len(places)} of adapter layers"
            f"{such_as(odd)}: they are of different models, or config.json lacks adapter_attn_dim"
        )
    return taken


def _adapters_hint(spec: str, lacking: set[str]) -> str:
    where = f"; name the file of one of its adapters, as {spec}@{ADAPTER_FILE}LANGUAGE"
    return where if lacking and all(ADAPTER_LAYER in name for name in lacking) else ""


def _require_no_adapter(spec: str, tensors: Mapping[str, torch.Tensor]) -> None:
    parts = [name for name in tensors if ADAPTER_PARTS.search(name)]
    if parts:
        raise CheckpointError(
            f"{spec}: the weights hold {len(parts)} tensors of an adapter that is not merged{such_as(parts)}: {MERGE}"
        )


def _taken(
    spec: str,
    tensors: Mapping[str, torch.Tensor],
    shapes: Mapping[str, torch.Tensor],
    prefixes: tuple[str, ...],
    *,
    whole: bool,
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """The encoder's weights by their names in the network, and what lies beside it and is no head that is known.

    Args:
        spec: what messages call the checkpoint.
        tensors: weights by their names in the file.
        shapes: the network's.
        prefixes: what may stand before all names of the encoder; where one does, others are a head's.
        whole: whether names without a prefix can be the encoder's too.

    Raises: CheckpointError: the network has no place for one of them.
    """
    prefix = next((prefix for prefix in prefixes if any(name.startswith(prefix) for name in tensors)), "")
    taken: dict[str, torch.Tensor] = {}
    foreign, beside = [], []
    for name, tensor in tensors.items():
        if not name.startswith(prefix) or (not prefix and not whole):
            if not HEADS.match(name.removeprefix("model.")):
                beside.append(name)
            continue
        if not prefix and HEADS.match(name) and name not in shapes:
            continue
        key = _renamed(name.removeprefix(prefix), shapes)
        if key in taken:
            raise CheckpointError(f"{spec}: the weights hold {key} under two names: take one of them away")
        if key in shapes:
            taken[key] = tensor
        elif key.split(".")[-1] not in UNUSED_TENSORS and not HEADS.match(key):
            foreign.append(name)
    if foreign:
        raise CheckpointError(
            f"{spec}: the weights hold {len(foreign)} tensors{such_as(foreign)} that the network of config.json has no "
            f"place for, and would be computed without them: settings and weights are of different models"
        )
    twice = [name for name in beside if name in shapes]
    if twice:
        raise CheckpointError(
            f"{spec}: the weights hold {len(twice)} tensors of the encoder with the prefix '{prefix}' and without it"
            f"{such_as(twice)}: which of them are meant is open; save the encoder alone"
        )
    return taken, beside


def _renamed(key: str, shapes: Mapping[str, torch.Tensor]) -> str:
    """A name of weight norm as torch has it today, where the network has it."""
    for old, new in WEIGHT_NORM:
        key = key.removesuffix(old) + new if key.endswith(old) and key not in shapes else key
    return key


def _without_provenance(config: dict[str, Any]) -> dict[str, Any]:
    """The settings that shape the output: who saved the file and with which version does not."""
    return {key: value for key, value in config.items() if key not in {"_name_or_path", "transformers_version"}}
