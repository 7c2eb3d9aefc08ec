"""A pass in float32, as Frostbench makes it, against other forms of the same pass: bfloat16, compiled, channels last.

Each side passes the same batches through the same upstream, by turns. What comes out is compared with float32: the
largest difference of any hidden state, in standard deviations of that layer. Compiling itself is not counted, but told.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from benchmarks._material import mixed_lengths, save_hubert, scratch, speech_corpus
from benchmarks._measure import Ratio, Report, by_turns, medians, parser
from core.audio import read_audio
from core.hidden_states import HiddenStates
from core.lengths import pad
from frostbench.jobs.base import set_up_worker
from upstreams._base import Upstream
from upstreams._resolve import build_upstream

Batches = list[tuple[torch.Tensor, torch.Tensor]]
Form = Callable[..., HiddenStates]


def main() -> None:
    """Measures and prints."""
    asked = parser(__doc__)
    asked.add_argument("--upstream", action="append", help="several; apc, hubert, simclr and a HuBERT of 256x4")
    asked.add_argument("--recordings", type=int, default=24, help="of 2 to 12 s each")
    asked.add_argument("--batch", type=int, default=6, help="recordings at a time")
    options = asked.parse_args()
    set_up_worker(1)
    report = Report("pass_forms", options.quick, facts={**vars(options), "bfloat16": _bfloat16()})
    with scratch() as folder:
        hubert = f"hf:{save_hubert(folder / 'hubert', '256x4')}"
        batches = _batches(folder, 6 if options.quick else options.recordings, options.batch)
        for spec in options.upstream or (["apc"] if options.quick else ["apc", "hubert", "simclr", hubert]):
            upstream = build_upstream(spec)
            report.ratios += _compared(upstream, batches, 1 if options.quick else options.repeats, report)
    report.show()


def _batches(folder: Path, recordings: int, size: int) -> Batches:
    """Of recordings in order of length, so that little is padded."""
    manifest = speech_corpus(folder / "corpus", mixed_lengths(recordings))
    wavs = sorted((read_audio(row.path) for row in manifest.utterances), key=len)
    return [pad(wavs[start : start + size]) for start in range(0, len(wavs), size)]


def _compared(upstream: Upstream, batches: Batches, repeats: int, report: Report) -> list[Ratio]:
    last, compiled = copy.deepcopy(upstream).to(memory_format=torch.channels_last), copy.deepcopy(upstream)
    compiled.encode = torch.compile(compiled.encode, dynamic=True)  # type: ignore[method-assign]
    forms: dict[str, Form] = {
        "float32": upstream.extract,
        "bfloat16": partial(upstream.extract, precision="bfloat16"),
        "channels last": last.extract,
        "compiled": compiled.extract,
    }
    told = {}
    for name, form in forms.items():
        began = time.perf_counter()
        with torch.inference_mode():
            for batch in batches:
                form(*batch)
        told[name] = time.perf_counter() - began
    seconds = by_turns({name: _side(form, batches) for name, form in forms.items()}, repeats)
    best = medians(seconds)
    report.facts[upstream.display_name] = {"seconds": seconds, "first_pass": told}
    lines = []
    for name, form in forms.items():
        if name != "float32":
            detail = f"{best[name]:.2f} s, float32 {best['float32']:.2f} s; first pass {told[name]:.1f} s; differs by "
            detail += f"{_difference(forms['float32'], form, batches[0]):.1g} standard deviations at most"
            title = f"{upstream.display_name}: {name} / float32"
            lines.append(Ratio(title, best[name] / best["float32"], detail=detail))
    return lines


def _side(form: Form, batches: Batches) -> Callable[[], None]:
    def passes() -> None:
        with torch.inference_mode():
            for batch in batches:
                form(*batch)

    return passes


def _difference(exact: Form, other: Form, batch: tuple[torch.Tensor, torch.Tensor]) -> float:
    with torch.inference_mode():
        pairs = zip(exact(*batch).layers, other(*batch).layers, strict=True)
        return max(float((a.float() - b.float()).abs().max() / a.float().std()) for a, b in pairs)


def _bfloat16() -> bool:
    """Whether the processor has instructions for it."""
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags


if __name__ == "__main__":
    main()
