"""The command line, `health-predict`. Commands import what they run when they run, so that `--help` is quick."""

import sys

import typer

from health_predict.cli.app import app
from health_predict.errors import HealthPredictError


def main() -> None:
    """Run a command; the exit code says how it ended (`errors.py`)."""
    try:
        code = app(standalone_mode=False)
    except HealthPredictError as error:
        sys.stderr.write(f"{error}\n" if error.exit_code == 99 else f"error: {error}\n")
        sys.exit(error.exit_code)
    except typer.TyperException as error:
        error.show()  # type: ignore[attr-defined]  # all that are raised have it
        sys.exit(error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        sys.stderr.write("interrupted; run the same command again to go on\n")
        sys.exit(130)
    sys.exit(code or 0)
