"""Punctuation of German as Moses' scripts normalise it (Koehn et al., ACL 2007), for translations as in SUPERB-SG.

Of their rules those are left out that are for signs of East Asian languages.
"""

from __future__ import annotations

import re
from unicodedata import category

SPACE = "\u00a0"  # that does not break
RULES: tuple[tuple[str, str], ...] = (
    ("[“”]", '"'),
    ("’", "'"),
    ("…", "..."),
    ("\r", ""),
    # Brackets have a space outside, none inside.
    (r"\(", " ("),
    (r"\)", ") "),
    (" +", " "),
    (r"\) ([.!:?;,])", r")\1"),
    (r"\( ", "("),
    (r" \)", ")"),
    (r"(\d) %", r"\1%"),
    (" ([:;])", r"\1"),
    # One kind of quotation mark, apostrophe and dash.
    ("`", "'"),
    ("''", ' " '),
    ("„", '"'),
    ("–", "-"),
    ("—", " - "),
    (" +", " "),
    ("[´‘‚]", "'"),
    ("''", '"'),
    (f"{SPACE}«{SPACE}|«{SPACE}?", '"'),
    (f"{SPACE}»{SPACE}|{SPACE}?»", '"'),
    # Spaces that do not break.
    (f"{SPACE}%", "%"),
    (f"nº{SPACE}", "nº "),
    (f"{SPACE}:", ":"),
    (f"{SPACE}(ºC|cm)", r" \1"),
    (f"{SPACE}([?!;])", r"\1"),
    (f",{SPACE}", ", "),
    (" +", " "),
    # Commas stand behind a quotation, also full stops that do not end the text.
    (',"', '",'),
    (r'(\.+)"(\s*[^<])', r'"\1\2'),
    (rf"(\d){SPACE}(\d)", r"\1,\2"),
)


def normalised(text: str) -> str:
    """A text with plain quotation marks, dashes and spaces, and no space before a sign; case and signs stay."""
    for pattern, replacement in RULES:
        text = re.sub(pattern, replacement, text)
    text = "".join(letter for letter in text if category(letter)[0] != "C").strip()
    return re.sub(" ([.?,'])", r"\1", text).replace("do n't", "don't")
