"""Base dependencies suffice to evaluate and report; what needs more names the command that installs it."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from conftest import call

from core.errors import BenchmarkError
from core.extras import EXTRAS, require_extra

ROOT = Path(__file__).parent.parent
DECLARED = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
# What only extras bring, with what those depend on.
ABSENT = (
    *("accelerate", "sklearn", "joblib", "threadpoolctl", "tensorboard", "torch.utils.tensorboard", "grpc", "werkzeug"),
    *(
        "datasets",
        "pyarrow",
        "dill",
        "multiprocess",
        "xxhash",
        "ray",
        "s3prl",
        "omegaconf",
        "onnx",
        "onnxruntime",
        "pesq",
    ),
)
WITHOUT = f"""
import sys
sys.modules.update(dict.fromkeys({ABSENT!r}))  # None: every import of it fails
from run_benchmark import main
main()
"""


def without_extras(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True
    )


APART = {"s3prl", "pesq"}  # of `all`: they are built where they are installed


def test_every_extra_is_declared():
    assert set(DECLARED) == {*EXTRAS, "all", "dev"}
    assert DECLARED["all"] == [f"frostbench[{','.join(extra for extra in DECLARED if extra in {*EXTRAS} - APART)}]"]


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_absent_extra_is_named_in_one_line(extra, monkeypatch):
    monkeypatch.setitem(sys.modules, EXTRAS[extra][0], None)
    with pytest.raises(BenchmarkError) as caught:
        require_extra(extra, "what one wants")
    message = str(caught.value)
    assert message.startswith(f"what one wants: {EXTRAS[extra][0]}") and "\n" not in message
    assert message.endswith(f"not installed here; run: pip install 'frostbench[{extra}]'")


@pytest.mark.parametrize(
    ("arguments", "module", "extra"),
    [
        (("pretrain", "apc", "--steps", 1, "--output", "TMP/checkpoints"), "accelerate", "pretrain"),
        (("pretrain", "hubert", "--steps", 1, "--output", "TMP/checkpoints"), "sklearn", "pretrain"),
        (("prepare", "hf:some/where", "--cache", "TMP/cache"), "datasets", "hf-datasets"),
        (("run", "--upstream", "fbank", "--task", "ks", "--executor", "ray", "--cache", "TMP/cache"), "ray", "ray"),
        (("check", "s3prl:fbank"), "s3prl", "s3prl"),
        (("run", "--upstream", "fbank", "--task", "ks", "--log", "tensorboard"), "tensorboard", "trackers"),
        (("run", "--upstream", "fbank", "--task", "se", "--cache", "TMP/cache"), "pesq", "pesq"),
        (("run", "--upstream", "mockingjay", "--finetune", "lora", "--task", "ks", "--cache", "TMP/c"), "peft", "lora"),
    ],
)
def test_a_command_says_which_extra_it_lacks(arguments, module, extra, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, module, None)
    result = call(*(str(argument).replace("TMP", str(tmp_path)) for argument in arguments))
    assert result.code == 2
    assert f"pip install 'frostbench[{extra}]'" in result.err and module in result.err
    assert len(result.err.strip().splitlines()) == 1
    assert not (tmp_path / "checkpoints").exists()


def test_the_base_suffices_to_evaluate_a_checkpoint_and_draw_the_page(corpus_folder, tasks_file, tmp_path):
    """Also a checkpoint of transformers, which imports some of these packages where they are."""
    from test_upstream_contract import SMALL
    from transformers import HubertConfig, HubertModel, Wav2Vec2FeatureExtractor

    HubertModel(HubertConfig(**SMALL)).save_pretrained(tmp_path / "hubert")
    Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=False).save_pretrained(tmp_path / "hubert")
    folders = ("--output", tmp_path / "results", "--cache", tmp_path / "cache")
    upstreams = ("--upstream", "fbank", "--upstream", f"hf:{tmp_path / 'hubert'}")
    ran = without_extras(
        "run", *upstreams, "--task", f"{tasks_file}:KS", "--corpus", corpus_folder, *folders, "--workers", 1
    )
    assert ran.returncode == 0, ran.stderr
    reported = without_extras("report", "--output", tmp_path / "results", "--html", tmp_path / "page.html", "--custom")
    assert reported.returncode == 0, reported.stderr
    assert "hubert" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_what_the_base_lacks_is_absent_there():
    """So that the test before tests something."""
    lacking = without_extras("pretrain", "apc")
    assert lacking.returncode == 2
    assert "accelerate, sklearn, tensorboard are not installed here" in lacking.stderr
