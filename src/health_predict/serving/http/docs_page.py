"""The documentation page: a table of all fields, and a request to try. One self-contained file.

Its parts are in `pages/`, where a browser can show them too.
"""

import base64
import hashlib
from importlib.resources import files

_PAGES = files(__package__) / "pages"


def _read(name: str) -> str:
    return (_PAGES / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


_STYLE, _SCRIPT = _read("docs.css"), _read("docs.js")
PAGE = (
    _read("docs.html")
    .replace('<link rel="stylesheet" href="docs.css">', f"<style>{_STYLE}</style>")
    .replace('<script src="docs.js"></script>', f"<script>{_SCRIPT}</script>")
)
CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; connect-src 'self'; style-src {_hash(_STYLE)}; script-src {_hash(_SCRIPT)}; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
