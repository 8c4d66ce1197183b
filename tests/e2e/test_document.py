"""The OpenAPI document: whole, and held by the service whatever is asked within it or beside it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks
from starlette.testclient import TestClient

from nextedge import Recommender
from nextedge.api.app import create_app
from nextedge.config import load_config

KEY = "secret"


@pytest.fixture(scope="module")
def client(tenant: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("document") / "tenant"
    shutil.copytree(tenant, folder)
    recommender = Recommender(load_config(folder))  # no location, hence no builds over HTTP
    with TestClient(create_app(recommender, KEY), raise_server_exceptions=False) as client:
        client.headers["Authorization"] = f"Bearer {KEY}"
        yield client


CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]
BOUNDS = settings(
    max_examples=8,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def test_no_question_breaks_the_service(client: TestClient) -> None:
    schema = schemathesis.openapi.from_asgi("/openapi.json", client.app)
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) > 12
    for operation in operations:
        given_anything = [*operation.iter_parameters(), *operation.body]
        for mode in GenerationMode if given_anything else [GenerationMode.POSITIVE]:

            @given(case=operation.as_strategy(generation_mode=mode))
            @BOUNDS
            def ask(case: Any) -> None:
                case.headers["Authorization"] = f"Bearer {KEY}"
                case.call_and_validate(session=client, checks=CHECKS)

            ask()
