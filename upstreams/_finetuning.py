"""Upstreams that are trained with a head: which of their parameters learn, and what is kept of them.

LoRA (Hu et al., arXiv:2106.09685) is computed by `peft`: matrices beside the projections of queries and values, as in
its paper, added at a scale of 1. Where queries, keys and values have one matrix (`torch.nn.MultiheadAttention`), beside
that and the output's. Where attention reads its projections' weights without calling them, as WavLM does, they would
have no effect: they stand beside the feed-forward layers then (He et al., arXiv:2110.04366).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from core.errors import CheckpointError, ContractError
from core.extras import require_extra
from core.finetuning import FineTuning
from upstreams._base import Upstream
from upstreams._resolve import INSTANCE, build_upstream

QUERIES_AND_VALUES = frozenset({"q_proj", "v_proj", "linear_q", "linear_v", "query_proj", "value_proj"})
FEED_FORWARD = frozenset({"intermediate_dense", "output_dense"})
PROBE_SECONDS = 0.5
UPSTREAM_ELSE = "fine-tune another upstream, or leave out --finetune"


def trainable_copy(spec: str, how: FineTuning, seed: int = 0) -> Upstream:
    """An upstream of which the parameters that fine-tuning trains, and no others, ask for gradients.

    Args:
        spec: specification; of an object that a program holds it is a copy.
        how: what is trained.
        seed: of the first values of low-rank matrices; none of them changes what the upstream computes.

    Raises: BenchmarkError: it can't be built. ContractError: it can't be fine-tuned so.
    """
    built = build_upstream(spec)
    return opened(_copied(built) if spec.startswith(INSTANCE) else built, how, seed)


def opened(upstream: Upstream, how: FineTuning, seed: int = 0) -> Upstream:
    """The upstream itself, changed as `trainable_copy` says.

    Raises: ContractError: it can't be fine-tuned so.
    """
    upstream.freeze()
    name = upstream.display_name
    if not any(True for _ in upstream.inference_module.parameters()):
        raise ContractError(f"{name}: has no weights in torch that could be fine-tuned; {UPSTREAM_ELSE}")
    if how.mode == "lora":
        return _with_low_rank(upstream, how.rank, seed)
    if how.mode == "full":
        upstream.inference_module.requires_grad_(True)
    else:
        for block in _top(upstream, how.blocks):
            block.requires_grad_(True)
    _require_gradients(upstream)
    return upstream


def trained_tensors(upstream: Upstream) -> dict[str, nn.Parameter]:
    """The parameters that are trained, by their names."""
    return {name: value for name, value in upstream.named_parameters() if value.requires_grad}


def fine_tuned(upstream: Upstream, how: FineTuning, tensors: Mapping[str, torch.Tensor]) -> Upstream:
    """A frozen copy of an upstream with the parameters that a fine-tuning trained.

    Raises: ContractError: it can't be fine-tuned so. CheckpointError: these are the parameters of another one.
    """
    tuned = opened(_copied(upstream), how)
    places = trained_tensors(tuned)
    shapes = {name: place.shape for name, place in places.items()}
    if shapes != {name: tensor.shape for name, tensor in tensors.items()}:
        raise CheckpointError(
            f"{upstream.display_name}: the fine-tuned weights ({len(tensors)} tensors) do not fit it, which has "
            f"{len(places)} to train: they are another upstream's, or another version of a library named them"
        )
    with torch.no_grad():
        for name, place in places.items():
            place.copy_(tensors[name])
    if how.mode == "lora":
        _merge(tuned)
    return tuned.freeze()


@contextmanager
def every_module_called() -> Iterator[None]:
    """A context in which torch's transformer layers call their parts.

    In evaluation mode they read the weights alone, and miss the matrices that stand beside them.
    """
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def _copied(upstream: Upstream) -> Upstream:
    try:
        return copy.deepcopy(upstream)
    except Exception as error:  # whatever an object of a plug-in raises that holds sessions, locks or files
        raise ContractError(
            f"{upstream.display_name}: is an object that can't be copied ({error}), and fine-tuning must not change "
            f"it: put its class into a file, and name it as FILE.py:CLASS"
        ) from error


def _top(upstream: Upstream, count: int) -> list[nn.Module]:
    blocks = list(upstream.trainable_blocks())
    if count > len(blocks):
        has = f"has {len(blocks)} blocks" if blocks else "does not say what its blocks are (trainable_blocks)"
        raise ContractError(f"{upstream.display_name}: top:{count} can't be fine-tuned, it {has}; write full, or fewer")
    return blocks[-count:]


def _require_gradients(upstream: Upstream) -> None:
    """Freezes again what the hidden states do not depend on.

    Raises: ContractError: nothing is left.
    """
    asking = list(trained_tensors(upstream).values())
    reached = _reached(upstream, asking)
    for value, is_reached in zip(asking, reached, strict=True):
        value.requires_grad_(is_reached)
    if not any(reached):
        raise ContractError(
            f"{upstream.display_name}: no gradient of its hidden states reaches the weights that would be fine-tuned; "
            f"it computes without torch's autograd, or elsewhere; {UPSTREAM_ELSE}"
        )


def _reached(upstream: Upstream, values: Sequence[torch.Tensor]) -> list[bool]:
    """Which of these parameters the hidden states of noise depend on."""
    samples = max(upstream.min_samples, int(PROBE_SECONDS * upstream.sample_rate))
    wav = torch.randn(1, samples, generator=torch.Generator().manual_seed(0)) / 10
    with torch.enable_grad(), every_module_called():
        states = upstream.extract_with_gradients(wav, torch.tensor([samples]))
        energy = torch.stack([layer.square().sum() for layer in states.layers]).sum()
        if not values or not energy.requires_grad:
            return [False] * len(values)
        found = torch.autograd.grad(energy, values, allow_unused=True)
    return [slope is not None for slope in found]


def _with_low_rank(upstream: Upstream, rank: int, seed: int) -> Upstream:
    require_extra("lora", f"{upstream.display_name}: fine-tuning by lora")
    attention = [
        name
        for name, module in upstream.named_modules()
        if isinstance(module, nn.MultiheadAttention)
        or (isinstance(module, nn.Linear) and name.rpartition(".")[2] in QUERIES_AND_VALUES)
    ]
    feed_forward = [name for name, module in upstream.named_modules()
                    if isinstance(module, nn.Linear) and name.rpartition(".")[2] in FEED_FORWARD]  # fmt: skip
    for names in filter(None, (attention, feed_forward)):
        candidate = _copied(upstream)
        _inject(candidate, names, rank, seed)
        trained = trained_tensors(candidate)
        if trained and any(_reached(candidate, list(trained.values()))):
            return candidate
    raise ContractError(
        f"{upstream.display_name}: has no attention that low-rank matrices could stand beside; write full or top:N"
    )


def _inject(upstream: Upstream, names: list[str], rank: int, seed: int) -> None:
    import peft  # imported here: it is optional, and takes a second

    settings = peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=names, lora_dropout=0.0, bias="none")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        peft.inject_adapter_in_model(settings, upstream)
    upstream.eval()


def _merge(upstream: Upstream) -> None:
    """Adds what low-rank matrices come to to the weights beside them, so that every way to read these finds it."""
    from peft.tuners.lora import LoraLayer

    for module in upstream.modules():
        if isinstance(module, LoraLayer) and not module.merged:  # attention merges its output's matrix itself
            module.merge()
