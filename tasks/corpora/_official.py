"""What the adapters of official corpora share: finding folders, leaving out what is not there, comparing counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from core.manifest import SPLITS, Manifest, Utterance, refuse

A_PART = "a part of the corpus, or an interrupted download"
SURPLUS = "another version of the corpus, or files that are not part of it"


def find_folder(candidates: Iterable[Path], fits: Callable[[Path], bool]) -> Path | None:
    """The first folder that fits, or None."""
    return next((folder for folder in candidates if folder.is_dir() and fits(folder)), None)


def checked(  # each is another part of a manifest
    name: str,
    source: Path,
    rows: Sequence[Utterance],
    notes: Iterable[str],
    missing: Iterable[str],
    *,
    splits: Sequence[str] = SPLITS,
) -> Manifest:
    """The manifest of what was found; splits without a recording are missing if nothing else is.

    Args:
        name: of the corpus.
        source: its folder.
        rows: that were found.
        notes: what a user should know.
        missing: parts that are not there, and how to get them.
        splits: that the corpus has; one with folds has train alone.

    Raises: ManifestError: nothing was found, and the message lists what is missing; or an id stands twice.
    """
    lacking = tuple(missing) or tuple(
        f"split {split} has no recording: {A_PART}" for split in splits if not any(row.split == split for row in rows)
    )
    manifest = Manifest(name, source, tuple(rows), tuple(notes), lacking)
    twice = [
        f"{row}: stands there {count} times" for row, count in Counter(row.id for row in rows).items() if count > 1
    ]
    refuse(source, twice)
    if not rows:
        replace(manifest, missing=(*lacking, "or name the folder where it lies with --root")).require_complete()
    return manifest


def count_note(where: str, found: int, official: int, *, what: str = "recordings", cause: str = "") -> list[str]:
    """One line when a count differs from the official one, none when it agrees.

    Args:
        where: split or folder.
        found: how many there are.
        official: how many the published protocol has.
        what: is counted.
        cause: what is known of the reason; the usual one for more or fewer if empty.
    """
    if found == official:
        return []
    difference = f"{abs(found - official):,} {'fewer' if found < official else 'more'}"
    reason = cause or (A_PART if found < official else SURPLUS)
    return [f"{where}: {found:,} {what} instead of the official {official:,} ({difference}): {reason}"]


def count_notes(rows: Iterable[Utterance], official: Mapping[str, int], causes: Mapping[str, str]) -> list[str]:
    """`count_note` for every split that has rows; a split without any is missing, which is told elsewhere."""
    found = Counter(row.split for row in rows)
    return [
        note
        for split, count in official.items()
        if found[split]
        for note in count_note(split, found[split], count, cause=causes.get(split, ""))
    ]


def existing(rows: Sequence[Utterance], listed_in: str) -> tuple[list[Utterance], dict[str, str]]:
    """The rows whose recordings are there, and for each split that lost some the cause to put in its count note."""
    there: dict[Path, bool] = {}
    lost: dict[str, dict[Path, None]] = {}
    kept = []
    for row in rows:
        gone = [path for path in (source.path for source in row.sources) if not _is_there(path, there)]
        if gone:
            lost.setdefault(row.split, {}).update(dict.fromkeys(gone))
        else:
            kept.append(row)
    causes = {
        split: f"{len(gone):,} recordings named in {listed_in} are not there, such as {next(iter(gone))}; unpack them"
        for split, gone in lost.items()
    }
    return kept, causes


def _is_there(path: Path, known: dict[Path, bool]) -> bool:
    """Whether it is a file; looks once, as mixtures have sources in common."""
    if path not in known:
        known[path] = path.is_file()
    return known[path]
