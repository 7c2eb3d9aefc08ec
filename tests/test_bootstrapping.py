"""Bootstrapping losses in closed forms, gradients that stop, teachers that follow, and what collapses without them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_pretraining import plan, small_sizes
from torch import nn

from core.errors import ContractError
from upstreams._base import UPSTREAMS
from upstreams._pretraining.contract import TrainingBatch
from upstreams._pretraining.plan import pretrain
from upstreams._pretraining.teacher import cosine_to_one
from upstreams.bootstrapping.distil import Heads

# Of networks on waveforms, where a test has one.
WAVES = {"conv_channels": (8,) * 7, "position_kernel": 3, "position_groups": 2}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    small_sizes(monkeypatch)


def built(name: str, size: str = "small", **changes):
    kind = UPSTREAMS.get(name)
    torch.manual_seed(0)
    upstream = kind.untrained(replace(kind.sizes[size], **changes))
    upstream.prepare(kind.recipes[size][-1], 10)
    return upstream


def batch_of(clips: int) -> TrainingBatch:
    return TrainingBatch(torch.zeros(clips, 1), torch.ones(clips), torch.arange(clips))


def parameters_of(*modules: nn.Module) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


class Constant(nn.Module):
    """Predicts the same whatever it is given."""

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        return torch.arange(vectors.shape[1]).float() + 0 * vectors


def test_published_heads_have_the_published_sizes():
    with torch.device("meta"):
        simsiam, byol = (built(name, "base") for name in ("simsiam", "byol"))
    assert parameters_of(simsiam.projector) == 12_593_152
    assert parameters_of(simsiam.predictor) == 2_100_224
    assert parameters_of(byol.projector) == 9_449_728
    assert parameters_of(byol.predictor) == 2_109_696


def test_byol_is_zero_for_equal_vectors_and_four_in_each_direction_for_opposite_ones():
    upstream = built("byol")
    vectors = torch.randn(8, 4)
    upstream.projector, upstream.predictor = nn.Identity(), nn.Identity()
    for factor, expected in ((1.0, 0.0), (-2.0, 8.0)):
        upstream._taught = lambda view, factor=factor: factor * vectors
        assert float(upstream.loss_of([vectors, vectors], [vectors, vectors], batch_of(8)).loss) == pytest.approx(
            expected, abs=1e-5
        )


def test_byol_teaches_each_view_by_the_teachers_other_one():
    upstream = built("byol").eval()
    views = [torch.randn(8, 16, 80) for _ in range(2)]
    pooled = [upstream.pooled(view) for view in views]
    loss = upstream.loss_of(pooled, views, batch_of(8)).loss
    # The teacher is still the student's equal.
    targets = [upstream.projector(each).detach() for each in pooled]
    expected = 0.0
    for own, other in ((0, 1), (1, 0)):
        predicted = nn.functional.normalize(upstream.predictor(upstream.projector(pooled[own])), dim=1)
        wanted = nn.functional.normalize(targets[other], dim=1)
        expected = expected + (predicted - wanted).square().sum(dim=1).mean()
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("rises", [True, False])
def test_byols_teacher_follows_encoder_and_projector_along_its_schedule(rises):
    upstream = built("byol", momentum=0.8, momentum_rises=rises)
    average = [each.detach().clone() for each in upstream._student().parameters()]
    for done in (0.0, 0.5, 0.75):
        for parameter in upstream.parameters():
            if parameter.requires_grad:
                nn.init.normal_(parameter)
        upstream.after_update({}, done)
        momentum = cosine_to_one(0.8, done) if rises else 0.8
        average = [
            momentum * old + (1 - momentum) * new.detach()
            for old, new in zip(average, upstream._student().parameters(), strict=True)
        ]
    taught = list(upstream.teacher.network.parameters())
    for found, expected in zip(taught, average, strict=True):
        torch.testing.assert_close(found, expected)
    assert len(taught) == len(list(upstream.encoder.parameters())) + len(list(upstream.projector.parameters()))


def test_simsiam_is_minus_one_for_equal_vectors_and_symmetric_in_the_views():
    upstream = built("simsiam")
    views = [torch.randn(8, 32) for _ in range(2)]
    forth, back = (upstream.loss_of(each, [], batch_of(8)).loss for each in (views, views[::-1]))
    torch.testing.assert_close(forth, back)
    upstream.projector, upstream.predictor = nn.Identity(), nn.Identity()
    assert float(upstream.loss_of([views[0], 3 * views[0]], [], batch_of(8)).loss) == pytest.approx(-1)
    cosine = nn.functional.cosine_similarity(*views).mean()
    torch.testing.assert_close(upstream.loss_of(views, [], batch_of(8)).loss, -cosine)


@pytest.mark.parametrize("stop_gradient", [True, False])
def test_simsiams_gradient_stops_at_what_is_predicted(stop_gradient):
    """With predictions that do not depend on the input, all that is left of the gradient is the target's."""
    upstream = built("simsiam", stop_gradient=stop_gradient)
    upstream.projector = nn.Identity()
    upstream.predictor = Constant()
    views = [torch.randn(8, 16, requires_grad=True) for _ in range(2)]
    gradients = torch.autograd.grad(upstream.loss_of(views, [], batch_of(8)).loss, views)
    assert any(gradient.any() for gradient in gradients) != stop_gradient


def test_dinos_published_head_has_its_size():
    """The published count has the prototypes' lengths too, which are 1 and stay so."""
    with torch.device("meta"):
        upstream = built("dino", "base", hidden_size=384)
    assert parameters_of(upstream.head) + 65_536 == 23_138_560


def test_dino_of_a_uniform_teacher_and_student_costs_the_logarithm_of_the_prototypes():
    upstream = built("dino", prototypes=256)
    nn.init.constant_(upstream.head.prototypes, 1.0)
    upstream._taught = lambda view: torch.zeros(8, 256)
    pooled = [torch.randn(8, 32) for _ in range(2)]
    found = upstream.loss_of(pooled, [None, None], batch_of(8))
    assert float(found.loss.detach()) == pytest.approx(5.5452, abs=1e-4)
    assert float(found.figures["teacher_entropy"]) == pytest.approx(1, abs=1e-5)
    assert float(found.figures["answers"]) == pytest.approx(256, rel=1e-4)


def test_dino_compares_each_view_with_the_teachers_other_one():
    upstream = built("dino", teacher_temperature=0.05, student_temperature=0.2)
    upstream.centre.copy_(torch.randn(1, 256) / 10)
    pooled = [torch.randn(8, 32) for _ in range(2)]
    taught = [torch.rand(8, 256) for _ in range(2)]
    upstream._taught = lambda view: taught[view]
    expected = 0.0
    for own, other in ((0, 1), (1, 0)):
        answer = ((taught[other] - upstream.centre) / 0.05).softmax(dim=1)
        given = (upstream.head(pooled[own]) / 0.2).log_softmax(dim=1)
        expected = expected - (answer * given).sum(dim=1).mean() / 2
    torch.testing.assert_close(upstream.loss_of(pooled, [0, 1], batch_of(8)).loss, expected)


def test_dinos_centre_follows_the_mean_and_its_prototypes_are_unit_vectors():
    upstream = built("dino", centre_momentum=0.75)
    first, second = torch.rand(1, 256), torch.rand(1, 256)
    upstream.after_update({"centre": first}, 0.0)
    torch.testing.assert_close(upstream.centre, 0.25 * first)
    upstream.after_update({"centre": torch.cat([first, second])}, 0.0)  # of two micro-batches
    torch.testing.assert_close(upstream.centre, 0.75 * 0.25 * first + 0.25 * (first + second) / 2)
    cosines = upstream.head(torch.randn(8, 32))
    assert cosines.abs().max() <= 1 + 1e-6
    with torch.no_grad():
        scaled = upstream.head(torch.ones(8, 32))
        upstream.head.prototypes.mul_(7)
    torch.testing.assert_close(upstream.head(torch.ones(8, 32)), scaled)


@pytest.mark.parametrize(("done", "moves"), [(0.0, False), (0.5, True)])
def test_dinos_prototypes_are_frozen_at_first_with_a_gradient_of_nothing(done, moves):
    upstream = built("dino")
    pooled = [torch.randn(8, 32) for _ in range(2)]
    upstream._taught = lambda view: torch.rand(8, 256)
    upstream.loss_of(pooled, [None, None], batch_of(8)._replace(done=done)).loss.backward()
    assert upstream.head.prototypes.grad is not None
    assert bool(upstream.head.prototypes.grad.any()) == moves
    assert upstream.head.layers[0].weight.grad.any()


def test_dinos_two_collapses_are_named():
    upstream = built("dino")
    healthy = {"teacher_entropy": 0.6, "answers": 40.0, "spread": 0.5, "rank": 9.0}
    assert upstream.collapsed(healthy, 0.5) is None
    assert upstream.collapsed({**healthy, "answers": 1.2}, 0.5).startswith("one answer for all recordings: 1.2 of")
    assert upstream.collapsed({**healthy, "teacher_entropy": 0.99}, 0.5).startswith("no answer: ")
    assert upstream.collapsed({**healthy, "spread": 0.01}, 0.5).startswith("recordings all alike: ")


def recordings(clips: int, samples: int = 8_000) -> TrainingBatch:
    wavs = 0.1 * torch.randn(clips, samples, generator=torch.Generator().manual_seed(3))
    return TrainingBatch(wavs, torch.full((clips,), samples), torch.arange(clips))


def test_data2vec_and_the_distilled_student_have_their_published_sizes():
    with torch.device("meta"):
        data2vec = built("data2vec", "base")
        student = UPSTREAMS.get("distil").untrained(UPSTREAMS.get("distil").sizes["base"])
    assert parameters_of(data2vec.encoder) == 93_164_288
    assert parameters_of(data2vec.head) == 590_592
    assert parameters_of(student.encoder) - 768 == 23_491_200  # transformers' embedding of masked frames
    assert parameters_of(Heads(768, 2, 768)) == 2_362_368
    assert parameters_of(Heads(768, 3, 768)) == 3_543_552


@pytest.mark.parametrize("front_end", ["mel", "waveform"])
def test_data2vecs_targets_are_normalised_means_of_the_teachers_feed_forward_layers(front_end):
    upstream = built("data2vec", front_end=front_end, num_layers=3, top_layers=2, dropout=0.5, **WAVES).train()
    batch = recordings(3)
    found = upstream.targets(batch)
    assert upstream.encoder.training, "it is as it was"
    assert torch.equal(found, upstream.targets(batch)), "no dropout"
    assert found.mean(dim=1).abs().max() < 1e-4
    # The teacher is still the student's equal: blocks of the student, one after the other.
    upstream.eval()
    with torch.no_grad():
        hidden, wanted = upstream._inputs(batch, None), []
        for block in upstream._blocks():
            block(hidden)
            if front_end == "mel":
                middle = block.norm1(hidden + block._sa_block(hidden, None, None))
                wanted.append(block.linear2(block.activation(block.linear1(middle))))
                hidden = block.norm2(middle + wanted[-1])
            else:
                middle = block.layer_norm(hidden + block.attention(hidden)[0])
                wanted.append(block.feed_forward(middle))
                hidden = block.final_layer_norm(middle + wanted[-1])
    normed = [(each - each.mean(dim=1, keepdim=True)) / (each.var(dim=1, keepdim=True, correction=0) + 1e-5).sqrt()
              for each in wanted]  # fmt: skip
    torch.testing.assert_close(found, (normed[1] + normed[2]) / 2, rtol=1e-3, atol=1e-4)


def test_data2vecs_loss_is_of_masked_frames_and_counts_the_root_of_their_size():
    upstream = built("data2vec")
    batch = recordings(3)
    upstream.targets = lambda batch: torch.zeros(3, 24, 16)
    nn.init.zeros_(upstream.head.weight)
    nn.init.ones_(upstream.head.bias)  # every number off by one
    found = upstream.pretrain_loss(batch, torch.Generator().manual_seed(0))
    assert float(found.loss.detach()) == pytest.approx(16**0.5)
    assert pytest.approx(27.7128, abs=1e-4) == 768 / 768**0.5


@pytest.mark.parametrize("front_end", ["mel", "waveform"])
def test_data2vecs_masked_frames_do_not_reach_the_student(front_end):
    upstream = built("data2vec", front_end=front_end, **WAVES).eval()
    batch = recordings(2)
    with torch.no_grad():
        mask = torch.zeros(2, int(upstream.frame_lengths(batch.wav_lengths)[0]), dtype=torch.bool)
        mask[0] = True
        one = upstream._inputs(batch, mask)
        other = upstream._inputs(batch._replace(wavs=batch.wavs.flip(1)), mask)
    torch.testing.assert_close(one[0], other[0])
    assert not torch.allclose(one[1], other[1])


def test_data2vecs_teacher_is_of_the_blocks_alone_and_follows_its_schedule():
    upstream = built("data2vec", momentum=0.5, last_momentum=0.9, momentum_until=0.5)
    average = [each.detach().clone() for each in upstream._blocks().parameters()]
    for done in (0.0, 0.25, 0.75):
        for parameter in upstream.encoder.parameters():
            nn.init.normal_(parameter)
        upstream.after_update({}, done)
        momentum = {0.0: 0.5, 0.25: 0.7, 0.75: 0.9}[done]
        average = [
            momentum * old + (1 - momentum) * new.detach()
            for old, new in zip(average, upstream._blocks().parameters(), strict=True)
        ]
    taught = list(upstream.teacher.network.parameters())
    assert len(taught) == len(average)
    for found, expected in zip(taught, average, strict=True):
        torch.testing.assert_close(found, expected)


def test_data2vecs_collapse_is_named():
    upstream = built("data2vec")
    figures = upstream.pretrain_loss(recordings(3), torch.Generator().manual_seed(0)).figures
    assert upstream.collapsed({name: float(each) for name, each in figures.items()}, 0.5) is None
    for block in upstream.teacher.network:
        nn.init.zeros_(block.linear2.weight)
    figures = upstream.pretrain_loss(recordings(3), torch.Generator().manual_seed(0)).figures
    found = upstream.collapsed({name: float(each) for name, each in figures.items()}, 0.5)
    assert found.startswith("targets all alike: ")
    assert upstream.collapsed({"target_deviation": 0.5, "prediction_deviation": 0.001}, 0.5).startswith(
        "predictions all"
    )


def test_distilling_into_nothing_costs_the_mean_and_the_logarithm_of_two():
    upstream = built("distil")
    for output in upstream.heads.outputs:
        nn.init.zeros_(output.weight)
        nn.init.zeros_(output.bias)
    batch = recordings(3)
    (target,) = upstream.taught(batch, 24)
    found = upstream.pretrain_loss(batch, torch.Generator())
    assert float(found.loss.detach()) == pytest.approx(float(target.abs().mean()) + 0.6931, abs=1e-3)
    assert upstream.collapsed({name: float(each) for name, each in found.figures.items()}, 1.0).startswith(
        "teacher not"
    )
    assert upstream.collapsed({"explained": 0.4}, 1.0) is None
    assert upstream.collapsed({"explained": 0.0}, 0.2) is None


def test_two_layers_of_a_teacher_are_averaged_and_every_second_of_its_frames_is_taken(tmp_path):
    teacher = UPSTREAMS.get("apc").untrained(UPSTREAMS.get("apc").sizes["small"]).freeze()
    teacher.save(tmp_path / "apc.safetensors", {})
    upstream = built("distil", teacher=f"apc@{tmp_path / 'apc.safetensors'}", layers=(0, 1), cosine=0.0)
    batch = recordings(2)
    states = teacher.extract(batch.wavs, batch.wav_lengths)
    targets = upstream.taught(batch, 24)
    for found, layer in zip(targets, states.layers, strict=True):
        assert torch.equal(found, layer[:, :48:2])
    upstream.eval()
    predicted = upstream.heads(upstream.encoder.encode(batch.wavs, batch.wav_lengths).layers[-1])
    expected = sum((found - target).abs().mean() for found, target in zip(predicted, targets, strict=True)) / 2
    torch.testing.assert_close(upstream.pretrain_loss(batch, torch.Generator()).loss, expected)
    before = {key: each.clone() for key, each in teacher.state_dict().items()}
    upstream.pretrain_loss(batch, torch.Generator()).loss.backward()
    assert all(torch.equal(each, before[key]) for key, each in upstream._teacher[0].state_dict().items())
    assert not any(parameter.grad is not None for parameter in upstream._teacher[0].parameters())
    assert not any("teacher" in key for key in upstream.state_dict())


@pytest.mark.parametrize(("changes", "message"), [
    ({"layers": (3,)}, r"layers=3: fbank_cmvn has layers 0 to 0"),
    ({"stack": 1, "teacher": "cpc"}, r"teacher=cpc: its frames can't be predicted every 160 samples"),
])  # fmt: skip
def test_a_teacher_that_can_not_be_predicted_is_refused(changes, message):
    with pytest.raises(ContractError, match=message):
        built("distil", **changes)


def test_a_student_of_the_teachers_kind_begins_with_its_weights(tmp_path):
    import transformers

    sizes = {"conv_channels": (8,) * 7, "hidden_size": 16, "num_heads": 2, "feedforward_size": 32, **WAVES}
    student = replace(UPSTREAMS.get("distil").sizes["base"], num_layers=1, **sizes)
    theirs = transformers.HubertModel(transformers.HubertConfig(**replace(student, num_layers=2).for_transformers()))
    theirs.save_pretrained(tmp_path)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(tmp_path)
    for copied in (True, False):
        upstream = UPSTREAMS.get("distil").untrained(
            replace(student, teacher=f"hf:{tmp_path}", layers=(1, 2), copied=copied)
        )
        upstream.prepare(UPSTREAMS.get("distil").recipes["base"][-1], 1)
        own, taught = upstream.encoder.model.state_dict(), theirs.state_dict()
        assert all(torch.equal(own[key], taught[key]) for key in own) == copied
        assert torch.isfinite(upstream.eval().pretrain_loss(recordings(2), torch.Generator()).loss)


def test_byol_without_its_predictor_is_named_and_with_it_is_not(corpus, tmp_path):
    for predictor, warned in ((True, []), (False, ["recordings all alike"])):
        what = plan("byol", steps=60, learning_rate=1e-2, warmup=0.1)
        config = replace(what.config, predictor=predictor, momentum=0.9, momentum_rises=False, strength=0.5)
        notes = pretrain(replace(what, config=config), corpus, tmp_path / str(predictor), device="cpu")
        assert [warning.split(":")[0] for warning in notes["warnings"]] == warned
