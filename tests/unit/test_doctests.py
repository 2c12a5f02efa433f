import doctest
import importlib
from pathlib import Path

import pytest

import health_predict

PACKAGE = Path(health_predict.__file__).parent
MODULES = sorted(
    ".".join(("health_predict", *source.relative_to(PACKAGE).with_suffix("").parts))
    for source in PACKAGE.rglob("*.py")
    if ">>> " in source.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_the_docstrings_hold(name):
    results = doctest.testmod(importlib.import_module(name))
    assert results.attempted > 0
    assert results.failed == 0
