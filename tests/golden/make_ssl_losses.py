"""Writes ssl_losses.json: `python tests/golden/make_ssl_losses.py`, where lightly and pytorch-metric-learning are.

Self-supervised losses of other people's libraries (both MIT) on a few vectors, which Frostbench's are held against.
Neither library is a dependency of Frostbench, and not a line of Frostbench takes part.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import torch

TARGET = Path(__file__).parent / "ssl_losses.json"
CLIPS, SIZE, PROTOTYPES = 6, 4, 5
DECIMALS = 3  # of the vectors, so that they are the same numbers everywhere


def main() -> None:
    from lightly.loss import BarlowTwinsLoss, DINOLoss, NegativeCosineSimilarity, NTXentLoss, VICRegLoss
    from pytorch_metric_learning.losses import NTXentLoss as PairNTXent

    generator = torch.Generator().manual_seed(0)

    def vectors(size: int) -> torch.Tensor:
        return (torch.randn(CLIPS, size, generator=generator) * 10**DECIMALS).round() / 10**DECIMALS

    first, second = vectors(SIZE), vectors(SIZE)
    teachers, students = [vectors(PROTOTYPES) for _ in range(2)], [vectors(PROTOTYPES) for _ in range(2)]
    dino = DINOLoss(PROTOTYPES, warmup_teacher_temp=0.07, teacher_temp=0.07, student_temp=0.1, center_momentum=0.9)
    dino_losses = [float(dino(teachers, students, epoch=0)) for _ in range(2)]  # the centre has moved in between
    labels = torch.arange(CLIPS).repeat(2)
    losses = {
        "vicreg": float(VICRegLoss(25.0, 25.0, 1.0)(first, second)),
        "barlow_twins": float(BarlowTwinsLoss(lambda_param=5e-3)(first, second)),
        "nt_xent": float(NTXentLoss(temperature=0.2)(first, second)),
        "nt_xent_pairs": float(PairNTXent(temperature=0.2)(torch.cat([first, second]), labels)),
        "simsiam": float(NegativeCosineSimilarity()(first, second)),
        "dino": dino_losses,
    }
    content = {
        "origin": f"lightly {version('lightly')}, pytorch-metric-learning {version('pytorch-metric-learning')}; "
        "made by tests/golden/make_ssl_losses.py",
        "first": first.tolist(),
        "second": second.tolist(),
        "teachers": [each.tolist() for each in teachers],
        "students": [each.tolist() for each in students],
        "losses": losses,
    }
    rounded = json.loads(json.dumps(content), parse_float=lambda text: round(float(text), 7))
    TARGET.write_text(json.dumps(rounded) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
