"""An upstream made of one function, for those whose model is one call away."""

from __future__ import annotations

import functools
import inspect
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import nn

from core.audio import SAMPLE_RATE
from core.code import has_file, interactive_source, names_of
from core.digest import digest_of
from core.errors import ContractError
from core.hidden_states import HiddenStates
from core.lengths import pad
from upstreams._base import Upstream, UpstreamCard

MIN_SAMPLES = 1_600  # 0.1 s; what encodes less says so
PROBE_SAMPLES = 2 * SAMPLE_RATE
FRAMES_MORE = 50  # enough to see a rate that is wrong by 2 %
DIGITS = 3  # of the fingerprint: what differs in later ones is another machine, not another model
LIBRARIES = tuple(sysconfig.get_path(kind) for kind in ("stdlib", "purelib", "platlib"))

Encode = Callable[[torch.Tensor], Any]


def from_function(
    encode: Encode,
    downsample_rate: int,
    *,
    name: str | None = None,
    title: str = "",
    paper: str = "none",
    min_samples: int = MIN_SAMPLES,
    tolerance: float = 1e-4,
    tolerance_reason: str = "",
    known_failures: dict[str, str] | None = None,
) -> Upstream:
    """An upstream of a function from a waveform to its hidden states.

    Args:
        encode: gets one whole utterance, unpadded, as a float32 tensor (1, samples) in [-1, 1] at 16 kHz on the device
            of the run, and returns (1, frames, hidden_size) or (frames, hidden_size), as a tensor or an array; or a
            list of these, one a layer. Each utterance passes alone, so nothing depends on padding.
        downsample_rate: input samples per frame: 160 is 10 ms, 320 is 20 ms.
        name: in tables; the function's own if left out.
        title: one line on what it is.
        paper: where it comes from.
        min_samples: the shortest legal input, in samples.
        tolerance: largest difference allowed by `check` between an utterance alone and in a batch.
        tolerance_reason: needed above 1e-4.
        known_failures: check -> reason, for checks that can't hold.

    Modules that the function uses (it is one, a method of one, or has one in its closure, its globals or its
    `functools.partial`) are part of the upstream: frozen, moved to the device, counted, and in its digest with all
    weights. So is the function's code. What is hidden otherwise, such as an ONNX session, is in the digest by what it
    computes: a fingerprint of the hidden states of two seconds of fixed noise.

    Raises: ContractError: what it returns has not the form above, or the number of frames fits no downsample_rate.
    """
    known_as = name or str(getattr(encode, "__name__", type(encode).__name__))
    if known_as == "<lambda>":
        raise ContractError("a lambda has no name: give from_function a name=, which tables show")
    card = UpstreamCard(known_as, title or f"the function {known_as}", paper, 1, tolerance, tolerance_reason,
                        known_failures or {})  # fmt: skip
    return FunctionUpstream(encode, downsample_rate, card, min_samples).freeze()


class FunctionUpstream(Upstream):
    """See `from_function`.

    Args:
        function: utterance (1, samples) -> hidden states of one layer or several.
        downsample_rate: samples a frame.
        card: what is known of it.
        min_samples: the shortest legal input.
    """

    def __init__(self, function: Encode, downsample_rate: int, card: UpstreamCard, min_samples: int) -> None:
        super().__init__()
        self.card = card  # type: ignore[misc]  # each function has one of its own
        self.downsample_rate = downsample_rate
        self.min_samples = min_samples
        self._function = [function]  # in a list: a module is not to be registered twice
        self.used = nn.ModuleList(_modules(function))
        self.to("cpu").freeze()
        states = self._states(_noise(PROBE_SAMPLES))
        self.num_layers, self.hidden_size = len(states), states[0].shape[1]
        self._fingerprint = [_rounded(number) for layer in states for number in (layer.mean(), layer.std())]
        self._offset = self._find_offset()

    def configuration(self) -> dict[str, Any]:
        """Its code, what it computes on noise, and the numbers it was given."""
        return {
            "code": _code_of(self._function[0]),
            "fingerprint": self._fingerprint,
            "downsample_rate": self.downsample_rate,
        }

    def frame_lengths(self, wav_lengths: torch.Tensor) -> torch.Tensor:
        """(samples + offset) // downsample_rate; the offset was found by calling the function."""
        return (wav_lengths + self._offset) // self.downsample_rate

    def encode(self, wavs: torch.Tensor, wav_lengths: torch.Tensor) -> HiddenStates:
        """Each utterance alone, without padding."""
        rows = [self._states(wav[None, :length]) for wav, length in zip(wavs, wav_lengths.tolist(), strict=True)]
        for row, length in zip(rows, wav_lengths.tolist(), strict=True):
            self._require_frames(len(row[0]), length)
        layers = [pad(layer) for layer in zip(*rows, strict=True)]
        return HiddenStates(tuple(padded for padded, _ in layers), layers[0][1].to(wav_lengths.device))

    @torch.no_grad()
    def _states(self, wav: torch.Tensor) -> list[torch.Tensor]:
        """The layers (frames, hidden_size) of one utterance (1, samples)."""
        try:
            found = self._function[0](wav)
        except Exception as error:
            raise ContractError(
                f"{self.card.name}: the function fails on an utterance of {wav.shape[1]} samples "
                f"({type(error).__name__}: {error}); it gets a float32 tensor (1, samples)"
            ) from error
        layers = [_layer(each, wav.device) for each in (found if isinstance(found, list | tuple) else [found])]
        shapes = [None if layer is None else tuple(layer.shape) for layer in layers]
        if not layers or None in shapes or len(set(shapes)) > 1:
            raise ContractError(
                f"{self.card.name}: the function must return (1, frames, hidden_size), or a list of these of equal "
                f"shape, one a layer; it returned {_form(found)}. Of a function that returns times as well, hand "
                f"over the embeddings alone"
            )
        return [layer for layer in layers if layer is not None]

    def _find_offset(self) -> int:
        """Where the number of frames steps up, between two seconds and a frame more."""
        low = PROBE_SAMPLES
        frames = len(self._states(_noise(low))[0])
        far = low + FRAMES_MORE * self.downsample_rate
        more = len(self._states(_noise(far))[0])
        if more != frames + FRAMES_MORE:
            raise ContractError(
                f"{self.card.name}: {frames} frames of {low} samples and {more} of {far}, which does not fit a "
                f"downsample_rate of {self.downsample_rate}"
            )
        high = low + self.downsample_rate
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if len(self._states(_noise(middle))[0]) == frames else (low, middle)
        return (frames + 1) * self.downsample_rate - high

    def _require_frames(self, frames: int, samples: int) -> None:
        expected = (samples + self._offset) // self.downsample_rate
        if frames != expected:
            raise ContractError(
                f"{self.card.name}: {frames} frames of {samples} samples, where its frames of two seconds let expect "
                f"{expected}: write a class that inherits frostbench.Upstream, with frame_lengths of its own"
            )


def _layer(value: Any, device: torch.device) -> torch.Tensor | None:
    """(frames, hidden_size), or None where it has another form."""
    try:
        tensor = torch.as_tensor(value, device=device).float()
    except (TypeError, ValueError, RuntimeError):
        return None
    if tensor.dim() == 3 and len(tensor) == 1:
        tensor = tensor[0]
    return tensor if tensor.dim() == 2 and tensor.numel() else None


def _form(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_form, value)) + "]"
    shape = getattr(value, "shape", None)
    return type(value).__name__ if shape is None else f"{type(value).__name__} {tuple(shape)}"


def _noise(samples: int) -> torch.Tensor:
    return torch.randn(1, samples, generator=torch.Generator().manual_seed(0)) / 10


def _rounded(number: torch.Tensor) -> str:
    return f"{number.item():.{DIGITS - 1}e}"


def _parts(function: Any) -> Iterator[Any]:
    """What a callable is made of: functions, the objects of methods, what stands in closures, globals and partials.

    Functions of libraries are left out: their versions stand in every record.
    """
    waiting, seen = [function], set[int]()
    while waiting:
        part = waiting.pop()
        if id(part) in seen or (isinstance(part, FunctionType) and _is_library(part)):
            continue
        seen.add(id(part))
        yield part
        if not isinstance(part, nn.Module):
            waiting += [each for each in _used_by(part) if _may_matter(each)]


def _used_by(part: Any) -> Iterator[Any]:
    if isinstance(part, functools.partial):
        yield from (part.func, *part.args, *part.keywords.values())
    elif isinstance(part, FunctionType):
        names = set(names_of(part.__code__))
        yield from (part.__globals__[name] for name in sorted(names & part.__globals__.keys()))
        yield from (cell.cell_contents for cell in part.__closure__ or () if not _is_empty(cell))
    elif isinstance(part, MethodType):
        yield from (part.__self__, part.__func__)
    else:  # an object that can be called
        yield from (vars(part).values() if hasattr(part, "__dict__") else ())
        yield type(part).__call__ if callable(part) else None


def _may_matter(value: Any) -> bool:
    if isinstance(value, FunctionType | MethodType | functools.partial | nn.Module):
        return True
    held = vars(value).values() if hasattr(value, "__dict__") and not isinstance(value, type | ModuleType) else ()
    return any(isinstance(each, nn.Module) for each in held)


def _is_empty(cell: Any) -> bool:
    try:
        return cell.cell_contents is ...
    except ValueError:
        return True


def _modules(function: Any) -> list[nn.Module]:
    """Every module that it uses, the outermost ones alone."""
    found = [part for part in _parts(function) if isinstance(part, nn.Module)]
    inner = {id(child) for module in found for child in module.modules() if child is not module}
    return [module for module in found if id(module) not in inner]


def _code_of(function: Any) -> str:
    """Digest of the source of all functions that it consists of, those of libraries left out."""
    return digest_of(sorted(_text(part) for part in _parts(function) if isinstance(part, FunctionType)))


def _is_library(function: FunctionType) -> bool:
    return any(Path(function.__code__.co_filename).is_relative_to(place) for place in LIBRARIES)


def _text(function: FunctionType) -> str:
    return inspect.getsource(function) if has_file(function.__module__) else interactive_source(function)
