"""A re-ranker: the sampled neighbourhoods of query and candidate attend to each other.

Every neighbour of the query attends to those of the candidate and the other way round
(Vaswani et al.: "Attention Is All You Need", NeurIPS 2017), and how two of them relate (cosine,
edge, identity) is added to their attention and to what is attended, as edges are in Ying et al.:
"Do Transformers Really Perform Bad for Graph Representation?", NeurIPS 2021, section 3.1.2. Both
sides are pooled, put beside the ranker's own score, and turned into a correction of it.

Fitted by PyTorch with a listwise softmax over the head of each list; served by NumPy, query by
query in one shape, so that a batch changes no bit. Cost: O(depth · T² · d) a query.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nextedge.config import RerankerConfig
from nextedge.models.pytorch import import_torch
from nextedge.models.rankers.ndcg import ndcg_of_rows
from nextedge.types import BoolArray, FloatArray

MANIFEST = "reranker.json"
TOKEN = 6
"""Numbers a neighbour: ln degree, ln age in days, ln weight of its edge, cosine with its own
node, cosine with the other node, and 1 where it has an edge to the other node."""
RELATION = 3
"""Numbers a pair of neighbours: cosine, 1 where an edge joins them, 1 where they are the same."""
HEAD = 3
"""Numbers of the ranker: its logit, that in standard deviations over the head, ln rank."""
_BATCH = 16
_AVERAGED = 0.99
"""Share of what was that a step leaves in the average of the weights, which is what is kept."""


@dataclass(frozen=True, eq=False)
class Neighborhoods:
    """P pairs of one query and one candidate, each with at most T neighbours.

    Attributes:
        query_tokens, candidate_tokens: float32[P, T, TOKEN].
        query_mask, candidate_mask: bool[P, T], which neighbours are there.
        relation: float32[P, T, T, RELATION], of the query's with the candidate's neighbours.
    """

    query_tokens: FloatArray
    candidate_tokens: FloatArray
    query_mask: BoolArray
    candidate_mask: BoolArray
    relation: FloatArray


@dataclass(frozen=True, eq=False)
class HeadList:
    """The head of one ranked list.

    Attributes:
        neighborhoods: of its P candidates.
        head: float32[P, HEAD], see ``head_numbers``.
        label: float32[P], above 0 where the candidate became an edge.
    """

    neighborhoods: Neighborhoods
    head: FloatArray
    label: FloatArray


def head_numbers(probability: FloatArray) -> FloatArray:
    """float32[P, HEAD] of calibrated scores, best first."""
    # Calibrated scores of 0 and 1 have no finite logit.
    p = np.clip(probability.astype(np.float64), 1e-7, 1 - 1e-7)
    logit = np.log(p) - np.log1p(-p)
    spread = max(float(logit.std()), 1e-6) if len(logit) else 1.0
    standard = (logit - logit.mean()) / spread if len(logit) else logit
    rank = np.log1p(np.arange(len(logit)))
    return np.stack((logit, standard, rank), axis=1).astype(np.float32)


class CrossAttention:
    """The fitted re-ranker: arrays by name, and how they are applied."""

    def __init__(self, settings: RerankerConfig, arrays: dict[str, FloatArray]) -> None:
        self.settings = settings
        self.arrays = arrays

    def scores(self, neighborhoods: Neighborhoods, head: FloatArray) -> FloatArray:
        """float32[P]: scores by which the head of a list is ordered."""
        return np.asarray(_forward(_NumPy, self.arrays, neighborhoods, head), np.float32)

    @classmethod
    def fit(
        cls, lists: Sequence[HeadList], watched: Sequence[HeadList], settings: RerankerConfig
    ) -> tuple[CrossAttention, list[float]]:
        """Fit to the heads of lists; keep the epoch that orders the watched ones best.

        Returns:
            The re-ranker, and NDCG@20 of the watched lists before training and after each epoch.

        Raises:
            MissingDependencyError: PyTorch is not installed.
        """
        torch = import_torch("the model 'cross_attention'")
        random = np.random.default_rng(settings.seed)
        start = _initial(settings.dimensions, random)
        parameters = {name: torch.tensor(v, requires_grad=True) for name, v in start.items()}
        optimizer = torch.optim.AdamW(
            parameters.values(), lr=settings.learning_rate, weight_decay=1e-3
        )
        steps = settings.epochs * max(1, -(-len(lists) // _BATCH))
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        # Stays where no epoch beats the order of the ranker.
        best = cls(settings, start)
        averaged = {name: value.copy() for name, value in start.items()}
        curve = [float(best.qualities(watched).mean())]
        for _ in range(settings.epochs):
            order = random.permutation(len(lists))
            for begin in range(0, len(order), _BATCH):
                batch = [lists[int(place)] for place in order[begin : begin + _BATCH]]
                loss = _loss(torch, parameters, batch)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                for name, value in parameters.items():
                    # The last weights alone fit their lists by heart within 3 epochs (docs/log.md).
                    averaged[name] += (value.detach().numpy() - averaged[name]) * (1.0 - _AVERAGED)
            current = cls(settings, {name: value.copy() for name, value in averaged.items()})
            curve.append(float(current.qualities(watched).mean()))
            if curve[-1] == max(curve):
                best = current
        return best, curve

    def qualities(self, lists: Sequence[HeadList]) -> FloatArray:
        """float64[lists]: NDCG@20 of the head of each list in this order."""
        return np.array(
            [
                ndcg_of_rows(
                    self.scores(each.neighborhoods, each.head),
                    each.label,
                    np.array([len(each.label)]),
                )
                for each in lists
            ]
        )

    def save(self, directory: Path) -> None:
        """Write ``reranker.npz`` and its manifest into an existing folder."""
        np.savez(directory / "reranker.npz", allow_pickle=False, **self.arrays)
        (directory / MANIFEST).write_text(json.dumps(self.settings.model_dump(), indent=1))

    @classmethod
    def load(cls, directory: Path) -> CrossAttention:
        """Read what ``save`` wrote."""
        settings = RerankerConfig.model_validate_json((directory / MANIFEST).read_text())
        with np.load(directory / "reranker.npz", allow_pickle=False) as arrays:
            return cls(settings, {name: arrays[name] for name in arrays.files})


def _initial(d: int, random: np.random.Generator) -> dict[str, FloatArray]:
    """Random weights by fan-in; the last layer is 0."""
    shapes: dict[str, tuple[int, ...]] = {}
    for side in ("query", "candidate"):
        shapes |= {
            f"{side}_token": (TOKEN, d),
            f"{side}_asks": (d, d),
            f"{side}_answers": (d, d),
            f"{side}_gives": (d, d),
            f"{side}_relation": (RELATION, 1),
            f"{side}_relation_gives": (RELATION, d),
            f"{side}_mix": (2 * d, d),
        }
    shapes |= {"hidden": (2 * d + HEAD, d), "last": (d, 1)}
    arrays = {
        name: (random.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)
        for name, shape in shapes.items()
    }
    # The correction starts at 0: before training the ranker's order stands.
    arrays["last"][:] = 0.0
    biases = {
        "query_token": d,
        "candidate_token": d,
        "query_mix": d,
        "candidate_mix": d,
        "hidden": d,
    }
    arrays |= {f"{name}_bias": np.zeros(size, np.float32) for name, size in biases.items()}
    return arrays


class _NumPy:
    """The few operations of the forward pass, on arrays."""

    concatenate = staticmethod(lambda parts: np.concatenate(parts, axis=-1))

    @staticmethod
    def relu(x: Any) -> Any:
        return np.maximum(x, 0.0)

    @staticmethod
    def softmax(x: Any) -> Any:
        power = np.exp(x - x.max(axis=-1, keepdims=True))
        return power / power.sum(axis=-1, keepdims=True)

    @staticmethod
    def swapped(x: Any) -> Any:
        return np.swapaxes(x, 1, 2)

    @staticmethod
    def array(x: Any) -> Any:
        return x


class _Torch:
    """The same operations, on tensors."""

    def __init__(self, torch: Any) -> None:
        self.concatenate = lambda parts: torch.cat(parts, dim=-1)
        self.relu = torch.relu
        self.softmax = lambda x: torch.softmax(x, dim=-1)
        self.swapped = lambda x: torch.transpose(x, 1, 2)
        self.array = lambda x: torch.from_numpy(np.ascontiguousarray(x))


def _forward(xp: Any, w: Any, given: Neighborhoods, head: FloatArray) -> Any:
    """float[P]: the ranker's standardised logit, corrected; one definition for both libraries."""
    query, candidate = xp.array(given.query_tokens), xp.array(given.candidate_tokens)
    relation, numbers = xp.array(given.relation), xp.array(head)
    masks = [xp.array(mask.astype(np.float32)) for mask in (given.query_mask, given.candidate_mask)]
    q = xp.relu(query @ w["query_token"] + w["query_token_bias"])
    c = xp.relu(candidate @ w["candidate_token"] + w["candidate_token_bias"])
    pooled = [
        _attended(xp, w, "query", q, c, relation, masks),
        _attended(xp, w, "candidate", c, q, xp.swapped(relation), masks[::-1]),
    ]
    hidden = xp.relu(xp.concatenate([*pooled, numbers]) @ w["hidden"] + w["hidden_bias"])
    return numbers[:, 1] + (hidden @ w["last"])[:, 0]


def _attended(xp: Any, w: Any, side: str, own: Any, other: Any, relation: Any, masks: Any) -> Any:
    """float[P, d]: the side's neighbours after they attended to the other's, pooled."""
    asks, answers = own @ w[f"{side}_asks"], other @ w[f"{side}_answers"]
    logit = asks @ xp.swapped(answers) / own.shape[-1] ** 0.5
    logit = logit + (relation @ w[f"{side}_relation"])[..., 0]
    # A row without any neighbour has a uniform softmax, which the second mask clears.
    share = xp.softmax(logit - (1.0 - masks[1][:, None, :]) * 1e9) * masks[1][:, None, :]
    gives = share @ (other @ w[f"{side}_gives"])
    related = (share[..., None] * relation).sum(2) @ w[f"{side}_relation_gives"]
    mixed = xp.concatenate([own, gives + related]) @ w[f"{side}_mix"] + w[f"{side}_mix_bias"]
    kept = xp.relu(mixed) * masks[0][..., None]
    # One more: a side without neighbours divides by 1.
    return kept.sum(1) / (masks[0].sum(1)[:, None] + 1.0)


def _loss(torch: Any, parameters: Any, batch: Sequence[HeadList]) -> Any:
    """Mean listwise softmax cross-entropy."""
    xp, total = _Torch(torch), 0.0
    joined = _joined([each.neighborhoods for each in batch])
    scores = _forward(xp, parameters, joined, np.concatenate([each.head for each in batch]))
    begin = 0
    for each in batch:
        own = scores[begin : begin + len(each.label)]
        begin += len(each.label)
        share = torch.from_numpy(each.label / max(float((each.label > 0).sum()), 1.0))
        total = total - (share * torch.log_softmax(own, dim=0)).sum()
    return total / len(batch)


def _joined(parts: Sequence[Neighborhoods]) -> Neighborhoods:
    names = ("query_tokens", "candidate_tokens", "query_mask", "candidate_mask", "relation")
    return Neighborhoods(*(np.concatenate([getattr(p, name) for p in parts]) for name in names))
