"""Files of fairseq's trainer as they were released: `fairseq:FILE`, neither fairseq nor a conversion needed.

wav2vec 2.0 (XLSR and XLS-R too), HuBERT and data2vec-audio, pre-trained or fine-tuned, of which the encoder is taken.
The weights go into transformers' model of the same network; alone, an utterance has the hidden states of fairseq.
"""

from __future__ import annotations

from pathlib import Path

from core.errors import CheckpointError
from upstreams._base import UpstreamCard, register_upstream
from upstreams._bounds import require_short_frames
from upstreams._encoders.network import NetworkUpstream
from upstreams.pretrained import _fairseq, _fairseq_files


@register_upstream(
    UpstreamCard(
        name="fairseq",
        title="Checkpoint file of fairseq: fairseq:FILE",
        paper="wav2vec 2.0 arXiv:2006.11477, HuBERT arXiv:2106.07447, data2vec arXiv:2202.03555",
    )
)
class FairseqCheckpoint(NetworkUpstream):
    """Hidden states are the input of the first block and the output of every block."""

    @classmethod
    def from_checkpoint(cls, checkpoint: str | None) -> FairseqCheckpoint:
        """Loads a file.

        Raises: CheckpointError: missing, damaged, unsafe, not fairseq's, or with settings that are not supported.
        """
        if not checkpoint:
            raise CheckpointError("fairseq: names no checkpoint: write fairseq:FILE")
        path = Path(checkpoint).expanduser()
        try:
            network, config = _fairseq.build_encoder(str(path), *_fairseq_files.read(path))
            require_short_frames(str(path), network)
        except CheckpointError:
            raise
        except Exception as error:  # of torch's and transformers' functions, whatever they raise for such settings
            raise CheckpointError(
                f"{path}: its settings make no network ({type(error).__name__}: {error}); the file is damaged or of a "
                f"variant that is not known"
            ) from error
        return cls(network, path.stem, config)
