"""Settings of training, serving, onboarding, events and builds."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from nextedge import schema
from nextedge.config.settings import Settings


class TrainingConfig(Settings):
    """Processes that train a network together (see docs/training.md)."""

    processes: int = Field(1, ge=1, le=1024)
    """Number of processes; each takes a share of every batch, so that the result is the same."""
    launcher: Literal["torchrun", "spark"] = "torchrun"
    """``torchrun`` starts them on this machine, ``spark`` on its executors."""
    graph: Literal["replicated", "partitioned"] = "replicated"
    """``replicated``: each process has the whole graph; ``partitioned``: a part of its nodes."""
    restarts: int = Field(0, ge=0)
    """Restarts from the last checkpoint after a training lost a process."""


class ServingConfig(Settings):
    """Serving: caches, limits and the request log."""

    cache_entries: int = Field(10_000, ge=0)
    """Ranked lists, and encoded answers, that a process caches; 0 = none."""
    cache_seconds: float = Field(3600.0, gt=0)
    """Seconds that they stay cached. Exclusions apply at once all the same."""
    store: str | None = Field(None, exclude=True, repr=False)  # its URL may hold a password
    """URL of a store in which processes share ranked lists; None = each has its own."""
    # Not dumped into releases and logs: a URL may hold a password.
    candidates_store: str | tuple[str, ...] | None = Field(None, exclude=True, repr=False)
    """URL of the store of published candidates, or several URLs that share them by a hash of their
    keys; None = ``store``, or a file in the state folder."""
    candidates_days: float = Field(2.0, gt=0)
    """Days that published candidates stay in the store; a new release replaces those of others."""
    candidates_features: bool = False
    """Store their features too: a request then only ranks, and the store is about seven times as
    large."""
    cached_lists_per_hour: int = Field(10_000, ge=0)
    """Users per hour whose computed candidates a process stores, beside the published ones."""
    shards: tuple[str, ...] = Field((), exclude=True)
    """Addresses of ``nextedge serve-shard 0/N``, ``1/N``, …, those of replicas with commas between
    them; empty = requests search the indexes themselves."""
    store_timeout_ms: float = Field(50.0, gt=0)
    """Longest wait for a connection to the store, and for its answer."""
    body_bytes: int = Field(1 << 20, ge=1024)
    """Largest body of a request."""
    deadline_ms: float = Field(200.0, ge=0)
    """Time after which a request goes on without slow sources or ranking, and is marked degraded;
    0 = none."""
    requests_per_second: float = Field(0.0, ge=0)
    """Requests per second of the tenant on one machine, all workers together; 0 = no limit."""
    burst: int | None = Field(None, ge=1)
    """Requests that may come at once after a pause; None = those of one second, at least one."""
    access_log: bool = False
    """Write one line of JSON to stdout for every request."""
    traces: str | None = Field(None, pattern=r"^https?://")
    """URL of the OpenTelemetry collector of spans (OTLP over HTTP), such as http://host:4318."""
    log_requests: bool = True
    """Log the impressions of ``nextedge serve``: ids, ranks, scores, chances, fingerprints."""
    log_features_share: float = Field(0.01, ge=0, le=1)
    """Share of requests whose features are logged, to compare them with the offline ones."""
    log_queue: int = Field(10_000, ge=1)
    """Requests that may wait to be logged; further ones are counted as lost."""
    log_days: float = Field(30.0, gt=0)
    """Days that the request log goes back."""


class OnboardingConfig(Settings):
    """Contacts of new users, and limits of their matching."""

    identifier_columns: tuple[str, ...] = ()
    """Columns of users with e-mail addresses or phone numbers; they are hashed when read, and not
    stored."""
    max_contacts: int = Field(5000, ge=1)
    """Most entries of one upload."""
    contacts_per_day: int = Field(10_000, ge=1)
    """Most entries that a user uploads in a day (UTC)."""
    uploads_per_day: int = Field(5, ge=1)
    """Most uploads of a user in a day (UTC)."""
    min_matches: int = Field(3, ge=1)
    """Fewest one-sided matches of an address book that are shown."""
    discoverable_by_contacts: bool = True
    """Default for members: show them to users who have them in an address book."""
    keep_days: float = Field(365.0, gt=0)
    """Days after which an address book that was not uploaded again is deleted."""

    @field_validator("identifier_columns")
    @classmethod
    def _not_the_id(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if schema.USER_ID in value:
            raise ValueError(f"{schema.USER_ID!r} is kept as given; name other columns of users")
        return value


class EventsConfig(Settings):
    """Events: where they are recorded, which are accepted, and how they change recommendations."""

    log: str | None = Field(None, exclude=True, repr=False)  # its URL may hold a password
    """URL of the live log that replicas share (redis://…); None = a file in the state folder."""
    broker: str | None = Field(None, exclude=True, repr=False)  # its URL may hold a password
    """URL of a broker (kafka://host:9092/topic): its events are recorded here, and ours are sent
    to it."""
    max_backlog: int = Field(1_000_000, ge=1)
    """Events that may wait for a consumer, or for a broker that is down; more are refused (503)."""
    future_seconds: float = Field(300.0, ge=0)
    """Most seconds that an event's time may be ahead of the clock."""
    create_users: bool = True
    """Accept events of users that no release has; they are users of the next build."""
    live_graph: bool = True
    """Let new edges change candidates and features at once, not only from the next build on."""
    neighbors_refreshed: int = Field(200, ge=0)
    """Users beside an edge's own whose published candidates it refreshes before their request."""


class BuildConfig(Settings):
    """Limits of a build."""

    memory_gib: float | None = Field(None, ge=0.25)
    """Anonymous memory; None = three quarters of the machine's. A step that needs more does not
    start."""
