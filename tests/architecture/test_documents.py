"""What the documents and locks promise is what the code has."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from pydantic_settings import BaseSettings

from health_predict import settings, telemetry

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CLASSES = [
    one
    for one in vars(settings).values()
    if isinstance(one, type) and issubclass(one, BaseSettings) and one.__module__ == settings.__name__
]


def variables(kind: type[BaseSettings]) -> dict[str, str]:
    """Environment variable of each setting."""
    prefix = kind.model_config["env_prefix"]
    return {
        name: str(field.validation_alias.choices[0]) if field.validation_alias else f"{prefix}{name.upper()}"
        for name, field in kind.model_fields.items()
    }


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_setting_is_documented(kind):
    page = (ROOT / "docs" / "settings.md").read_text()
    assert [name for name in variables(kind).values() if f"`{name}`" not in page] == []
    assert [name for name, field in kind.model_fields.items() if not field.description] == []


def test_no_setting_is_documented_that_does_not_exist():
    page = (ROOT / "docs" / "settings.md").read_text()
    known = {name for kind in CLASSES for name in variables(kind).values()}
    assert set(re.findall(r"`(HEALTH_PREDICT_[A-Z_]+)`", page)) <= known


def test_every_switch_of_telemetry_is_explained():
    page = (ROOT / "docs" / "security.md").read_text()
    assert [name for name in telemetry.OFF if name not in page] == []


def group(name: str) -> list[Requirement]:
    """Requirements of a dependency group, with those of the groups it includes."""
    found: list[Requirement] = []
    entries: list[Any] = PROJECT["dependency-groups"][name]
    for entry in entries:
        found += [Requirement(entry)] if isinstance(entry, str) else group(entry["include-group"])
    return found


def lock(name: str) -> dict[str, Version]:
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    pinned = re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^ ;\\]+)", text, re.MULTILINE)
    return {canonicalize_name(package): Version(version) for package, version in pinned}


GROUPS = list(PROJECT["dependency-groups"])


@pytest.mark.parametrize("name", GROUPS)
def test_a_lock_satisfies_every_requirement_of_its_group(name):
    pinned = lock(name)
    unmet = [
        str(requirement)
        for requirement in group(name)
        if (version := pinned.get(canonicalize_name(requirement.name))) is None
        or not requirement.specifier.contains(version, prereleases=True)
    ]
    assert unmet == [], "run `make lock`"


@pytest.mark.parametrize("name", GROUPS)
def test_a_lock_holds_hashes_and_no_download_address(name):
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    assert len(re.findall(r"^\S+==", text, re.MULTILINE)) == len(lock(name))
    for block in re.split(r"^(?=\S+==)", text, flags=re.MULTILINE)[1:]:
        assert "--hash=sha256:" in block, block.partition(" ")[0]
    assert not re.search(r"https?://|--index-url|--find-links", text)


@pytest.mark.parametrize("name", [name for name in GROUPS if name != "dev"])
def test_the_locks_agree_with_each_other(name):
    dev = lock("dev")
    assert {package: version for package, version in lock(name).items() if dev.get(package) != version} == {}


def test_the_service_installs_no_tables_no_trainers_and_no_registry():
    assert not {"polars", "pandas", "scikit-learn", "mlflow", "ray", "xgboost-cpu", "lightgbm", "catboost"} & set(
        lock("serving")
    )
