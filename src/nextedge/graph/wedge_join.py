"""The two-hop candidates of ``top_two_hop`` as one table expression, for DuckDB and Spark.

The expression joins the wedges that the kernel walks. From directed entries (source, target) of a
symmetric graph it makes

    left    (query, middle, cell, 1 / ln degree, 1 / degree)     one row a query's entry
    right   (middle, cell, candidate)                            one row a middle's entry
    wedges  left ⋈ right on (middle, cell), without query = candidate
    pairs   wedges grouped by (query, candidate): count and two sums
    result  pairs without the query's own neighbours, ``min_common`` or more, the n best

and returns the rows of the kernel: the same candidates in the same order, scores equal to 1e-6. The
engine adds float64 in any order and casts to float32 before it sorts, as the kernel does. Two
candidates change places only where a sum lies within 1e-15 of the border between two float32, about
one pair in a hundred million.

**Skew.** A middle with d entries that a queries have has a · d wedges; under one key they would be
the work of one task. A grid cuts them into cells: the left side by hash of the query into
``left_parts``, the right side by hash of the candidate into ``right_parts``, with each side repeated
once for every part of the other, so that every wedge is in one cell. A cell has ``key_wedges / 2``
wedges on average and is as nearly square as a allows: few queries of a large hub cut the right side
only. No key then has more than ``key_wedges``, but for a chance below 1e-12 a key from 2^20 on
(Chernoff bound of the hash). A middle with fewer wedges is one cell and repeats no row.

**Cost.** Wedges, Σ over queries and their walked middles of the degree of the middle. The shuffle
moves the rows of left and right, Σ (a · right_parts + d · left_parts): E each without hubs, and
above the bound one more row for every √(key_wedges / 8) wedges (for 2^22: 724). Then it moves the
pairs: partial aggregation saves little, as the middles of a pair have different keys. ``hub_cap``
bounds all of it.

**Broadcast** is the engine's decision. Spark broadcasts the smaller side of a join below
``spark.sql.autoBroadcastJoinThreshold`` by its size at run time, which needs adaptive execution and
its skew join; the estimate before a join is worthless.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt
from typing import TYPE_CHECKING, NamedTuple

from nextedge.errors import ConfigError
from nextedge.graph.two_hop import SCORES, check_settings

if TYPE_CHECKING:
    import ibis

COLUMNS = ("query", "candidate", *SCORES, "rank")
_ALL_BITS = (1 << 63) - 1  # of a hash but its sign


@dataclass(frozen=True, slots=True)
class WedgeJoin:
    """Settings of the expression; the first four as of ``top_two_hop``.

    Attributes:
        n: most candidates per query.
        min_common: fewest common neighbours, counted through the walked middles.
        score: one of ``SCORES``, which orders them; ties go to the smaller id.
        hub_cap: the walk leaves out neighbours of a higher degree; None walks all.
        key_wedges: most wedges of one key of the join.

    Raises:
        ConfigError: ``score`` is unknown, or a number is out of its range.
    """

    n: int
    min_common: int = 2
    score: str = "adamic_adar"
    hub_cap: int | None = None
    key_wedges: int = 1 << 22

    def __post_init__(self) -> None:
        check_settings(self.n, self.min_common, self.score, self.hub_cap)
        if self.key_wedges < 2:
            raise ConfigError(f"key_wedges is {self.key_wedges}; expected 2 or more")


class Sides(NamedTuple):
    """Both sides of the join, cut into cells.

    left: query, middle, cell, by_log and by_degree (what the middle adds); right: middle, cell,
    candidate.
    """

    left: ibis.Table
    right: ibis.Table


def two_hop_table(
    edges: ibis.Table, settings: WedgeJoin, queries: ibis.Table | None = None
) -> ibis.Table:
    """The n best non-neighbours at distance two of each query.

    Args:
        edges: ``source``, ``target`` (int32 or int64): symmetric, no loops, no repeats.
        queries: ``query``; repeats count once, ids that are no node have no candidates; default
            all nodes.

    Returns an expression of ``query`` and ``candidate`` as in ``edges``, the five ``SCORES``
    (float32) and ``rank`` (int32, from 1), in no order.

    >>> import ibis
    >>> path = {"source": [0, 1, 1, 2], "target": [1, 0, 2, 1]}           # 0 – 1 – 2
    >>> pairs = two_hop_table(ibis.memtable(path), WedgeJoin(n=5, min_common=1))
    >>> pairs.order_by("query").select("query", "candidate").to_pyarrow().to_pylist()
    [{'query': 0, 'candidate': 2}, {'query': 2, 'candidate': 0}]
    """
    degrees = _degrees(edges)
    pairs = _pairs(wedge_sides(edges, settings, queries), edges, settings)
    if settings.score in SCORES[:3]:  # the order needs no degrees: join them to the n best only
        best = _with_degrees(_best(pairs, settings), degrees)
    else:
        best = _best(_with_degrees(pairs, degrees), settings)
    scores = {name: best[name].cast("float32") for name in SCORES}
    return best.select("query", "candidate", **scores, rank=best["rank"])


def wedge_sides(edges: ibis.Table, settings: WedgeJoin, queries: ibis.Table | None = None) -> Sides:
    """The two tables that ``two_hop_table`` joins on (middle, cell)."""
    import ibis
    from ibis import _

    middles = _middles(edges, settings, queries)
    repeated = {
        side: middles.mutate(part=ibis.range(0, middles[f"{side}_parts"]).unnest())
        for side in ("left", "right")
    }
    left = (
        _query_entries(edges, queries)
        .join(repeated["right"], "middle")
        .mutate(
            cell=_part(_.query, _.left_parts) * _.right_parts + _.part,
            by_log=1.0 / _.degree.cast("float64").ln(),
            by_degree=1.0 / _.degree.cast("float64"),
        )
    )
    right = edges.select(middle="source", candidate="target").join(repeated["left"], "middle")
    right = right.mutate(cell=_.part * _.right_parts + _part(_.candidate, _.right_parts))
    return Sides(
        left.select("query", "middle", "cell", "by_log", "by_degree"),
        right.select("middle", "cell", "candidate"),
    )


def query_wedges(
    edges: ibis.Table, hub_cap: int | None = None, queries: ibis.Table | None = None
) -> ibis.Table:
    """``query`` and ``wedges`` (int64) of each query that has any, in no order."""
    walked = _walked(_degrees(edges), hub_cap).rename(middle="source")
    entries = _query_entries(edges, queries).join(walked, "middle")
    return entries.group_by("query").agg(wedges=entries.degree.sum())


def _degrees(edges: ibis.Table) -> ibis.Table:
    return edges.group_by("source").agg(degree=edges.count())


def _walked(degrees: ibis.Table, hub_cap: int | None) -> ibis.Table:
    """Middles with another neighbour than the query, without hubs."""
    walked = degrees.filter(degrees.degree >= 2)
    return walked if hub_cap is None else walked.filter(walked.degree <= hub_cap)


def _query_entries(edges: ibis.Table, queries: ibis.Table | None) -> ibis.Table:
    """Entries of the queries: query, middle."""
    entries = edges.select(query="source", middle="target")
    return entries if queries is None else entries.semi_join(queries, "query")


def _middles(edges: ibis.Table, settings: WedgeJoin, queries: ibis.Table | None) -> ibis.Table:
    """middle, degree, left_parts and right_parts of each walked middle."""
    middles = _walked(_degrees(edges), settings.hub_cap).rename(middle="source")
    if queries is None:
        middles = middles.mutate(queries=middles.degree)
    else:
        entries = _query_entries(edges, queries)
        middles = middles.join(entries.group_by("middle").agg(queries=entries.count()), "middle")
    # Half the bound, as a hash fills some cells more than others.
    expected = max(1, settings.key_wedges // 2)
    middles = middles.mutate(left_parts=(middles.queries / isqrt(expected)).ceil().cast("int64"))
    wedges = middles.queries.cast("float64") * middles.degree
    middles = middles.mutate(
        right_parts=(wedges / (middles.left_parts * expected)).ceil().cast("int64")
    )
    return middles.select("middle", "degree", "left_parts", "right_parts")


def _part(node: ibis.Column, parts: ibis.Column) -> ibis.Column:
    return (node.hash() & _ALL_BITS) % parts  # a negative hash has a negative remainder


def _pairs(sides: Sides, edges: ibis.Table, settings: WedgeJoin) -> ibis.Table:
    """query, candidate and the three sums of all pairs that are no edge."""
    # Both engines group and join faster by one 64-bit key than by two columns.
    wedges = sides.left.join(sides.right, ["middle", "cell"])
    wedges = wedges.filter(wedges.query != wedges.candidate)
    pairs = wedges.group_by(key=_key(wedges.query, wedges.candidate)).agg(
        common_neighbors=wedges.count(),
        adamic_adar=wedges.by_log.sum(),
        resource_allocation=wedges.by_degree.sum(),
    )
    pairs = pairs.filter(pairs.common_neighbors >= max(settings.min_common, 1))
    pairs = pairs.anti_join(edges.select(key=_key(edges.source, edges.target)), "key")
    return pairs.mutate(
        query=(pairs.key >> 32).cast(edges.source.type()),
        candidate=(pairs.key & 0xFFFF_FFFF).cast(edges.target.type()),
    )


def _key(query: ibis.Column, candidate: ibis.Column) -> ibis.Column:
    return query.cast("int64") * (1 << 32) + candidate


def _with_degrees(pairs: ibis.Table, degrees: ibis.Table) -> ibis.Table:
    """The pairs with the two scores of degrees."""
    pairs = pairs.join(degrees.rename(query="source", own="degree"), "query")
    pairs = pairs.join(degrees.rename(candidate="source", other="degree"), "candidate")
    common = pairs.common_neighbors.cast("float64")
    return pairs.mutate(
        jaccard=common / (pairs.own + pairs.other - common),
        preferential_attachment=pairs.own.cast("float64") * pairs.other,
    )


def _best(pairs: ibis.Table, settings: WedgeJoin) -> ibis.Table:
    """The n best of each query, ranked by the float32 score of the result."""
    import ibis

    # The kernel ranks by float32: scores that are equal in it are ties here, too.
    score = pairs[settings.score].cast("float32")
    order = ibis.window(group_by="query", order_by=[score.desc(), pairs.candidate])
    ranked = pairs.mutate(rank=(ibis.row_number().over(order) + 1).cast("int32"))
    return ranked.filter(ranked["rank"] <= settings.n)
