"""What the documents and locks promise is what the code has."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from pydantic_settings import BaseSettings

from health_predict import settings, telemetry
from health_predict.installation import DISTRIBUTIONS

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


EXTRAS = PROJECT["project"]["optional-dependencies"]
LOCKS = ["dev", "pipeline", "serving", "uv"]


def declared(name: str) -> list[Requirement]:
    """What a lock has to hold: what the package and an extra require; for `dev`, all extras and the group."""
    if name == "uv":  # what makes the environment
        return [Requirement("uv")]
    if name == "dev":
        group = map(Requirement, PROJECT["dependency-groups"]["dev"])
        return [*group, *(requirement for extra in EXTRAS for requirement in declared(extra))]
    found = [Requirement(line) for line in (*PROJECT["project"]["dependencies"], *EXTRAS[name])]
    ours = [requirement for requirement in found if requirement.name == PROJECT["project"]["name"]]
    return [one for one in found if one not in ours] + [
        more for requirement in ours for extra in requirement.extras for more in declared(extra)
    ]


def lock(name: str) -> dict[str, Version]:
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    pinned = re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^ ;\\]+)", text, re.MULTILINE)
    return {canonicalize_name(package): Version(version) for package, version in pinned}


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_satisfies_every_requirement_it_is_made_from(name):
    pinned = lock(name)
    unmet = [
        str(requirement)
        for requirement in declared(name)
        if (version := pinned.get(canonicalize_name(requirement.name))) is None
        or not requirement.specifier.contains(version, prereleases=True)
    ]
    assert unmet == [], "run `make lock`"


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_holds_hashes_and_no_download_address(name):
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    assert len(re.findall(r"^\S+==", text, re.MULTILINE)) == len(lock(name))
    for block in re.split(r"^(?=\S+==)", text, flags=re.MULTILINE)[1:]:
        assert "--hash=sha256:" in block, block.partition(" ")[0]
    assert not re.search(r"https?://|--index-url|--find-links", text)


@pytest.mark.parametrize("name", [name for name in LOCKS if name != "dev"])
def test_the_locks_agree_with_each_other(name):
    dev = lock("dev")
    assert {package: version for package, version in lock(name).items() if dev.get(package) != version} == {}


def test_contributors_are_told_of_every_layer():
    contracts = PROJECT["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract.get("exhaustive"))
    required = [name for layer in layers for name in re.split(r"[ |]+", layer) if not name.startswith("(")]
    rows = [line for line in (ROOT / "CONTRIBUTING.md").read_text().splitlines() if line.startswith("| `")]
    told = " ".join(line.split("|")[1] for line in rows)
    assert [name for name in required if f"`{name}" not in told] == []


def test_the_service_installs_no_tables_no_trainers_and_no_registry():
    assert not {"polars", "pandas", "scikit-learn", "mlflow", "ray", "xgboost-cpu", "lightgbm", "catboost"} & set(
        lock("serving")
    )


def test_a_module_that_is_not_called_as_its_package_is_known_by_a_package_that_is_required():
    assert set(DISTRIBUTIONS.values()) <= {requirement.name for requirement in declared("pipeline")}
