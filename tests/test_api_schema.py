"""Whatever is asked, the HTTP API answers as its schema says."""

from __future__ import annotations

import json
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.core.failures import FailureGroup

from handmade import TEXT, Handmade
from tokentape.models import Mark, Part
from tokentape_api import create_app
from values import STARTED_US, metrics_value, stall

# A few hundred requests in all: it looks for what nobody thought of, in bounded time.
BOUNDED: dict[str, Any] = {
    "max_examples": 20,
    "deadline": None,
    "derandomize": True,
    "suppress_health_check": list(HealthCheck),
}
# The live stream has no end that could be waited for; it has tests of its own.
OPERATIONS = create_app("tape.db").openapi()["paths"]
PATHS = [path for path in OPERATIONS if path != "/v1/live"]
WITH_QUERY = [path for path in PATHS if '"in": "query"' in json.dumps(OPERATIONS[path])]
KNOWN = {"run": ("OUTER", "INNER", "1", "out"), "call": ("SDK", "GOING", "FAILED", "2")}

load_all_checks()
# What is valid by itself may not fit together, such as a range that ends before it starts, or name nothing.
NOT_MEANT = [CHECKS.get_one("positive_data_acceptance")]


@pytest.fixture(scope="module")
def tape(tmp_path_factory):
    """Runs in runs, a framework's call, a running one, one with hostile text, marks, stalls, labels."""
    made = Handmade(tmp_path_factory.mktemp("schema") / "tape.db")
    made.run("OUTER", ended_ms=9000, metadata={"a": [1, None, "ü"]})
    made.run("INNER", parent_uid="OUTER")
    parts = (TEXT, Part(1, "tool_args", 1, "1/0", "search", "call_1"))
    made.call("FRAME", (1, 0, "a"), call={"layer": "framework", "run_uid": "OUTER"})
    events = [(n, n % 2, f"=t{n}\0<b>\u2028") for n in range(20)]
    stalls = (stall(0, position="first"), stall(3), stall(20, position="tail", cause="own"))
    sdk = {"parent_uid": "FRAME", "run_uid": "INNER", "labels": {"env": "prod"}, "request": {"temperature": 0.5}}
    made.call("SDK", *events, parts=parts, call=sdk, stalls=stalls, metrics=metrics_value(), token_count=30)
    made.call("GOING", (1, 0, "a"), running=True, call={"run_uid": "OUTER"})
    made.call("FAILED", status="error", error_type="Oops", call={"run_uid": "OUTER", "request_model": None})
    made.mark(Mark("OUTER", None, STARTED_US + 5, 7, "tool", "search"))
    yield made.path
    made.close()


@pytest.fixture(scope="module")
def schema(tape):
    return schemathesis.openapi.from_asgi("/v1/openapi.json", create_app(tape))


AS_GENERATED = st.none()


def asked(cases, path_parameters=AS_GENERATED):
    """Ask cases, about what is named in their path unless told otherwise, and check what is answered."""

    @settings(**BOUNDED)
    @given(case=cases, path=path_parameters)
    def ask(case, path):
        case.path_parameters = path or case.path_parameters
        case.call_and_validate(excluded_checks=NOT_MEANT)

    ask()


@pytest.mark.scenario("api/Whatever is asked")
@pytest.mark.parametrize("path", PATHS)
def test_every_answer_fits_the_schema(schema, path):
    asked(schema[path]["GET"].as_strategy())


@pytest.mark.scenario("api/Whatever is asked")
@pytest.mark.parametrize("path", WITH_QUERY)
def test_what_is_invalid_is_refused_as_the_schema_says(schema, path):
    asked(schema[path]["GET"].as_strategy(GenerationMode.NEGATIVE))


@pytest.mark.scenario("api/Whatever is asked")
@pytest.mark.parametrize("path", [path for path in PATHS if "{" in path])
def test_every_answer_about_what_is_there_fits_the_schema(schema, path):
    known = {name: st.sampled_from(values) for name, values in KNOWN.items() if f"{{{name}}}" in path}
    asked(schema[path]["GET"].as_strategy(), st.fixed_dictionaries(known))


def test_an_answer_that_does_not_fit_is_noticed(tape):
    app = create_app(tape)
    wrong = app.openapi()
    wrong["components"]["schemas"]["Run"]["properties"]["uid"] = {"type": "integer"}
    schema = schemathesis.openapi.from_asgi("/v1/openapi.json", app)
    with pytest.raises(FailureGroup, match="1 distinct failure"):
        schema["/v1/runs"]["GET"].Case().call_and_validate()
