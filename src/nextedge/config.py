"""Settings of a tenant: the frozen model of ``nextedge.toml``, its reading and its errors.

Every value has a default, so a folder whose files are named as the tables needs no file.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from nextedge import schema
from nextedge.errors import ConfigError, UnknownSurfaceError, nearest
from nextedge.storage.opening import checked_url, is_bucket, is_misspelt

FILE_NAME = "nextedge.toml"
FILE_SUFFIXES = (".parquet", ".csv", ".csv.gz", ".jsonl", ".jsonl.gz", ".ndjson")

STATE_VARIABLE = "NEXTEDGE_STATE_HOME"
"""Environment variable: where a state in a bucket keeps what must be local files."""
TENANT_PATTERN = r"^[A-Za-z0-9_.-]{1,64}$"

RENAMED_SETTINGS = {
    "others_drawn": "sampled_negatives",
    "best_kept": "top_negatives",
    "candidates_kept_an_hour": "cached_lists_per_hour",
    "exact_below": "exact_search_max_items",
    "neighbours": "neighbors",
}
"""Former name of a setting = its name; a former one is refused, and the message gives the new one."""

SurfaceKind = Literal["people", "items"]
SplitMethod = Literal["auto", "time", "last", "random"]


class Settings(BaseModel):
    """Settings: frozen, unknown names refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Options = TypeVar("Options", bound=Settings)


class Configurable(Generic[Options]):
    """A base of classes whose type parameter is the class of their settings."""

    config_class: ClassVar[type[Settings]] = Settings

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        for base in cls.__dict__.get("__orig_bases__", ()):
            for parameter in get_args(base):
                if isinstance(parameter, type) and issubclass(parameter, Settings):
                    cls.config_class = parameter


class DataConfig(Settings):
    """Where each table is: a path (relative to the config file), a glob, or a database URL."""

    users: str | None = None
    connections: str | None = None
    items: str | None = None
    interactions: str | None = None
    impressions: str | None = None
    blocks: str | None = None
    directed: bool = False
    """Whether a connection from a to b says nothing of b to a."""
    dangling: Literal["drop", "keep"] = "drop"
    """Rows that name a user or item missing from its table: drop them, or keep the id."""
    columns: dict[str, dict[str, str]] = Field(default_factory=dict)
    """Per table, our column name = your column name; only where they differ."""

    @field_validator("columns")
    @classmethod
    def _known_tables(cls, value: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
        for table in value:
            if table not in schema.TABLES:
                raise ValueError(f"no table {table!r}; {nearest(table, schema.TABLES)}")
        return value

    def sources(self) -> Iterator[tuple[str, str]]:
        """The tables that are given: (table name, path or URL)."""
        for table in schema.TABLES:
            location = getattr(self, table)
            if location is not None:
                yield table, location


class EntityFeatures(Settings):
    """Which columns of users or items are features; left out, types decide."""

    categorical: tuple[str, ...] | None = None
    numeric: tuple[str, ...] | None = None
    text: tuple[str, ...] | None = None
    tags: tuple[str, ...] | None = None
    ignore: tuple[str, ...] = ()


class FeaturesConfig(Settings):
    """Feature columns of users and of items, and which features the ranker leaves out."""

    users: EntityFeatures = EntityFeatures()
    items: EntityFeatures = EntityFeatures()
    exclude: tuple[str, ...] = (
        "query_interactions_week",
        "recent_similarity",
        "recent_category_taste",
        "query_new_connections_day",
        "query_new_connections_week",
    )
    """Features that the ranker does without; at first those real-time ones that did not help."""
    text_model: str | None = None
    """Local folder of a sentence-transformers model that encodes text columns (relative to the
    config file); without one texts are hashed TF-IDF."""


class SplitConfig(Settings):
    """How history is cut into graph, label window and evaluation window.

    ``time`` cuts at two instants, ``last`` holds back each query's latest edges, ``random``
    holds back a seeded share; ``auto`` takes time where timestamps say when, else random.
    """

    method: SplitMethod = "auto"
    label_share: float = Field(0.1, gt=0, lt=0.5)
    evaluation_share: float = Field(0.1, gt=0, lt=0.5)
    seed: int = 0


class SourceConfig(Settings):
    """One candidate source: whether it runs, how many it gives, and its own settings."""

    enabled: bool = True
    limit: int | None = Field(None, ge=1)
    """Candidates per query; default: the surface's ``candidates``."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Settings of the source's own."""


RankerKind = Literal[
    "lightgbm",
    "lightgbm_binary",
    "lambdarank",
    "xgboost",
    "mlp",
    "two_tower",
    "blend",
    "best_source",
]


class RankerConfig(Settings):
    """The ranker and its training."""

    model: Literal["auto"] | RankerKind = "auto"
    """``auto`` serves whichever of those compared ranks later label windows best."""
    compare: tuple[RankerKind, ...] = ("lightgbm", "blend", "best_source")
    """Rankers that are fitted and compared; each costs its training."""
    trees: int = Field(300, ge=1)
    leaves: int = Field(15, ge=2, le=64)
    learning_rate: float = Field(0.1, gt=0, le=1)
    min_rows_in_leaf: int = Field(50, ge=1)
    leaf_penalty: float = Field(5.0, ge=0)
    """L2 penalty on leaf values."""
    early_stopping: int = Field(30, ge=1)
    max_rows: int = Field(200_000, ge=1000)
    """Candidate rows a label window may give to training; bounds the cost of a build."""
    top_negatives: int = Field(80, ge=0)
    """Candidates of a label query that are kept for certain, by rough score."""
    sampled_negatives: int = Field(70, ge=1)
    """Candidates of a label query drawn at random from the rest, each counted for many."""
    attribution_days: float = Field(14.0, gt=0)
    """An impression without an action counts as refused only after this many days."""
    impression_window_days: float = Field(90.0, gt=0)
    action_weights: dict[str, float] = Field(default_factory=dict)
    """Action of an impression, or event of an interaction = what it counts as label (1 where it
    is not named); 0 makes it no label. A dismissal's is for how many refusals it counts."""
    refused_share: float = Field(0.5, ge=0, lt=1)
    """Weight of what was shown and refused among a query's negatives: the others were never asked."""
    position_bias: bool = True
    """Let what was taken low in a list count for more, where impressions carry positions."""
    seed: int = 0

    @field_validator("action_weights")
    @classmethod
    def _known_actions(cls, value: dict[str, float]) -> dict[str, float]:
        for name, weight in value.items():
            if name not in schema.ACTIONS:
                raise ValueError(f"no action {name!r}; {nearest(name, schema.ACTIONS)}")
            if not 0 <= weight <= 100:
                raise ValueError(f"action_weights.{name} = {weight}: expected 0 to 100")
        return value


class RerankerConfig(Settings):
    """The re-ranker of the head of every list: neighbourhoods that attend to each other."""

    enabled: bool = False
    """Train one; it is served where it ranks the last label window better."""
    depth: int = Field(50, ge=2, le=500)
    """Candidates at the head of a list that it orders."""
    neighbors: int = Field(16, ge=1, le=128)
    """Neighbours of the query, and of each candidate, that it looks at."""
    dimensions: int = Field(32, ge=4, le=256)
    epochs: int = Field(8, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    queries: int = Field(2000, ge=50)
    """Label queries of a window that it is trained on, and judged by."""
    seed: int = 0


class IndexConfig(Settings):
    """The nearest-neighbour index over a model's embeddings."""

    kind: Literal["auto", "flat", "hnsw", "ivf_flat", "ivf_sq8", "ivf_pq"] = "auto"
    """``auto``: by number of vectors and memory; ``flat`` compares with all of them."""
    exact_search_max_items: int = Field(50_000, ge=0)
    """Candidates up to which all are compared."""
    target_recall: float = Field(0.95, gt=0, le=1)
    """Share of the truly nearest that must be found, or nothing is published."""
    memory_mb: int = Field(4096, ge=1)
    """For the index, or for each of its shards."""
    shards: Literal["auto"] | Annotated[int, Field(ge=1, le=1000)] = 1
    """Parts that ``nextedge serve-shard`` can hold; ``auto``: so many that ``memory_mb`` holds one's
    vectors whole."""


NEW_BELOW = 5
"""A candidate of fewer edges counts as new, another as established."""


class ExplorationConfig(Settings):
    """Places of every list that are drawn among new candidates, with the chance logged."""

    slots: int = Field(0, ge=0, le=100)
    """Places at the end of the list; 0 = off."""
    fewer_edges_than: int = Field(NEW_BELOW, ge=1)
    """Who counts as new."""
    hours: float = Field(24.0, gt=0)
    """How long a draw holds for its query."""


class PromotionsConfig(Settings):
    """Places of every list for candidates that a flag column of theirs promotes."""

    share: float = Field(0.0, ge=0, le=0.5)
    """Of the places; 0 = off."""
    column: str = "promoted"


class PolicyConfig(Settings):
    """The ordered rules after ranking."""

    max_per: dict[str, int] = Field(default_factory=dict)
    """Column = the most recommendations that may share one value of it."""
    diversity: float = Field(0.0, ge=0, le=1)
    """How much difference from what is above counts beside the score (0: not at all)."""
    exploration: ExplorationConfig = ExplorationConfig()
    promotions: PromotionsConfig = PromotionsConfig()
    recently_shown_days: float = Field(0.0, ge=0)
    """Leave out what was shown to the query in this many days; 0 = off."""
    freshness_half_life_days: float | None = Field(None, gt=0)
    """Scores of older candidates decay by their created_at; None = off."""
    rules: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Rules of other packages that run here, by name, each with its settings."""
    regions_column: str = "regions"
    allow_seen: bool = False

    @field_validator("max_per")
    @classmethod
    def _positive(cls, value: dict[str, int]) -> dict[str, int]:
        for column, most in value.items():
            if most < 1:
                raise ValueError(f"max_per.{column} = {most}: expected 1 or more")
        return value


class ContextConfig(Settings):
    """What is different in one context of a request (``mobile``, ``web``, ``email``, …)."""

    k: int | None = Field(None, ge=1, le=500)
    policy: PolicyConfig = PolicyConfig()
    """Only what is given here differs from the surface's policy."""


class SurfaceConfig(Settings):
    """One surface: which edges are predicted, from which sources, ranked and ruled how."""

    kind: SurfaceKind
    k: int = Field(20, ge=1, le=500)
    candidates: int = Field(1500, ge=1)
    sources: dict[str, SourceConfig] = Field(default_factory=dict)
    index: IndexConfig = IndexConfig()
    ranker: RankerConfig = RankerConfig()
    reranker: RerankerConfig = RerankerConfig()
    policy: PolicyConfig = PolicyConfig()
    contexts: dict[str, ContextConfig] = Field(default_factory=dict)
    """By the ``context`` of a request: another k, other rules."""

    def in_context(self, name: str | None) -> tuple[int, PolicyConfig]:
        """k and policy of a request."""
        chosen = self.contexts.get(name or "")
        if chosen is None:
            return self.k, self.policy
        given = {part: getattr(chosen.policy, part) for part in chosen.policy.model_fields_set}
        return chosen.k or self.k, self.policy.model_copy(update=given)

    @property
    def shown_days(self) -> float:
        """How long some rule of it needs to know what was shown."""
        rules = [self.in_context(name)[1] for name in (None, *self.contexts)]
        return max(each.recently_shown_days for each in rules)


class TrainingConfig(Settings):
    """Processes that train a network together (see docs/training.md)."""

    processes: int = Field(1, ge=1, le=1024)
    """How many; each takes a share of every batch, so that the result stays the same."""
    launcher: Literal["torchrun", "spark"] = "torchrun"
    """Who starts them: torchrun on this machine, or Spark on its executors."""
    graph: Literal["replicated", "partitioned"] = "replicated"
    """Whether each holds the whole graph, or a part of its nodes and asks for the others' inputs."""
    restarts: int = Field(0, ge=0)
    """How often a training that lost a process goes on by itself from its last checkpoint."""


class ServingConfig(Settings):
    """How requests are answered and kept."""

    cache_entries: int = Field(10_000, ge=0)
    """Ranked lists that a process keeps, and answers that are already encoded; 0 = none."""
    cache_seconds: float = Field(3600.0, gt=0)
    """How long; what live state hides is left out of cached lists too, at once."""
    store: str | None = Field(None, exclude=True, repr=False)  # its URL may hold a password
    """URL of a store where processes share their ranked lists; None = each has its own."""
    candidates_store: str | tuple[str, ...] | None = Field(None, exclude=True, repr=False)
    """URL of the store of published candidates, or several that share them by a hash of their keys;
    None = ``store``, or a file in the state folder."""
    candidates_days: float = Field(2.0, gt=0)
    """How long they are kept; those of other releases go as a new one is published."""
    candidates_features: bool = False
    """Keep their features too: a request then only ranks, for about seven times the room."""
    cached_lists_per_hour: int = Field(10_000, ge=0)
    """Users for whom a process keeps what their request found, beside those that were published."""
    shards: tuple[str, ...] = Field((), exclude=True)
    """Addresses of ``nextedge serve-shard 0/N``, ``1/N``, …; those of replicas with commas between
    them; empty = requests search the indexes themselves."""
    store_timeout_ms: float = Field(50.0, gt=0)
    """Longest wait for a connection to the store, and for its answer."""
    body_bytes: int = Field(1 << 20, ge=1024)
    """Largest body that a request may have."""
    deadline_ms: float = Field(200.0, ge=0)
    """Sources and ranking that would not be done by then are left out, and said so; 0 = none."""
    requests_per_second: float = Field(0.0, ge=0)
    """Requests that the tenant may make of a machine, all workers together; 0 = any number."""
    burst: int | None = Field(None, ge=1)
    """Requests that may come at once after a pause; None = those of a second, at least one."""
    access_log: bool = False
    """Write one line of JSON to stdout for every request."""
    traces: str | None = Field(None, pattern=r"^https?://")
    """OpenTelemetry collector (OTLP over HTTP) that spans are sent to, as http://host:4318."""
    log_requests: bool = True
    """Keep what ``nextedge serve`` showed: ids, places, scores, chances, fingerprints."""
    log_features_share: float = Field(0.01, ge=0, le=1)
    """Share of requests whose features are kept whole, to be compared with the offline ones."""
    log_queue: int = Field(10_000, ge=1)
    """Requests that may wait to be written; more are counted as lost."""
    log_days: float = Field(30.0, gt=0)


class OnboardingConfig(Settings):
    """Contacts of new users, and how much of them may be matched."""

    identifier_columns: tuple[str, ...] = ()
    """Columns of users with e-mail addresses or phone numbers: hashed as they are read, never kept."""
    max_contacts: int = Field(5000, ge=1)
    """Entries of one upload."""
    contacts_per_day: int = Field(10_000, ge=1)
    """Entries that a user may upload in a day (UTC)."""
    uploads_per_day: int = Field(5, ge=1)
    min_matches: int = Field(3, ge=1)
    """One-sided matches of an address book are shown only where there are at least so many."""
    discoverable_by_contacts: bool = True
    """For members who said nothing: whether those who have them in their book may be shown them."""
    keep_days: float = Field(365.0, gt=0)
    """Address books that were not uploaded again in so many days are deleted."""

    @field_validator("identifier_columns")
    @classmethod
    def _not_the_id(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if schema.USER_ID in value:
            raise ValueError(f"{schema.USER_ID!r} is kept as given; name other columns of users")
        return value


class EventsConfig(Settings):
    """Where events are recorded, which are taken, and how soon they tell."""

    log: str | None = Field(None, exclude=True, repr=False)  # its URL may hold a password
    """URL of the live log that replicas share (redis://…); None = a file in the state folder."""
    broker: str | None = Field(None, exclude=True, repr=False)
    """URL of a broker (kafka://host:9092/topic): its events are recorded here, and ours sent there."""
    max_backlog: int = Field(1_000_000, ge=1)
    """Events that may wait for a consumer, or for a broker that is down; more are refused (503)."""
    future_seconds: float = Field(300.0, ge=0)
    """How far ahead of the clock an event's time may be."""
    create_users: bool = True
    """Take events of users whom no release knows; they are users of the next build."""
    live_graph: bool = True
    """Let new edges change candidates and features at once, not only from the next build on."""
    neighbors_refreshed: int = Field(200, ge=0)
    """Users beside an edge's own whose published candidates it renews ahead of their request."""


class BuildConfig(Settings):
    """What a build may take of the machine."""

    memory_gib: float | None = Field(None, ge=0.25)
    """Anonymous memory; None = three quarters of the machine's. A step that needs more does not start."""


class Config(Settings):
    """A tenant's whole configuration. ``base`` is the folder that paths are relative to."""

    tenant: str = Field("default", pattern=TENANT_PATTERN)
    state: str = "./state"
    """Folder of releases, event log and caches, or a bucket: s3://bucket/prefix, gs://…, az://…"""
    base: Path = Path(".")
    data: DataConfig = DataConfig()
    features: FeaturesConfig = FeaturesConfig()
    split: SplitConfig = SplitConfig()
    training: TrainingConfig = TrainingConfig()
    serving: ServingConfig = ServingConfig()
    onboarding: OnboardingConfig = OnboardingConfig()
    events: EventsConfig = EventsConfig()
    build: BuildConfig = BuildConfig()
    surfaces: dict[str, SurfaceConfig] = Field(default_factory=dict)

    @field_validator("state")
    @classmethod
    def _folder_or_bucket(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("expected a folder, such as ./state, or the URL of a bucket")
        if is_misspelt(value):
            raise ValueError("expected s3://bucket/prefix, gs://… or az://container/prefix")
        if "://" not in value:
            return value
        try:
            return checked_url(value)
        except ConfigError as error:
            raise ValueError(str(error)) from None

    @property
    def state_url(self) -> str | None:
        """URL of the bucket that holds the state, or None where it is a folder."""
        return self.state if is_bucket(self.state) else None

    @cached_property
    def state_path(self) -> Path:
        """Folder of releases, event log and caches; with a bucket this machine's own part of it."""
        if self.state_url is None:
            return (self.base / self.state).resolve()
        given = os.environ.get(STATE_VARIABLE)
        home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
        name = re.sub(r"[^A-Za-z0-9.-]+", "-", self.state_url)
        mark = hashlib.sha256(self.state_url.encode()).hexdigest()[:8]
        return (Path(given) if given else Path(home) / "nextedge").resolve() / f"{name}-{mark}"

    @property
    def text_model_path(self) -> Path | None:
        """Folder of the text model, or None."""
        model = self.features.text_model
        return None if model is None else (self.base / model).resolve()

    def surface(self, name: str) -> SurfaceConfig:
        """Settings of one surface; raises UnknownSurfaceError with the valid names."""
        try:
            return self.surfaces[name]
        except KeyError:
            raise UnknownSurfaceError(
                f"no surface {name!r}; {nearest(name, self.surfaces)}"
            ) from None


def load_config(location: str | Path) -> Config:
    """Read a ``nextedge.toml``, or a folder that holds one or whose files name the tables.

    A file that names no table has those of its folder.

    Raises:
        ConfigError: the file is missing, is not TOML, or has an unknown or invalid setting;
            the message names the file, the setting and the nearest valid one.
    """
    path = Path(location)
    if path.is_dir():
        path = path / FILE_NAME
        if not path.exists():
            return config_from_directory(path.parent)
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: no such file; give a folder of tables, or write one with: nextedge init DIR"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    data = raw.get("data", {})
    if isinstance(data, dict) and not data.keys() & schema.TABLES.keys():
        raw["data"] = {**_table_files(path.parent), **data}
    return parse_config(raw, base=path.parent, origin=str(path))


def config_from_directory(directory: Path) -> Config:
    """Configuration of a folder without ``nextedge.toml``: its files name the tables."""
    found = _table_files(directory)
    if not found:
        names = ", ".join(f"{name}.parquet" for name in schema.TABLES)
        raise ConfigError(
            f"{directory}: no {FILE_NAME} and no table file; expected one of {names} "
            f"(or .csv, .jsonl)"
        )
    return parse_config({"data": found}, base=directory, origin=str(directory))


def _table_files(directory: Path) -> dict[str, str]:
    """The tables that files of a folder hold, by their names."""
    return {name: file for name in schema.TABLES if (file := find_table_file(directory, name))}


def find_table_file(directory: Path, table: str) -> str | None:
    """Name of the file of a table in a folder, or None; several files are an error."""
    found = [table + suffix for suffix in FILE_SUFFIXES if (directory / (table + suffix)).is_file()]
    if len(found) > 1:
        raise ConfigError(
            f"{directory}: table {table!r} is there more than once ({', '.join(found)}); "
            f"keep one, or name it in {FILE_NAME}"
        )
    return found[0] if found else None


def parse_config(raw: Mapping[str, Any], *, base: Path, origin: str) -> Config:
    """Validate raw settings, filling in the surfaces that the given tables allow."""
    settings = {**raw, "base": base}
    settings["surfaces"] = _with_surface_kinds(raw.get("surfaces", {}), raw.get("data", {}))
    try:
        return Config.model_validate(settings)
    except ValidationError as error:
        raise ConfigError(_describe(error, Config, origin)) from None


def _with_surface_kinds(surfaces: Any, data: Any) -> Any:
    """Give ``people`` and ``items`` their kind, and add them where their table is given."""
    if not isinstance(surfaces, Mapping) or not isinstance(data, Mapping):
        return surfaces
    kinds: dict[str, Any] = {}
    for name, table in (("people", schema.CONNECTIONS), ("items", schema.INTERACTIONS)):
        if name in surfaces or (not surfaces and data.get(table)):
            kinds[name] = {"kind": name}
    merged = {
        name: {**kinds.get(name, {}), **value} if isinstance(value, Mapping) else value
        for name, value in surfaces.items()
    }
    return {**kinds, **merged}


def parse_options(model: type[Options], options: Mapping[str, Any], where: str) -> Options:
    """Validate the options of a plug-in; no value is converted to another type.

    Raises:
        ConfigError: an option is unknown or invalid; names it, and the nearest valid one.
    """
    try:
        # As JSON, because a strict check of Python values refuses a list for a tuple.
        return model.model_validate_json(json.dumps(options, default=str), strict=True)
    except ValidationError as error:
        raise ConfigError(_describe(error, model, where)) from None


def _describe(error: ValidationError, model: type[BaseModel], origin: str) -> str:
    lines = []
    for fault in error.errors():
        where = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            lines.append(f"{origin}: {_unknown_setting(where, fault['loc'], model)}")
        else:
            given = re.sub(r"://[^/@'\"]*@", "://***@", repr(fault.get("input")))
            lines.append(f"{origin}: {where}: {fault['msg']} (given: {given})")
    return "\n".join(lines)


def _unknown_setting(where: str, location: tuple[int | str, ...], root: type[BaseModel]) -> str:
    name, valid = str(location[-1]), _valid_names(location[:-1], root)
    if RENAMED_SETTINGS.get(name) in valid:
        return f"setting {where!r} is now named {RENAMED_SETTINGS[name]!r}; use that name"
    return f"unknown setting {where!r}; {nearest(name, valid)}"


def _valid_names(location: tuple[int | str, ...], root: type[BaseModel]) -> list[str]:
    """Names of the settings that are valid at a location below a model."""
    model: Any = root
    for part in location:
        if isinstance(model, type) and issubclass(model, BaseModel):
            model = model.model_fields[str(part)].annotation
        else:  # a mapping: its values are what the part names
            model = get_args(model)[-1]
    if isinstance(model, type) and issubclass(model, BaseModel):
        return [name for name in model.model_fields if name != "base"]
    return []
