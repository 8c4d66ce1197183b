"""Matrix factorisation by the BPR loss: LightGCN without layers.

Rendle, Freudenthaler, Gantner, Schmidt-Thieme: "BPR: Bayesian Personalized Ranking from
Implicit Feedback", UAI 2009.
"""

from __future__ import annotations

from pydantic import Field

from nextedge.models.neural.lightgcn import GraphLoss, LightGcn, LightGcnConfig
from nextedge.models.neural.negatives import CurriculumConfig


class BprConfig(LightGcnConfig):
    """Settings of the factorisation."""

    layers: int = Field(0, ge=0, le=0)
    loss: GraphLoss = "bpr"
    penalty: float = Field(1e-3, ge=0)
    curriculum: CurriculumConfig = CurriculumConfig(negatives=64)


class Bpr(LightGcn):
    """Query and candidate embeddings that order each query's candidates."""

    name = "bpr"
    config_class = BprConfig
