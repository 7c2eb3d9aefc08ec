"""What of an upstream is trained together with the head (`run --finetune`), and how; frozen is the default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from core.errors import BenchmarkError

Mode = Literal["full", "top", "lora"]
FORMS = "full, top:N (its last N blocks) or lora[:RANK]"
DEFAULT_RANK = 8  # of LoRA's paper, section 7.2: larger ones hardly add anything
# Published rates lie between the two of each grid. Of whole speech encoders: 3e-5 to 5e-5 (wav2vec 2.0, appendix B;
# 1e-5 for HuBERT Large). Of low-rank matrices: 2e-4 to 5e-4 (LoRA, tables 9 to 11).
RATES: Mapping[Mode, tuple[float, ...]] = {"full": (1e-4, 1e-5), "top": (1e-4, 1e-5), "lora": (1e-3, 1e-4)}


@dataclass(frozen=True)
class FineTuning:
    """How an upstream is fine-tuned. Training begins at the head that was trained on the frozen upstream.

    Attributes:
        mode: "full" trains all parameters, "top" those of the last blocks, "lora" low-rank matrices beside frozen ones.
        blocks: of "top", how many.
        rank: of "lora", that of the matrices.
        learning_rates: of the upstream; the best on valid is taken.
        share: of the recipe's updates: the head has learned before.
        warmup: share of these updates over which all rates rise from zero; then they fall linearly to zero.
        looks: how often valid is looked at: it passes the upstream each time, where means of a frozen one are at hand.
    """

    mode: Mode
    blocks: int = 0
    rank: int = 0
    learning_rates: tuple[float, ...] = RATES["full"]
    share: float = 0.1
    warmup: float = 0.1
    looks: int = 10

    @property
    def label(self) -> str:
        """As it is asked for: full, top:2, lora:8."""
        size = self.blocks if self.mode == "top" else self.rank
        return self.mode if self.mode == "full" else f"{self.mode}:{size}"

    @classmethod
    def from_text(cls, text: str) -> FineTuning:
        """What `--finetune` means.

        Raises: BenchmarkError: it is none of the forms.
        """
        name, colon, size = text.partition(":")
        if name == "full" and not colon:
            return cls("full")
        if (name == "top" and colon) or name == "lora":
            number = size if colon else str(DEFAULT_RANK)
            if number.isascii() and number.isdecimal() and 0 < int(number) < 10_000:
                if name == "top":
                    return cls("top", blocks=int(number))
                return cls("lora", rank=int(number), learning_rates=RATES["lora"])
        raise BenchmarkError(f"--finetune {text!r}: write {FORMS}, N and RANK being whole numbers from 1")

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> FineTuning:
        """The inverse of canonical JSON."""
        return cls(**{**content, "learning_rates": tuple(content["learning_rates"])})


def is_recorded(content: Any) -> bool:
    """Whether this is what a recipe says of a fine-tuning, as far as names are made of it."""
    if not isinstance(content, Mapping) or content.get("mode") not in get_args(Mode):
        return False
    sizes = [content.get(key) for key in ("blocks", "rank")]
    return all(isinstance(size, int) and not isinstance(size, bool) for size in sizes)
