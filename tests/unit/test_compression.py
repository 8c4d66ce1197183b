"""Compression: for those who ask, when it is worth it, and the same bytes after all."""

from __future__ import annotations

import json

import brotli
import pytest
from starlette.applications import Starlette
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from nextedge.api.compression import MINIMUM_BYTES, Compression

BODY = json.dumps([{"candidate_id": number, "score": 1 / (1 + number)} for number in range(200)])


def large(_: object) -> Response:
    return Response(BODY, media_type="application/json")


def small(_: object) -> Response:
    return Response(b"x" * (MINIMUM_BYTES - 1))


def streamed(_: object) -> Response:
    return StreamingResponse(iter([BODY.encode()] * 3))


@pytest.fixture
def client() -> TestClient:
    routes = [Route(f"/{endpoint.__name__}", endpoint) for endpoint in (large, small, streamed)]
    app = Starlette(routes=routes)
    app.add_middleware(Compression)
    return TestClient(app)


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        ("gzip", "gzip"),
        ("br", "br"),
        ("gzip, deflate, br", "br"),
        ("gzip, br;q=0.2", "gzip"),
        ("gzip;q=0", None),
        ("GZIP;q=0.5, identity", "gzip"),
        ("deflate", None),
        ("br;q=nonsense", None),
        ("", None),
    ],
)
def test_what_is_asked_for_is_sent(client: TestClient, accepted: str, encoding: str | None) -> None:
    answer = client.get("/large", headers={"Accept-Encoding": accepted})
    assert answer.headers.get("content-encoding") == encoding
    assert answer.text == BODY
    sent = int(answer.headers["content-length"])
    assert sent < len(BODY) / 2 if encoding else sent == len(BODY)
    assert (answer.headers.get("vary") == "accept-encoding") == (encoding is not None)


def test_small_and_streamed_bodies_go_as_they_are(client: TestClient) -> None:
    for path in ("/small", "/streamed"):
        answer = client.get(path, headers={"Accept-Encoding": "gzip, br"})
        assert "content-encoding" not in answer.headers
    assert answer.text == BODY * 3


def test_brotli_is_read_by_others(client: TestClient) -> None:
    with client.stream("GET", "/large", headers={"Accept-Encoding": "br"}) as answer:
        raw = b"".join(answer.iter_raw())
    assert brotli.decompress(raw).decode() == BODY
