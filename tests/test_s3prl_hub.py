"""`s3prl:` and `s3prl-expert:` with a package of that name made here; the real one is compared in the parity tests."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest
import torch
from pretrained_files import assert_contract_holds, noise, states_of
from torch import nn

from core.errors import BenchmarkError, CheckpointError, ContractError, UnknownNameError
from core.lengths import pad
from upstreams._resolve import build_upstream


class ToyUpstream(nn.Module):
    """In s3prl's manner, and as dependent on the batch as many of its upstreams: means over padding."""

    def __init__(self, ckpt: str | None = None) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(float(Path(ckpt).read_text()) if ckpt else 1.0))

    def get_downsample_rates(self, key: str) -> int:
        return 100

    def forward(self, wavs: list[torch.Tensor]) -> dict[str, list[torch.Tensor]]:
        frames = nn.utils.rnn.pad_sequence(wavs, batch_first=True).unfold(1, 130, 100)
        return {"hidden_states": [frames - frames.mean(), self.scale * frames]}


class UnevenUpstream(ToyUpstream):
    def forward(self, wavs: list[torch.Tensor]) -> dict[str, list[torch.Tensor]]:
        first, second = super().forward(wavs)["hidden_states"]
        return {"hidden_states": [first, second[:, ::2]]}


class TrimmingUpstream(ToyUpstream):
    def forward(self, wavs: list[torch.Tensor]) -> dict[str, list[torch.Tensor]]:
        return super().forward([wav[: int(wav.nonzero().max()) + 1] for wav in wavs])


@pytest.fixture
def s3prl(monkeypatch):
    """A package of that name with a hub of three."""
    entries = {"toy_local": ToyUpstream, "toy": ToyUpstream, "uneven": UnevenUpstream, "trimming": TrimmingUpstream}
    modules = {
        "s3prl": {"__version__": "0.4.18"},
        "s3prl.hub": {**entries, "options": lambda: list(entries)},
        "s3prl.upstream": {},
        "s3prl.upstream.interfaces": {"UpstreamBase": ToyUpstream},
    }
    for name, content in modules.items():
        module = types.ModuleType(name)
        vars(module).update(content, __path__=[])
        monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.usefixtures("s3prl")
def test_an_upstream_of_s3prl_is_brought_under_the_contract():
    upstream = build_upstream("s3prl:toy")
    assert (upstream.num_layers, upstream.hidden_size, upstream.downsample_rate) == (2, 130, 100)
    assert upstream.min_samples == 130
    assert upstream.frame_lengths(torch.tensor([130, 229, 230, 16_000])).tolist() == [1, 1, 2, 159]
    assert_contract_holds(upstream)
    states = upstream.extract(*pad([noise(1_000), noise(2_000)]))
    assert states.lengths.tolist() == [9, 19]
    torch.testing.assert_close(states.layers[1][0, 3], noise(1_000)[300:430])


@pytest.mark.usefixtures("s3prl")
def test_checkpoints_of_s3prls_upstreams_are_in_the_digest(tmp_path):
    digests = []
    for scale in ("1.0", "2.0"):
        (tmp_path / "scale").write_text(scale)
        digests.append(build_upstream(f"s3prl:toy_local@{tmp_path / 'scale'}").digest())
    assert len({*digests, build_upstream("s3prl:toy").digest()}) == 3


@pytest.mark.usefixtures("s3prl")
def test_upstreams_of_s3prl_that_cannot_be_used_say_why(tmp_path):
    with pytest.raises(UnknownNameError, match="did you mean 'trimming'"):
        build_upstream("s3prl:triming")
    with pytest.raises(CheckpointError, match="needs a file"):
        build_upstream("s3prl:toy_local")
    with pytest.raises(ContractError, match=r"\(1, 159, 130\), \(1, 80, 130\)"):
        build_upstream("s3prl:uneven")
    (tmp_path / "scale").write_text("no number")
    with pytest.raises(CheckpointError, match=r"s3prl can't load it \(ValueError"):
        build_upstream(f"s3prl:toy_local@{tmp_path / 'scale'}")
    upstream = build_upstream("s3prl:trimming")
    states_of(upstream, noise(1_000))
    with pytest.raises(ContractError, match="1000 samples gave 9 frames once and 4 now"):
        states_of(upstream, torch.cat([noise(500), torch.zeros(500)]))


@pytest.mark.usefixtures("s3prl")
def test_an_expert_folder_in_s3prls_manner(tmp_path):
    expert = "from ..interfaces import UpstreamBase\nfrom .sizes import FACTOR\n\n\n"
    expert += "class UpstreamExpert(UpstreamBase):\n    def forward(self, wavs):\n"
    expert += "        return super().forward([FACTOR * wav for wav in wavs])\n"
    (tmp_path / "expert.py").write_text(expert)
    (tmp_path / "sizes.py").write_text("FACTOR = 3\n")
    (tmp_path / "scale").write_text("2.0")
    upstream = build_upstream(f"s3prl-expert:{tmp_path}@{tmp_path / 'scale'}")
    assert upstream.display_name == f"{tmp_path.name}@scale"
    torch.testing.assert_close(states_of(upstream, noise(1_000))[1, 0], 6 * noise(1_000)[:130])
    assert_contract_holds(upstream)
    before = upstream.digest()
    (tmp_path / "sizes.py").write_text("FACTOR = 3  # the code is in the digest\n")
    assert build_upstream(f"s3prl-expert:{tmp_path}@{tmp_path / 'scale'}").digest() != before
    with pytest.raises(CheckpointError, match=r"has no expert\.py"):
        build_upstream(f"s3prl-expert:{tmp_path / 'nowhere'}")


@pytest.mark.parametrize("spec", ["s3prl:fbank", "s3prl-expert:{}"])
def test_without_s3prl_it_says_how_to_install_it(spec, tmp_path, monkeypatch):
    (tmp_path / "expert.py").write_text("class UpstreamExpert: pass\n")
    monkeypatch.setitem(sys.modules, "s3prl", None)  # Python's way to say that there is none
    with pytest.raises(CheckpointError, match=r"pip install 'frostbench\[s3prl\]'") as caught:
        build_upstream(spec.format(tmp_path))
    assert isinstance(caught.value, BenchmarkError)
    assert "\n" not in str(caught.value)
