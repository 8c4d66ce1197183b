"""The synthetic tenant: the same seed gives the same bytes, and the network behaves like one."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from nextedge import schema
from nextedge.data.synthetic import SyntheticConfig, generate_tenant
from nextedge.data.synthetic.draw import (
    event_times,
    normal,
    pick,
    search,
    search_guide,
    search_prefix,
    uniform,
)
from nextedge.data.synthetic.writer import TableWriter
from nextedge.errors import ConfigError, StorageError

CONFIG = SyntheticConfig(users=3_000, mean_degree=20.0, seed=7, block_share=0.004)
Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Tenant:
    """The generated tables, with ids as positions beside them."""

    rows: dict[str, int]
    tables: dict[str, pa.Table]

    def positions(self, table: str, column: str) -> Array:
        """int64[rows] of a column of user or item ids."""
        known = schema.ITEMS if column == schema.ITEM_ID else schema.USERS
        key = schema.ITEM_ID if column == schema.ITEM_ID else schema.USER_ID
        order = {name: place for place, name in enumerate(self.column(known, key))}
        return np.array([order[name] for name in self.column(table, column)], np.int64)

    def column(self, table: str, name: str) -> list[Any]:
        """Values of a column."""
        values: list[Any] = self.tables[table].column(name).to_pylist()
        return values

    def times(self, table: str, name: str = schema.TIMESTAMP) -> Array:
        """int64[rows], µs UTC."""
        times: Array = self.tables[table].column(name).cast(pa.int64()).to_numpy()
        return times


@pytest.fixture(scope="module")
def tenant(tmp_path_factory: pytest.TempPathFactory) -> Tenant:
    folder = tmp_path_factory.mktemp("tenant")
    rows = generate_tenant(folder, CONFIG)
    return Tenant(rows, {name: pq.read_table(folder / f"{name}.parquet") for name in rows})


def digests(folder: Path, config: SyntheticConfig) -> dict[str, str]:
    rows = generate_tenant(folder, config)
    files = {name: (folder / f"{name}.parquet").read_bytes() for name in rows}
    return {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}


def test_same_seed_same_bytes_whatever_the_chunks(tmp_path: Path) -> None:
    base = {"users": 600, "mean_degree": 12.0, "seed": 3}
    first = digests(tmp_path / "first", SyntheticConfig(**base))  # type: ignore[arg-type]
    again = digests(tmp_path / "again", SyntheticConfig(**base))  # type: ignore[arg-type]
    small = digests(tmp_path / "small", SyntheticConfig(**base, chunk_events=97))  # type: ignore[arg-type]
    other = digests(tmp_path / "other", SyntheticConfig(**base | {"seed": 4}))  # type: ignore[arg-type]
    assert first == again == small
    assert all(other[name] != first[name] for name in first if name != schema.BLOCKS)


def test_tables_have_the_public_columns(tenant: Tenant) -> None:
    assert set(tenant.tables) == set(schema.TABLES)
    for name, table in tenant.tables.items():
        declared = {column.name for column in schema.TABLES[name].columns}
        extra = {schema.TIMESTAMP} if name == schema.BLOCKS else set()
        missing = {schema.ARRIVED_AT, "propensity"}  # all rows arrive at once, nothing is drawn
        missing |= {schema.WEIGHT} if name == schema.CONNECTIONS else set()
        missing |= {schema.HIDDEN, schema.CONNECTIONS_HIDDEN}  # nobody hides anything
        assert set(table.column_names) == (declared | extra) - missing
        assert table.num_rows == tenant.rows[name] > 0
        key = list(schema.TABLES[name].key)
        if key:
            assert len(set(tenant.column(name, key[0]))) == table.num_rows
        for field in table.schema:
            if pa.types.is_timestamp(field.type):
                assert field.type == pa.timestamp("us", tz="UTC")


def test_ids_refer_to_rows_that_exist(tenant: Tenant) -> None:
    for name, table in schema.TABLES.items():
        for column in table.columns:
            if column.refers_to:
                key = schema.TABLES[column.refers_to].key[0]
                known = set(tenant.column(column.refers_to, key))
                given = set(tenant.column(name, column.name)) - {None}
                assert given and given <= known, f"{name}.{column.name}"


def test_connections_are_distinct_pairs_of_two_people(tenant: Tenant) -> None:
    src = tenant.positions(schema.CONNECTIONS, schema.SRC)
    dst = tenant.positions(schema.CONNECTIONS, schema.DST)
    assert (src != dst).all()
    pairs = set(zip(np.minimum(src, dst), np.maximum(src, dst), strict=True))
    assert len(pairs) == len(src)
    assert len(src) == pytest.approx(CONFIG.edge_count, rel=0.06)


def test_nothing_happens_before_both_sides_exist_or_after_the_end(tenant: Tenant) -> None:
    users = tenant.times(schema.USERS, "created_at")
    items = tenant.times(schema.ITEMS, "created_at")
    born = {
        schema.USER_ID: users,
        schema.ITEM_ID: items,
        schema.SRC: users,
        schema.DST: users,
        schema.OTHER_ID: users,
    }
    for name in (schema.CONNECTIONS, schema.INTERACTIONS, schema.BLOCKS):
        times = tenant.times(name)
        assert (times < CONFIG.end).all()
        for column in set(tenant.tables[name].column_names) & set(born):
            assert (times >= born[column][tenant.positions(name, column)]).all(), (name, column)


def test_impressions_are_ordered_lists_within_the_window(tenant: Tenant) -> None:
    table = tenant.tables[schema.IMPRESSIONS]
    people = table.column(schema.CANDIDATE_ID).is_valid().to_numpy()
    things = table.column(schema.ITEM_ID).is_valid().to_numpy()
    assert (people ^ things).all() and people.any() and things.any()
    assert (tenant.times(schema.IMPRESSIONS) >= CONFIG.impression_start).all()
    lists: dict[str, list[int]] = {}
    for name, position in zip(
        tenant.column(schema.IMPRESSIONS, "recommendation_id"),
        tenant.column(schema.IMPRESSIONS, "position"),
        strict=True,
    ):
        lists.setdefault(name, []).append(position)
    assert all(seen == list(range(1, len(seen) + 1)) for seen in lists.values())
    assert max(map(len, lists.values())) == CONFIG.list_length
    acted = table.filter(table.column("action").is_valid())
    delay = np.subtract(
        *(
            acted.column(name).cast(pa.int64()).to_numpy()
            for name in ("action_timestamp", "timestamp")
        )
    )
    assert (delay > 0).all() and (delay < 3_600_000_000).all()
    idle = table.filter(table.column("action").is_null())
    assert idle.column("action_timestamp").null_count == idle.num_rows


def test_accepts_are_connections_and_clicks_are_views_of_that_moment(tenant: Tenant) -> None:
    shown = tenant.tables[schema.IMPRESSIONS]
    for action, target, table, ends in (
        ("accept", schema.CANDIDATE_ID, schema.CONNECTIONS, (schema.SRC, schema.DST)),
        ("click", schema.ITEM_ID, schema.INTERACTIONS, (schema.USER_ID, schema.ITEM_ID)),
    ):
        rows = shown.filter(pa.compute.equal(shown.column("action"), action)).to_pylist()
        facts = set(
            zip(*(tenant.column(table, end) for end in ends), tenant.times(table), strict=True)
        )
        told = [
            (row[schema.USER_ID], row[target], round(row["action_timestamp"].timestamp() * 1e6))
            for row in rows
        ]
        assert told and set(told) <= facts


def test_people_are_not_shown_whom_they_know_or_who_opted_out(tenant: Tenant) -> None:
    hidden = {
        user
        for user, shown in zip(
            tenant.column(schema.USERS, schema.USER_ID),
            tenant.column(schema.USERS, "discoverable"),
            strict=True,
        )
        if not shown
    }
    assert 0 < len(hidden) < 0.05 * CONFIG.users
    ends = (tenant.column(schema.CONNECTIONS, name) for name in (schema.SRC, schema.DST))
    since = {
        frozenset(pair): time
        for *pair, time in zip(*ends, tenant.times(schema.CONNECTIONS), strict=True)
    }
    rows = zip(
        tenant.column(schema.IMPRESSIONS, schema.USER_ID),
        tenant.column(schema.IMPRESSIONS, schema.CANDIDATE_ID),
        tenant.times(schema.IMPRESSIONS),
        strict=True,
    )
    for user, candidate, time in rows:
        if candidate is not None:
            assert candidate not in hidden
            assert since.get(frozenset((user, candidate)), CONFIG.end) > time


def test_attention_falls_with_the_position(tenant: Tenant) -> None:
    shown = tenant.tables[schema.IMPRESSIONS]
    acted = shown.column("action").is_valid().to_numpy()
    position = shown.column("position").to_numpy()
    rate = [acted[position == place].mean() for place in (1, 3, 8)]
    assert rate[0] > 1.3 * rate[1] > 1.3 * rate[2] > 0
    assert acted.mean() < 0.25


def test_blocked_pairs_never_connect(tenant: Tenant) -> None:
    pairs = [
        set(map(frozenset, zip(*(tenant.column(table, name) for name in names), strict=True)))
        for table, names in (
            (schema.BLOCKS, (schema.USER_ID, schema.OTHER_ID)),
            (schema.CONNECTIONS, (schema.SRC, schema.DST)),
        )
    ]
    assert len(pairs[0]) == tenant.rows[schema.BLOCKS]
    assert not pairs[0] & pairs[1]


def adjacency(tenant: Tenant) -> sparse.csr_array:
    src = tenant.positions(schema.CONNECTIONS, schema.SRC)
    dst = tenant.positions(schema.CONNECTIONS, schema.DST)
    return _symmetric(src, dst, CONFIG.users)


def _symmetric(src: Array, dst: Array, count: int) -> sparse.csr_array:
    ends = (np.concatenate((src, dst)), np.concatenate((dst, src)))
    graph = sparse.csr_array((np.ones(2 * len(src)), ends), shape=(count, count))
    graph.data[:] = 1.0
    return graph


def clustering(graph: sparse.csr_array) -> float:
    """Mean closed share of the wedges of those who have any."""
    degree = np.diff(graph.indptr)
    closed = np.asarray((graph @ graph).multiply(graph).sum(axis=1)).ravel()
    some = degree > 1
    return float((closed[some] / (degree[some] * (degree[some] - 1))).mean())


def test_triads_close_far_more_than_in_a_rewired_graph_of_the_same_degrees(tenant: Tenant) -> None:
    graph = adjacency(tenant)
    ends = np.repeat(np.arange(CONFIG.users), np.diff(graph.indptr))
    one, other = np.random.default_rng(0).permutation(ends).reshape(2, -1)
    loose = _symmetric(one[one != other], other[one != other], CONFIG.users)
    assert 0.1 < clustering(graph) < 0.4
    assert clustering(graph) > 5 * clustering(loose)


def test_degrees_are_heavy_tailed_and_late_joiners_have_none(tenant: Tenant) -> None:
    degree = np.diff(adjacency(tenant).indptr)
    assert degree.max() > 6 * degree.mean()
    assert np.quantile(degree, 0.99) > 3.5 * np.median(degree)
    late = round(CONFIG.late_joiner_share * CONFIG.users)
    created = tenant.times(schema.USERS, "created_at")
    assert (np.diff(created) >= 0).all()
    assert (degree[-late:] == 0).all()
    assert (degree[:-late] == 0).mean() < 0.05


def test_connected_people_share_more_than_strangers(tenant: Tenant) -> None:
    src = tenant.positions(schema.CONNECTIONS, schema.SRC)
    dst = tenant.positions(schema.CONNECTIONS, schema.DST)
    stranger = np.random.default_rng(0).permutation(dst)
    for name in ("company", "school", "city", "industry"):
        value = np.array(tenant.column(schema.USERS, name))
        assert (value[src] == value[dst]).mean() > 1.5 * (value[src] == value[stranger]).mean(), (
            name
        )
    skills = [set(row) for row in tenant.column(schema.USERS, "skills")]
    shared = [
        np.mean([len(skills[a] & skills[b]) for a, b in zip(src, other, strict=True)])
        for other in (dst, stranger)
    ]
    assert shared[0] > 1.5 * shared[1]


def test_items_are_taken_up_by_taste_popularity_and_arrival(tenant: Tenant) -> None:
    item = tenant.positions(schema.INTERACTIONS, schema.ITEM_ID)
    user = tenant.positions(schema.INTERACTIONS, schema.USER_ID)
    counts = np.sort(np.bincount(item))[::-1]
    assert counts[: len(counts) // 10].sum() > 0.3 * counts.sum()
    category = np.unique(tenant.column(schema.ITEMS, "category"), return_inverse=True)[1]
    industry = np.unique(tenant.column(schema.USERS, "industry"), return_inverse=True)[1]
    table = np.zeros((industry.max() + 1, category.max() + 1))
    np.add.at(table, (industry[user], category[item]), 1.0)
    expected = table.sum(1, keepdims=True) * table.sum(0) / table.sum()
    assert np.abs(table - expected).sum() / table.sum() > 0.1
    events = set(tenant.column(schema.INTERACTIONS, "event"))
    assert events == {"view", "like", "purchase"}


def test_no_impressions_and_no_interactions_still_make_a_tenant(tmp_path: Path) -> None:
    config = SyntheticConfig(users=50, interactions_per_user=0, impression_user_share=0)
    rows = generate_tenant(tmp_path, config)
    assert rows[schema.INTERACTIONS] == rows[schema.IMPRESSIONS] == 0
    assert rows[schema.CONNECTIONS] > 0
    assert pq.read_table(tmp_path / "impressions.parquet").num_rows == 0


@pytest.mark.parametrize("users", [10, 25])
def test_tiny_tenants_are_possible(tmp_path: Path, users: int) -> None:
    rows = generate_tenant(tmp_path, SyntheticConfig(users=users))
    assert rows[schema.USERS] == users
    assert 0 < rows[schema.CONNECTIONS] <= users * (users - 1) // 2


def test_progress_reaches_the_end_of_every_stage(tmp_path: Path) -> None:
    told: dict[str, tuple[int, int]] = {}
    generate_tenant(
        tmp_path, SyntheticConfig(users=100), lambda table, *work: told.update({table: work})
    )
    assert set(told) == {schema.USERS, schema.ITEMS, schema.CONNECTIONS, schema.INTERACTIONS}
    assert all(done == total for done, total in told.values())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("users", 3),
        ("users", 20.5),
        ("mean_degree", float("nan")),
        ("closure_end", 1.5),
        ("items", 0),
        ("seed", True),
    ],
)
def test_a_setting_out_of_range_is_named(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"SyntheticConfig\.{name}: .*expected .* from"):
        SyntheticConfig(**{name: value})


def _write_and_fail(folder: Path, columns: pa.Schema) -> None:
    with TableWriter(folder, "users", columns) as writer:
        writer.write(pa.table({"a": [3]}))
        raise RuntimeError("half way")


def test_a_table_that_fails_half_way_leaves_the_old_file(tmp_path: Path) -> None:
    table = pa.table({"a": [1, 2]})
    with TableWriter(tmp_path, "users", table.schema) as writer:
        writer.write(table)
    with pytest.raises(RuntimeError, match="half way"):
        _write_and_fail(tmp_path, table.schema)
    assert [path.name for path in tmp_path.iterdir()] == ["users.parquet"]
    assert pq.read_table(tmp_path / "users.parquet").equals(table)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"users\.parquet: cannot be written"):
        generate_tenant(tmp_path / "file", SyntheticConfig(users=10))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**63 - 1), cut=st.integers(0, 200))
def test_draws_do_not_depend_on_how_they_are_cut(seed: int, cut: int) -> None:
    for draw in (uniform, normal):
        whole = draw(seed, "a", 200)
        parts = (draw(seed, "a", cut), draw(seed, "a", 200 - cut, cut))
        assert np.array_equal(whole, np.concatenate(parts))
        assert not np.array_equal(whole, draw(seed, "b", 200))
    grid, mass = np.array([0, 10**12, 3 * 10**12]), np.array([0.0, 3.0, 4.0])
    times = event_times(seed, "t", 200, 0, 200, grid, mass)
    assert (np.diff(times) >= 0).all() and times[0] >= 0 and times[-1] <= grid[-1]
    assert np.array_equal(times[cut:], event_times(seed, "t", 200, cut, 200 - cut, grid, mass))
    assert (times < 10**12).sum() == pytest.approx(150, abs=1)


def test_draws_have_their_distributions() -> None:
    assert uniform(1, "u", 20_000).mean() == pytest.approx(0.5, abs=0.02)
    assert normal(1, "n", 20_000).std() == pytest.approx(1.0, abs=0.03)
    drawn = np.bincount(pick(1, "p", 20_000, np.array([1.0, 3.0, 0.0])), minlength=3) / 20_000
    assert drawn == pytest.approx([0.25, 0.75, 0.0], abs=0.02)


@given(st.lists(st.floats(0.01, 10.0), min_size=1, max_size=30), st.floats(0, 0.999))
def test_search_finds_the_place_that_a_scan_finds(weights: list[float], share: float) -> None:
    cumulative = np.concatenate(([0.0], np.cumsum(weights)))
    aim = share * cumulative[-1]
    scanned = next(place for place in range(len(weights)) if aim < cumulative[place + 1])
    assert search(cumulative, 0, len(weights), share) == scanned
    guide = search_guide(cumulative)
    for stop in range(1, len(weights) + 1):
        assert search_prefix(cumulative, guide, stop, share) == search(cumulative, 0, stop, share)
