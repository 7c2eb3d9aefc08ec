"""Text as symbols: characters, words (phones, too), or characters with the marks of slots around values."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, ClassVar, Literal

import torch

from core.errors import TrainingError
from downstreams.labels._base import ANY_CONTEXT, LabelContext, Labels, register_labels

BLANK = 0  # CTC's
UNKNOWN = "<unk>"
Unit = Literal["characters", "words", "marked"]
# A slot's value with its marks, as SUPERB's slot filling writes it: `B-city new york E-city`.
MARKED = re.compile(r"(?<!\S)(B-(\S+) )(\S.*?)( E-\2)(?!\S)")
# Symbols behind the text's that end marks add, so that heads have s3prl's sizes: the end, and what no text has. Of
# characters these are two special ones of fairseq's dictionary; else one for what is unknown, which a head may predict.
END_SYMBOLS: Mapping[Unit, int] = {"characters": 3, "words": 2, "marked": 2}


@register_labels("text", "characters")
@dataclass(frozen=True)
class TextLabels(Labels):
    """Text as symbols: id 0 is CTC's blank, or where a decoder begins and ends; the others are `symbols` in order.

    Repeated spaces carry no meaning in the corpora's transcripts and are folded away, as is letter case unless a task
    wants it.

    Attributes:
        symbols: those that occur in train, in alphabetical order.
        unit: what a symbol is: a character; a word, between spaces, such as a phone; or a character or slot mark, the
            mark together with the space between it and the value.
        end_marks: targets end with a symbol for the end, of characters behind a space, which the head has to learn and
            `decode` drops; some more outputs stay unused, as in s3prl.
        fold: whether letters are lower-cased; slot marks never are.
    """

    samples: ClassVar[tuple[Any, ...]] = ("ab", "ba", "a b", "b a", "aab", "abb", "c", "ca b")
    symbols: tuple[str, ...]
    unit: Unit = "characters"
    end_marks: bool = False
    fold: bool = True

    @classmethod
    def from_train(
        cls, labels: Sequence[Any], name: str, unit: Unit = "characters", end_marks: bool = False, fold: bool = True
    ) -> TextLabels:
        """Collects the symbols that occur; see Labels.from_train.

        Raises: TrainingError: none does.
        """
        plain = cls((), unit, end_marks, fold)
        symbols = set(chain.from_iterable(plain.split(plain.reference(label)) for label in labels))
        if not symbols:
            raise TrainingError(
                f"no {name} of train has a single character: there is nothing to learn; give the rows text"
            )
        return cls(tuple(sorted(symbols)), unit, end_marks, fold)

    @property
    def sizes(self) -> list[int]:
        """One question: the blank, the symbols, and those that end marks add."""
        return [1 + len(self.symbols) + (END_SYMBOLS[self.unit] if self.end_marks else 0)]

    def split(self, text: str) -> list[str]:
        """The symbols of a text in the form of `reference`."""
        if self.unit == "words":
            return text.split()
        if self.unit == "characters":
            return list(text)
        symbols, end = [], 0
        for found in MARKED.finditer(text):
            begin, _, value, close = found.groups()
            symbols += [*text[end : found.start()], begin, *value, close]
            end = found.end()
        return [*symbols, *text[end:]]

    def encode(self, label: Any, context: LabelContext = ANY_CONTEXT) -> torch.Tensor:
        """Symbol ids, int64 (symbols,). Symbols that train lacks have no id and are left out."""
        symbols = self.split(self.reference(label))
        if self.end_marks and self.unit == "characters":
            symbols.append(" ")
        ids = [self._ids[symbol] for symbol in symbols if symbol in self._ids]
        return torch.tensor([*ids, len(self.symbols) + 1] if self.end_marks else ids, dtype=torch.int64)

    def decode(self, encoded: Sequence[int], context: LabelContext = ANY_CONTEXT) -> str:
        """Ids without blanks -> text; the end and what is no symbol are dropped, but what is unknown is a symbol.

        Marks stand apart from words, so that a slot counts, as in SUPERB, where a space beside it was not recognised.
        """
        symbols = [self._spelt[index] for index in encoded if index in self._spelt]
        if self.unit == "marked":
            symbols = [f" {symbol} " if symbol.startswith(("B-", " E-")) else symbol for symbol in symbols]
        return _single_spaces((" " if self.unit == "words" else "").join(symbols))

    def reference(self, label: Any) -> str:
        """The text with composed letters (NFC), single spaces, none at the ends, in lower case unless case counts."""
        text = _single_spaces(str(label))
        if not self.fold:
            return text
        if self.unit != "marked":
            return _single_spaces(text.lower())
        parts, end = [], 0
        for found in MARKED.finditer(text):
            begin, _, value, close = found.groups()
            parts += [text[end : found.start()].lower(), begin, value.lower(), close]
            end = found.end()
        return _single_spaces("".join([*parts, text[end:].lower()]))

    def to_json(self) -> dict[str, Any]:
        """See Labels.to_json."""
        return {"kind": "text", "symbols": list(self.symbols), "unit": self.unit, "end_marks": self.end_marks,
                "fold": self.fold}  # fmt: skip

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> TextLabels:
        """See Labels.from_json; "characters" is what the kind was called when it had no other units."""
        symbols, end_marks = tuple(content["symbols"]), content["end_marks"]
        return cls(symbols, content.get("unit", "characters"), end_marks, content.get("fold", True))

    @cached_property
    def _spelt(self) -> Mapping[int, str]:
        spelt = dict(enumerate(self.symbols, start=1))
        return spelt if self.unit == "characters" else {**spelt, len(self.symbols) + 2: UNKNOWN}

    @cached_property
    def _ids(self) -> Mapping[str, int]:
        return {symbol: number for number, symbol in enumerate(self.symbols, start=1)}


def _single_spaces(text: str) -> str:
    """Also with each letter composed: lower-casing may take one apart."""
    return " ".join(unicodedata.normalize("NFC", text).split())
