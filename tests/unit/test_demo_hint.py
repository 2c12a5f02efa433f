"""Where the demo says that runs and models can be seen."""

import shlex

from health_predict.cli.demo import _to_see_runs


def test_a_server_is_shown_by_its_address_and_a_database_by_a_command():
    assert _to_see_runs("https://***@mlflow.example") == "https://***@mlflow.example"
    command = shlex.split(_to_see_runs("sqlite:////data/my store/mlflow.db"))
    assert command[1:] == ["ui", "--backend-store-uri", "sqlite:////data/my store/mlflow.db"]
