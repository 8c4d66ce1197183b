"""Features that a server logged, computed again from the release as a build would: in batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nextedge.config import Config
from nextedge.evaluation.parity import Differences
from nextedge.events.request_log import LoggedRequest, RequestLog
from nextedge.serving.release.loaded import LoadedRelease, LoadedSurface
from nextedge.types import Requests

_COMPANY = 15
"""Other queries in a logged one's batch."""


@dataclass
class ReplayReport(Differences):
    """What was compared of logged requests on one surface.

    Attributes:
        requests: logged requests of the served release that kept their features.
        other_releases: logged requests of releases that are not served, which are left out.
        other_edges: and those over other live edges than the served release has now, or none.
    """

    requests: int = 0
    other_releases: int = 0
    other_edges: int = 0


def replay_requests(release: LoadedRelease, config: Config, most: int) -> list[ReplayReport]:
    """``replay_features`` of the tenant's request log, on every surface of a release."""
    logged = list(RequestLog(config.state_path, config.serving).read(features=True))
    return [replay_features(release, name, logged, most) for name in release.surfaces]


def replay_features(
    release: LoadedRelease, surface: str, logged: Sequence[LoggedRequest], most: int = 1000
) -> ReplayReport:
    """Compare logged features bit for bit with those of the same queries in batches of 16.

    Real-time features are left out: they followed from what had been recorded by then.
    """
    own = [each for each in logged if each.surface == surface]
    report = ReplayReport(surface, other_releases=sum(e.release != release.id for e in own))
    over = {release.base.edges: release.base, release.edges: release}
    for each in [e for e in own if e.release == release.id][-most:]:
        found = None if each.edges is None else over.get(each.edges)
        if found is None:
            report.other_edges += 1
            continue
        report.requests += 1
        _compare(report, found.surface(surface), found, each)
    return report


def _compare(
    report: ReplayReport, surface: LoadedSurface, release: LoadedRelease, logged: LoggedRequest
) -> None:
    line = surface.line
    assert logged.features is not None
    query = release.entities.users.positions([logged.user_id])
    # the seed makes a second replay compare the same batches
    others = np.random.default_rng(report.requests).integers(
        0, len(release.entities.users), _COMPANY
    )
    batch = np.concatenate((query, others.astype(np.int32)))
    requests = Requests(batch, logged.micros, logged.k, logged.context)
    candidates = line.retrieve(requests)
    matrix = line.matrix(requests, candidates)
    ids = release.entities.users if surface.candidate_table == "users" else release.entities.items
    wanted = ids.positions([logged.candidates[place] for place in logged.found])
    rows = {int(c): row for row, c in enumerate(candidates.candidate[: candidates.indptr[1]])}
    missing = sum(int(c) not in rows for c in wanted)
    report.rows += len(wanted)
    if missing or logged.features.shape[1] != matrix.shape[1]:
        report.add("candidates", max(missing, 1), float("nan"), int(query[0]))
        return
    found = matrix[[rows[int(c)] for c in wanted]]
    for column, name in enumerate(line.features.names):
        if name in line.features.live:
            continue  # they follow from what was recorded by then, too
        report.compare(name, found[:, column], logged.features[:, column], int(query[0]))
