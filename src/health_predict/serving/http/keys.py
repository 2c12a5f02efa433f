"""API keys: names of callers, and the SHA-256 of each caller's key. The key itself is stored nowhere.

A key is 256 random bits, so a plain digest of it cannot be guessed back and needs no salt or slow hash.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from health_predict.errors import ServiceError

_ENTRY = re.compile(r"([A-Za-z0-9_.-]{1,64}):([0-9a-f]{64})")
ANONYMOUS = "-"  # the caller's name where no keys are set


def new_key(name: str) -> tuple[str, str]:
    """A new key for a caller, and the entry `name:sha256` to store for it. Raises ServiceError for a name with other
    characters than letters, digits, `_`, `.` and `-`."""
    key = secrets.token_urlsafe(32)
    entry = f"{name}:{_digest(key.encode()).decode()}"
    parse_keys(entry, "the new entry")
    return key, entry


def parse_keys(text: str, source: str) -> dict[str, bytes]:
    """Digests by caller. Raises ServiceError, naming the source and the line, for an invalid entry."""
    keys: dict[str, bytes] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        for entry in line.partition("#")[0].replace(",", " ").split():
            match = _ENTRY.fullmatch(entry)
            if match is None or match[1] in keys:
                raise ServiceError(f"{source}, line {number}: expected `name:sha256`, each name once")
            keys[match[1]] = match[2].encode()
    return keys


def load_keys(text: str | None, file: Path | None) -> dict[str, bytes]:
    """Digests by caller from the setting and the file together; empty without both."""
    keys = parse_keys(text, "HEALTH_PREDICT_API_KEYS") if text else {}
    if file is None:
        return keys
    try:
        found = parse_keys(file.read_text(), str(file))
    except (OSError, UnicodeDecodeError) as error:
        raise ServiceError(f"the API keys in {file} cannot be read") from error
    if not found:
        raise ServiceError(f"{file} holds no API keys")
    return keys | found


def caller(keys: Mapping[str, bytes], headers: list[tuple[bytes, bytes]]) -> str | None:
    """Name of the caller whose key is in `Authorization: Bearer` or `X-API-Key`; None without a valid key."""
    if not keys:
        return ANONYMOUS
    given = _digest(_given(headers))
    found = None
    for name, digest in keys.items():  # compares with every key, so that the time does not reveal which one fits
        if hmac.compare_digest(given, digest):
            found = name
    return found


def _given(headers: list[tuple[bytes, bytes]]) -> bytes:
    for name, value in headers:
        if name == b"x-api-key":
            return value
        if name == b"authorization" and value[:7].lower() == b"bearer ":
            return value[7:].strip()
    return b""


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).hexdigest().encode()
