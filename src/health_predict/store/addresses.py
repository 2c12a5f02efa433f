"""Addresses of services, as they may be shown: without the secrets that they carry."""

import re

HIDDEN = "***"
_NAME = r"[a-z0-9_.-]*(?:password|passwd|pwd|secret|token|signature|credential|api[_-]?key)[a-z0-9_.-]*"
_SECRETS = (
    # Greedy: a password that holds an unescaped / or @ is still a password. One slash: an address taken as a path.
    (re.compile(r"(:/+)\S*:\S*@"), rf"\g<1>{HIDDEN}@"),
    (re.compile(r"(:/+)[^\s/]+@"), rf"\g<1>{HIDDEN}@"),
    (re.compile(r"(:/+[^\s?#]*[?#])[^\s'\")<>]+"), rf"\g<1>{HIDDEN}"),
    (re.compile(r"\?[^\s'\")<>]*=[^\s'\")<>]*"), f"?{HIDDEN}"),  # of a path alone, as urllib3 shows it
    (re.compile(rf"(?i)({_NAME}(?:=|['\"]\s*:\s*)['\"]?)[^\s&;,'\"]+"), rf"\g<1>{HIDDEN}"),
    (re.compile(r"(?i)(\b(?:bearer|basic)\s+)[a-z0-9+/=_.~-]{16,}"), rf"\g<1>{HIDDEN}"),
)


def without_secrets(text: str) -> str:
    """An address, or text with addresses in it, with `***` for what would let somebody in.

    >>> without_secrets("cannot reach https://ana:s3cret@mlflow.example:5000/api?token=abc")
    'cannot reach https://***@mlflow.example:5000/api?***'
    """
    for secret, shown in _SECRETS:
        text = secret.sub(shown, text)
    return text
