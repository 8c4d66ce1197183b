"""The tenants of a process, and the tenant of each request by its API key."""

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
"""The file in the workers' shared folder that tells them to drain."""


class Tenant:
    """One served tenant: its recommender, keys, response cache, quota and traces."""

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
        """Whether the access log has the tenant's requests."""
        return self.recommender.config.serving.access_log

    def close(self) -> None:
        """Write all queued rows, and close the files."""
        self.recommender.close()
        self.quota.close()
        if self.traces is not None:
            self.traces.shutdown()

    def answered(self, answer: RecommendationResponse) -> None:
        """Count a computed list, and send its spans."""
        self._metrics.answer(self.name, answer)
        if self.traces is not None:
            stage_spans(self.traces, answer)


@dataclass(frozen=True, slots=True)
class Caller:
    """The tenant and scopes of an API key; the operator of several tenants has no tenant."""

    tenant: Tenant | None
    scopes: tuple[str, ...]


class Tenants:
    """The tenants of a process, by API key.

    Args:
        recommenders: one, or several with API keys.
        api_key: of one tenant, one more key of every scope; of several, the operator's key, which
            reads the metrics of all and nothing else.
        shared: a folder that all workers of a server share; None without others.

    Raises:
        InputError: there is no tenant, or two share a name, state folder or key.
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
        extra_key = None if self.several else api_key
        self._tenants: dict[str, Tenant] = {}
        for recommender in recommenders:
            keys = ApiKeys(recommender.config.state_path, extra_key)
            tenant = Tenant(recommender, keys, self.metrics, shared)
            self._tenants[tenant.name] = tenant
        if self.several:
            _check_keys(list(self))
        self._owners: dict[str, Tenant] = {}

    def __iter__(self) -> Iterator[Tenant]:
        return iter(self._tenants.values())

    @property
    def only(self) -> Tenant | None:
        """The only tenant; None if there are several."""
        return None if self.several else next(iter(self))

    @property
    def draining(self) -> bool:
        """Whether the server is about to stop: it still answers, but is not ready."""
        return self._shared is not None and (self._shared / DRAINING).exists()

    @property
    def closed(self) -> bool:
        """Whether every caller must send a key."""
        return self.several or any(tenant.keys.required for tenant in self)

    def caller(self, token: str | None) -> Caller | None:
        """The caller with a key; None if the key is missing or not valid."""
        if self.only is not None and not self.only.keys.required:
            return Caller(self.only, SCOPES)
        if not token:
            return None
        digest = digest_of(token)
        if self._operator is not None and hmac.compare_digest(digest, self._operator):
            return Caller(None, ())
        # else each request would look at the key files of all tenants
        owner = self._owners.get(digest)
        for tenant in (owner,) if owner is not None else self:
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
    for recommender in recommenders:
        config = recommender.config
        for what, value in (("name", config.tenant), ("state folder", config.state_path)):
            if (other := seen.setdefault((what, value), recommender)) is not recommender:
                raise InputError(
                    f"{_location(other)} and {_location(recommender)} have the same {what} {str(value)!r}: "
                    "give each tenant its own in its nextedge.toml (tenant = …, state = …)"
                )


def _check_keys(tenants: Sequence[Tenant]) -> None:
    owners: dict[str, Tenant] = {}
    for tenant in tenants:
        if not tenant.keys.required:
            raise InputError(
                f"tenant {tenant.name!r} has no API key, and several tenants are told apart by "
                f"their keys; make one with: nextedge keys create -c {_location(tenant.recommender)}"
            )
        for key in tenant.keys.all():
            if (other := owners.setdefault(key.sha256, tenant)) is not tenant:
                raise InputError(
                    f"tenants {other.name!r} and {tenant.name!r} share the key {key.id}: revoke "
                    f"it with: nextedge keys revoke {key.id} -c {_location(tenant.recommender)}"
                )


def _location(recommender: Recommender) -> Path | str:
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
    """The error of a caller without a valid key."""
    return HTTPException(401, "Missing or wrong API key", {"WWW-Authenticate": "Bearer"})
