"""What an encounter may look like: the compiled decoder, the slow reader and the API's document agree."""

import json
import re
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from health_predict.data.schema import FIELDS
from health_predict.serving.core.contract import (
    EXAMPLE,
    INPUTS,
    MOST_KEYS,
    DocumentedEncounter,
    InvalidEncounterError,
    check_pairs,
    parse,
    read_encounter,
)

ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=70), st.just([]), st.just({}),
    st.sampled_from(["?", "", "None", "No", "[70-80)", "Female", "250.8", "a:b"]), st.integers(-2, 1_100),
)  # fmt: skip
NAMES = st.sampled_from([field.name for field in INPUTS])
RAW_NAMES = {field.name: field.raw_name for field in FIELDS}

DOCUMENTED = Draft202012Validator(msgspec.json.schema(DocumentedEncounter))


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


def escaped(body: str) -> str:
    """The same document; a text without escapes is written in escapes only."""

    def escape(text: re.Match[str]) -> str:
        return text[0] if "\\" in text[0] else '"' + "".join(f"\\u{ord(one):04x}" for one in text[1]) + '"'

    return re.sub(r'"((?:[^"\\]|\\.)*)"', escape, body)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(NAMES, ANYTHING, max_size=3), st.sets(NAMES, max_size=1), st.randoms(), st.booleans())
@example({"race": "?"}, set(), Random(1), True)  # noqa: S311
def test_every_reader_gives_the_same_verdict(changes, dropped, random, escape):
    members = [(key, value) for key, value in {**EXAMPLE, **changes}.items() if key not in dropped]
    random.shuffle(members)
    text = json.dumps(dict(members))
    body = (escaped(text) if escape else text).encode()
    try:
        read = read_encounter(body)
    except InvalidEncounterError:
        read = None
    try:
        slowly = check_pairs(parse(body))
    except InvalidEncounterError:
        slowly = None
    assert read == slowly
    if read is not None:
        assert DOCUMENTED.is_valid(read)
    elif not any(isinstance(value, float) for value in changes.values()):  # to JSON Schema 3.0 is a whole number
        assert not DOCUMENTED.is_valid(json.loads(body))


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


def test_more_keys_than_can_be_meant_are_one_problem():
    unknown = {f"glyburide_metf{number}": 1 for number in range(MOST_KEYS + 1)}
    assert problems(json.dumps(unknown).encode()) == [(None, "keys")]


def test_only_the_first_unknown_keys_get_a_hint():
    unknown = {f"glyburide_metf{number}": 1 for number in range(20)}
    with pytest.raises(InvalidEncounterError) as refused:
        read_encounter(encoded(**unknown))
    rules = [problem.rule for problem in refused.value.problems]
    assert len(rules) == 20
    assert sum("did you mean" in rule for rule in rules) == 3


@pytest.mark.parametrize("depth", [8, 100_000])
def test_nesting_has_a_limit_and_is_named(depth):
    assert problems(b'{"age": ' + b"[" * depth + b"]" * depth + b"}") == [(None, "nesting")]


def test_brackets_inside_a_text_nest_nothing():
    assert problems(encoded(age='["' * 30)) == [("age", "value")]


def test_nesting_up_to_the_limit_is_a_problem_of_its_field():
    assert problems(encoded(age=[[[{"a": [[[]]]}]]])) == [("age", "value")]
