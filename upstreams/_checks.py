"""The upstream contract as a list of checks: one function a promise, run by the tests and by `check UPSTREAM`."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch

from core import checks
from core.checks import CheckResult, require
from core.errors import BenchmarkError, ContractError
from core.hidden_states import HiddenStates
from core.lengths import pad
from upstreams._base import Upstream
from upstreams._hidden_weights import hidden_weights
from upstreams._pretraining.contract import TrainableUpstream, TrainingBatch

Check = Callable[[Upstream], None]
STRICT_TOLERANCE = 1e-4  # above it, a card has to give a reason
# Of a layer's largest value: what sums in another order may differ by where values are large, as in trained networks.
ROUNDING = 1e-5
ROWS = 4  # of a batch that is checked
MOST_FRAMES_OFF = 3  # whole windows of 25 ms every 10 ms lose up to 2.5 frames


def check_card_complete(upstream: Upstream) -> None:
    """Name, title and paper are filled in; a wide tolerance has a reason; known failures name checks."""
    card = upstream.card
    for field in ("name", "title", "paper"):
        require(bool(getattr(card, field)), f"card.{field} is empty: fill it in")
    require(
        card.tolerance <= STRICT_TOLERANCE or bool(card.tolerance_reason),
        f"card.tolerance is {card.tolerance:g}, above {STRICT_TOLERANCE:g}: give card.tolerance_reason",
    )
    unknown = set(card.known_failures) - {check.__name__ for check in CHECKS}
    require(not unknown, f"card.known_failures names {sorted(unknown)}, which are no checks")


def check_sizes_hold(upstream: Upstream, rows: int = ROWS) -> None:
    """`num_layers` float32 tensors of (batch, frames, hidden_size), finite, as many valid frames as promised."""
    states = _extract(upstream, _wavs(upstream, rows))
    for index, layer in enumerate(states.layers):
        require(layer.dtype == torch.float32, f"layer {index} is {layer.dtype}, must be float32")
        require(bool(torch.isfinite(layer).all()), f"layer {index} has values that are NaN or infinite")


def check_frame_lengths_exact(upstream: Upstream) -> None:
    """`frame_lengths` is what `encode` returns at every length, grows with it, and fits `downsample_rate`."""
    step = 320 if upstream.utterance_level else upstream.downsample_rate
    lengths = torch.arange(upstream.min_samples, upstream.min_samples + 3 * step, 37)
    frames = upstream.frame_lengths(lengths)
    require(bool((frames >= 1).all()), "frame_lengths gives no frame for a legal input: raise min_samples")
    require(bool((frames.diff() >= 0).all()), "frame_lengths falls where the input grows")
    if upstream.utterance_level:
        require(bool((frames == 1).all()), "utterance_level is set, and frame_lengths gives other numbers than one")
        return
    # Also of longer inputs, where a wrong downsample_rate shows.
    long = torch.tensor([upstream.sample_rate, 4 * upstream.sample_rate])
    promised = torch.cat([lengths, long]) / upstream.downsample_rate
    off = (torch.cat([frames, upstream.frame_lengths(long)]) - promised).abs().max().item()
    require(
        off <= MOST_FRAMES_OFF,
        f"frame_lengths is {off:.1f} frames off samples / {upstream.downsample_rate}, at most {MOST_FRAMES_OFF}",
    )
    for length in (int(lengths[0]), int(lengths[len(lengths) // 2]), int(lengths[-1])):
        _extract(upstream, [_wav(upstream, length, seed=length)])  # raises where the two differ


def check_padding_changes_nothing(upstream: Upstream, rows: int = ROWS) -> None:
    """An utterance alone has the same hidden states as in a padded batch."""
    wavs = _wavs(upstream, rows)
    batch = _extract(upstream, wavs)
    for row, wav in enumerate(wavs):
        alone = _extract(upstream, [wav])
        for index, (one, many) in enumerate(zip(alone.layers, batch.layers, strict=True)):
            difference = (one[0] - many[row, : one.shape[1]]).abs().max().item()
            allowed = _allowed(upstream, one)
            require(
                difference <= allowed,
                f"layer {index} of an utterance of {len(wav) / upstream.sample_rate:.2f} s differs by {difference:.2g} "
                f"in a padded batch (allowed {allowed:.2g}): keep padding out of norms, convolutions and "
                f"attention, or encode each utterance alone",
            )


def check_batch_order_changes_nothing(upstream: Upstream) -> None:
    """The rows of a batch belong to their utterances, whatever the order."""
    wavs = _wavs(upstream)
    forth, back = _extract(upstream, wavs), _extract(upstream, wavs[::-1])
    for index, (one, other) in enumerate(zip(forth.layers, back.layers, strict=True)):
        difference = (one - other.flip(0)).abs().max().item()
        require(
            difference <= _allowed(upstream, one),
            f"layer {index} differs by {difference:.2g} when the batch is reversed: rows are mixed up or leak",
        )


def check_same_input_same_bits(upstream: Upstream, rows: int = ROWS) -> None:
    """Twice the same input gives the same bits: dropout, layer drop and dither are off."""
    wavs = _wavs(upstream, rows)
    first, second = _extract(upstream, wavs), _extract(upstream, wavs)
    same = all(torch.equal(one, other) for one, other in zip(first.layers, second.layers, strict=True))
    require(same, "twice the same input gives different hidden states: switch dropout, masks and dither off")


def check_nothing_moves(upstream: Upstream) -> None:
    """No parameter or buffer changes, none asks for a gradient, and the input is left alone."""
    wavs, lengths = pad(_wavs(upstream))
    before = {name: tensor.clone() for name, tensor in upstream.state_dict().items()}
    given = wavs.clone()
    upstream.extract(wavs, lengths)
    moved = [name for name, tensor in upstream.state_dict().items() if not torch.equal(tensor, before[name])]
    require(not moved, f"extract changes {', '.join(moved[:3])}: a frozen upstream must not update statistics")
    require(torch.equal(wavs, given), "extract changes the waveforms it is given: work on a copy")
    asking = [name for name, parameter in upstream.named_parameters() if parameter.requires_grad]
    require(not asking, f"parameters ask for gradients, such as {asking[:1]}: freeze() must reach them")


def check_silence_is_finite(upstream: Upstream) -> None:
    """Digital silence gives finite hidden states."""
    silence = torch.zeros(max(upstream.sample_rate // 2, upstream.min_samples))
    states = _extract(upstream, [silence, _wav(upstream, upstream.sample_rate, seed=1)])
    finite = all(torch.isfinite(layer).all() for layer in states.layers)
    require(finite, "digital silence gives NaN or infinite values: add an epsilon to logarithms and divisions")


def check_shortest_input_works(upstream: Upstream) -> None:
    """An input of `min_samples` gives finite hidden states, alone and in a batch; one sample less is refused."""
    shortest = _wav(upstream, upstream.min_samples, seed=2)
    for wavs in ([shortest], [shortest, _wav(upstream, upstream.sample_rate, seed=3)]):
        states = _extract(upstream, wavs)
        finite = all(torch.isfinite(layer).all() for layer in states.layers)
        require(finite, f"an input of min_samples = {upstream.min_samples} gives NaN or infinite values")
    try:
        _extract(upstream, [shortest[:-1]])
    except BenchmarkError:
        return
    raise ContractError("an input of min_samples - 1 is not refused: set min_samples to the shortest that works")


def check_digest_is_stable(upstream: Upstream) -> None:
    """The digest does not change by use."""
    before = upstream.digest()
    _extract(upstream, _wavs(upstream))
    require(upstream.digest() == before, "digest() changes by use: configuration() must not hold state")


def check_pretrain_loss_trains(upstream: Upstream) -> None:
    """Where it can be trained, the loss is finite, repeatable and reaches the encoder."""
    if not isinstance(upstream, TrainableUpstream):
        return
    trained, batch = copy.deepcopy(upstream), _training_batch(upstream)
    recipe = next(iter(upstream.recipes.values()))[-1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        trained.requires_grad_(True)
        trained.prepare(recipe, len(batch.rows))
    trained.eval()
    losses = [trained.pretrain_loss(batch, torch.Generator().manual_seed(0)) for _ in range(2)]
    parameters = [parameter for parameter in trained.encoder.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(losses[0].loss, parameters, allow_unused=True)
    require(bool(torch.isfinite(losses[0].loss)), f"pretrain_loss is {losses[0].loss.item()}")
    require(torch.equal(losses[0].loss, losses[1].loss), "pretrain_loss is random beyond its generator")
    require(any(gradient is not None for gradient in gradients), "pretrain_loss reaches no parameter of the encoder")
    asking = [name for name, tensor in losses[0].kept.items() if tensor.requires_grad]
    require(not asking, f"pretrain_loss keeps {asking[:1]} with their gradient: detach them")


def check_digest_knows_the_weights(upstream: Upstream) -> None:
    """Weights that torch has not registered come from a checkpoint, or are named in the configuration."""
    known = bool(upstream.inference_module.state_dict()) or bool(upstream.configuration())
    if known or upstream.checkpoint_digest is not None:
        return
    hidden = hidden_weights(upstream)
    require(
        not hidden,
        f"it computes with {', '.join(hidden[:3])}, of which its digest knows nothing, so that other weights would be "
        f"served the features of these: let from_checkpoint load them from what stands behind '@', register tensors, "
        f"or return the sha256 of their file in configuration()",
    )


CHECKS: tuple[Check, ...] = (
    check_card_complete,
    check_sizes_hold,
    check_frame_lengths_exact,
    check_padding_changes_nothing,
    check_batch_order_changes_nothing,
    check_same_input_same_bits,
    check_nothing_moves,
    check_silence_is_finite,
    check_shortest_input_works,
    check_digest_is_stable,
    check_digest_knows_the_weights,
    check_pretrain_loss_trains,
)


def run_check(check: Check, upstream: Upstream) -> CheckResult:
    """Runs one check; a known failure of the card has to fail."""
    return checks.run_check(check, upstream, upstream.card.known_failures)


def _allowed(upstream: Upstream, layer: torch.Tensor) -> float:
    """The largest difference that is rounding and no leak."""
    return max(upstream.card.tolerance, ROUNDING * layer.abs().max().item())


def _wav(upstream: Upstream, samples: int, seed: int) -> torch.Tensor:
    """Noise of a changing level over a tone: no part is like another."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(samples) / upstream.sample_rate
    level = 0.02 + 0.1 * (0.5 + 0.5 * torch.sin(9 * time))
    return level * torch.randn(samples, generator=generator) + 0.1 * torch.sin(2 * torch.pi * 220 * time)


def _wavs(upstream: Upstream, rows: int = ROWS) -> list[torch.Tensor]:
    step = 320 if upstream.utterance_level else upstream.downsample_rate
    lengths = [upstream.sample_rate, 7_578, upstream.min_samples + 3 * step, 12_345]
    lengths = [max(length, upstream.min_samples) for length in lengths[:rows]]
    return [_wav(upstream, length, seed) for seed, length in enumerate(lengths)]


def _training_batch(upstream: TrainableUpstream) -> TrainingBatch:
    least = upstream.min_training_samples
    wavs = [wav for wav in _wavs(upstream) if len(wav) >= least]
    wavs = wavs or [_wav(upstream, least, seed) for seed in range(ROWS)]
    if upstream.equal_lengths:
        shortest = min(4 * least, *map(len, wavs))
        wavs = [wav[:shortest] for wav in wavs]
    wavs = [wavs[number % len(wavs)] for number in range(max(len(wavs), upstream.min_utterances))]
    padded, lengths = pad(wavs)
    recipe = next(iter(upstream.recipes.values()))[-1]
    targets = None
    if recipe.targets is not None:
        targets = [recipe.targets.example(frames) for frames in upstream.frame_lengths(lengths).tolist()]
    return TrainingBatch(padded, lengths, torch.arange(len(wavs)), targets)


def _extract(upstream: Upstream, wavs: list[torch.Tensor]) -> HiddenStates:
    return upstream.extract(*pad(wavs))
