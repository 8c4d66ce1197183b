"""Bodies of requests and answers, written once for the service, its document and the client."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from nextedge.types import MAX_LIMIT, MOST_FILTER_VALUES, MOST_FILTERS, MOST_SHOWN

LONGEST_ID, LONGEST_CONTEXT = 256, 64
"""Characters of an id, and of a context or region."""


# tables and logs store ids as int64
WholeNumber = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Text = Annotated[str, Field(min_length=1, max_length=LONGEST_ID)]
Identifier = WholeNumber | Text
"""The id of a user or an item, as it is in the tenant's tables."""
FilterValues = Text | Annotated[list[Text], Field(min_length=1, max_length=MOST_FILTER_VALUES)]


class Problem(BaseModel):
    """What went wrong (RFC 9457)."""

    type: str = Field(examples=["about:blank"])
    title: str = Field(examples=["UnknownSurface"])
    status: int = Field(examples=[404])
    detail: str = Field(
        examples=["no surface 'pepole'; did you mean 'people'? valid: items, people"]
    )


class ReasonOut(BaseModel):
    """Why a recommendation is shown."""

    code: str = Field(examples=["mutual_connections"])
    text: str = Field(examples=["7 mutual connections, Ada and Bo among them"])
    evidence: dict[str, Any] = {}


class RecommendationOut(BaseModel):
    """One predicted edge; ``candidate_id`` for people, ``item_id`` for items."""

    candidate_id: int | str | None = None
    item_id: int | str | None = None
    score: float
    rank: int
    reason: ReasonOut
    sources: list[str]
    display: str
    propensity: float = Field(1.0, description="chance with which it is at its place; log it")
    promoted: bool = Field(False, description="at its place because the tenant promotes it")
    contributions: dict[str, float] | None = None


class RecommendationsOut(BaseModel):
    """The recommendations of one user."""

    user_id: int | str
    surface: str
    recommendations: list[RecommendationOut]
    recommendation_id: str
    release: str
    degraded: list[str]
    cache: str = "miss"
    latency_ms: float
    experiment: str | None = Field(None, description="name:arm of the trial the user is in")
    next_cursor: str | None = Field(
        None,
        description="send as cursor for the next page, which repeats nothing; absent at the end",
    )


class InternalRequest(BaseModel):
    """The body of ``/internal/ml/recommendations``."""

    tenant_id: str = Field(examples=["acme"])
    user_id: Identifier = Field(examples=["u000007"])
    count: int = Field(20, ge=1, le=MAX_LIMIT)
    filters: dict[str, FilterValues] = Field(
        {},
        max_length=MOST_FILTERS,
        description="column of the candidates = value or values; of numbers also low..high",
        examples=[{"region": "EU"}],
    )
    context: dict[str, str] = Field(
        {},
        max_length=16,
        description="context, region, and what a new user states of themself",
        examples=[{"context": "mobile"}],
    )
    exclude: list[Identifier] = Field([], max_length=MOST_SHOWN, description="not to be shown")
    cursor: str | None = Field(None, max_length=8192, description="next_cursor of the page before")
    surface: str | None = Field(None, examples=["people"])


class InternalResponse(BaseModel):
    """The answer of ``/internal/ml/recommendations``."""

    recommendations: list[RecommendationOut]
    model_version: str
    latency_ms: float
    cache_hit: bool
    recommendation_id: str
    degraded: list[str] = []
    experiment: str | None = None
    next_cursor: str | None = None


class SimilarEntry(BaseModel):
    """One similar item or person."""

    id: int | str
    score: float
    rank: int
    display: str


class SimilarOut(BaseModel):
    """What is like the given one, best first."""

    id: int | str
    surface: str
    release: str
    similar: list[SimilarEntry]


class EmbeddingOut(BaseModel):
    """The vector of a user or an item; comparable within one release only."""

    id: str
    kind: str
    release: str
    dimensions: int
    embedding: list[float]


class TrainingRequest(BaseModel):
    """What to build: named surfaces, or all; promoted or not."""

    surfaces: list[str] = Field([], examples=[["people"]])
    promote: bool = True


class TrainingOut(BaseModel):
    """How a build goes."""

    id: str
    status: Literal["running", "done", "failed", "lost"]
    started: float
    ended: float | None = None
    release: str | None = None
    message: str | None = None


class ReleaseOut(BaseModel):
    """A release, and how it did on what it had not seen."""

    id: str = Field(examples=["20260203-040506"])
    served: bool
    created: str = Field(examples=["2026-02-03T04:05:06Z"])
    metrics: dict[str, Any] = Field(description="per surface the ranker and its figures")


class ServedOut(BaseModel):
    """The release that is served from now on."""

    release: str = Field(examples=["20260203-040506"])


class RejectedEvent(BaseModel):
    """An event that was not recorded, by its place in what was sent."""

    index: int
    reason: str


class RecordedOut(BaseModel):
    """What became of events: new ones, ones that were there already, and others."""

    accepted: int
    repeated: int
    rejected: list[RejectedEvent]


ContactEntry = Annotated[str, Field(max_length=1024)]


class ContactsIn(BaseModel):
    """What a user gives; what is left out stays as it was."""

    own: list[ContactEntry] | None = Field(
        None, description="e-mail addresses and phone numbers that you have proven to be the user's"
    )
    contacts: list[ContactEntry] | None = Field(
        None, description="the address book, in place of the last"
    )
    consent: bool = Field(False, description="the user agreed that contacts are matched")
    discoverable_by_contacts: bool | None = Field(
        None, description="may those who have the user in their book be shown the user"
    )


class RefusedEntry(BaseModel):
    """An entry that is no e-mail address and no phone number."""

    index: int
    reason: str


class ContactsOut(BaseModel):
    """What became of an upload; the same whoever is a member."""

    stored: int
    refused: list[RefusedEntry]
    left_today: int


class ForgottenOut(BaseModel):
    """What was changed: the same answer for whoever was never known, with zeros."""

    releases: int
    events: int
    requests: int


class HealthOut(BaseModel):
    """Whether the process answers."""

    status: Literal["live", "ready"]
    release: str | None = Field(None, description="left out where there are several tenants")
