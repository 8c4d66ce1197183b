"""Laws, degrees, workloads and plans: against planted costs, brute force, and what was shipped."""

from __future__ import annotations

import importlib.util
import json
import math
import re
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from nextedge.build import evaluate
from nextedge.build.evaluation import impression_metrics
from nextedge.build.training_set import training_set
from nextedge.cli.main import app
from nextedge.config import RankerConfig, SourceConfig, SurfaceConfig
from nextedge.errors import InputError
from nextedge.planning import steps as planned_steps
from nextedge.planning.coefficients import Coefficients, Law, load_coefficients
from nextedge.planning.degrees import counted, lognormal, power_law, read_degrees
from nextedge.planning.online import RequestLoad, busy_share, computed_ms, stores_gib
from nextedge.planning.plan import EXTRAPOLATED, make_plan
from nextedge.planning.steps import Step, steps_of, surface_drivers
from nextedge.planning.workload import Machine, Size, Traffic, Workload, number, surfaces_for

BENCH = Path(__file__).parents[2] / "bench" / "plan"
RUNNER = CliRunner()


@pytest.fixture(scope="module")
def shipped() -> Coefficients:
    return load_coefficients()


def bench_module(name: str) -> ModuleType:
    found = importlib.util.spec_from_file_location(f"plan_{name}", BENCH / f"{name}.py")
    assert found is not None
    assert found.loader is not None
    made = importlib.util.module_from_spec(found)
    sys.modules[made.__name__] = made
    found.loader.exec_module(made)
    return made


@pytest.fixture(scope="module")
def checking() -> ModuleType:
    return bench_module("check")


@pytest.fixture(scope="module")
def fitting() -> ModuleType:
    return bench_module("fit")


def workload(users: float = 1e6, degree: float = 50, **changed: Any) -> Workload:
    degrees = changed.pop("degrees", None) or lognormal(degree, users)
    size = size_of(users, degrees, changed.pop("items", 0), changed.pop("history", 0), 30)
    traffic = Traffic(**{"qps": 100, "events_per_second": 1, **changed.pop("traffic", {})})
    surfaces = changed.pop("surfaces", None) or surfaces_for_size(size)
    return Workload(size, degrees, traffic, surfaces=surfaces, **changed)


def size_of(users: float, degrees: Any, items: float, history: float, impressions: float) -> Size:
    return Size(
        users,
        users * degrees.mean,
        users * degrees.walked,
        items,
        users * history,
        users * impressions,
    )


def steps_by_name(of: Workload, table: Coefficients) -> dict[str, Step]:
    return {step.name: step for step in steps_of(of, table)}


def load_of(of: Workload, table: Coefficients) -> RequestLoad:
    return make_plan(of, table).online[0]


def surfaces_for_size(size: Size) -> dict[str, SurfaceConfig]:
    from nextedge.config import Config

    return surfaces_for(Config(), size)


# Laws ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("a", "b", "p"), [(3.0, 0.002, 1.0), (0.0, 0.5, 1.0), (2.0, 0.01, 0.5)])
def test_a_law_recovers_what_was_planted(fitting: ModuleType, a: float, b: float, p: float) -> None:
    driver = [100.0, 1_000.0, 10_000.0, 100_000.0]
    law = fitting.fit_law(driver, [a + b * x**p for x in driver], lowest=0.4)
    assert law.p == pytest.approx(p)
    assert law.at(3e6) == pytest.approx(a + b * 3e6**p, rel=1e-6)


def test_a_law_keeps_exponent_one_under_noise_and_never_turns_negative(fitting: ModuleType) -> None:
    random = np.random.default_rng(0)
    driver = np.array([1e3, 2e3, 4e3])
    law = fitting.fit_law(driver, (2 + 0.01 * driver) * (1 + 0.05 * random.uniform(-1, 1, 3)))
    assert law.p == 1.0
    falling = fitting.fit_law([1.0, 2.0, 4.0], [4.0, 2.0, 1.0], 1.0)
    assert falling.a >= 0
    assert falling.b >= 0


def test_a_law_of_one_size_is_refused(fitting: ModuleType) -> None:
    with pytest.raises(InputError, match="two sizes"):
        fitting.fit_law([5.0, 5.0], [1.0, 1.0])


# Degrees ------------------------------------------------------------------------------------


@pytest.mark.parametrize("cap", [0, 200])
def test_moments_of_log_normal_degrees_are_those_of_a_sample(cap: int) -> None:
    sample = np.random.default_rng(0).lognormal(math.log(50) - 0.5, 1.0, 2_000_000)
    found, drawn = lognormal(50, 2e6, cap), counted(sample, cap)
    assert found.mean == pytest.approx(drawn.mean, rel=0.01)
    assert found.second == pytest.approx(drawn.second, rel=0.03)
    assert found.walked == pytest.approx(drawn.walked, rel=0.03)


@pytest.mark.parametrize("exponent", [2.0, 2.5, 3.0])
def test_moments_of_a_power_law_are_those_of_its_quantiles(exponent: float) -> None:
    found = power_law(40, 1e6, exponent, hub_cap=500)
    largest = math.sqrt(40 * 1e6)
    low, high = 1e-6, 40.0
    share = (np.arange(2_000_000) + 0.5) / 2_000_000
    for _ in range(60):  # the naive way: quantiles, the smallest degree by bisection
        smallest = (low + high) / 2
        tail = (smallest / largest) ** (exponent - 1)
        degree = smallest * (1 - share * (1 - tail)) ** (-1 / (exponent - 1))
        low, high = (smallest, high) if degree.mean() < 40 else (low, smallest)
    naive = counted(degree, 500)
    assert naive.mean == pytest.approx(40, rel=1e-3)
    assert found.second == pytest.approx(naive.second, rel=0.02)
    assert found.walked == pytest.approx(naive.walked, rel=0.02)


def test_heavier_tails_have_more_wedges_and_a_hub_cap_takes_them_away() -> None:
    assert power_law(50, 1e7, 2.2).second > power_law(50, 1e7, 2.8).second
    assert power_law(50, 1e7, 2.2, 1000).walked < 0.5 * power_law(50, 1e7, 2.2).walked
    assert power_law(50, 1e7, 2.2, 1000).second == power_law(50, 1e7, 2.2).second


@pytest.mark.parametrize(("mean", "users"), [(999, 1000), (600, 1000), (1, 2)])
def test_no_degrees_have_a_second_moment_below_that_of_equal_ones(
    mean: float, users: float
) -> None:
    assert lognormal(mean, users).second >= mean**2
    assert lognormal(mean, users, hub_cap=1).walked <= lognormal(mean, users).second


@pytest.mark.parametrize("exponent", [1.5, 3.0, 100.0, 500.0])
def test_a_power_law_has_the_mean_that_was_asked_for(exponent: float) -> None:
    assert power_law(10, 1e6, exponent).second >= 100 * 0.999


@pytest.mark.parametrize(
    ("mean", "exponent", "said"),
    [(0.5, 1.0001, "or more"), (10, math.nan, "more than 1"), (10, math.inf, "more than 1")],
)
def test_a_power_law_that_there_is_not_is_refused(mean: float, exponent: float, said: str) -> None:
    with pytest.raises(InputError, match=said):
        power_law(mean, 1000, exponent)


def test_a_hub_cap_is_one_of_the_scaled_degrees() -> None:
    degree = np.array([1, 2, 9])
    assert counted(degree, 5, mean=8.0) == replace(
        counted(degree * 2, hub_cap=5), said="as counted, scaled by 2"
    )
    with pytest.raises(InputError, match="all 0"):
        counted(np.zeros(3, np.int64), mean=8.0)


def test_degrees_are_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "degrees.parquet"
    pq.write_table(pa.table({"degree": [1, 2, 9]}), path)
    assert counted(read_degrees(path)).second == pytest.approx(86 / 3)
    assert counted(read_degrees(path), mean=8.0).second == pytest.approx(4 * 86 / 3)


# Stages -------------------------------------------------------------------------------------


def test_bounds_are_those_of_the_steps() -> None:
    assert impression_metrics.MOST_ROWS == planned_steps.IMPRESSIONS
    assert evaluate.MAX_QUERIES == planned_steps.EVALUATED
    assert training_set.FUSION_QUERIES == planned_steps.FUSION
    assert training_set.COLD_SHARE == planned_steps.COLD_SHARE
    assert training_set.COLD_PARTS == planned_steps.COLD_PARTS


def test_training_does_not_grow_beyond_its_bound() -> None:
    def training_rows(users: float, **ranker: Any) -> float:
        surface = SurfaceConfig(kind="people", ranker=RankerConfig(**ranker))
        size = Size(users, users * 50, users * 1e4, 0, 0, 0)
        return surface_drivers(size, surface, users / 2, users / 2)["training rows"]

    assert training_rows(1e6) == training_rows(1e8)
    assert training_rows(1e6, max_rows=10_000) < training_rows(1e6) / 10


def test_every_stage_grows_with_the_users(shipped: Coefficients) -> None:
    sizes = [1e4, 1e5, 1e6, 1e8]
    found = [steps_of(workload(n, 50, items=n / 10, history=20), shipped) for n in sizes]
    for fewer, more in pairwise(found):
        for small, large in zip(fewer, more, strict=True):
            assert small.name == large.name
            assert small.cpu_seconds <= large.cpu_seconds
            assert small.memory_gib <= large.memory_gib
            assert small.output_gib <= large.output_gib
    before, grown = ({step.name: step.cpu_seconds for step in steps} for steps in found[-2:])
    assert grown["candidates people"] > 35 * before["candidates people"]


def test_a_hub_cap_makes_candidates_cheaper(shipped: Coefficients) -> None:
    every, capped = (workload(1e8, 200, degrees=power_law(200, 1e8, 2.2, cap)) for cap in (0, 1000))

    def candidates(given: Workload) -> float:
        return steps_by_name(given, shipped)["candidates people"].cpu_seconds

    assert candidates(capped) < candidates(every)


def test_a_hub_cap_of_walks_makes_features_no_cheaper(shipped: Coefficients) -> None:
    every, capped = (workload(1e8, 200, degrees=power_law(200, 1e8, 2.2, cap)) for cap in (0, 100))
    of_every, of_capped = (load_of(each, shipped) for each in (every, capped))
    assert of_every.cpu_ms == of_capped.cpu_ms


def test_what_a_hub_cap_takes_away_is_said(shipped: Coefficients) -> None:
    def degrees(cap: float) -> str:
        plan = make_plan(workload(1e6, 50, degrees=power_law(50, 1e6, 2.5, cap)), shipped)
        return next(line for line in plan.assumptions() if line.startswith("degrees: "))

    assert "within the hub cap" not in degrees(0)
    assert "Σ degree² = 0" not in degrees(10)
    assert ", 0 of it within the hub cap" in degrees(10)


def test_an_evaluation_is_bounded_by_what_it_takes(shipped: Coefficients) -> None:
    def evaluation(users: float) -> float:
        step = steps_by_name(workload(users, 50), shipped)["evaluate people"]
        laws = [shipped.law(f"cpu {part} people") for part in ("queries", "impressions")]
        assert sum(part.law in laws for part in step.parts) == 2
        return sum(part.seconds for part in step.parts if part.law in laws)

    assert evaluation(1e6) == evaluation(1e9)


def test_a_source_that_is_off_costs_nothing(shipped: Coefficients) -> None:
    on = SurfaceConfig(kind="items")
    off = SurfaceConfig(kind="items", sources={"als": SourceConfig(enabled=False)})

    def rank_seconds(surface: SurfaceConfig) -> float:
        given = workload(1e6, 0, items=1e5, history=20, surfaces={"items": surface})
        return steps_by_name(given, shipped)["rank items"].cpu_seconds

    assert rank_seconds(off) < rank_seconds(on)


# Online -------------------------------------------------------------------------------------


def test_a_queue_is_late_no_more_often_than_it_may() -> None:
    """A worker at the planned load, simulated: exponential services, arrivals at random."""
    service, target = 0.01, 0.08
    busy = busy_share(service, 0.0, target, 0.99)
    random = np.random.default_rng(0)
    arrive = np.cumsum(random.exponential(service / busy, 400_000))
    work = random.exponential(service, len(arrive))
    begun = np.empty(len(arrive))
    free = 0.0
    for place, (at, spent) in enumerate(zip(arrive, work, strict=True)):
        begun[place] = max(at, free)
        free = begun[place] + spent
    assert 0.5 < busy < 0.99
    assert np.quantile(begun - arrive, 0.99) == pytest.approx(target, rel=0.15)


def test_workers_grow_with_the_requests_and_with_haste(shipped: Coefficients) -> None:
    def workers(**traffic: float) -> float:
        return load_of(workload(traffic=traffic), shipped).workers

    assert workers(qps=100) < workers(qps=1000) < workers(qps=25_000)
    assert workers(qps=25_000, p99_ms=1_000) <= workers(qps=25_000, p99_ms=100)
    assert math.isinf(workers(qps=100, p99_ms=0.01))
    assert workers(qps=100, events_per_second=1e9) == math.inf


def test_surfaces_share_the_requests(shipped: Coefficients) -> None:
    wanted = workload(users=1e4, items=1e3, history=20, traffic={"qps": 100})
    loads = make_plan(wanted, shipped).online
    assert len(loads) == 2
    assert sum(load.qps for load in loads) == pytest.approx(100)


def test_kept_features_take_more_room_and_less_time(shipped: Coefficients) -> None:
    plain, kept = workload(), workload(keep_features=True)
    first, second = (stores_gib(each, shipped) for each in (plain, kept))
    assert second > 2 * first
    assert load_of(kept, shipped).cpu_ms < load_of(plain, shipped).cpu_ms


def test_a_computed_request_pays_for_its_walk_and_not_for_a_batch(shipped: Coefficients) -> None:
    small, large = workload(2e4, 30), workload(1e8, 200)
    published = load_of(small, shipped).cpu_ms
    assert published < computed_ms("people", small, shipped) < 2 * published
    assert computed_ms("people", large, shipped) > 1.5 * computed_ms("people", small, shipped)


# Plans --------------------------------------------------------------------------------------


def test_a_small_tenant_runs_on_one_machine(shipped: Coefficients) -> None:
    plan = make_plan(workload(20_000, 30, items=2_000, history=20), shipped)
    assert all(row.possible for row in plan.rows)
    assert {row.machines for row in plan.rows if row.hours is not None} == {1}
    assert plan.hours < 24


def test_what_one_machine_cannot_hold_is_said(shipped: Coefficients) -> None:
    plan = make_plan(workload(1e9, 500, traffic={"qps": 25_000}), shipped)
    snapshot = next(row for row in plan.rows if row.stage == "snapshot")
    assert not snapshot.possible
    assert "GiB on one machine" in snapshot.runs
    assert snapshot.machines * 64 * 0.8 >= 250e9 * 16 / 2**30  # NEEDS: 16 bytes a connection
    assert snapshot.memory_gib <= 64 * 0.8
    larger = replace(workload(1e9, 500), machine=Machine(memory_gib=1e6, cores=16))
    held = next(row for row in make_plan(larger, shipped).rows if row.stage == "snapshot")
    assert held.machines < snapshot.machines


def test_a_figure_far_beyond_the_measured_sizes_has_a_warning(shipped: Coefficients) -> None:
    small, large = (make_plan(workload(users, 50), shipped) for users in (2e4, 1e9))
    assert small.warnings == []
    far = [row.stage for row in large.rows if row.beyond > EXTRAPOLATED]
    assert "rank people" in far
    assert [line.split(":")[0] for line in large.warnings] == far
    assert "428,960 times the largest size measured" in next(
        line for line in make_plan(workload(1e9, 500), shipped).warnings if "snapshot" in line
    )
    assert large.to_json()["warnings"] == large.warnings


def test_positions_that_a_release_has_not_are_said(shipped: Coefficients) -> None:
    few, many = (make_plan(workload(users, 5), shipped).rows[1] for users in (2e9, 3e9))
    assert "2,147,483,647" not in few.runs
    assert not many.possible
    assert "no more than 2,147,483,647 users" in many.runs


def test_a_worker_is_told_as_busy_as_it_is(shipped: Coefficients) -> None:
    def runs(qps: float) -> str:
        plan = make_plan(workload(1e4, 10, traffic={"qps": qps}), shipped)
        return next(row.runs for row in plan.rows if row.stage == "requests people")

    assert runs(1.0).startswith("1 workers, 1% busy")
    assert runs(0.0) == "no requests"


def test_a_worker_that_no_machine_holds_is_named(shipped: Coefficients) -> None:
    given = workload(1e14, 10, machine=Machine(memory_gib=1))
    plan = make_plan(given, shipped)
    row = next(row for row in plan.rows if row.stage == "requests people")
    assert math.isinf(row.machines) and not row.possible
    assert re.match(r"not by this code: a worker takes .* GiB", row.runs)
    stages = {stage["stage"]: stage for stage in plan.to_json()["stages"]}
    assert stages["requests people"]["machines"] is None


def test_prices_and_periods_count(shipped: Coefficients) -> None:
    once = make_plan(workload(), shipped)
    dear = make_plan(replace(workload(), machine=Machine(core_hour=0.08, gib_hour=0.01)), shipped)
    often = make_plan(workload(traffic={"refresh_hours": 6.0}), shipped)
    assert once.money < dear.money < 2 * once.money  # the store has a price of its own
    assert often.core_hours == once.core_hours
    assert often.money > once.money


def test_stages_that_can_be_spread_are_spread_first(shipped: Coefficients) -> None:
    given = workload(1e7, 50, items=1e6, history=50)
    period = make_plan(given, shipped).hours / 2
    plan = make_plan(replace(given, traffic=replace(given.traffic, refresh_hours=period)), shipped)
    assert plan.hours <= period
    alone = [row for row in plan.rows if row.stage.startswith(("release", "embed"))]
    assert len(alone) == 3
    assert all(row.machines == 1 for row in alone)
    spread = [row for row in plan.rows if row.hours is not None and row not in alone]
    assert any(row.machines > 1 for row in spread)


# Commands -----------------------------------------------------------------------------------


def test_the_command_prints_every_stage_and_the_same_as_json() -> None:
    asked = [
        "plan",
        "--users",
        "10M",
        "--degree",
        "50",
        "--items",
        "1M",
        "--interactions-per-user",
        "20",
        "--qps",
        "2k",
    ]
    shown = RUNNER.invoke(app, asked, env={"COLUMNS": "200"})
    assert shown.exit_code == 0, shown.output
    found = json.loads(RUNNER.invoke(app, [*asked, "--json"]).stdout)
    for row in found["stages"]:
        assert row["stage"] in shown.output
    assert "Tightest" in shown.output
    assert found["workload"]["size"]["entries"] == 5e8
    assert found["totals"]["core_hours_a_refresh"] == pytest.approx(
        sum(row["core_hours"] for row in found["stages"] if row["hours"] is not None)
    )
    assert found["measured"]["cores"] >= 1


def test_degrees_of_a_built_release_are_taken(tenant: Path) -> None:
    from nextedge import Recommender

    degree = Recommender(tenant).release.snapshot.connections.degree.astype(float)
    asked = ["plan", "-c", str(tenant), "--items", "100", "--interactions-per-user", "5", "--json"]
    own = json.loads(RUNNER.invoke(app, asked).stdout)["workload"]["size"]
    assert own["users"] == len(degree)
    assert own["wedges"] == pytest.approx((degree**2).sum())
    larger = json.loads(RUNNER.invoke(app, [*asked, "--users", "1M"]).stdout)["workload"]["size"]
    assert larger["wedges"] == pytest.approx((degree**2).mean() * 1e6)
    skewed = RUNNER.invoke(app, [*asked, "--users", "1M", "--degree-exponent", "2.5"]).stdout
    assert json.loads(skewed)["workload"]["degrees"]["mean"] == pytest.approx(degree.mean())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "--users is missing"),
        (["--users", "many"], "expected a number such as"),
        (["--users", "1", "--degree", "1"], "expected 2 or more"),
        (["--users", "1000", "--degree", "5000"], "more connections than there are"),
        (["--users", "1000", "--degree", "-1"], "expected 0 or more"),
        (["--users", "1000"], "nothing to recommend"),
        (["--users", "1e6", "--degree", "5", "--degree-exponent", "0.5"], "more than 1"),
        (["--users", "1e6", "--degree", "5", "--refresh-hours", "0"], "--refresh-hours '0'"),
        (["--users", "1e6", "--degree", "5", "--machine-cores", "0"], "--machine-cores '0'"),
        (["--users", "1e6", "--degree", "5", "--p99-ms", "nan"], "--p99-ms 'nan'"),
        (
            ["--users", "1e300", "--degree", "5"],
            "--users '1e300': expected 2 or more, at most 1e+15",
        ),
        (["--users", "1e6", "--degree", "5", "--refresh-hours", "1e-300"], "0.01 or more"),
        (["--users", "1e6", "--degree", "5", "--machine-cores", "0.5"], "--machine-cores '0.5'"),
        (["--users", "1e6", "--degree", "5", "--core-hour-price", "-1"], "--core-hour-price '-1'"),
        (
            ["--users", "1e6", "--degree", "5", "--stored-gib-month-price", "inf"],
            "--stored-gib-month-price 'inf'",
        ),
        (
            ["--users", "1e6", "--degree", "5", "--impressions-per-user", "-1"],
            "--impressions-per-user '-1'",
        ),
        (
            ["--users", "1e6", "--items", "10", "--interactions-per-user", "20"],
            "more items than there are",
        ),
        (
            ["--users", "1e6", "--degree", "5", "--interactions-per-user", "20"],
            "--items, which is 0",
        ),
        (["--users", "1e6", "--degree", "5", "--coefficients", "none.json"], "no such file"),
        (["--degrees", "none.parquet"], "no such file"),
        (["--users", "1e6", "-c", "nowhere"], "nowhere"),
    ],
)
def test_bad_input_is_told_in_words(given: list[str], said: str) -> None:
    found = RUNNER.invoke(app, ["plan", *given])
    assert isinstance(found.exception, InputError), found.output
    assert said in str(found.exception)


def test_bad_files_are_told_in_words(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (
        "",
        "[]",
        '{"format": 2}',
        '{"format": 2, "laws": {"x": {"a": 1}}, "measured": {}}',
    ):
        path.write_text(content)
        with pytest.raises(InputError, match="not a file of coefficients"):
            load_coefficients(path)
    path.write_text('{"format": 9}')
    with pytest.raises(InputError, match="format 9"):
        load_coefficients(path)
    with pytest.raises(InputError, match="column 'degree'"):
        read_degrees(path)
    pq.write_table(pa.table({"degree": [-1.0]}), path)
    with pytest.raises(InputError, match="0 or more"):
        read_degrees(path)
    with pytest.raises(InputError, match="no law 'cpu tables'"):
        Coefficients({}, {}).law("cpu tables")


@pytest.mark.parametrize("text", ["", "k", "1e999", "ten", "1..2"])
def test_numbers_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="--users"):
        number(text, "--users")


def test_a_surface_without_edges_is_not_planned_in_silence(tmp_path: Path) -> None:
    path = tmp_path / "nextedge.toml"
    path.write_text("[surfaces.people]\n[surfaces.items]\n")
    asked = ["plan", "-c", str(path), "--users", "1000", "--json"]
    assert "nothing to recommend" in str(RUNNER.invoke(app, asked).exception)
    made = json.loads(RUNNER.invoke(app, [*asked, "--degree", "5"]).stdout)
    assert made["workload"]["surfaces"] == ["people"]
    assert any("nothing is planned for items" in line for line in made["assumptions"])


# What was measured --------------------------------------------------------------------------


def test_coefficients_are_written_as_they_are_read(
    shipped: Coefficients, checking: ModuleType, tmp_path: Path
) -> None:
    checking.save(shipped, tmp_path / "again.json")
    assert load_coefficients(tmp_path / "again.json") == shipped


def test_shipped_laws_are_those_of_the_results(
    shipped: Coefficients, checking: ModuleType, tmp_path: Path
) -> None:
    checking.save(checking.fit(checking.load(checking.RESULTS)), tmp_path / "fitted.json")
    assert load_coefficients(tmp_path / "fitted.json") == shipped


def test_laws_meet_a_build_that_they_were_not_fitted_to(checking: ModuleType) -> None:
    found = checking.check(checking.load(checking.RESULTS))
    assert found["steps"]["total"]["measured"] > 0
    assert checking.missed(found) == []


@pytest.mark.parametrize("step", ["rank people", "evaluate people"])
def test_shipped_laws_carry_on_to_the_largest_build(shipped: Coefficients, step: str) -> None:
    """A build two hundred times as large as any that laws were fitted to, within half and double."""
    path = BENCH.parent / "scale" / "results" / "2026-11-22-5000000x100000000-from-rank.json"
    found = json.loads(path.read_text())
    was = sum(part["cpu_seconds"] for part in found["parts"] if part["name"].startswith(step))
    degrees = lognormal(2 * found["edges"] / found["users"], found["users"])
    size = size_of(found["users"], degrees, 0, 0, 0)
    given = Workload(size, degrees, surfaces=surfaces_for_size(size))
    assert was / 2 < steps_by_name(given, shipped)[step].cpu_seconds < was * 2


def test_the_check_finds_planted_costs_and_sees_those_that_are_off(
    shipped: Coefficients, checking: ModuleType
) -> None:
    """Measurements made of laws alone: the largest is met; a step that took twice is missed."""
    rows = planted(checking, shipped)
    found = checking.check(rows)
    assert checking.missed(found) == []
    assert found["steps"]["total"]["ratio"] == pytest.approx(1.0, abs=0.02)
    largest = next(row for row in rows if row["at"] == 4000 and row["kind"] == "build")
    largest["values"]["step cpu rank people"] *= 2
    assert "rank people" in checking.missed(checking.check(rows))


def planted(checking: ModuleType, shipped: Coefficients) -> list[dict[str, Any]]:
    """Builds of three sizes whose every part costs what a law of the shipped names says."""
    laws = {
        name: Law(law.driver, 0.5, 1e-4, 1.0, 1e9) if name.startswith("cpu") else law
        for name, law in shipped.laws.items()
    }
    true = Coefficients(laws, shipped.measured)
    machine = {"load": 0.0, "cores": 2}
    measured_as = {new: old for old, new in checking.RENAMED.items()}
    rows = []
    for users in (1000, 2000, 4000):
        size = Size(users, users * 30.0, users * 1400.0, users / 2, users * 16.0, users * 25.0)
        values = {
            f"count {of} {kind}": laws[f"{of} {kind}"].at(users)
            for of in ("labelled", "evaluated")
            for kind in ("people", "items")
        }
        row = {
            "kind": "build",
            "at": users,
            "values": values,
            "machine": machine,
            "size": vars(size),
        }
        for quantity in ("output", "memory", "cpu"):  # a release costs what its outputs are
            for name, law in laws.items():
                if name.startswith(quantity):
                    at = checking.drivers(row, "items" if " items" in name else "people")
                    old = next((o for n, o in measured_as.items() if name.startswith(n)), None)
                    new = checking.RENAMED[old] if old else ""
                    if driver := at.get(law.driver, 0.0):
                        values[(old or "") + name.removeprefix(new)] = law.at(driver)
        for step, seconds in checking.predicted(row, true).items():
            values[f"step cpu {step}"] = seconds
        values["cpu release"] = values.pop("step cpu release")
        rows.append(row)
    kernels = [
        {
            "kind": kind,
            "at": power,
            "drivers": {kind: 10.0**power},
            "values": {f"cpu {law}": laws[f"cpu {law}"].at(10.0**power)},
            "machine": machine,
        }
        for kind, law in (("two_hop", "two_hop"), ("vectors", "index"), ("vectors", "search"))
        for power in (5, 6)
    ]
    return rows + kernels
