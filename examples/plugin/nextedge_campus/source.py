"""A source with a setting of its own: popular people with the same value of one column."""

from __future__ import annotations

import numpy as np

from nextedge.config import Settings
from nextedge.graph.attributes import Category
from nextedge.retrieval.source import Source
from nextedge.types import CONNECTS, Candidates, FloatArray, Requests


class SameValueConfig(Settings):
    """Settings of the source."""

    column: str = "city"
    """Category column of users; without it the source has no candidates."""


class SameValue(Source[SameValueConfig]):
    """People with the query's value, those with most connections first."""

    name = "same_value"
    relations = (CONNECTS,)
    reason = "same_value"
    enabled = False  # only tenants that name it use it

    def candidates(self, requests: Requests, limit: int) -> Candidates:
        codes, score = self._codes(), self._score()
        bounds, excluded = self.scope.excluded(requests)
        lists = []
        for row, query in enumerate(requests.query):
            same = codes == codes[query] if query >= 0 else np.zeros(len(codes), bool)
            same &= codes >= 0
            same[excluded[bounds[row] : bounds[row + 1]]] = False
            people = np.flatnonzero(same)
            lists.append(people[np.argsort(-score[people], kind="stable")][:limit])
        candidate = np.concatenate(lists).astype(np.int32)
        indptr = np.concatenate(([0], np.cumsum([len(people) for people in lists])))
        return Candidates(indptr, candidate, {"score": score[candidate]})

    def pair_scores(self, requests: Requests, candidates: Candidates) -> FloatArray:
        codes = self._codes()
        query = requests.query[candidates.row_query]
        of_query = np.where(query >= 0, codes[np.maximum(query, 0)], -1)
        same = (of_query >= 0) & (of_query == codes[candidates.candidate])
        return np.where(same, self._score()[candidates.candidate], 0).astype(np.float32)

    def _codes(self) -> np.ndarray:
        """int32[users]: code of each user's value, -1 for none."""
        column = self.scope.query_attributes.columns.get(self.config.column)
        if isinstance(column, Category):
            return np.asarray(column.codes)
        return np.full(len(self.scope.graph), -1, np.int32)

    def _score(self) -> FloatArray:
        return (1.0 + np.log1p(self.scope.candidate_degree)).astype(np.float32)
