"""Measured tables stand in the documentation between markers; a measurement replaces its own."""

import re
from pathlib import Path


def replace_section(page: Path, name: str, text: str) -> None:
    """Put `text` between `<!-- name -->` and `<!-- /name -->`. ValueError when the page has no such markers."""
    content = page.read_text()
    pattern = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(<!-- /{re.escape(name)} -->)", re.DOTALL)
    replaced, count = pattern.subn(lambda found: f"{found[1]}{text}\n{found[2]}", content)
    if count != 1:
        raise ValueError(f"{page} has {count} sections {name!r}, not one")
    page.write_text(replaced)
