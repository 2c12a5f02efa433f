"""The OpenAPI document says everything that a caller has to know, and every error has one form."""

import base64
import hashlib
import re

import httpx
import pytest

from health_predict.bundle.export import BAND_NAMES
from health_predict.data.schema import FIELD, FIELDS
from serving.support import free_port, running


def test_the_document_says_what_every_field_means(client):
    components = client.get("/openapi.json").json()["components"]["schemas"]
    fields = {
        f"{name}.{field}": found
        for name, component in components.items()
        for field, found in component["properties"].items()
    }
    assert len(fields) > 100
    assert [name for name, found in fields.items() if not found.get("description")] == []
    assert [name for name, found in fields.items() if not found.get("examples")] == []
    units = {f"Encounter.{field.name}": f"Unit: {field.unit}." for field in FIELDS if field.kind == "count"}
    assert [name for name, unit in units.items() if unit not in fields[name]["description"]] == []
    assert components["Encounter"]["additionalProperties"] is False
    assert fields["Prediction.risk_band"]["enum"] == list(BAND_NAMES)
    assert fields["Health.status"]["enum"] == ["ok", "loading", "failed", "draining"]


@pytest.mark.parametrize("name", ["admission_type_id", "discharge_disposition_id", "admission_source_id"])
def test_the_document_says_what_a_code_means(client, name):
    encounter = client.get("/openapi.json").json()["components"]["schemas"]["Encounter"]
    described = set(re.findall(r"\b(\d+) [a-z]", encounter["properties"][name]["description"].partition("Known:")[0]))
    assert {str(code) for code in FIELD[name].codes} - described <= {"16"}  # IDs_mapping.csv has no source 16


def test_the_document_has_every_path_and_every_status(client):
    document = client.get("/openapi.json").json()
    probes = {"/health", "/readyz", "/livez", "/metrics"}
    assert set(document["paths"]) == probes | {"/predict", "/predict/batch", "/explain", "/model"}
    for operations in document["paths"].values():
        for operation in operations.values():
            assert {"200", "401", "500", "503"} <= operation["responses"].keys()


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/nowhere", None),
        ("POST", "/predict/", None),
        ("GET", "/predict", "POST"),
        ("DELETE", "/model", "GET, HEAD"),
    ],
)
def test_what_there_is_not_is_answered_as_every_error(client, method, path, allowed):
    answer = client.request(method, path)
    assert (answer.status_code, answer.headers.get("allow")) == (405 if allowed else 404, allowed)
    assert answer.json().keys() == {"detail", "request_id"}
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize("path", ["/health", "/docs", "/openapi.json", "/metrics", "/model"])
def test_head_is_answered_as_get_without_its_body(client, path):
    head, got = client.head(path), client.get(path)
    assert (head.status_code, head.headers["content-type"]) == (got.status_code, got.headers["content-type"])
    assert (head.content, int(head.headers["content-length"]) > 0) == (b"", True)


def test_metrics_are_documented_where_they_are_answered(bundle_folder, tmp_path):
    with running(bundle_folder, tmp_path, probe_port=str(free_port())) as worker:
        worker.wait_for_answer()
        assert "/metrics" not in httpx.get(f"{worker.url}/openapi.json").json()["paths"]


def test_the_page_runs_under_its_own_policy_and_shows_fields_of_question_and_answer(client):
    page = client.get("/docs")
    inline = re.findall(r"<(style|script)>(.*?)</\1>", page.text, re.DOTALL)
    assert [kind for kind, _ in inline] == ["style", "script"]
    for kind, text in inline:
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in page.headers["content-security-policy"]
    assert not re.search(r"<[^>]* (style|on\w+|src)=", page.text)
    components = client.get("/openapi.json").json()["components"]["schemas"]
    (shown,) = re.findall(r"for \(const name of \[(.*?)\]\)", page.text)
    assert {"Prediction", "Explanation"} < set(re.findall(r"\w+", shown)) <= components.keys()
