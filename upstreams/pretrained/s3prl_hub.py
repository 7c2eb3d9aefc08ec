"""Any upstream of an installed s3prl: `s3prl:NAME[@CKPT]`, or one in s3prl's manner: `s3prl-expert:FOLDER[@CKPT]`.

NAME is an entry of s3prl.hub, called as s3prl's runner calls it; FOLDER holds an expert.py with UpstreamExpert(ckpt).
Needs `pip install 'frostbench[s3prl]'`. Unlike `s3prl-ckpt:` this runs code of s3prl or of the folder, and s3prl's own
torch.load: name only files you trust.

Most of these upstreams change an utterance when a batch is padded, so each is encoded alone. How many frames a length
gives is not written down anywhere either: it is what the model returned for that length, or returns for noise of it.

Tried with s3prl 0.4.18, torch 2.14, torchaudio 2.11, transformers 5.23, all under the contract's checks: fbank,
fbank_no_cmvn, mfcc, mel, linear, spectrogram, apc_local, mockingjay_local, tera_local, hubert_local, wav2vec2_local,
hf_hubert_custom, hf_wav2vec2_custom. With transformers 5 the last two report the last block of a model with stable
layer norm before its final norm, with transformers 4 after it; `hf:` always reports it after.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import io
import sys
import types
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from core.audio import SAMPLE_RATE
from core.digest import file_digest
from core.errors import CheckpointError, ContractError
from core.hidden_states import HiddenStates
from core.lengths import pad, unpad
from core.registry import unknown_name
from upstreams._base import UpstreamCard, register_upstream
from upstreams._encoders.network import NetworkUpstream

PAPER = "SUPERB, arXiv:2105.01051; each upstream's own paper is in s3prl's documentation"
Module = TypeVar("Module", bound=nn.Module)


class ForeignNetwork(nn.Module):
    """An s3prl upstream: list of waveforms in, dictionary with `hidden_states` out.

    Args:
        name: what messages call it.
        module: the upstream.

    Raises: ContractError: its hidden states can't be brought under the contract.
    """

    window_samples = 1

    def __init__(self, name: str, module: nn.Module) -> None:
        super().__init__()
        self.name = name
        self.module = module.eval()  # s3prl leaves some in training mode
        self._frames: dict[int, int] = {}
        states = self._states(_noise(SAMPLE_RATE))
        self.num_layers, self.hidden_size = len(states), states[0].shape[1]
        self.downsample_rate = self._rate()
        self.min_samples = self._shortest()

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """None: what is called passes no gradients."""
        return ()

    def frame_lengths(self, wav_lengths: torch.Tensor) -> torch.Tensor:
        """What the model returned for these lengths; for those it has not met yet it is asked."""
        for length in wav_lengths.tolist():
            if length not in self._frames:
                self._states(_noise(length).to(wav_lengths.device))
        return torch.tensor([self._frames[length] for length in wav_lengths.tolist()], device=wav_lengths.device)

    def encode(self, wavs: torch.Tensor, wav_lengths: torch.Tensor) -> HiddenStates:
        """Each utterance alone. See Upstream.encode."""
        states = [torch.stack(self._states(wav), dim=1) for wav in unpad(wavs, wav_lengths)]
        joined, _ = pad(states)  # (batch, frames, num_layers, hidden_size)
        return HiddenStates(joined.unbind(dim=2), self.frame_lengths(wav_lengths))

    @torch.no_grad()
    def _states(self, wav: torch.Tensor) -> list[torch.Tensor]:
        """The hidden states of one waveform, each (frames, hidden_size)."""
        with _foreign_code():
            layers: Sequence[torch.Tensor] = self.module([wav.clone()])["hidden_states"]
        if any(layer.dim() != 3 or layer.shape != layers[0].shape for layer in layers):
            shapes = sorted({str(tuple(layer.shape)) for layer in layers})
            raise ContractError(
                f"{self.name}: its hidden states have the shapes {', '.join(shapes)}; only upstreams whose layers "
                f"have the same frames and width can be used; wrap it in a file of your own that returns some"
            )
        frames = self._frames.setdefault(len(wav), layers[0].shape[1])
        if frames != layers[0].shape[1]:
            raise ContractError(
                f"{self.name}: {len(wav)} samples gave {frames} frames once and {layers[0].shape[1]} now: how many "
                f"depends on what is in the recording, and such an upstream can't be used"
            )
        return [layer[0] for layer in layers]

    def _rate(self) -> int:
        rates = self.module.get_downsample_rates("hidden_states")  # type: ignore[operator]
        return int(rates if isinstance(rates, int | float) else rates[0])

    def _shortest(self) -> int:
        """The shortest noise that gives finite hidden states, found by bisection."""
        short, long = 0, SAMPLE_RATE
        while long - short > 1:
            middle = (short + long) // 2
            short, long = (short, middle) if self._works(middle) else (middle, long)
        return long

    def _works(self, samples: int) -> bool:
        try:
            states = self._states(_noise(samples))
        except Exception:  # whatever foreign code raises on an input that is too short for it
            return False
        return len(states[0]) > 0 and all(bool(torch.isfinite(state).all()) for state in states)


class _Hub(NetworkUpstream):
    """What the two names share."""

    @classmethod
    def _build(cls, spec: str, make: Callable[[], Any], config: Mapping[str, Any]) -> Any:
        try:
            with _foreign_code():
                module = make()
            network = ForeignNetwork(spec, module)
        except ContractError:
            raise
        except Exception as error:  # s3prl and its upstreams raise many kinds for one cause: it can't be loaded
            reason = (str(error).strip().splitlines() or [""])[0]
            raise CheckpointError(
                f"{spec}: s3prl can't load it ({type(error).__name__}: {reason}); look at what this upstream needs"
            ) from error
        label = "@".join(Path(part).name for part in spec.partition(":")[2].split("@"))
        return cls(network, label, {"s3prl": _version(), **config})


@register_upstream(UpstreamCard(name="s3prl", title="Upstream of an installed s3prl: s3prl:NAME[@CKPT]", paper=PAPER))
class S3PRLHub(_Hub):
    """Hidden states are those that s3prl's Featurizer would sum."""

    @classmethod
    def from_checkpoint(cls, checkpoint: str | None) -> S3PRLHub:
        """Builds the hub's entry NAME, with the file, folder or hub id CKPT.

        Raises: CheckpointError: s3prl is not installed, or can't load it. UnknownNameError: no such entry.
        """
        if not checkpoint:
            raise CheckpointError("s3prl: names no upstream: write s3prl:NAME or s3prl:NAME@CKPT")
        name, _, ckpt = checkpoint.partition("@")
        hub = _imported("s3prl.hub")
        if name not in hub.options():
            raise unknown_name("upstream of s3prl", name, hub.options())
        if name.endswith("_local") and not Path(ckpt).is_file():
            raise CheckpointError(f"s3prl:{checkpoint}: {name} needs a file behind '@'; write s3prl:{name}@FILE")
        entry = getattr(hub, name)
        arguments = {"ckpt": ckpt} if ckpt else {}
        config = {"entry": name, "checkpoint": _digests(Path(ckpt)) if ckpt else {}}
        built: S3PRLHub = cls._build(f"s3prl:{checkpoint}", lambda: entry(**arguments), config)
        return built


@register_upstream(
    UpstreamCard(name="s3prl-expert", title="Own upstream in s3prl's manner: s3prl-expert:FOLDER[@CKPT]", paper=PAPER)
)
class S3PRLExpert(_Hub):
    """Hidden states are what UpstreamExpert returns under that name."""

    @classmethod
    def from_checkpoint(cls, checkpoint: str | None) -> S3PRLExpert:
        """Imports FOLDER/expert.py and builds its UpstreamExpert.

        Raises: CheckpointError: s3prl is not installed, or there is no such class, or it can't be built.
        """
        if not checkpoint:
            raise CheckpointError(
                "s3prl-expert: names no folder: write s3prl-expert:FOLDER or s3prl-expert:FOLDER@CKPT"
            )
        name, _, ckpt = checkpoint.partition("@")
        folder = Path(name).expanduser()
        if not (folder / "expert.py").is_file():
            raise CheckpointError(f"s3prl-expert:{checkpoint}: {folder} has no expert.py; name a folder that has one")
        _imported("s3prl.upstream.interfaces")
        config = {"expert": _digests(folder, "**/*.py"), "checkpoint": _digests(Path(ckpt)) if ckpt else {}}

        def make() -> Any:
            return _expert_module(folder).UpstreamExpert(*([ckpt] if ckpt else []))

        built: S3PRLExpert = cls._build(f"s3prl-expert:{checkpoint}", make, config)
        return built


def _expert_module(folder: Path) -> types.ModuleType:
    """FOLDER/expert.py as a neighbour of s3prl's own, so that `from ..interfaces import UpstreamBase` works."""
    name = f"s3prl.upstream.{folder.name}_{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:8]}"
    if name not in sys.modules:
        package = types.ModuleType(name)
        package.__path__ = [str(folder.resolve())]
        sys.modules[name] = package
    return importlib.import_module(f"{name}.expert")


def _imported(name: str) -> Any:
    _shims()
    try:
        with _foreign_code():
            return importlib.import_module(name)
    except ImportError as error:
        missing = "s3prl is not installed" if error.name == "s3prl" else f"s3prl can't be imported ({error})"
        raise CheckpointError(f"{missing}; install it with: pip install 'frostbench[s3prl]'") from None


def _shims() -> None:
    """s3prl imports two things that torchaudio 2.9 took away; no upstream uses either."""
    import torchaudio

    if not hasattr(torchaudio, "set_audio_backend"):
        torchaudio.set_audio_backend = lambda backend: None
    if "torchaudio.sox_effects" not in sys.modules and importlib.util.find_spec("torchaudio.sox_effects") is None:
        effects = types.ModuleType("torchaudio.sox_effects")
        effects.apply_effects_tensor = None  # type: ignore[attr-defined]
        sys.modules[effects.__name__] = torchaudio.sox_effects = effects


@contextlib.contextmanager
def _foreign_code() -> Iterator[None]:
    """s3prl prints and warns at import, while it loads and while it runs; none of it is for our user."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def _noise(samples: int) -> torch.Tensor:
    return 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(0))


def _version() -> str:
    return str(getattr(_imported("s3prl"), "__version__", "unknown"))


def _digests(path: Path, pattern: str = "**/*") -> dict[str, str]:
    """File name -> sha256: settings that shape the output lie in these files, besides the weights."""
    if path.is_file():
        return {"file": file_digest(path)}
    if path.is_dir():
        return {str(file.relative_to(path)): file_digest(file) for file in sorted(path.glob(pattern)) if file.is_file()}
    return {"name": str(path)}
