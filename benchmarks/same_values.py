"""Whether two folders of results hold the same values: what has to be true of a change that shall change no number.

Runs are matched by upstream, task, corpus, recipe and seed, not by their digests, which may change with the code.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import NamedTuple


class Key(NamedTuple):
    """What a run is of, whatever its digest."""

    upstream: str
    task: str
    corpus: str
    recipe: str
    seed: int


def main() -> None:
    """Prints a line a run, and ends with 1 where a value differs or a run is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path, help="folder of results")
    parser.add_argument("after", type=Path, help="folder of results")
    parser.add_argument("--within", type=float, default=0.0, help="largest difference, in the metric's unit")
    given = parser.parse_args()
    before, after = values_of(given.before), values_of(given.after)
    failed = 0
    for key in sorted(before | after):
        one, other = before.get(key), after.get(key)
        is_same = one is not None and other is not None and abs(one - other) <= given.within
        failed += not is_same
        print(f"{'same' if is_same else 'DIFFERS':8} {' / '.join(map(str, key)):60} {one} {other}")
    print(f"{len(before | after) - failed} of {len(before | after)} values are the same")
    raise SystemExit(1 if failed or not before else 0)


def values_of(folder: Path) -> dict[Key, float]:
    """Run -> value on test, read from the records as they lie there, of any schema."""
    values = {}
    for path in sorted((folder / "records").glob("[!.]*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        names = (record[part]["name"] for part in ("upstream", "task", "corpus", "recipe"))
        values[Key(*names, record["seed"])] = float(record["value"])
    return values


if __name__ == "__main__":
    main()
