"""The started service: its access log, its traces, and how it stops."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx2
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from servers import Running, small_tenant

from nextedge.api.keys import ApiKeys


class Collector(ThreadingHTTPServer):
    """Keeps the spans that are sent to it."""

    def __init__(self) -> None:
        collected = self.collected = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                sent = ExportTraceServiceRequest.FromString(body)
                assert self.path == "/v1/traces"
                for resource in sent.resource_spans:
                    for scope in resource.scope_spans:
                        collected.extend(scope.spans)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        super().__init__(("127.0.0.1", 0), Handler)


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Path:
    """A folder of two small tenants, of which one keeps an access log and sends traces."""
    home = tmp_path_factory.mktemp("served")
    url = f"http://127.0.0.1:{collector.server_port}"
    small_tenant(home / "loud", f'[serving]\naccess_log = true\ntraces = "{url}"\n')
    small_tenant(home / "quiet")
    return home


@pytest.fixture(scope="module")
def keys(home: Path) -> dict[str, str]:
    return {each.name: ApiKeys(each / "state").create(("admin",))[1] for each in home.iterdir()}


@pytest.fixture(scope="module")
def running(home: Path, keys: dict[str, str]) -> Iterator[Running]:
    running = Running(home, "--workers", "2", "--drain-seconds", "1.5")
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.stop()


def test_every_tenant_is_served_by_its_key(running: Running, keys: dict[str, str]) -> None:
    for name in ("loud", "quiet"):
        for _ in range(6):  # a fresh connection each time meets every worker
            answer = running.get("/pymk/recommendations", keys[name], params={"user_id": "7"})
            assert answer.status_code == 200
        text = running.get("/metrics", keys[name]).text
        answers = [line for line in text.splitlines() if line.startswith("nextedge_answers_total")]
        assert sum(float(line.rsplit(" ", 1)[1]) for line in answers) == 6  # of all workers


def test_the_access_log_names_nobody(running: Running, keys: dict[str, str]) -> None:
    running.get("/v1/people/recommendations", keys["loud"], params={"user_id": "11"})
    running.get("/v1/secret-11/recommendations", keys["loud"], params={"user_id": "11"})
    running.get("/no/such/path/11", keys["loud"])
    running.get("/v1/people/similar", keys["quiet"], params={"id": "11"})
    lines = [json.loads(line) for line in running.log.read_text().splitlines() if line[:1] == "{"]
    assert {line["tenant"] for line in lines} == {"loud", None}
    about = [(line["route"], line["status"], line["surface"]) for line in lines[-4:]]
    assert about[-3:] == [
        ("/v1/{surface}/recommendations", 200, "people"),
        ("/v1/{surface}/recommendations", 404, None),
        ("other", 404, None),
    ]
    assert ("/pymk/recommendations", 200, "people") in {
        (line["route"], line["status"], line["surface"]) for line in lines
    }
    assert set(lines[-1]) == {
        "time",
        "request_id",
        "tenant",
        "method",
        "route",
        "status",
        "ms",
        "surface",
    }
    assert "secret-11" not in running.log.read_text()


def test_what_is_under_way_at_a_stop_is_answered(
    running: Running, keys: dict[str, str], collector: Collector
) -> None:
    """Runs last: it stops the server, then looks at the spans that it has sent."""
    body = json.dumps({"type": "dismiss", "user_id": 7, "candidate_id": 8}).encode()
    head = (
        f"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {keys['loud']}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", running.port)) as slow:
        slow.settimeout(60)
        slow.sendall(head.encode() + body[:10])
        running.process.send_signal(signal.SIGTERM)
        statuses = []
        while True:  # it answers, not ready any more, and then takes no more connections
            try:
                statuses.append(running.get("/health/ready").status_code)
                answer = running.get("/pymk/recommendations", keys["loud"], params={"user_id": "9"})
                assert answer.status_code == 200
            except httpx2.TransportError:
                break
        assert statuses[-1] == 503
        slow.sendall(body[10:])
        assert slow.recv(4096).startswith(b"HTTP/1.1 202")
    assert running.process.wait(timeout=60) == 0
    assert "Traceback" not in running.log.read_text()
    _spans_name_stages_and_nobody(collector)


def _spans_name_stages_and_nobody(collector: Collector) -> None:
    spans = {each.span_id: each for each in collector.collected}
    names = {each.name for each in spans.values()}
    assert {
        "GET /pymk/recommendations",
        "POST /v1/events",
        "nextedge.candidates",
        "nextedge.ranking",
    } <= names
    for each in spans.values():
        if each.name.startswith("nextedge."):
            parent = spans[each.parent_span_id]
            assert parent.name.startswith("GET ")
            assert parent.start_time_unix_nano <= each.start_time_unix_nano
            assert each.end_time_unix_nano <= parent.end_time_unix_nano
        told = {attribute.key: attribute.value.string_value for attribute in each.attributes}
        assert not {"net.peer.ip", "client.address", "http.user_agent"} & set(told)
        assert "user_id" not in str(told)
        assert "secret-11" not in str(told)


def test_an_uninstalled_exporter_is_named(tmp_path: Path) -> None:
    (tmp_path / "connections.csv").write_text("src,dst\n1,2\n")
    (tmp_path / "nextedge.toml").write_text('[serving]\ntraces = "http://127.0.0.1:1"\n')
    code = (
        "import sys; sys.modules['opentelemetry.sdk.trace'] = None; "
        f"sys.argv = ['nextedge', 'serve', {str(tmp_path)!r}]; "
        "from nextedge.cli.main import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "pip install 'nextedge[otel]'" in done.stderr
