"""Whatever is sent: an answer that says what is wrong and where, and never "the service has a bug"."""

import gzip
import json
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from health_predict.data.schema import FIELDS
from health_predict.serving.core.contract import INPUTS
from serving.support import EXAMPLE, Worker

POSTS = ("/predict", "/predict/batch", "/explain")
SOUND = json.dumps(dict(EXAMPLE)).encode()
TEXT_FIELDS = [field.name for field in INPUTS if not field.is_whole_number]


def with_raw(name: str, value: bytes) -> bytes:
    """The example with these bytes between the quotes of one field."""
    return json.dumps({**EXAMPLE, name: "planted"}).encode().replace(b"planted", value)


def details(body: Any) -> list[tuple[tuple[str, ...], str]]:
    return [(tuple(problem["loc"]), problem["type"]) for problem in body["detail"]]


@pytest.mark.parametrize("field", [*TEXT_FIELDS, "time_in_hospital", "encounter_id"])
@pytest.mark.parametrize("value", [b"M\xfcller", b"\xff", b"cut \xe2\x82"], ids=["latin1", "none", "cut"])
def test_a_byte_that_is_not_utf8_is_named_by_its_field_and_never_repeated(gateway, field, value):
    for path in ("/predict", "/explain"):
        status, body = gateway.ask("POST", path, with_raw(field, value))
        assert status == 422
        assert (("body", field), "encoding") in details(body)
        assert "cut" not in json.dumps(body)
        assert "ller" not in json.dumps(body)


@pytest.mark.parametrize("wrap", [b"[%s]", b'{"encounters": [%s]}'])
def test_a_byte_that_is_not_utf8_is_a_problem_of_its_encounter_and_the_others_are_scored(gateway, wrap):
    bad = with_raw("race", b"M\xfcller")
    status, body = gateway.ask("POST", "/predict/batch", wrap % b",".join([SOUND, bad, SOUND]))
    assert (status, body["refused"]) == (200, 1)
    first, refused, last = body["predictions"]
    assert refused["errors"] == [{"loc": ["body", "race"], "msg": "holds text that is not UTF-8", "type": "encoding"}]
    assert first["probability_score"] == last["probability_score"]


@pytest.mark.parametrize("half", [rb"\ud800", rb"M\uDFFFller", rb"\ud83c\ud83c\udfe5", rb"\\\ud800"])
def test_half_of_a_surrogate_pair_is_a_problem_of_its_field_and_the_others_of_a_batch_are_scored(gateway, half):
    bad = with_raw("race", half)
    status, body = gateway.ask("POST", "/predict", bad)
    assert (status, details(body)) == (422, [(("body", "race"), "encoding")])
    status, body = gateway.ask("POST", "/predict/batch", b'{"encounters": [%s, %s]}' % (bad, SOUND))
    assert (status, body["refused"]) == (200, 1)
    assert body["predictions"][0]["errors"][0]["loc"] == ["body", "race"]


@pytest.mark.parametrize("text", [rb"\ud83c\udfe5", rb"\\ud800", rb"\\\u00fc\"\n"])
def test_escapes_that_are_text_are_scored(gateway, text):
    for path, wrap in (("/predict", b"%s"), ("/predict/batch", b"[%s]")):
        assert gateway.ask("POST", path, wrap % with_raw("medical_specialty", text))[0] == 200


def test_a_key_that_is_not_utf8_and_a_byte_between_the_fields_are_refused(gateway):
    status, body = gateway.ask("POST", "/predict", SOUND[:-1] + b', "k\xfc": 1}')
    assert (status, details(body)) == (422, [(("body",), "encoding")])
    status, body = gateway.ask("POST", "/predict", SOUND[:-1] + b" \xfc}")
    assert (status, details(body)) == (422, [(("body",), "json")])
    status, body = gateway.ask("POST", "/predict/batch", b'{"encounters": [], "k\xfc": 1}')
    assert (status, details(body)) == (422, [(("body",), "batch")])


def test_text_in_every_script_is_scored_and_a_written_replacement_character_is_a_text(gateway):
    for text in ("Kardiologie \u00fc", "\u5fc3", "\U0001f3e5", "\ufffd"):
        body = json.dumps({**EXAMPLE, "medical_specialty": text}, ensure_ascii=False).encode()
        status, answer = gateway.ask("POST", "/predict", body)
        assert (status, answer["unknown_fields"]) == (200, ["medical_specialty"])


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"\xef\xbb\xbf" + SOUND, "byte order mark"),
        (SOUND.decode().encode("utf-16"), "UTF-16"),
        (SOUND.decode().encode("utf-16-be"), "UTF-16"),
        (SOUND.decode().encode("utf-32-le"), "UTF-32"),
        (gzip.compress(SOUND), "compressed"),
    ],
    ids=["bom", "utf-16", "utf-16-be", "utf-32-le", "gzip"],
)
def test_a_body_in_another_encoding_is_told_which(gateway, path, body, said):
    status, answer = gateway.ask("POST", path, body)
    assert (status, details(answer)) == (
        422,
        [(("body",), "encoding")] if b"\xff\xfe\0" not in body else details(answer),
    )
    assert said in answer["detail"][0]["msg"]


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("encoding", [b"gzip", b"deflate", b"br", b"identity, gzip", b"nonsense"])
def test_a_compressed_body_is_refused_unread(gateway, path, encoding):
    status, body = gateway.ask("POST", path, gzip.compress(SOUND), ((b"content-encoding", encoding),))
    assert status == 415
    assert "compressed" in body["detail"]


def test_identity_is_no_compression_and_what_has_no_body_is_answered(gateway):
    assert gateway.ask("POST", "/predict", SOUND, ((b"content-encoding", b"identity"),))[0] == 200
    assert gateway.ask("GET", "/health", b"", ((b"content-encoding", b"gzip"),))[0] == 200
    both = ((b"content-encoding", b"identity"), (b"content-encoding", b"gzip"))
    assert gateway.ask("POST", "/predict", gzip.compress(SOUND), both)[0] == 415


@pytest.mark.parametrize(
    "body",
    [
        b'{"encounters": [%s], "encounters": [%s]}' % (SOUND, SOUND),
        b'{"encounters": [], "encounters": [%s]}' % SOUND,
        b'{"encounters": [%s], "\\u0065ncounters": [%s]}' % (SOUND, SOUND),
        b'{"encounters": [%s], "more": 1}' % SOUND,
        b'{"more": 1, "encounters": [%s]}' % SOUND,
        b'{"encounters": {"encounters": [%s]}}' % SOUND,
        b'{"encounters": [%s]' % SOUND,
        b'{"encounters": [%s]}}' % SOUND,
        b'{"encounters": [%s]}, {}' % SOUND,
        b"{}",
        b"3",
        b"",
    ],
)
def test_a_batch_that_holds_more_or_less_than_one_array_is_refused(gateway, body):
    status, answer = gateway.ask("POST", "/predict/batch", body)
    assert (status, details(answer)) == (422, [(("body",), "batch")])


@pytest.mark.parametrize("body", [b'{"encounters": [%s]}', b' {\n"\\u0065ncounters"\t: [ %s ] }\r\n', b" [%s] "])
def test_a_batch_may_be_written_in_every_way_that_json_allows(gateway, body):
    status, answer = gateway.ask("POST", "/predict/batch", body % SOUND)
    assert (status, len(answer["predictions"]), answer["refused"]) == (200, 1, 0)


def test_a_key_that_is_given_twice_is_refused_in_one_encounter_and_in_one_of_a_batch(gateway):
    for key in ("age", "a\\u0067e"):
        twice = SOUND[:-1] + b', "%s": "[0-10)"}' % key.encode()
        assert details(gateway.ask("POST", "/predict", twice)[1]) == [(("body", "age"), "duplicate_field")]
        answer = gateway.ask("POST", "/predict/batch", b"[%s,%s]" % (SOUND, twice))[1]
        assert answer["predictions"][1]["errors"][0]["type"] == "duplicate_field"
        assert answer["refused"] == 1


_HOSTILE_BYTES = st.one_of(
    st.binary(max_size=30),
    st.sampled_from([b"\x00", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\\u0000", b"\\ud800", b'"', b"\\", b"{", b"}",
                     b"[", b"]", b":", b",", b"1e999", b"-0", b"9" * 400, b"NaN", b"\xe2\x80\xa8", b"\xd9\xa1"]),
)  # fmt: skip
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=80)
    | st.sampled_from(["\u0661", "V\u00b2", "250.\u0661", "E871", "250." + "9" * 30, "\u0000", 2**63, -1e99]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """A sound document, alone or in a batch, with some values changed and then some bytes."""
    names = st.sampled_from([field.name for field in FIELDS])
    changes = draw(st.dictionaries(names | st.text(max_size=8), _VALUES, max_size=4))
    document: Any = {**EXAMPLE, **changes}
    for name in draw(st.sets(names, max_size=2)):
        document.pop(name, None)
    document = draw(st.sampled_from([document, [document], {"encounters": [dict(EXAMPLE), document]}]))
    body = json.dumps(document, ensure_ascii=draw(st.booleans())).encode(errors="surrogatepass")
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(body)))
        end = draw(st.integers(start, min(len(body), start + 10)))
        body = body[:start] + draw(_HOSTILE_BYTES) + body[end:]
    return body


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(path=st.sampled_from(POSTS), body=st.one_of(bodies(), st.binary(max_size=200)))
@example(path="/predict", body=b"[" * 100_000)
@example(path="/predict/batch", body=b'{"a":' * 100_000)
@example(path="/predict/batch", body=b"[[" + b"9" * 10_000 + b"]]")
@example(path="/explain", body=json.dumps({**EXAMPLE, "diag_1": "\u0661\u0662"}).encode())
def test_no_body_is_a_bug(gateway, path, body):
    status, answer = gateway.ask("POST", path, body)
    assert status in (200, 413, 422)
    assert answer["request_id"]


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    method=st.sampled_from(["GET", "POST", "HEAD", "PUT", "OPTIONS", "TRACE", "\u00fc"]),
    path=st.one_of(st.sampled_from([*POSTS, "/health", "/model", "/", "*", "", "//predict"]), st.text(max_size=20)),
    headers=st.lists(
        st.tuples(
            st.sampled_from([b"x-request-id", b"content-encoding", b"authorization", b"x-api-key", b"accept"]),
            st.binary(max_size=40),
        ),
        max_size=3,
    ),
)
def test_no_path_or_header_is_a_bug(gateway, method, path, headers):
    assert gateway.ask(method, path, SOUND, tuple(headers))[0] < 500


def exchange(worker: Worker, request: bytes, *more: bytes) -> bytes:
    """What comes back for these pieces, until the worker has answered every request in them or closes."""
    heads = b"".join((request, *more)).count(b" HTTP/1.1\r\n")
    with socket.create_connection(("127.0.0.1", worker.port), timeout=10) as own:
        received = b""
        for piece in (request, *more):
            own.sendall(piece)
        while part := own.recv(65_536):
            received += part
            if received.count(b"request_id") + received.count(b'"alive"') >= heads:
                break
        return received


UPGRADES = {
    "h2c": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n",
    "websocket": b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
    "tls": b"Upgrade: TLS/1.0\r\nConnection: Upgrade\r\n",
    "several": b"connection: upgrade\r\nupgrade: h2c, websocket\r\nupgrade: other/2\r\n",
    "unnamed": b"Connection: Upgrade\r\n",
    "unconnected": b"Upgrade: h2c\r\n",
    "settings": b"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n",
    "expect": b"Expect: 100-continue\r\n",
    "both": b"Expect: 100-continue\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n",
    "close": b"Connection: Upgrade, close\r\nUpgrade: h2c\r\n",
}


@pytest.mark.parametrize("upgrade", UPGRADES.values(), ids=UPGRADES.keys())
@pytest.mark.parametrize("path", POSTS)
def test_a_request_that_asks_for_another_protocol_is_answered_as_any_other(worker, path, upgrade):
    body = b"[%s]" % SOUND if path == "/predict/batch" else SOUND
    head = b"POST %s HTTP/1.1\r\nHost: x\r\n%s" % (path.encode(), upgrade)
    whole = b"%sContent-Length: %d\r\n\r\n%s" % (head, len(body), body)
    chunked = b"%sTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (head, len(body), body)
    for request in (whole, chunked):
        for cut in (len(request), 20, request.index(b"\r\n\r\n") + 4, len(request) - 9):
            answer = exchange(worker, request[:cut], request[cut:])
            assert b"HTTP/1.1 200 OK" in answer
            assert b"probability_score" in answer


def test_requests_that_follow_one_that_asks_for_another_protocol_are_answered(worker):
    first = b"POST /predict HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n%s" % (
        UPGRADES["h2c"], len(SOUND), SOUND,
    )  # fmt: skip
    answer = exchange(worker, first + first + b"GET /livez HTTP/1.1\r\nHost: x\r\n" + UPGRADES["websocket"] + b"\r\n")
    assert answer.count(b"HTTP/1.1 200 OK") == 3
    assert b'"alive"' in answer


def test_a_recorded_request_of_such_a_client_is_answered(worker):
    recorded = (Path(__file__).parent / "upgrade-h2c.http").read_bytes()
    assert b"HTTP/1.1 200 OK" in exchange(worker, recorded)


@pytest.mark.parametrize(
    ("coding", "status"),
    [
        (b"Transfer-Encoding: gzip, chunked\r\n", b"501"),
        (b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", b"501"),
        (b"Transfer-Encoding: gzip\r\n", b"400"),
        (b"Transfer-Encoding: chunked, gzip\r\n", b"400"),
        (b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", b"400"),
        (b"Transfer-Encoding: Chunked\r\n", b"200"),
    ],
    ids=["gzip", "gzip-apart", "no-chunks", "chunks-inside", "length", "capital"],
)
def test_of_transfer_codings_only_chunked_is_read(worker, coding, status):
    chunks = b"%x\r\n%s\r\n0\r\n\r\n" % (len(SOUND), SOUND)
    answer = exchange(worker, b"POST /predict HTTP/1.1\r\nHost: x\r\n%s\r\n%s" % (coding, chunks))
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert (b"connection: close" in answer) == (status != b"200")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"CONNECT example.org:443 HTTP/1.1\r\nHost: x\r\n\r\n", b"405"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"400"),
        (b"GET http://[ HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
        (b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
        (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", b"404"),
        (b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"400"),
    ],
    ids=["connect", "http2", "address", "byte", "star", "length", "tls"],
)
def test_what_is_no_request_of_ours_is_refused(worker, request_, status):
    assert b"HTTP/1.1 " + status in exchange(worker, request_)
