"""The two-hop candidates of ``top_two_hop`` as one table expression, for DuckDB and Spark.

What the kernel walks, the expression joins. From directed entries (source, target) of a symmetric
graph it makes

    left    (query, middle, cell, 1 / ln degree, 1 / degree)     one row a query's entry
    right   (middle, cell, candidate)                            one row a middle's entry
    wedges  left ⋈ right on (middle, cell), without query = candidate
    pairs   wedges grouped by (query, candidate): count and two sums
    result  pairs without the query's own neighbours, ``min_common`` or more, the n best

and gives the kernel's rows: the same candidates in the same order, scores equal to 1e-6. The
sums are float64 in whatever order the engine adds, cast to float32 before anything is ordered by
them, as the kernel does. Two candidates change places only where a sum lies within 1e-15 of the
border between two float32, about one pair in a hundred million.

**Skew.** A middle with d entries, asked by a queries, has a · d wedges; as one key they would be
one task's work. They are cut into cells of a grid: the left side by hash of the query into
``left_parts``, the right side by hash of the candidate into ``right_parts``, each side repeated
once for every part of the other, so that every wedge is in one cell. Parts are chosen such that a
cell is expected to hold ``key_wedges / 2`` wedges, as nearly square as a allows: few queries of a
large hub cut the right side only. No key then holds more than ``key_wedges``, but for a chance
below 1e-12 a key from 2^20 on (Chernoff bound of the hash). A middle with fewer wedges is one
cell, whose rows are repeated nowhere.

**Cost.** Wedges, Σ over queries and their walked middles of the middle's degree. Shuffled are the
rows of left and right, Σ (a · right_parts + d · left_parts): E each without hubs, and above the
bound one row more for every √(key_wedges / 8) wedges (for 2^22: 724). Then the pairs: both engines
add up what one task has of a pair before it is sent (partial aggregation), which saves little, as
a pair's middles lie in different keys. ``hub_cap`` bounds all of it, which is why it is there.

**Broadcast** is left to the engine. Spark sends the smaller side of a join to all tasks where it
is below ``spark.sql.autoBroadcastJoinThreshold`` when it is really there (adaptive execution,
which must stay on, and its skew join too); its guess beforehand says nothing after a join.
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
    """What is asked of the expression; the first four as of ``top_two_hop``.

    Attributes:
        n: most candidates per query.
        min_common: fewest common neighbours, counted through the middles that are walked.
        score: which of ``SCORES`` orders them; ties go to the smaller id.
        hub_cap: neighbours of a higher degree are not walked through; None walks all.
        key_wedges: wedges that one key of the join may hold.

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
        queries: ``query``, repeats count once, those that are no node have no candidates; default
            all nodes.

    Returns an expression of ``query`` and ``candidate`` as in ``edges``, the five ``SCORES``
    (float32) and ``rank`` (int32, from 1), in no order.

    >>> import ibis
    >>> path = {"source": [0, 1, 1, 2], "target": [1, 0, 2, 1]}           # 0 – 1 – 2
    >>> found = two_hop_table(ibis.memtable(path), WedgeJoin(n=5, min_common=1))
    >>> found.order_by("query").select("query", "candidate").to_pyarrow().to_pylist()
    [{'query': 0, 'candidate': 2}, {'query': 2, 'candidate': 0}]
    """
    degrees = _degrees(edges)
    pairs = _pairs(wedge_sides(edges, settings, queries), edges, settings)
    if settings.score in SCORES[:3]:  # needs no degree: those of the n best will do
        found = _with_degrees(_best(pairs, settings), degrees)
    else:
        found = _best(_with_degrees(pairs, degrees), settings)
    scores = {name: found[name].cast("float32") for name in SCORES}
    return found.select("query", "candidate", **scores, rank=found["rank"])


def wedge_sides(edges: ibis.Table, settings: WedgeJoin, queries: ibis.Table | None = None) -> Sides:
    """The two tables that ``two_hop_table`` joins on (middle, cell)."""
    import ibis
    from ibis import _

    middles = _middles(edges, settings, queries)
    repeated = {
        side: middles.mutate(part=ibis.range(0, middles[f"{side}_parts"]).unnest())
        for side in ("left", "right")
    }
    asked = _asked(edges, queries)
    left = asked.join(repeated["right"], "middle").mutate(
        cell=_part(_.query, _.left_parts) * _.right_parts + _.part,
        by_log=1.0 / _.degree.cast("float64").ln(),
        by_degree=1.0 / _.degree.cast("float64"),
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
    found = _asked(edges, queries).join(walked, "middle")
    return found.group_by("query").agg(wedges=found.degree.sum())


def _degrees(edges: ibis.Table) -> ibis.Table:
    return edges.group_by("source").agg(degree=edges.count())


def _walked(degrees: ibis.Table, hub_cap: int | None) -> ibis.Table:
    """Middles that somebody else is behind, and that are no hubs."""
    walked = degrees.filter(degrees.degree >= 2)
    return walked if hub_cap is None else walked.filter(walked.degree <= hub_cap)


def _asked(edges: ibis.Table, queries: ibis.Table | None) -> ibis.Table:
    """Entries of the queries: query, middle."""
    entries = edges.select(query="source", middle="target")
    return entries if queries is None else entries.semi_join(queries, "query")


def _middles(edges: ibis.Table, settings: WedgeJoin, queries: ibis.Table | None) -> ibis.Table:
    """middle, degree, left_parts and right_parts of each middle that is walked."""
    middles = _walked(_degrees(edges), settings.hub_cap).rename(middle="source")
    if queries is None:
        middles = middles.mutate(asked=middles.degree)
    else:
        asked = _asked(edges, queries)
        middles = middles.join(asked.group_by("middle").agg(asked=asked.count()), "middle")
    expected = max(1, settings.key_wedges // 2)
    middles = middles.mutate(left_parts=(middles.asked / isqrt(expected)).ceil().cast("int64"))
    wedges = middles.asked.cast("float64") * middles.degree
    middles = middles.mutate(
        right_parts=(wedges / (middles.left_parts * expected)).ceil().cast("int64")
    )
    return middles.select("middle", "degree", "left_parts", "right_parts")


def _part(node: ibis.Column, parts: ibis.Column) -> ibis.Column:
    return (node.hash() & _ALL_BITS) % parts


def _pairs(sides: Sides, edges: ibis.Table, settings: WedgeJoin) -> ibis.Table:
    """query, candidate and the three sums of all pairs that may be given.

    Grouped and left out by one 64-bit key, as both engines do that faster than by two columns.
    """
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
    """The pairs with the two scores that are made of degrees."""
    own, other = (
        degrees.rename(query="source", own="degree"),
        degrees.rename(candidate="source", other="degree"),
    )
    pairs = pairs.join(own, "query").join(other, "candidate")
    common = pairs.common_neighbors.cast("float64")
    return pairs.mutate(
        jaccard=common / (pairs.own + pairs.other - common),
        preferential_attachment=pairs.own.cast("float64") * pairs.other,
    )


def _best(pairs: ibis.Table, settings: WedgeJoin) -> ibis.Table:
    """The n best of each query, ranked by the float32 that is given."""
    import ibis

    score = pairs[settings.score].cast("float32")
    order = ibis.window(group_by="query", order_by=[score.desc(), pairs.candidate])
    ranked = pairs.mutate(rank=(ibis.row_number().over(order) + 1).cast("int32"))
    return ranked.filter(ranked["rank"] <= settings.n)
