"""The command line, `health-predict`. Commands import what they run when they run, so that `--help` is quick."""

import io
import os
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TextIO

import typer

from health_predict.cli.app import app
from health_predict.errors import HealthPredictError, StorageError
from health_predict.installation import EVERYTHING, lacking
from health_predict.store.addresses import without_secrets

READER_GONE = 141  # as a shell has it for a program that SIGPIPE ended


def main() -> None:
    """Run a command and end the process with its exit code (`errors.py`). Output contains no secrets."""
    sys.excepthook = _show_bug
    _open_missing_streams()
    _buffer_stdout()
    try:
        code = _run()
    except HealthPredictError as error:
        _complain(f"{error}" if error.exit_code == 99 else f"error: {error}")
        code = error.exit_code
    except typer.TyperException as error:
        error.show()  # type: ignore[attr-defined]  # all that are raised have it
        code = error.exit_code
    except (typer.Abort, KeyboardInterrupt):
        _complain("interrupted; run the same command again to go on")
        code = 130
    except OSError:
        if not (code := _delivered(0)):  # it was not the output that failed
            raise
    sys.exit(_delivered(code))


def _run() -> int:
    _check_surroundings()
    command = typer.main.get_command(app)
    try:  # not its own `main`, which ends in its own way when a reader has left
        with command.make_context("health-predict", sys.argv[1:]) as context:
            command.invoke(context)
    except typer.Exit as ended:
        return ended.exit_code
    except ModuleNotFoundError as error:
        raise lacking(error, _extra_of(sys.argv[1:])) or error from None
    return 0


def _extra_of(arguments: list[str]) -> str | None:
    """The extra that a command needs; None for `serve --bundle`, which needs only a part of the extras."""
    return None if arguments[:1] == ["serve"] and "--bundle" in " ".join(arguments) else EVERYTHING


def _check_surroundings() -> None:
    """Raise BadParameter for arguments that are not UTF-8, StorageError if the current folder is gone or unreadable."""
    if any(not _is_text(argument) for argument in sys.argv[1:]):
        raise typer.BadParameter("not UTF-8; is it a file name from another system? rename the file, and try again")
    try:
        Path.cwd()
    except OSError as error:
        raise StorageError("the current folder is gone or may not be read; change to another one") from error


def _is_text(argument: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in argument)


def _open_missing_streams() -> None:
    """Give closed standard streams somewhere to go, lest a file that is opened later becomes one of them.

    Raises StorageError, after that, where stdout was closed: the result would be lost.
    """
    missing = [number for number, stream in enumerate((sys.stdin, sys.stdout, sys.stderr)) if stream is None]
    for number in missing:
        opened = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free, which is this one
        if opened != number:
            os.dup2(opened, number)
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
    if 1 in missing:
        _complain("error: stdout is closed, so the result would be lost; send it to /dev/null if it is not wanted")
        sys.exit(StorageError.exit_code)


def _buffer_stdout() -> None:
    """Undo PYTHONUNBUFFERED: a write that failed is then still there for `_delivered` to notice."""
    if isinstance(getattr(sys.stdout, "buffer", None), io.RawIOBase):
        sys.stdout = os.fdopen(1, "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors, closefd=False)


def _delivered(code: int) -> int:
    """`code` if stdout took all output; else, where `code` is 0, READER_GONE or the code of StorageError."""
    _flush(sys.stderr)  # where that fails there is nobody to tell
    failure = _flush(sys.stdout)
    if failure is None:
        return code
    if isinstance(failure, BrokenPipeError):
        return code or READER_GONE
    _complain(f"error: cannot write to stdout: {failure.strerror}")
    return code or StorageError.exit_code


def _flush(stream: TextIO) -> OSError | None:
    """Flush the stream. On an error, discard the output and return the error; else return None."""
    try:
        stream.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        stream.flush()
        return error
    return None


def _complain(text: str) -> None:
    with suppress(OSError):  # there is nobody else to tell
        sys.stderr.write(f"{without_secrets(text)}\n")


def _show_bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    sys.stderr.write(without_secrets("".join(traceback.format_exception(kind, error, trace))))
