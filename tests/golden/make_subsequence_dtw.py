"""Writes subsequence_dtw.json: `python tests/golden/make_subsequence_dtw.py`, where dtw-python 1.9.0 is installed.

dtw-python is under the GPL: its numbers are compared with, no line of it is part of Frostbench. Distances are SciPy's,
as s3prl's QbE calls both. Not a line of Frostbench takes part.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from dtw import dtw
from scipy.spatial.distance import cdist

TARGET = Path(__file__).parent / "subsequence_dtw.json"
QUERIES, DOCUMENTS, SIZE = (5, 9, 14), (4, 13, 22, 31), 6  # frames; one document is shorter than every query


def main() -> None:
    """Draws queries, hides one in a document at half its pace, and scores all pairs."""
    generator = np.random.default_rng(0)
    queries, documents = ([generator.normal(size=(n, SIZE)).round(3) for n in sizes] for sizes in (QUERIES, DOCUMENTS))
    documents[3][4:22] = np.repeat(queries[1], 2, axis=0) + generator.normal(0, 0.3, (18, SIZE)).round(3)
    frames = np.concatenate([*queries, *documents])
    mean, deviation = frames.mean(axis=0), frames.std(axis=0, ddof=1)
    scores = [
        [-of_pair((query - mean) / deviation, (document - mean) / deviation) for document in documents]
        for query in queries
    ]
    content = {
        "origin": "dtw-python 1.9.0, asymmetric, open at both ends; SciPy's cosine distances",
        "made by": "tests/golden/make_subsequence_dtw.py",
        "queries": [query.round(3).tolist() for query in queries],
        "documents": [document.round(3).tolist() for document in documents],
        "scores": np.round(scores, 9).tolist(),
    }
    TARGET.write_text(json.dumps(content) + "\n")


def of_pair(query: np.ndarray, document: np.ndarray) -> float:
    """Cost of the best path, divided by the query's frames."""
    distances = np.exp(cdist(query, document, "cosine")) - 1
    least, most = distances.min(axis=1, keepdims=True), distances.max(axis=1, keepdims=True)
    scaled = (distances - least) / np.clip(most - least, 1e-9, None)
    return float(dtw(scaled, step_pattern="asymmetric", open_begin=True, open_end=True).normalizedDistance)


if __name__ == "__main__":
    main()
