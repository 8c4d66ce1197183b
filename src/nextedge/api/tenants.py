"""The tenants that a process serves, and whose a request is: a key is of one tenant only."""

from __future__ import annotations

import hmac
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, Request
from starlette.exceptions import HTTPException

from nextedge.api.keys import CALLER, SCOPES, ApiKeys, digest_of
from nextedge.api.metrics import Metrics
from nextedge.api.quota import Quota
from nextedge.api.response_cache import ResponseCache
from nextedge.api.traces import stage_spans, tracer_provider
from nextedge.errors import InputError

if TYPE_CHECKING:
    from nextedge.recommender import Recommender
    from nextedge.serving.messages import RecommendationResponse


DRAINING = "draining"
"""The file of the shared folder that says so."""


class Tenant:
    """One tenant as it is served; nothing of it is shared with another."""

    def __init__(
        self, recommender: Recommender, keys: ApiKeys, metrics: Metrics, shared: Path | None
    ) -> None:
        self.recommender = recommender
        self.name = recommender.config.tenant
        self.keys = keys
        self.responses = ResponseCache(recommender, keys)
        self.quota = Quota(
            recommender.config.serving, None if shared is None else shared / f"{self.name}.quota"
        )
        self._metrics = metrics
        if recommender.session.shards is not None:
            recommender.session.shards.tell = partial(metrics.shard, self.name)
        collector = recommender.config.serving.traces
        self.traces = None if collector is None else tracer_provider(collector)

    @property
    def logs_access(self) -> bool:
        """Whether each of its requests has a line in the access log."""
        return self.recommender.config.serving.access_log

    def close(self) -> None:
        """Write all that is queued, and close the files."""
        self.recommender.close()
        self.quota.close()
        if self.traces is not None:
            self.traces.shutdown()

    def answered(self, answer: RecommendationResponse) -> None:
        """Tell of a list that was computed."""
        self._metrics.answer(self.name, answer)
        if self.traces is not None:
            stage_spans(self.traces, answer)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: a tenant and what its key may do; the operator of several has no tenant."""

    tenant: Tenant | None
    scopes: tuple[str, ...]


class Tenants:
    """Every tenant of a process, found by the keys of their callers.

    Args:
        recommenders: one, or several that each have keys of their own.
        api_key: of one tenant a further key of every scope; of several the operator's, which
            reads the metrics of all and nothing else.
        shared: a folder that all workers of a server share, None where there is but one.

    Raises:
        InputError: names, state folders or keys are not each tenant's own, or there are none.
    """

    def __init__(
        self,
        recommenders: Sequence[Recommender],
        api_key: str | None = None,
        shared: Path | None = None,
    ) -> None:
        self._shared = shared
        _check_apart(recommenders)
        self.several = len(recommenders) > 1
        self.metrics = Metrics()
        self._operator = digest_of(api_key) if self.several and api_key is not None else None
        given = None if self.several else api_key
        self._tenants = {
            each.config.tenant: Tenant(
                each, ApiKeys(each.config.state_path, given), self.metrics, shared
            )
            for each in recommenders
        }
        if self.several:
            _check_keys(list(self))
        self._owners: dict[str, Tenant] = {}

    def __iter__(self) -> Iterator[Tenant]:
        return iter(self._tenants.values())

    @property
    def only(self) -> Tenant | None:
        """The tenant, where there is but one."""
        return None if self.several else next(iter(self))

    @property
    def draining(self) -> bool:
        """Whether the server is about to stop: it answers, but should be sent no more."""
        return self._shared is not None and (self._shared / DRAINING).exists()

    @property
    def closed(self) -> bool:
        """Whether every caller must send a key."""
        return self.several or any(tenant.keys.required for tenant in self)

    def caller(self, token: str | None) -> Caller | None:
        """Whose a key is, as of now; None where it is nobody's."""
        if self.only is not None and not self.only.keys.required:
            return Caller(self.only, SCOPES)
        if not token:
            return None
        digest = digest_of(token)
        if self._operator is not None and hmac.compare_digest(digest, self._operator):
            return Caller(None, ())
        known = self._owners.get(digest)
        for tenant in (known,) if known is not None else self:
            scopes = tenant.keys.scopes(digest)
            if scopes:
                self._owners[digest] = tenant
                return Caller(tenant, scopes)
        self._owners.pop(digest, None)
        return None


def _check_apart(recommenders: Sequence[Recommender]) -> None:
    if not recommenders:
        raise InputError("no tenant to serve")
    seen: dict[Any, Recommender] = {}
    for each in recommenders:
        for what, value in (("name", each.config.tenant), ("state folder", each.config.state_path)):
            if (other := seen.setdefault((what, value), each)) is not each:
                raise InputError(
                    f"{_place(other)} and {_place(each)} have the same {what} {str(value)!r}: "
                    "give each tenant its own in its nextedge.toml (tenant = …, state = …)"
                )


def _check_keys(tenants: Sequence[Tenant]) -> None:
    owners: dict[str, Tenant] = {}
    for tenant in tenants:
        if not tenant.keys.required:
            raise InputError(
                f"tenant {tenant.name!r} has no API key, and several tenants are told apart by "
                f"their keys; make one with: nextedge keys create -c {_place(tenant.recommender)}"
            )
        for key in tenant.keys.all():
            if (other := owners.setdefault(key.sha256, tenant)) is not tenant:
                raise InputError(
                    f"tenants {other.name!r} and {tenant.name!r} share the key {key.id}: revoke "
                    f"it with: nextedge keys revoke {key.id} -c {_place(tenant.recommender)}"
                )


def _place(recommender: Recommender) -> Path | str:
    return recommender.location or recommender.config.tenant


def tenant_of(request: Request) -> Tenant:
    """The tenant whose key a request carries."""
    caller: Caller | None = request.scope[CALLER]
    if caller is None:
        raise unknown_key()
    if caller.tenant is None:
        raise HTTPException(403, "The operator's key is of no tenant: it reads /metrics only")
    return caller.tenant


CurrentTenant = Annotated[Tenant, Depends(tenant_of)]


def unknown_key() -> HTTPException:
    """What is said to a caller without a key that holds."""
    return HTTPException(401, "Missing or wrong API key", {"WWW-Authenticate": "Bearer"})
