"""A worker as a process: ready only when right, silent about patients, and loses nothing on the way out."""

import asyncio
import hashlib
import json
import logging
import os
import shlex
import shutil
import signal
import socket
import subprocess
import threading
import time
from contextlib import closing

import httpx
import onnx
import pytest

import factories
from health_predict.data.cohort import select_cohort
from health_predict.errors import DataError, ServiceError, StorageError
from health_predict.serving import command
from health_predict.serving.core.service import Journal, Service
from health_predict.serving.http.keys import new_key, parse_keys
from health_predict.serving.http.server import Events
from health_predict.serving.journal.audit import AuditLog, verify
from health_predict.serving.journal.log import Log
from health_predict.serving.journal.metrics import ServingMetrics
from health_predict.store.prediction_log import pseudonym, read_predictions
from health_predict.store.storage import open_storage
from serving.support import CLINICAL_NAMES, EXAMPLE, Worker, free_port, running


def test_the_api_answers_what_the_bundle_answers(client, bundle):
    table = select_cohort(factories.encounters(60, seed=73))
    rows = table.select(CLINICAL_NAMES).to_dicts()
    expected = bundle.predict_proba(table).tolist()
    assert [client.post("/predict", json=row).json()["probability_score"] for row in rows] == expected
    batch = client.post("/predict/batch", json={"encounters": rows}).json()
    assert [answer["probability_score"] for answer in batch["predictions"]] == expected
    assert [client.post("/explain", json=row).json()["probability_score"] for row in rows[:5]] == expected[:5]


def test_one_bad_encounter_does_not_lose_the_others(client):
    answer = client.post("/predict/batch", json=[dict(EXAMPLE), {**EXAMPLE, "age": "seventy"}, dict(EXAMPLE)])
    assert answer.status_code == 200
    first, second, third = answer.json()["predictions"]
    assert second["errors"][0]["loc"] == ["body", "age"]
    assert first["probability_score"] == third["probability_score"]


def test_in_a_batch_too_large_too_many_keys_and_too_deep_are_problems_of_one_encounter(client):
    large = b'{"age": "' + b"a" * 70_000 + b'"}'
    many = json.dumps({f"key{number}": 1 for number in range(500)}).encode()
    deep = b'{"age": ' + b"[" * 50 + b"]" * 50 + b"}"
    body = b"[" + b",".join((json.dumps(EXAMPLE).encode(), large, many, deep)) + b"]"
    answer = client.post("/predict/batch", content=body).json()
    assert answer["refused"] == 3
    assert [one["errors"][0]["type"] for one in answer["predictions"][1:]] == ["batch", "keys", "nesting"]
    endless = client.post("/predict/batch", content=b"[" * 100_000)
    assert (endless.status_code, endless.json()["detail"][0]["type"]) == (422, "nesting")


def test_an_unknown_race_is_scored_named_and_counted(client):
    answer = client.post("/predict", json={**EXAMPLE, "race": "Martian"}).json()
    assert answer["unknown_fields"] == ["race"]
    assert 'health_predict_unknown_values_total{field="race"}' in client.get("/metrics").text


def test_a_patient_who_died_is_marked_as_outside_the_cohort(client):
    assert client.post("/predict", json={**EXAMPLE, "discharge_disposition_id": 11}).json()["outside_cohort"] is True


def _with(folder, **contents):
    """The bundle with other files in it, which its manifest vouches for."""
    manifest = json.loads((folder / "bundle.json").read_bytes())
    for name, data in contents.items():
        path = next(folder.glob(f"{name}.*"))
        path.write_bytes(data)
        manifest["files"][path.name] = hashlib.sha256(data).hexdigest()
    (folder / "bundle.json").write_text(json.dumps(manifest))


def _spoiled(folder, spoil):
    """A bundle whose digests are right and which still cannot be scored or explained with."""
    match spoil:
        case "input":
            model = onnx.load_model_from_string((folder / "model.onnx").read_bytes())
            model.graph.input[0].name = "Y"
            for node in model.graph.node:
                node.input[:] = ["Y" if name == "X" else name for name in node.input]
            _with(folder, model=model.SerializeToString())
        case "width":
            encoder = json.loads((folder / "encoder.json").read_bytes())
            _with(folder, encoder=json.dumps({**encoder, "outputs": encoder["outputs"][:-3]}).encode())
        case "reference":
            _with(folder, reference=b"{}")
        case "golden":
            manifest = json.loads((folder / "bundle.json").read_bytes())
            manifest["golden"][0]["encounter"]["time_in_hospital"] = "x"
            (folder / "bundle.json").write_text(json.dumps(manifest))
        case "evaluation":
            (folder / "evaluation.json").write_text("3")
        case "altered evaluation":
            (folder / "evaluation.json").write_text("{}")
            (folder / "version.json").write_text(json.dumps({"version": "3", "evaluation_sha256": "0" * 64}))
        case "version":
            (folder / "version.json").write_text(json.dumps({"version": '3","caller":"x'}))
    return folder


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        ("input", "golden row 0"),
        ("width", "golden row 0"),
        ("golden", "golden row 0"),
        ("reference", "reference.json"),
        ("evaluation", "evaluation.json"),
        ("altered evaluation", "evaluation.json"),
        ("version", "version.json"),
    ],
)
def test_a_bundle_that_does_not_fit_together_is_never_ready_and_says_why(bundle_folder, tmp_path, spoil, reason):
    folder = _spoiled(shutil.copytree(bundle_folder, tmp_path / "bundle"), spoil)
    with running(folder, tmp_path) as worker:
        assert reason in worker.wait_for_status("failed")["reason"]
        worker.stop()
    assert [line["event"] for line in worker.lines if line["event"].startswith("bundle")] == ["bundle_refused"]


def test_a_bundle_that_does_not_fit_together_leaves_the_one_before_and_is_reported(bundle_folder, tmp_path):
    link, other = tmp_path / "current", _spoiled(shutil.copytree(bundle_folder, tmp_path / "other"), "input")
    link.symlink_to(bundle_folder)
    with running(link, tmp_path) as worker:
        worker.wait_for_status("ok")
        _point(link, other)
        worker.tell(signal.SIGHUP)
        _until(lambda: httpx.get(f"{worker.url}/health").json()["last_reload"]["ok"] is False)
        assert "golden row 0" in httpx.get(f"{worker.url}/health").json()["last_reload"]["reason"]
        assert httpx.post(f"{worker.url}/predict", json=dict(EXAMPLE)).status_code == 200
        assert 'reloads_total{result="refused"} 1.0' in httpx.get(f"{worker.url}/metrics").text


def test_errors_of_libraries_are_events_without_their_message(tmp_path):
    with closing(Log(os.open(tmp_path / "log", os.O_CREAT | os.O_WRONLY))) as log:
        logger = logging.getLogger("invented")
        logger.addHandler(Events(log))
        logger.propagate = False
        logger.warning("planted-value")
        logger.error("planted-value", exc_info=ValueError("planted-value"))
    (line,) = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert (line["event"], line["error"]) == ("server_error", "ValueError")
    assert "planted" not in str(line)


def test_an_error_that_nobody_foresaw_is_said_by_its_type_only(tmp_path, monkeypatch):
    def fail(_folder):
        raise ZeroDivisionError("planted-value-4711")

    monkeypatch.setattr("health_predict.serving.core.service.load_model", fail)
    with closing(Log(os.open(tmp_path / "log", os.O_CREAT | os.O_WRONLY))) as log:
        service = Service(tmp_path, ServingMetrics(), log, Journal(), 10, 1024)
        assert (service.health().status, bool(service.health().reason)) == ("loading", True)
        asyncio.run(service.reload())
    assert service.health().status == "failed"
    assert service.health().reason == "loading failed with ZeroDivisionError"
    assert "planted" not in (tmp_path / "log").read_text()


@pytest.mark.parametrize("spoil", ["missing", "truncated", "tampered", "format", "version"])
def test_a_worker_with_a_bad_bundle_is_alive_never_ready_and_says_why(bundle_folder, tmp_path, spoil):
    folder = shutil.copytree(bundle_folder, tmp_path / "bundle")
    model, manifest = folder / "model.onnx", folder / "bundle.json"
    match spoil:
        case "missing":
            model.unlink()
        case "truncated":
            model.write_bytes(model.read_bytes()[:1000])
        case "tampered":
            (folder / "encoder.json").write_bytes((folder / "encoder.json").read_bytes() + b" ")
        case "format":
            manifest.write_text(json.dumps({**json.loads(manifest.read_bytes()), "format": 99}))
        case "version":
            (folder / "version.json").write_text(json.dumps({"version": "3", "sha256": "0" * 64}))
    with running(folder, tmp_path) as worker:
        health = worker.wait_for_status("failed")
        assert health["reason"]
        assert str(tmp_path) not in health["reason"]
        assert httpx.get(f"{worker.url}/readyz").status_code == 503
        assert httpx.get(f"{worker.url}/livez").status_code == 200
        assert httpx.post(f"{worker.url}/predict", json=dict(EXAMPLE)).status_code == 503


def test_sighup_takes_up_a_new_version_and_a_bad_one_leaves_the_old(bundle_folder, tmp_path):
    link, other = tmp_path / "current", shutil.copytree(bundle_folder, tmp_path / "other")
    (other / "version.json").write_text(json.dumps({"name": "HealthPredict", "version": "8"}))
    link.symlink_to(bundle_folder)
    with running(link, tmp_path) as worker, httpx.Client(base_url=worker.url) as client:
        worker.wait_for_status("ok")
        statuses, done = [], threading.Event()

        def ask() -> None:
            with httpx.Client(base_url=worker.url) as mine:
                while not done.is_set():
                    statuses.append(mine.post("/predict", json=dict(EXAMPLE)).status_code)

        asking = threading.Thread(target=ask)
        asking.start()
        _until(lambda: statuses)
        _point(link, other)
        worker.tell(signal.SIGHUP)
        _until(lambda: client.get("/health").json()["model_version"] == "8")
        (other / "model.onnx").write_bytes(b"nothing")
        worker.tell(signal.SIGHUP)
        _until(lambda: client.get("/health").json()["last_reload"]["ok"] is False)
        done.set()
        asking.join()
        health = client.get("/health")
        assert health.status_code == 200
        assert health.json()["model_version"] == "8"
        assert "model.onnx" in health.json()["last_reload"]["reason"]
        assert 'health_predict_reloads_total{result="refused"} 1.0' in client.get("/metrics").text
        assert set(statuses) == {200}


def test_sigterm_under_load_loses_no_accepted_request(bundle_folder, tmp_path):
    with running(bundle_folder, tmp_path, drain_seconds="1") as worker:
        worker.wait_for_status("ok")
        answered, lost = [], []

        def ask() -> None:
            with httpx.Client(base_url=worker.url) as client:
                leaving = False  # as a load balancer does once it is told
                while not leaving:
                    try:
                        answer = client.post("/predict", json=dict(EXAMPLE))
                    except httpx.TransportError as error:
                        lost.append(repr(error))
                        return
                    answered.append(answer.status_code)
                    leaving = answer.headers.get("connection") == "close"

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        _until(lambda: len(answered) > 100)
        worker.tell(signal.SIGTERM)
        for thread in threads:
            thread.join(timeout=30)
        assert worker.process.wait(timeout=30) == 0
        assert lost == []
        assert set(answered) == {200}


def test_nothing_of_a_patient_reaches_log_metrics_or_errors(bundle_folder, tmp_path):
    planted = "planted-value-4711"
    with running(bundle_folder, tmp_path) as worker, httpx.Client(base_url=worker.url) as client:
        worker.wait_for_status("ok")
        said = [
            client.post("/predict", json={**EXAMPLE, "medical_specialty": planted}).text,
            client.post("/predict", json={**EXAMPLE, "age": planted}).text,
            client.post("/predict", json={**EXAMPLE, planted: planted}).text,
            client.post("/predict", content=planted).text,
            client.post("/predict", json=dict(EXAMPLE), headers={"x-request-id": planted}).text,
            client.get(f"/{planted}").text,
            client.post("/predict/batch", json=[{planted: 1}]).text,
            client.post("/explain", json={**EXAMPLE, "diag_1": planted}).text,
            client.get("/metrics").text,
        ]
        worker.stop()
        assert planted not in "".join(said)
        assert planted not in worker.output
        assert {line["event"] for line in worker.lines} == {"bundle_taken_up", "request", "draining"}


def test_a_worker_that_others_can_reach_needs_keys(bundle_folder):
    line = command(bundle_folder, "0.0.0.0", free_port())  # noqa: S104
    ended = subprocess.run(line, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == ServiceError.exit_code
    assert "HEALTH_PREDICT_API_KEYS" in ended.stderr


def test_a_worker_runs_no_module_of_the_folder_that_it_is_started_in(bundle_folder, tmp_path):
    (tmp_path / "http.py").write_text("raise SystemExit('not ours')")
    started = subprocess.run(
        [*command(bundle_folder), "--help"], cwd=tmp_path, capture_output=True, timeout=60, check=False
    )
    assert started.returncode == 0, started.stderr


def test_with_keys_only_their_holders_are_answered_and_named_in_the_log(bundle_folder, tmp_path):
    key, entry = new_key("ward-7")
    keys = tmp_path / "keys"
    keys.write_text(f"# callers\n{entry}\n")
    with running(bundle_folder, tmp_path, api_keys_file=str(keys)) as worker:
        worker.wait_for_status("ok")
        post, url = httpx.post, f"{worker.url}/predict"
        assert post(url, json=dict(EXAMPLE)).status_code == 401
        assert post(url, json=dict(EXAMPLE), headers={"x-api-key": "wrong"}).status_code == 401
        assert httpx.get(f"{worker.url}/metrics").status_code == 401
        assert post(url, json=dict(EXAMPLE), headers={"x-api-key": key}).status_code == 200
        assert post(url, json=dict(EXAMPLE), headers={"authorization": f"Bearer {key}"}).status_code == 200
        worker.stop()
        assert [line["caller"] for line in worker.lines if line.get("status") == 200][-1] == "ward-7"
        assert key not in worker.output


@pytest.mark.parametrize("text", ["ward", "ward:abc", "a b:" + "0" * 64, "w:" + "0" * 64 + " w:" + "1" * 64])
def test_a_key_file_that_cannot_be_meant_is_refused(text):
    with pytest.raises(ServiceError, match="line 1"):
        parse_keys(text, "keys")


def test_probes_and_metrics_can_have_their_own_port(bundle_folder, tmp_path):
    port = free_port()
    with running(bundle_folder, tmp_path, probe_port=str(port)) as worker:
        worker.wait_for_status("ok")
        assert httpx.get(f"{worker.url}/metrics").status_code == 404
        assert httpx.get(f"http://127.0.0.1:{port}/metrics").status_code == 200
        assert httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
        assert httpx.post(f"http://127.0.0.1:{port}/predict", json=dict(EXAMPLE)).status_code == 404


def test_a_large_body_a_large_batch_and_a_slow_caller_are_refused(bundle_folder, tmp_path):
    with running(bundle_folder, tmp_path, body_limit="2048", batch_limit="2", request_timeout="0.3") as worker:
        worker.wait_for_status("ok")
        assert httpx.post(f"{worker.url}/predict", content=b" " * 3000).status_code == 413
        assert httpx.post(f"{worker.url}/predict/batch", json=[dict(EXAMPLE)] * 3).status_code == 422

        def slowly():
            yield b"{"
            time.sleep(1)

        assert httpx.post(f"{worker.url}/predict", content=slowly()).status_code == 408


def test_predictions_are_audited_in_a_chain(bundle_folder, tmp_path):
    path = tmp_path / "audit.jsonl"
    with running(bundle_folder, tmp_path, audit_log=str(path)) as worker:
        worker.wait_for_status("ok")
        answers = [httpx.post(f"{worker.url}/predict", json=dict(EXAMPLE)).json() for _ in range(3)]
        httpx.post(f"{worker.url}/predict/batch", json=[dict(EXAMPLE), {}])
        worker.stop()
    assert verify(path).lines == 4
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    assert [entry["request_id"] for entry in entries[:3]] == [answer["request_id"] for answer in answers]
    assert entries[3]["scores"] == [answers[0]["probability_score"], None]


def test_an_altered_audit_log_is_noticed(tmp_path):
    from health_predict.serving.journal.audit import AuditLine

    path = tmp_path / "audit.jsonl"
    log = AuditLog(path, 2**20)
    for number in range(3):
        log.append(AuditLine("t", str(number), "-", "/predict", "1", "0", "0", [0.5]))
    head = verify(path).head
    with pytest.raises(StorageError, match="another process"):
        AuditLog(path, 2**20)
    log.close()
    lines = path.read_bytes().splitlines(keepends=True)
    for altered in (lines[1:], [lines[0], lines[2]], [lines[0].replace(b"0.5", b"0.1"), *lines[1:]]):
        path.write_bytes(b"".join(altered))
        with pytest.raises(DataError, match="altered"):
            verify(path)
    path.write_bytes(b"".join(lines[:2]))
    assert verify(path).lines == 2
    with pytest.raises(DataError, match="cut or replaced"):
        verify(path, head)


def test_scored_encounters_are_kept_without_identifiers(bundle_folder, tmp_path):
    store = tmp_path / "store"
    settings = {"prediction_log": str(store), "prediction_log_key": "invented-and-long"}
    with running(bundle_folder, tmp_path, **settings) as worker:
        worker.wait_for_status("ok")
        sent = {**EXAMPLE, "patient_nbr": 900_000_001, "encounter_id": 5}
        answers = [httpx.post(f"{worker.url}/predict", json=sent).json() for _ in range(3)]
        worker.stop()
    kept = list(read_predictions(open_storage(str(store))))
    assert [one.request_id for one in kept] == [answer["request_id"] for answer in answers]
    assert kept[0].encounter == dict(EXAMPLE)
    assert kept[0].patient == kept[1].patient is not None
    assert kept[0].encounter_pseudonym == pseudonym(5, b"invented-and-long")
    assert "900000001" not in "".join(path.read_text() for path in store.rglob("*.jsonl"))


def test_a_dead_store_does_not_fail_a_prediction_and_its_losses_are_counted(bundle_folder, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    settings = {"prediction_log": str(blocked), "prediction_log_key": "invented-and-long"}
    with running(bundle_folder, tmp_path, **settings) as worker:
        worker.wait_for_status("ok")
        assert httpx.post(f"{worker.url}/predict", json=dict(EXAMPLE)).status_code == 200
        _until(lambda: "health_predict_prediction_log_dropped_total 1" in httpx.get(f"{worker.url}/metrics").text, 20)


def test_the_worker_needs_the_serving_libraries_only(bundle_folder):
    script = (
        "import sys\n"
        "import health_predict.serving.http.server\n"
        "heavy = {'polars', 'pandas', 'sklearn', 'scipy', 'mlflow', 'boto3', 'lightgbm', 'onnx', 'pyarrow', 'ray'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)\n"
    )
    ended = subprocess.run([command(bundle_folder)[0], "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_the_documentation_needs_nothing_from_elsewhere(client):
    page = client.get("/docs").text
    assert "http://" not in page
    assert "https://" not in page
    assert "<link" not in page
    assert "src=" not in page
    document = client.get("/openapi.json").json()
    age = document["components"]["schemas"]["Encounter"]["properties"]["age"]
    assert "[70-80)" in age["enum"]
    assert "Unit: years" in age["description"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_schemathesis_finds_the_service_as_its_document_says(worker):
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, settings
    from schemathesis import checks

    schema = schemathesis.openapi.from_url(f"{worker.url}/openapi.json")
    kept = [
        checks.not_a_server_error,
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_schema_conformance,
    ]

    @given(case=schema.as_strategy())
    @settings(max_examples=60, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    def check(case):
        case.call_and_validate(checks=kept)

    check()


def test_requests_above_the_limit_are_refused_at_once_and_probes_are_not(bundle_folder, tmp_path):
    head = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{"
    with running(bundle_folder, tmp_path, concurrency="2") as worker:
        worker.wait_for_status("ok")
        slow = [socket.create_connection(("127.0.0.1", worker.port)) for _ in range(2)]
        for one in slow:
            one.sendall(head)
        _until(lambda: httpx.post(f"{worker.url}/predict", json=dict(EXAMPLE)).status_code == 503)
        refused = httpx.post(f"{worker.url}/predict", json=dict(EXAMPLE))
        assert refused.headers["retry-after"] == "1"
        assert "too many requests" in refused.json()["detail"]
        assert httpx.get(f"{worker.url}/health").status_code == 200
        assert httpx.get(f"{worker.url}/metrics").status_code == 200
        for one in slow:
            one.close()
        _until(lambda: httpx.post(f"{worker.url}/predict", json=dict(EXAMPLE)).status_code == 200)


def _answer_to(worker, *pieces, pause=0.0):
    """What comes back on a connection of its own, until it is closed."""
    with socket.create_connection(("127.0.0.1", worker.port), timeout=20) as own:
        received = b""
        try:
            for piece in pieces:
                own.sendall(piece)
                time.sleep(pause)
            while part := own.recv(65_536):
                received += part
        except ConnectionError:  # closed while we were sending
            pass
        return received


def test_a_head_that_is_too_large_too_slow_or_no_http_is_refused_counted_and_logged(bundle_folder, tmp_path):
    with running(bundle_folder, tmp_path, request_timeout="0.5") as worker:
        worker.wait_for_status("ok")
        head = b"GET /health HTTP/1.1\r\nhost: x\r\n"
        answers = {
            b"431": _answer_to(worker, head, *[b"x-planted: " + b"a" * 20_000] * 2),
            b"408": _answer_to(worker, head),
            b"400": _answer_to(worker, b"planted-value-4711\r\n\r\n"),
        }
        assert _answer_to(worker) == b""
        assert b" 431 " in _answer_to(worker, head + b"x: y\r\n" * 200 + b"\r\n")
        shown = httpx.get(f"{worker.url}/metrics").text
        worker.stop()
    for status, answer in answers.items():
        assert b"HTTP/1.1 " + status in answer
        assert b"x-content-type-options: nosniff" in answer
        assert b"connection: close" in answer
        assert f'requests_total{{route="other",status="{status.decode()}"}}' in shown
        assert status.decode() in [str(line.get("status")) for line in worker.lines]
    assert "planted" not in worker.output


def test_a_head_in_many_pieces_and_a_body_behind_a_refusal_are_no_reason_to_refuse(bundle_folder, tmp_path):
    _, entry = new_key("ward-7")
    with running(bundle_folder, tmp_path, api_keys=entry) as worker:
        worker.wait_for_status("ok")
        with socket.create_connection(("127.0.0.1", worker.port), timeout=20) as own:
            for byte in b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n":
                own.sendall(bytes([byte]))
            _receive(own, b"alive")
            own.sendall(b"POST /predict/batch HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n")
            _receive(own, b"a valid API key is needed")
            own.sendall(b" " * 100_000)
            own.sendall(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
            _receive(own, b"alive")


def _receive(own, expected):
    received = b""
    while expected not in received:
        part = own.recv(65_536)
        assert part, received
        received += part


def test_more_connections_than_the_limit_are_refused_until_one_closes(bundle_folder, tmp_path):
    with running(bundle_folder, tmp_path, connections="3") as worker:
        worker.wait_for_status("ok")
        held = [socket.create_connection(("127.0.0.1", worker.port)) for _ in range(3)]
        assert b" 503 " in _answer_to(worker)
        for one in held:
            one.close()
        _until(lambda: httpx.get(f"{worker.url}/livez").status_code == 200)


def test_a_path_with_a_slash_behind_it_is_not_there_and_repeats_nothing(client):
    answer = client.post("/predict/", json=dict(EXAMPLE), headers={"host": "planted"})
    assert answer.status_code == 404
    assert "planted" not in str(answer.headers) + answer.text


def test_a_uuid_in_capitals_is_taken_over_as_request_id(client):
    given = "3F2504E0-4F89-11D3-9A0C-0305E82C3301"
    assert client.get("/livez", headers={"x-request-id": given}).headers["x-request-id"] == given


def test_nothing_is_answered_or_counted_while_the_audit_log_cannot_be_written(bundle_folder, tmp_path):
    store = tmp_path / "store"
    settings = {"audit_log": "/dev/full", "prediction_log": str(store), "prediction_log_key": "invented-and-long"}
    with running(bundle_folder, tmp_path, **settings) as worker:
        worker.wait_for_status("ok")
        for path, body in (
            ("/predict", dict(EXAMPLE)),
            ("/predict/batch", [dict(EXAMPLE)]),
            ("/explain", dict(EXAMPLE)),
        ):
            answer = httpx.post(worker.url + path, json=body)
            assert answer.status_code == 503
            assert "audit log" in answer.json()["detail"]
        assert "predictions_total{" not in httpx.get(f"{worker.url}/metrics").text
        worker.stop()
    assert not store.exists()
    assert [line for line in worker.lines if line["event"] == "audit_failed"]
    assert {"written": 0, "dropped": 0}.items() <= worker.lines[-1].items()


def test_a_batch_that_is_given_up_is_not_counted(bundle_folder, tmp_path):
    with running(bundle_folder, tmp_path, request_timeout="0.01") as worker:
        worker.wait_for_status("ok")
        answer = httpx.post(f"{worker.url}/predict/batch", json=[dict(EXAMPLE)] * 1000)
        assert answer.status_code == 408
        assert "predictions_total{" not in httpx.get(f"{worker.url}/metrics").text


def test_a_crash_in_the_middle_of_a_line_does_not_keep_the_worker_from_starting(bundle_folder, tmp_path):
    path = tmp_path / "audit.jsonl"
    for _ in range(2):
        with running(bundle_folder, tmp_path, audit_log=str(path)) as worker:
            worker.wait_for_status("ok")
            assert httpx.post(f"{worker.url}/predict", json=dict(EXAMPLE)).status_code == 200
            worker.stop()
        with path.open("ab") as file:
            file.write(b'{"time":"20')
    assert [line["bytes"] for line in worker.lines if line["event"] == "audit_log_torn"] == [11]
    assert path.with_name("audit.jsonl.torn").read_bytes() == b'{"time":"20\n'
    AuditLog(path, 2**20).close()
    assert verify(path).lines == 2


@pytest.mark.parametrize("content", [b"x", b"x\n", b"\n", b'{"time":"20\n{"time"'])
def test_an_audit_log_that_begins_torn_is_opened_and_one_whose_last_line_is_no_entry_is_not(tmp_path, content):
    path = tmp_path / "audit.jsonl"
    path.write_bytes(content)
    if b"\n" in content:
        with pytest.raises(DataError, match="last line"):
            AuditLog(path, 2**20)
    else:
        AuditLog(path, 2**20).close()
        assert path.read_bytes() == b""


@pytest.mark.parametrize(
    ("variable", "value", "named"),
    [
        ("BODY_LIMIT", "planted", "HEALTH_PREDICT_BODY_LIMIT"),
        ("API_KEYS_FILE", "/dev/null", "holds no API keys"),
        ("PREDICTION_LOG_KEY", "planted", "at least 16 characters"),
    ],
)
def test_a_setting_that_is_not_valid_is_named_without_its_value(bundle_folder, tmp_path, variable, value, named):
    settings = {"HEALTH_PREDICT_PREDICTION_LOG": str(tmp_path), f"HEALTH_PREDICT_{variable}": value}
    settings = {"HEALTH_PREDICT_PREDICTION_LOG_KEY": "invented-and-long", **settings}
    line = command(bundle_folder, port=free_port())
    ended = subprocess.run(line, env=os.environ | settings, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == ServiceError.exit_code
    assert named in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert "planted" not in ended.stderr


def test_keys_are_read_again_on_sighup_and_a_bad_file_leaves_those_before(bundle_folder, tmp_path):
    (first, entry), (second, other) = new_key("ward-7"), new_key("ward-8")
    keys = tmp_path / "keys"
    keys.write_text(entry)
    with running(bundle_folder, tmp_path, api_keys_file=str(keys)) as worker:
        worker.wait_for_status("ok")

        def status(key):
            return httpx.get(f"{worker.url}/model", headers={"x-api-key": key}).status_code

        keys.write_text(other)
        worker.tell(signal.SIGHUP)
        _until(lambda: status(second) == 200)
        assert status(first) == 401
        keys.write_text("")
        worker.tell(signal.SIGHUP)
        _until(lambda: "keys_refused" in worker.output)
        assert status(second) == 200


def test_idle_connections_do_not_hold_up_the_end(bundle_folder, tmp_path):
    with running(bundle_folder, tmp_path) as worker, httpx.Client(base_url=worker.url) as client:
        worker.wait_for_status("ok")
        client.get("/livez")
        unused = socket.create_connection(("127.0.0.1", worker.port))
        assert worker.stop() == 0
        unused.close()


def test_a_connection_that_was_made_before_the_end_is_answered(bundle_folder, tmp_path):
    with running(bundle_folder, tmp_path) as worker:
        worker.wait_for_status("ok")
        lost = []

        def ask() -> None:
            while True:
                try:
                    own = socket.create_connection(("127.0.0.1", worker.port), timeout=3)
                except OSError:  # refused, or not taken: the caller knows that nothing was asked
                    return
                with own:
                    own.sendall(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
                    try:
                        if b" 200 " not in own.recv(65_536):
                            lost.append("closed")
                    except OSError as error:
                        lost.append(repr(error))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        worker.tell(signal.SIGTERM)
        for thread in threads:
            thread.join(timeout=60)
        assert worker.process.wait(timeout=30) == 0
        assert lost == []


def test_draining_lasts_its_time_and_all_is_answered_meanwhile(bundle_folder, tmp_path):
    with running(bundle_folder, tmp_path, drain_seconds="2") as worker:
        worker.wait_for_status("ok")
        began = time.monotonic()
        worker.tell(signal.SIGTERM)
        worker.wait_for_status("draining")
        while time.monotonic() - began < 1.5:
            assert httpx.get(f"{worker.url}/readyz").status_code == 503
            assert httpx.post(f"{worker.url}/predict", json=dict(EXAMPLE)).status_code == 200
        assert worker.process.wait(timeout=30) == 0
        assert time.monotonic() - began >= 2


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_to_end_ends_at_once(bundle_folder, tmp_path, first):
    head = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{"
    settings = {"drain_seconds": "600", "request_timeout": "600"}
    with running(bundle_folder, tmp_path, **settings) as worker:
        worker.wait_for_status("ok")
        with socket.create_connection(("127.0.0.1", worker.port)) as unfinished:
            unfinished.sendall(head)
            worker.tell(first)
            worker.wait_for_status("draining")
            worker.tell(signal.SIGTERM)
            assert worker.process.wait(timeout=60) == 0


def test_sigquit_may_come_as_often_as_it_likes(bundle_folder, tmp_path):
    with running(bundle_folder, tmp_path, drain_seconds="600") as worker:
        worker.wait_for_status("ok")
        for number in (signal.SIGQUIT, signal.SIGQUIT, signal.SIGTERM, signal.SIGQUIT):
            worker.tell(number)
            worker.wait_for_status("draining")
            assert httpx.post(f"{worker.url}/predict", json=dict(EXAMPLE)).status_code == 200
        worker.tell(signal.SIGTERM)
        assert worker.process.wait(timeout=60) == 0


def test_a_worker_waits_for_its_bundle_and_until_then_it_has_nothing_to_drain(bundle_folder, tmp_path):
    link = tmp_path / "current"
    with running(link, tmp_path, drain_seconds="600") as worker:
        assert "no bundle yet" in worker.wait_for_status("loading")["reason"]
        assert httpx.get(f"{worker.url}/readyz").status_code == 503
        worker.tell(signal.SIGTERM)
        assert worker.process.wait(timeout=60) == 0
    with running(link, tmp_path) as worker:
        worker.wait_for_status("loading")
        _point(link, bundle_folder)
        worker.tell(signal.SIGHUP)
        worker.wait_for_status("ok")
        assert 'reloads_total{result="refused"}' not in httpx.get(f"{worker.url}/metrics").text


def test_a_study_model_is_refused_and_health_says_why(bundle_folder, tmp_path):
    folder = shutil.copytree(bundle_folder, tmp_path / "bundle")
    manifest = json.loads((folder / "bundle.json").read_bytes())
    (folder / "bundle.json").write_text(json.dumps({**manifest, "target": "any"}))
    with running(folder, tmp_path) as worker:
        assert "target any" in worker.wait_for_status("failed")["reason"]
        assert httpx.post(f"{worker.url}/predict", json=dict(EXAMPLE)).status_code == 503


def test_a_model_of_a_simulation_says_so(bundle_folder, tmp_path):
    folder = shutil.copytree(bundle_folder, tmp_path / "bundle")
    manifest = json.loads((folder / "bundle.json").read_bytes())
    (folder / "bundle.json").write_text(json.dumps({**manifest, "simulation": "what-if"}))
    with running(folder, tmp_path) as worker:
        assert worker.wait_for_status("ok")["simulation"] == "what-if"
        model = httpx.get(f"{worker.url}/model").json()
        assert (model["simulation"], model["target"]) == ("what-if", "lt30")


def test_a_version_has_one_name_everywhere(bundle_folder, tmp_path):
    folder, audit, store = shutil.copytree(bundle_folder, tmp_path / "bundle"), tmp_path / "audit", tmp_path / "store"
    sha256 = hashlib.sha256((folder / "bundle.json").read_bytes()).hexdigest()
    named = {"name": "HealthPredict", "version": "12", "run_id": "r", "sha256": sha256}
    (folder / "version.json").write_text(json.dumps(named))
    settings = {
        "audit_log": str(audit), "prediction_log": str(store), "prediction_log_key": "invented-and-long",
    }  # fmt: skip
    with running(folder, tmp_path, **settings) as worker, httpx.Client(base_url=worker.url) as client:
        health, model = worker.wait_for_status("ok"), client.get("/model").json()
        said = [client.post(path, json=body).json() for path, body in (
            ("/predict", dict(EXAMPLE)), ("/predict/batch", [dict(EXAMPLE)]), ("/explain", dict(EXAMPLE)),
        )]  # fmt: skip
        shown = client.get("/metrics").text
        worker.stop()
    said += [json.loads(line) for line in audit.read_text().splitlines()]
    said += [{"model_version": one.model_version, "bundle_sha256": one.bundle_sha256}
             for one in read_predictions(open_storage(str(store)))]  # fmt: skip
    assert len(said) == 8
    assert {(one["model_version"], one["bundle_sha256"]) for one in said} == {("12", sha256)}
    assert (health["model_version"], health["sha256"], model["version"], model["sha256"]) == ("12", sha256) * 2
    assert f'model_info{{name="HealthPredict",sha256="{sha256}",version="12"}}' in shown
    assert {line["model_version"] for line in worker.lines if line.get("route") == "/predict"} == {"12"}


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_leave_the_audit_log_to_itself(bundle_folder, tmp_path, closed):
    audit = tmp_path / "audit.jsonl"
    line = shlex.join(command(bundle_folder, port=(port := free_port())))
    environment = os.environ | {"HEALTH_PREDICT_AUDIT_LOG": str(audit), "HEALTH_PREDICT_DRAIN_SECONDS": "0"}
    process = subprocess.Popen(["sh", "-c", f"exec {line} {closed}"], env=environment)
    worker = Worker(process, port, tmp_path / "nothing")
    try:
        worker.wait_for_status("ok")
        assert httpx.post(f"{worker.url}/predict", json=dict(EXAMPLE)).status_code == 200
    finally:
        assert worker.stop() == 0
    assert verify(audit).lines == 1


@pytest.mark.parametrize("redirected", ["2>&-", "2>/dev/full"])
def test_an_error_that_nobody_can_read_still_has_its_exit_code(bundle_folder, redirected):
    line = shlex.join(command(bundle_folder, "0.0.0.0", free_port()))  # noqa: S104
    ended = subprocess.run(["sh", "-c", f"exec {line} {redirected}"], timeout=60, check=False)
    assert ended.returncode == ServiceError.exit_code


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user")
def test_a_user_who_is_on_no_list_and_has_no_home_can_run_a_worker(bundle_folder, tmp_path):
    # Another user who may still read the interpreter's files.
    start = "import os, runpy, sys; os.setreuid(54321, 0); runpy.run_module('health_predict.serving', None, '__main__')"
    python, _, _, _, *arguments = command(bundle_folder, port=(port := free_port()))
    environment = {name: value for name, value in os.environ.items() if name != "HOME"}
    with (tmp_path / "output").open("wb") as sink:
        process = subprocess.Popen([python, "-c", start, *arguments], env=environment, stdout=sink, stderr=sink)
    worker = Worker(process, port, tmp_path / "output")
    worker.wait_for_status("ok")
    worker.tell(signal.SIGTERM)
    worker.tell(signal.SIGTERM)
    process.wait(timeout=30)
    assert {line["event"] for line in worker.lines} <= {"bundle_taken_up", "request", "draining"}


def _point(link, target):
    fresh = link.with_name("fresh")
    fresh.symlink_to(target)
    fresh.replace(link)


def _until(condition, seconds=10):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.02)
