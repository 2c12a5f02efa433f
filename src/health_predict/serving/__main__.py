"""`python -m health_predict.serving`: one worker."""

# ruff: noqa: E402  # the libraries open files when they are imported
from health_predict.serving.http import standard_streams

standard_streams.reopen_closed()

import argparse
import contextlib
import sys
from pathlib import Path

from health_predict.errors import HealthPredictError
from health_predict.installation import lacking
from health_predict.settings import ServingSettings
from health_predict.store.addresses import without_secrets


def main() -> int:
    """Run a worker until a signal ends it; returns an exit code of `errors.py`."""
    parser = argparse.ArgumentParser(prog="python -m health_predict.serving", description="One prediction worker.")
    parser.add_argument("--bundle", type=Path, required=True, help="folder of a bundle, or a link to one")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    given = parser.parse_args()
    try:
        _run(given.bundle, given.host, given.port)
    except HealthPredictError as error:
        with contextlib.suppress(OSError):  # standard error may be closed; the exit code remains
            sys.stderr.write(f"error: {without_secrets(str(error))}\n")
            sys.stderr.flush()
        return error.exit_code
    return 0


def _run(bundle: Path, host: str, port: int) -> None:
    try:
        from health_predict.serving.http.server import Listen, run  # noqa: PLC0415  (what it needs may be missing)
    except ModuleNotFoundError as error:
        raise lacking(error, "serving") or error from None
    run(bundle, Listen(host, port), ServingSettings())


if __name__ == "__main__":
    sys.exit(main())
