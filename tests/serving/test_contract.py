"""What an encounter may look like: the compiled decoder, the slow reader and the pydantic model agree."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from health_predict.data import schema
from health_predict.data.schema import FIELDS
from health_predict.serving.contract import (
    EXAMPLE,
    INPUTS,
    LONGEST_TEXT,
    InvalidEncounterError,
    check_pairs,
    encounter_model,
    parse,
    read_encounter,
)

ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=70), st.just([]), st.just({}),
    st.sampled_from(["?", "", "None", "No", "[70-80)", "Female", "250.8", "a:b"]), st.integers(-2, 1_100),
)  # fmt: skip
NAMES = st.sampled_from([field.name for field in INPUTS])
RAW_NAMES = {field.name: field.raw_name for field in FIELDS}


def problems(body: bytes) -> list[tuple[str | None, str]]:
    with pytest.raises(InvalidEncounterError) as refused:
        read_encounter(body)
    return [(problem.field, problem.kind) for problem in refused.value.problems]


def encoded(**changes: Any) -> bytes:
    return json.dumps({**EXAMPLE, **changes}).encode()


def test_keys_may_be_written_with_hyphens_underscores_or_both():
    expected = read_encounter(encoded())
    for spelling in (
        lambda name: name.replace("_", "-"),
        lambda name: RAW_NAMES[name],
        lambda name: name.replace("_", "-", 1),
        lambda name: name.replace("_", "-") if len(name) % 2 else name,
    ):
        assert read_encounter(json.dumps({spelling(key): value for key, value in EXAMPLE.items()}).encode()) == expected


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(NAMES, ANYTHING, max_size=3), st.sets(NAMES, max_size=1), st.randoms())
def test_every_reader_gives_the_same_verdict(changes, dropped, random):
    members = [(key, value) for key, value in {**EXAMPLE, **changes}.items() if key not in dropped]
    random.shuffle(members)
    body = json.dumps(dict(members)).encode()
    try:
        read = read_encounter(body)
    except InvalidEncounterError:
        read = None
    try:
        slowly = check_pairs(parse(body))
    except InvalidEncounterError:
        slowly = None
    try:
        documented = encounter_model().model_validate_json(body).model_dump(exclude_unset=True)
    except ValidationError:
        documented = None
    assert read == slowly == documented


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"time_in_hospital": "five_days"}, ("time_in_hospital", "value")),
        ({"time_in_hospital": -1}, ("time_in_hospital", "value")),
        ({"time_in_hospital": 3.0}, ("time_in_hospital", "value")),
        ({"time_in_hospital": True}, ("time_in_hospital", "value")),
        ({"age": "seventy"}, ("age", "value")),
        ({"gender": None}, ("gender", "value")),
        ({"readmitted": "NO"}, ("readmitted", "unknown_field")),
        ({"time-in-hospital": 3}, ("time_in_hospital", "duplicate_field")),
        ({"surname": "Planted"}, (None, "unknown_field")),
    ],
)
def test_a_wrong_field_is_named(changes, expected):
    assert expected in problems(encoded(**changes))


def test_every_problem_is_named_at_once():
    found = problems(b'{"age": "seventy", "race": 3}')
    assert ("age", "value") in found
    assert ("race", "value") in found
    assert ("gender", "missing") in found


def test_a_repeated_key_is_refused():
    assert ("age", "duplicate_field") in problems(encoded()[:-1] + b', "age": "[0-10)"}')


def test_a_message_holds_neither_the_value_nor_the_unknown_key():
    body = encoded(age="planted-age", diag_1=["planted-code"], **{"planted-key": 1, "medical_specialtyy": "planted"})
    with pytest.raises(InvalidEncounterError) as refused:
        read_encounter(body)
    said = json.dumps([problem.to_json() for problem in refused.value.problems])
    assert "planted" not in said
    assert "medical_specialty?" in said


@pytest.mark.parametrize("missing", ["?", "", None])
def test_a_question_mark_and_an_empty_text_mean_missing_where_a_field_may_be_missing(missing):
    assert read_encounter(encoded(race=missing))["race"] is None


def test_none_is_a_value_of_a_test_that_was_not_measured():
    assert read_encounter(encoded(A1Cresult="None"))["A1Cresult"] == "None"


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b"\xff", b'{"age": NaN}', b"[" * 100_000, b'{"age": ' + b"9" * 5_000 + b"}"]
)
def test_what_is_no_encounter_is_refused(body):
    assert problems(body)


def test_the_api_takes_as_long_a_text_as_a_file():
    assert LONGEST_TEXT == schema.LONGEST_TEXT
