"""No secret of any setting is in anything that a command says or keeps."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic_settings import BaseSettings

from health_predict.errors import HealthPredictError
from health_predict.settings import ServingSettings, Settings
from health_predict.store import layout

SECRET = "plantedW0rd"  # noqa: S105  (what is looked for)
ADDRESSES = (
    f"http://ana:{SECRET}@127.0.0.1:9/x?password={SECRET}",
    f"postgresql://ana:{SECRET}@127.0.0.1:9/mlflow",
    f"s3://ana:{SECRET}@bucket/prefix",
    f"127.0.0.1:9?token={SECRET}",
)
AT_ONCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
OF_LIBRARIES = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


def settings_of(kind: type[BaseSettings]) -> Iterator[tuple[str, str]]:
    """Each setting that may hold a secret, as its variable and its field: all but files, whose names are none."""
    for name, field in kind.model_fields.items():
        if field.annotation not in (Path, Path | None):
            alias = field.validation_alias
            yield str(alias.choices[0]) if alias else f"HEALTH_PREDICT_{name.upper()}", name


PLACES = dict([*settings_of(Settings), *((variable, "") for variable in OF_LIBRARIES)])
COMMANDS = (("status", "--json"), ("data", "fetch", "--json"), ("serve",))


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("variable", PLACES)
def test_a_command_shows_and_keeps_no_secret(tmp_path, health_predict, variable, command):
    values = ADDRESSES if variable not in OF_LIBRARIES else (SECRET,)
    for value in values:
        dead = {} if variable == "MLFLOW_TRACKING_URI" else {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
        known = {"HEALTH_PREDICT_RAW_DATA": str(tmp_path / "no.zip"), **dead, **AT_ONCE, variable: value}
        ended = health_predict(tmp_path / "store", *command, **known)
        assert SECRET not in ended.out + ended.err
        assert "Traceback" not in ended.err
    assert not any(SECRET in text(file) for file in tmp_path.rglob("*") if file.is_file())


@pytest.mark.parametrize(("variable", "name"), list(settings_of(ServingSettings)))
def test_settings_of_the_service_that_are_not_valid_are_refused_without_showing_them(monkeypatch, variable, name):
    monkeypatch.setenv(variable, ADDRESSES[0])
    try:
        settings = ServingSettings()
    except HealthPredictError as error:
        assert SECRET not in str(error)
        assert variable in str(error)
    else:
        assert SECRET not in repr(settings)
        assert SECRET not in str(settings)


@pytest.mark.parametrize(("variable", "name"), list(settings_of(Settings)))
def test_settings_of_commands_show_no_secret_in_a_traceback(monkeypatch, tmp_path, variable, name):
    for value in ADDRESSES:
        monkeypatch.setenv(variable, value)
        try:
            settings = Settings()
        except HealthPredictError as error:
            assert SECRET not in str(error)
        else:
            assert SECRET not in repr(settings) + str(settings)


def test_a_registry_that_works_shows_and_keeps_no_secret(store, monkeypatch, tmp_path, health_predict):
    """MLflow on SQLite, reached by an address with a password in its query; from evaluation to rollback."""
    monkeypatch.chdir(tmp_path)  # MLflow makes a folder of the address
    address = f"sqlite:///file:{store.root}/mlflow.db?uri=true&password={SECRET}"
    shown = ""
    for command in (["evaluate"], ["promote"], ["status"], ["status", "--json"], ["rollback"]):
        ended = health_predict(store.root, *command, MLFLOW_TRACKING_URI=address)
        shown += ended.out + ended.err
    assert "is in production" in shown
    assert SECRET not in shown
    kept = {key: store.storage.read(key) for key in store.storage.list() if not key.startswith("mlartifacts")}
    assert layout.LEDGER in kept
    assert [key for key, content in kept.items() if SECRET.encode() in content] == []


def text(file: Path) -> str:
    return file.read_text(errors="replace")
