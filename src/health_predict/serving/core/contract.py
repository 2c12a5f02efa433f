"""The input contract: one encounter as JSON, derived from `data/schema.py`.

Keys are accepted with hyphens or underscores, also mixed: `time_in_hospital`, `time-in-hospital`. An unknown key, a
field given twice, and the outcome are refused. For a field that may be missing, `?` and an empty text mean missing, as
in the dataset. Types are strict: "3" and 3.0 are no counts, "3" is no decimal. JSON is UTF-8 (RFC 8259): a text in
another encoding is a problem of its field.

`read_encounter` reads the usual request with one compiled decoder. A document that the decoder refuses, or may have
misread, is read again field by field, so that every problem is named; both ways give the same encounter. The types of
the decoder also describe the contract in the OpenAPI document.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import msgspec

from health_predict.data.field import LONGEST_TEXT, Field
from health_predict.data.schema import CLINICAL, FIELD, INPUTS, MISSING_TEXTS, OUTCOME

Encounter = dict[str, Any]  # values by field name; a missing value is None, or for optional fields absent

MOST_KEYS = 2 * len(INPUTS)  # most keys of an encounter: more cannot be intended
DEEPEST = 8  # most levels of nested arrays and objects; an encounter is one flat object
_HINTS = 3  # most unknown keys with a "did you mean": each look-up takes as long as scoring
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"')
_ONE_MEMBER = re.compile(rb'[ \t\r\n]*\{[ \t\r\n]*("(?:[^"\\]|\\.)*+")[ \t\r\n]*:')
_ESCAPE = re.compile(  # any escape but an unpaired surrogate (group 1), or an unpaired surrogate
    rb"(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\[^u]|\\u(?![dD][89a-fA-F]))"
    rb"|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)
_ENCODINGS = (  # other encodings, by the first bytes of a document
    (b"\xef\xbb\xbf", "must begin without a byte order mark"),
    (b"\xff\xfe", "must be UTF-8, not UTF-16"),
    (b"\xfe\xff", "must be UTF-8, not UTF-16"),
    (b"\x1f\x8b", "must not be compressed"),
)
_BATCH = msgspec.json.Decoder(list[msgspec.Raw])
_AS_ARRAYS, _NO_BRACKETS = bytes.maketrans(b"{}", b"[]"), bytes(set(range(256)) - set(b"[]{}"))


@dataclass(frozen=True)
class Problem:
    """A problem with one field, without its value. `field` is None for a problem with the whole document."""

    field: str | None
    rule: str
    kind: str

    def to_json(self) -> dict[str, Any]:
        """The problem in the form of FastAPI's validation errors."""
        return {"loc": ["body", *([self.field] if self.field else [])], "msg": self.rule, "type": self.kind}


NESTING = Problem(None, f"must not nest arrays and objects deeper than {DEEPEST}", "nesting")


class InvalidEncounterError(Exception):
    """A request cannot be scored; `problems` has all problems with it."""

    def __init__(self, problems: list[Problem]):
        super().__init__(f"{len(problems)} problems")
        self.problems = problems


def read_encounter(body: bytes) -> Encounter:
    """The encounter in a JSON document. Raises InvalidEncounterError."""
    for decoder, names in _DECODERS:
        try:
            encounter: Encounter = decoder.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue
        # The decoder drops unknown keys, keeps the last of repeated keys, and takes "?", maybe escaped, for a text.
        if body.count(b":") == len(encounter) and b"?" not in body and b"\\" not in body:
            return {names[key]: value for key, value in encounter.items()} if names else encounter
        break
    return check_pairs(parse(body))


def parse(body: bytes) -> Any:
    """The decoded JSON; an object is a `Pairs`, which keeps a repeated key. Raises InvalidEncounterError.

    Bytes that are not UTF-8, and unpaired surrogates written as escapes, become unpaired surrogates in the decoded
    text; no valid document has these.
    """
    text = _without_halves(body).decode(errors="surrogateescape")
    readable = text.encode(errors="replace")
    try:
        msgspec.json.decode(readable)  # unlike the standard library, msgspec refuses NaN and texts that are not Unicode
        if _is_too_deep(readable):
            raise InvalidEncounterError([NESTING])
        return json.loads(text, object_pairs_hook=Pairs)
    except ValueError:
        malformed = Problem(None, "must be well-formed JSON", "json")
        raise InvalidEncounterError([other_encoding(body) or malformed]) from None
    except RecursionError:
        raise InvalidEncounterError([NESTING]) from None


def split_batch(body: bytes) -> list[msgspec.Raw]:
    """The encounters, undecoded, of a JSON array, or of an object with the array as its only member `encounters`.

    Raises ValueError for any other document, RecursionError for too deep nesting.
    """
    member = _ONE_MEMBER.match(body)
    if member:
        document = body.rstrip(b" \t\r\n")
        if msgspec.json.decode(member[1], type=str) != "encounters" or not document.endswith(b"}"):
            raise ValueError
        body = document[member.end() : -1]  # not an array if another member follows
    try:
        return _BATCH.decode(body)
    except msgspec.DecodeError:  # the decoder refuses the whole batch for one unpaired surrogate
        return _BATCH.decode(_without_halves(body))


def _without_halves(body: bytes) -> bytes:
    """The body with an invalid UTF-8 byte in place of every escape of an unpaired surrogate: neither is Unicode."""
    return _ESCAPE.sub(lambda found: found[1] or b"\xff", body)


def other_encoding(body: bytes) -> Problem | None:
    """The problem of a document in another encoding or format, by its first bytes; None where they do not tell."""
    rule = next((rule for beginning, rule in _ENCODINGS if body.startswith(beginning)), None)
    if rule is None and b"\0" in body[:4]:
        rule = "must be UTF-8, not UTF-16 or UTF-32"
    return Problem(None, rule, "encoding") if rule else None


def _is_too_deep(document: bytes) -> bool:
    """Whether well-formed JSON is nested too deep; each turn removes the innermost arrays and objects."""
    brackets = _STRING.sub(b"", document).translate(_AS_ARRAYS, _NO_BRACKETS)
    for _ in range(DEEPEST):
        brackets = brackets.replace(b"[]", b"")
    return bool(brackets)


class Pairs(list[tuple[str, Any]]):
    """The members of a JSON object, in their order, with repeated keys."""


def check_pairs(document: Any) -> Encounter:
    """The encounter in a document that `parse` returned. Raises InvalidEncounterError."""
    if not isinstance(document, Pairs):
        raise InvalidEncounterError([Problem(None, "must be a JSON object with the fields of one encounter", "type")])
    if len(document) > MOST_KEYS:
        raise InvalidEncounterError([Problem(None, f"must hold at most {MOST_KEYS} keys", "keys")])
    return _checked(document)


def _must_be(field: Field) -> str:
    return f"must be {field.rule}{', or null' if field.may_be_missing else ''}"


def _type(field: Field) -> Any:
    """The field's rule as a type."""
    if field.is_number:
        low, high = field.bounds
        kind: Any = Annotated[field.type, msgspec.Meta(ge=low, le=high)]
    elif field.closed:
        kind = Literal[tuple(map(str, field.codes))]
    else:
        kind = Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST_TEXT)]
    return kind | None if field.may_be_missing else kind


def _described(field: Field) -> msgspec.Meta:
    """Description and example of the field for the OpenAPI document."""
    description = f"{field.description} Unit: {field.unit}." if field.unit else field.description
    if field.codes and not field.closed:
        description += f" Known: {', '.join(map(str, field.codes))}; any other is scored as unknown."
    return msgspec.Meta(description=description, examples=None if field.example is None else [field.example])


_TYPES = {field.name: Annotated[_type(field), _described(field)] for field in INPUTS}


def _typed(names: Mapping[str, str]) -> Any:
    """The type of an encounter with the keys of `names`, which has the name of each key's field."""
    keys = {key: _TYPES[name] if FIELD[name].required else NotRequired[_TYPES[name]] for key, name in names.items()}
    return TypedDict("Encounter", keys)  # type: ignore[operator]


def _decoder(spelling: Callable[[Field], str]) -> tuple[msgspec.json.Decoder[Any], dict[str, str]]:
    names = {spelling(field): field.name for field in INPUTS}
    rename = names if any(key != name for key, name in names.items()) else {}
    return msgspec.json.Decoder(_typed(names)), rename


_DECODERS = (
    _decoder(lambda field: field.name),
    _decoder(lambda field: field.raw_name),
    _decoder(lambda field: field.name.replace("_", "-")),
)


def _checked(members: Iterable[tuple[str, Any]]) -> Encounter:
    found: dict[str, Any] = {}
    problems: list[Problem] = []
    unknown = 0
    for key, value in members:
        name = key.replace("-", "_")
        if not _is_unicode(key):
            problems.append(Problem(None, "holds a key that is not UTF-8", "encoding"))
        elif name not in FIELD:
            unknown += 1
            problems.append(_unknown_key(name if unknown <= _HINTS else None))
        elif name == OUTCOME:
            problems.append(Problem(name, "is the outcome, not an input; leave it out", "unknown_field"))
        elif name in found:
            problems.append(Problem(name, "is given more than once", "duplicate_field"))
        else:
            found[name] = _canonical(FIELD[name], value)
    problems += [problem for field in INPUTS if (problem := _problem(field, found))]
    if problems:
        raise InvalidEncounterError(problems)
    return found


def _problem(field: Field, found: Encounter) -> Problem | None:
    """The problem with a field of the encounter, if any; converts its value to the field's type."""
    name = field.name
    if name not in found:
        return Problem(name, f"is missing; it {_must_be(field)}", "missing") if field.required else None
    if not _is_unicode(found[name]):
        return Problem(name, "holds text that is not UTF-8", "encoding")
    try:
        found[name] = msgspec.convert(found[name], _TYPES[name], strict=True)
    except msgspec.ValidationError:
        return Problem(name, _must_be(field), "value")
    return None


def _canonical(field: Field, value: Any) -> Any:
    return None if field.nullable and isinstance(value, str) and value in MISSING_TEXTS else value


def _is_unicode(value: Any) -> bool:
    try:
        return not isinstance(value, str) or value.isascii() or bool(value.encode())
    except UnicodeEncodeError:
        return False


def _unknown_key(name: str | None) -> Problem:
    # An unknown key may hold anything, even a patient's name, so messages never repeat it.
    nearest = get_close_matches(name.lower(), [known.lower() for known in FIELD], n=1) if name else None
    hint = next((known for known in FIELD if nearest and known.lower() == nearest[0]), None)
    if hint:
        return Problem(None, f"holds a key that is no field; did you mean {hint}?", "unknown_field")
    return Problem(None, "holds a key that is no field", "unknown_field")


EXAMPLE: Mapping[str, Any] = {field.name: field.example for field in CLINICAL if field.required}

# For the OpenAPI document.
DocumentedEncounter = _typed({field.name: field.name for field in INPUTS})
DocumentedEncounter.__doc__ = (
    "One hospital stay, as known at discharge. Keys may be written with hyphens or underscores."
)
_Encounters = Annotated[
    list[Any],
    msgspec.Meta(description="Each as in /predict; a bad one gets its own errors.", examples=[[dict(EXAMPLE)]]),
]


class Encounters(msgspec.Struct, forbid_unknown_fields=True):
    """Encounters, to be answered in this order."""

    encounters: _Encounters


DocumentedBatch = _Encounters | Encounters
