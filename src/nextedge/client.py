"""A client of the HTTP service, for programs that do not hold the engine: sync and async.

    with Client("http://127.0.0.1:8000", api_key="ne_…") as client:
        client.recommendations("alice", limit=10).recommendations
        client.record({"type": "dismiss", "user_id": "alice", "candidate_id": "bob"})

Methods are written once, as calls that say what is sent and what comes back; ``Client`` answers
them at once, ``AsyncClient`` as awaitables. A 429, a 503 or a lost connection is tried again, after
what ``Retry-After`` says or longer and longer waits.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, overload
from urllib.parse import quote

from pydantic import BaseModel, TypeAdapter, ValidationError

from nextedge.api.models import (
    ContactsIn,
    ContactsOut,
    EmbeddingOut,
    ForgottenOut,
    HealthOut,
    InternalRequest,
    InternalResponse,
    Problem,
    RecommendationsOut,
    RecordedOut,
    ReleaseOut,
    ServedOut,
    SimilarOut,
    TrainingOut,
    TrainingRequest,
)
from nextedge.errors import MissingDependencyError, NextEdgeError

if TYPE_CHECKING:
    import httpx2

    from nextedge.types import Identifier

Result = TypeVar("Result")
Parameters = ParamSpec("Parameters")
# the service did nothing: even calls that are not repeatable are sent again
_AGAIN = frozenset({429, 503})
_LONGEST_SECONDS = 30.0  # a Retry-After of hours must not block the caller


class ApiError(NextEdgeError):
    """The service refused; holds what its problem document says."""

    def __init__(self, problem: Problem, request_id: str | None = None) -> None:
        super().__init__(f"{problem.status} {problem.title}: {problem.detail}")
        self.type = problem.type
        self.title = problem.title
        self.status = problem.status
        self.detail = problem.detail
        self.request_id = request_id
        """The id under which the service's log has the request."""


class ConnectionLostError(NextEdgeError):
    """The service could not be reached, or did not answer in time."""


@dataclass(frozen=True)
class Call(Generic[Result]):
    """What is sent, and of which type the answer is."""

    method: str
    path: str
    result: type[Result]
    params: Mapping[str, Any] = field(default_factory=dict)
    json: Any = None
    repeatable: bool = True
    """Whether it may be sent again when nobody knows what became of it."""


class _Method(Generic[Parameters, Result]):
    """A method that makes a call: of ``Client`` it gives the result, of ``AsyncClient`` an awaitable."""

    def __init__(self, make: Callable[Concatenate[_Calls, Parameters], Call[Result]]) -> None:
        self.make = make
        self.__doc__ = make.__doc__

    @overload
    def __get__(self, client: Client, owner: Any) -> Callable[Parameters, Result]: ...

    @overload
    def __get__(
        self, client: AsyncClient, owner: Any
    ) -> Callable[Parameters, Awaitable[Result]]: ...

    @overload
    def __get__(self, client: None, owner: Any) -> _Method[Parameters, Result]: ...

    def __get__(self, client: Any, owner: Any) -> Any:
        if client is None:
            return self

        def method(*given: Parameters.args, **named: Parameters.kwargs) -> Any:
            return client.send(self.make(client, *given, **named))

        return method


class _Calls:
    """Every route of the service."""

    @_Method
    def recommendations(
        self,
        /,
        user_id: Identifier,
        surface: str = "people",
        *,
        limit: int | None = None,
        context: str | None = None,
        region: str | None = None,
        cursor: str | None = None,
        exclude: Sequence[Identifier] = (),
        filters: Mapping[str, str | Sequence[str]] = {},
        explain: bool = False,
    ) -> Call[RecommendationsOut]:
        """Recommendations for a user.

        Args:
            cursor: ``next_cursor`` of the page before.
            exclude: ids not to be shown; more than 200 go by ``internal``.
            filters: column of the candidates = the value, or values, that they must have.
        """
        params: dict[str, Any] = {
            "user_id": user_id,
            "limit": limit,
            "context": context,
            "region": region,
            "cursor": cursor,
            "exclude": list(exclude),
            "filter": [
                f"{column}:{value}"
                for column, values in filters.items()
                for value in ([values] if isinstance(values, str) else values)
            ],
        }
        # only if asked: the parameter keeps a request from the fast path
        if explain:
            params["explain"] = "true"
        return Call("GET", f"/v1/{_part(surface)}/recommendations", RecommendationsOut, params)

    @_Method
    def internal(self, request: InternalRequest) -> Call[InternalResponse]:
        """Recommendations by the engine's own interface."""
        body = request.model_dump(exclude_none=True)
        return Call("POST", "/internal/ml/recommendations", InternalResponse, json=body)

    @_Method
    def similar(
        self, given: Identifier, surface: str, *, limit: int | None = None
    ) -> Call[SimilarOut]:
        """What is like an item or a person."""
        params = {"id": given, "limit": limit}
        return Call("GET", f"/v1/{_part(surface)}/similar", SimilarOut, params)

    @_Method
    def embedding(self, kind: str, given: Identifier) -> Call[EmbeddingOut]:
        """The vector of a ``user`` or an ``item``."""
        return Call("GET", f"/v1/embeddings/{_part(kind)}/{_part(given)}", EmbeddingOut)

    @_Method
    def record(
        self, events: BaseModel | Mapping[str, Any] | Sequence[BaseModel | Mapping[str, Any]]
    ) -> Call[RecordedOut]:
        """Record events. Each has an id before it is sent, so that sent twice it counts once."""
        given = [events] if isinstance(events, BaseModel | Mapping) else list(events)
        return Call("POST", "/v1/events", RecordedOut, json=[_with_id(each) for each in given])

    @_Method
    def put_contacts(self, user_id: Identifier, contacts: ContactsIn) -> Call[ContactsOut]:
        """Keep a user's identifiers and address book, as hashes."""
        body = contacts.model_dump(exclude_none=True)
        return Call("PUT", f"/v1/users/{_part(user_id)}/contacts", ContactsOut, json=body)

    @_Method
    def delete_contacts(self, user_id: Identifier) -> Call[None]:
        """Withdraw a user's consent to be matched."""
        return Call("DELETE", f"/v1/users/{_part(user_id)}/contacts", type(None))

    @_Method
    def forget(self, user_id: Identifier) -> Call[ForgottenOut]:
        """Erase what is kept of a person."""
        return Call("DELETE", f"/v1/users/{_part(user_id)}", ForgottenOut)

    @_Method
    def releases(self) -> Call[list[ReleaseOut]]:
        """The releases, oldest first."""
        return Call("GET", "/v1/releases", list[ReleaseOut])

    @_Method
    def promote(self, release: str) -> Call[ServedOut]:
        """Serve a release from now on."""
        return Call("POST", f"/v1/releases/{_part(release)}/promote", ServedOut)

    @_Method
    def rollback(self) -> Call[ServedOut]:
        """Serve what was served before."""
        # a second rollback would go back one release more
        return Call("POST", "/v1/releases/rollback", ServedOut, repeatable=False)

    @_Method
    def train(self, request: TrainingRequest) -> Call[TrainingOut]:
        """Start a build."""
        # a second request would start a second build
        return Call(
            "POST", "/v1/training", TrainingOut, json=request.model_dump(), repeatable=False
        )

    @_Method
    def training(self, training_id: str) -> Call[TrainingOut]:
        """How a build goes."""
        return Call("GET", f"/v1/training/{_part(training_id)}", TrainingOut)

    @_Method
    def ready(self) -> Call[HealthOut]:
        """Whether the service can answer; an ApiError of status 503 where it cannot."""
        return Call("GET", "/health/ready", HealthOut)


class _Settings:
    """What both clients are given."""

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        timeout_seconds: float = 10.0,
        retries: int = 3,
        backoff_seconds: float = 0.2,
        transport: Any = None,
    ) -> None:
        """Hold connections to a service.

        Args:
            url: where it is, as http://127.0.0.1:8000.
            api_key: of ``nextedge keys create``.
            timeout_seconds: for one try.
            retries: further tries after a 429, a 503 or a lost connection.
            backoff_seconds: before the first of them; doubled for each further one.
            transport: of httpx2, instead of the network.

        Raises:
            MissingDependencyError: httpx2 is not installed.
        """
        try:
            import httpx2
        except ImportError:
            raise MissingDependencyError("httpx2", "client", "nextedge.client") from None
        self.retries = retries
        self.backoff_seconds = backoff_seconds
        self._lost = httpx2.TransportError
        headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        self._http = self._opened(
            base_url=url, headers=headers, timeout=timeout_seconds, transport=transport
        )

    def _opened(self, **options: Any) -> Any:
        raise NotImplementedError

    def _tries(
        self, call: Call[Result]
    ) -> Generator[float | None, httpx2.Response | Exception, Result]:
        """Asks for a try by None and for a wait by its seconds; told what came, ends with the result."""
        for number in range(self.retries + 1):
            came = yield None
            last = number == self.retries
            if isinstance(came, Exception):
                if last or not call.repeatable:
                    raise ConnectionLostError(f"{call.method} {call.path}: {came!r}") from came
                yield self._wait(number, None)
            elif came.status_code in _AGAIN and not last:
                yield self._wait(number, came.headers.get("retry-after"))
            else:
                return _result(call, came)
        raise AssertionError("every last try ends")

    def _wait(self, number: int, retry_after: str | None) -> float:
        # at random: clients that failed together must not come back together
        backoff = self.backoff_seconds * 2**number * (0.5 + random.random())
        # a proxy may send a date instead of seconds: the backoff decides then
        asked = float(retry_after) if retry_after and retry_after.isdigit() else 0.0
        return float(min(max(backoff, asked), _LONGEST_SECONDS))

    def _request(self, call: Call[Any]) -> dict[str, Any]:
        # None would be sent as an empty text, which the service refuses
        params = {name: value for name, value in call.params.items() if value is not None}
        return {"method": call.method, "url": call.path, "params": params, "json": call.json}


class Client(_Settings, _Calls):
    """Answers each call when it has come."""

    def _opened(self, **options: Any) -> Any:
        import httpx2

        return httpx2.Client(**options)

    def send(self, call: Call[Result]) -> Result:
        """Make a call.

        Raises:
            ApiError: the service refuses.
            ConnectionLostError: it was not reached.
        """
        tries = self._tries(call)
        came: httpx2.Response | Exception | None = None
        while True:
            try:
                wait = tries.send(came)  # type: ignore[arg-type]
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            if wait is not None:
                time.sleep(wait)
                came = None
                continue
            try:
                came = self._http.request(**self._request(call))
            except self._lost as error:
                came = error

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()


class AsyncClient(_Settings, _Calls):
    """Answers each call as an awaitable."""

    def _opened(self, **options: Any) -> Any:
        import httpx2

        return httpx2.AsyncClient(**options)

    async def send(self, call: Call[Result]) -> Result:
        """Make a call; raises as ``Client.send`` does."""
        tries = self._tries(call)
        came: httpx2.Response | Exception | None = None
        while True:
            try:
                wait = tries.send(came)  # type: ignore[arg-type]
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            if wait is not None:
                await asyncio.sleep(wait)
                came = None
                continue
            try:
                came = await self._http.request(**self._request(call))
            except self._lost as error:
                came = error

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of the connections."""
        await self._http.aclose()


def _result(call: Call[Result], response: httpx2.Response) -> Result:
    if response.is_success:
        # a 204 has no body, and its result is None
        return TypeAdapter(call.result).validate_json(response.content or b"null")
    try:
        problem = Problem.model_validate_json(response.content or b"null")
    except ValidationError:  # of something between here and the service
        text = response.text[:200] or "an empty body"
        problem = Problem(
            type="about:blank",
            title=response.reason_phrase,
            status=response.status_code,
            detail=text,
        )
    raise ApiError(problem, response.headers.get("x-request-id"))


def _with_id(event: BaseModel | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(event, BaseModel):
        return event.model_dump(mode="json", exclude_none=True)
    # an id of the first try: sent again, the event counts once
    return {"event_id": uuid.uuid4().hex, **event}


def _part(value: Identifier) -> str:
    """One segment of a path, whatever the id holds."""
    # an id with a slash would name another route
    return quote(str(value), safe="")
