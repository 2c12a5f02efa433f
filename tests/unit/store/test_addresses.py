"""What an address shows, and what it does not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from health_predict.store.addresses import without_secrets

SECRET = "s3cretWord"  # noqa: S105  (planted)


@pytest.mark.parametrize(
    "text",
    [
        f"https://ana:{SECRET}@mlflow.example:5000",
        f"https://{SECRET}@mlflow.example",
        f"postgresql+psycopg2://ana:{SECRET}@db/mlflow",
        f"postgresql://ana:p@{SECRET}/x@db/mlflow",
        f"postgresql://ana:p'{SECRET}@db/mlflow",
        f"postgresql://db/mlflow?user=ana&password={SECRET}",
        f"mysql://db/mlflow?ssl_ca=/a/b&passwd={SECRET}",
        f"https://bucket.example/data.zip?X-Amz-Credential=A%2F{SECRET}&X-Amz-Signature={SECRET}",
        f"https://files.example/data.zip#{SECRET}",
        f"x.zip is not in /data/http:/ana:{SECRET}@files.example",
        f"Max retries exceeded with url: /api/2.0/search?token={SECRET} (Caused by ...)",
        f"connection failed: host=db user=ana password={SECRET} dbname=mlflow",
        f"{{'aws_secret_access_key': '{SECRET}'}}",
        f'{{"MLFLOW_TRACKING_TOKEN": "{SECRET}"}}',
        f"Authorization: Bearer {SECRET}{SECRET}",
    ],
)
def test_no_secret_of_an_address_is_shown(text):
    assert SECRET not in without_secrets(text)
    assert "***" in without_secrets(text)


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:5000",
        "sqlite:////data/mlflow.db",
        "s3://bucket/prefix/team@home/file",
        "/data/what?/50%/#1/store",
        "cannot reach MLflow (MLflow at http://127.0.0.1:9): refused. Is the server running? MLFLOW_TRACKING_URI says",
        "the secret key does not fit the access key",
    ],
)
def test_what_holds_no_secret_is_shown_whole(text):
    assert without_secrets(text) == text


@given(st.text(st.characters(exclude_categories=["Z", "C"]), min_size=1), st.text("abc/@:'\"?#&", max_size=5))
def test_no_password_survives_whatever_letters_it_has(user, rest):
    shown = without_secrets(f"https://{user}:{SECRET}{rest}@host/path")
    assert SECRET not in shown
