"""Files that s3prl released or converted: `s3prl-ckpt:FILE`, no s3prl needed.

APC, VQ-APC, Mockingjay and TERA in the layout of s3prl's pre-training, wav2vec 2.0 and HuBERT as s3prl converts
fairseq's. What a file is, is told by its content. Alone, an utterance has the hidden states s3prl gives it; in a batch
padding changes nothing, which s3prl holds only for Kaldi features and layer-norm wav2vec 2.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.errors import CheckpointError
from upstreams._base import UpstreamCard, register_upstream
from upstreams._bounds import MOST_LAYERS, MOST_MELS, require_short_frames, size_within, without_memory
from upstreams._encoders import kaldi
from upstreams._encoders.mel_gru import MelGRU
from upstreams._encoders.network import Network, NetworkUpstream
from upstreams._weight_files import load_exactly, read_torch, require_fitting
from upstreams.pretrained import _fairseq, _s3prl_files, _s3prl_transformer

# What MelGRU computes; anything else in a file's audio settings would change the features.
APC_AUDIO: Mapping[str, tuple[Any, ...]] = {
    "feat_type": ("fbank",),
    "frame_length": (kaldi.WIN_LENGTH / 16,),  # milliseconds at 16 kHz
    "frame_shift": (kaldi.HOP_LENGTH / 16,),
    "decode_wav": (False,),
}
# Only on the way to the loss: VQ-APC's quantiser, which sits behind the states that are reported, and the prediction.
APC_UNUSED = ("vq_layers.", "postnet.")


@register_upstream(
    UpstreamCard(
        name="s3prl-ckpt",
        title="Checkpoint file of s3prl: s3prl-ckpt:FILE",
        paper="APC arXiv:1904.03240, VQ-APC arXiv:2005.08392, Mockingjay arXiv:1910.12638, TERA arXiv:2007.06028, "
        "wav2vec 2.0 arXiv:2006.11477, HuBERT arXiv:2106.07447",
        version=3,
    )
)
class S3PRLCheckpoint(NetworkUpstream):
    """Hidden states: every GRU's output for APC, else the input of the first block and the output of every block."""

    @classmethod
    def from_checkpoint(cls, checkpoint: str | None) -> S3PRLCheckpoint:
        """Loads a file.

        Raises: CheckpointError: missing, damaged, unsafe, of unknown kind, or with settings that are not supported.
        """
        if not checkpoint:
            raise CheckpointError("s3prl-ckpt: names no checkpoint: write s3prl-ckpt:FILE")
        path = Path(checkpoint).expanduser()
        content = read_torch(path)
        kind = _s3prl_files.kind_of(path, content)
        try:
            network, config = LOADERS[kind](str(path), content)
            require_short_frames(str(path), network)
        except CheckpointError:
            raise
        except Exception as error:  # of torch's and torchaudio's functions, whatever they raise for such settings
            raise CheckpointError(
                f"{path}: recognised as {_s3prl_files.KINDS[kind][0]}, but its settings make no network "
                f"({type(error).__name__}: {error}); the file is damaged or of a variant that is not known"
            ) from error
        return cls(network, path.stem, config)


def _apc(source: str, content: Mapping[str, Any]) -> tuple[Network, dict[str, Any]]:
    audio, paras = dict(content["config"]["data"]["audio"]), content["config"]["model"]["paras"]
    sizes: dict[str, Any] = {
        "num_layers": size_within(source, "num_layers", paras["num_layers"], MOST_LAYERS),
        "hidden_size": size_within(source, "hidden_size", paras["hidden_size"]),
        "num_mel_bins": size_within(source, "feat_dim", audio.pop("feat_dim"), MOST_MELS),
        "residual": bool(paras["residual"]),
        "cmvn": bool(audio.pop("cmvn", True)),
    }
    for name, value in audio.items():
        if value not in APC_AUDIO.get(name, ()):
            known = ", ".join(f"{key} {values[0]:g}" for key, values in APC_AUDIO.items() if key.startswith("frame"))
            raise CheckpointError(
                f"{source}: audio setting {name} = {value!r} is not supported, only fbank with {known} ms; "
                f"with s3prl installed try s3prl:apc_local@FILE"
            )
    tensors = {name: tensor for name, tensor in content["model"].items() if not name.startswith(APC_UNUSED)}
    require_fitting(source, without_memory(source, lambda: MelGRU(**sizes)).state_dict(), tensors)
    network = MelGRU(**sizes)
    load_exactly(source, network, tensors)
    return network, {"kind": "apc", **sizes}


def _transformer(source: str, content: Mapping[str, Any]) -> tuple[Network, dict[str, Any]]:
    # Old files have the upstream's settings under Config; newer ones the runner's there.
    config = content["Config"] if "transformer" in content["Config"] else content.get("Upstream_Config", {})
    return _s3prl_transformer.build(source, config, content["Transformer"])


LOADERS = {"apc": _apc, "transformer": _transformer, "fairseq": _fairseq.build}
