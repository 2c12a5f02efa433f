"""One store for everything the project keeps: a folder, or a prefix of an S3 bucket.

A key is a path below the root, written with slashes: `processed_data/initial_train.parquet`. No part of a key
is empty or begins with a dot, so no key leaves the root, and a name beginning with a dot is free for
bookkeeping that no listing shows.

Every failure is a StorageError that says which key, where and why.
"""

import errno
import fcntl
import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from health_predict.errors import ConflictError, StorageError
from health_predict.installation import require

State = str  # of one key's content; compared for equality only

_LOCK = ".lock"
_TEMPORARY = ".tmp"
_PRIVATE = 0o600  # of every file: many hold rows of patients
_CAUSES = {
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EROFS: "the file system is read-only",
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than the system allows",
    errno.EISDIR: "it is a folder",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EEXIST: "a part of the path is a file, not a folder",
    errno.ENAMETOOLONG: "the name is too long",
}
S3_CAUSES = {
    "NoSuchBucket": "the bucket does not exist",
    "AccessDenied": "permission denied; the credentials in use may not do this",
    "403": "permission denied; the credentials in use may not do this",
    "InvalidAccessKeyId": "the access key is not known",
    "SignatureDoesNotMatch": "the secret key does not fit the access key",
    "ExpiredToken": "the session token has expired",
    "InvalidToken": "the session token is not valid",
    "SlowDown": "the store asks for fewer requests; try again later",
}
_CONFLICTS = ("PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey", "412", "409")


class Storage(Protocol):
    """A store of bytes by key. All methods raise StorageError when the store fails or a key is not valid."""

    root: str

    def read(self, key: str) -> bytes:
        """Content of the key. StorageError when it is not there."""

    def read_with_state(self, key: str) -> tuple[bytes, State] | None:
        """Content and its state, to be handed to `write_if`; None when the key is not there."""

    def write(self, key: str, data: bytes) -> None:
        """Replace the content as a whole: a reader sees the old or the new, also when the write fails."""

    def write_if(self, key: str, data: bytes, state: State | None) -> None:
        """As `write`, if the content is still in that state (None: still absent); else ConflictError."""

    def exists(self, key: str) -> bool:
        """Whether there is content under exactly this key."""

    def list(self, prefix: str = "") -> list[str]:
        """All keys that begin with the prefix, in code point order."""

    def delete(self, key: str) -> None:
        """Remove the key; nothing happens when it is not there."""

    def connect(self) -> None:
        """Import and connect now what the first use would otherwise wait for. Sends no request."""

    def path(self, key: str) -> str:
        """Absolute path or s3:// address of the key, for messages and for tools."""

    def below(self, key: str) -> "Storage":
        """The store whose root is at the key: the same bytes, by shorter keys."""


def open_storage(root: str, endpoint: str | None = None) -> Storage:
    """The store at `root`, a folder or `s3://bucket/prefix`; nothing is read or created yet.

    `endpoint` is an S3-compatible address other than AWS. StorageError when the root is neither; InstallationError
    where the extra for S3 is missing.
    """
    if root.startswith("s3://"):
        require("boto3", "s3")
        return Bucket(root, endpoint)
    if not root or "://" in root:
        raise StorageError(f"{root!r} is not a storage root; give a folder or s3://bucket/prefix")
    return Folder(root)


class Folder:
    """A store in a local folder, which the first write creates."""

    def __init__(self, root: str):
        self._folder = Path(root).expanduser().absolute()
        self.root = str(self._folder)

    def read(self, key: str) -> bytes:
        with self._telling("read", key):
            return self._file(key).read_bytes()

    def read_with_state(self, key: str) -> tuple[bytes, State] | None:
        with self._telling("read", key):
            try:
                data = self._file(key).read_bytes()
            except FileNotFoundError:
                return None
        return data, _digest(data)

    def write(self, key: str, data: bytes) -> None:
        with self._telling("write", key):
            _replace(self._file(key), data)

    def write_if(self, key: str, data: bytes, state: State | None) -> None:
        with self._telling("write", key), self._alone():
            found = self.read_with_state(key)
            if (found and found[1]) != state:
                raise ConflictError(f"{key} in {self.root} was changed by somebody else meanwhile; read it again")
            _replace(self._file(key), data)

    def exists(self, key: str) -> bool:
        with self._telling("look for", key):
            try:
                self._file(key).stat()
            except (FileNotFoundError, NotADirectoryError):
                return False
            return self._file(key).is_file()

    def list(self, prefix: str = "") -> list[str]:
        start = self._folder / _checked_prefix(prefix)
        with self._telling("list", prefix):
            return sorted(key for key in self._walk(start) if key.startswith(prefix))

    def delete(self, key: str) -> None:
        with self._telling("delete", key):
            self._file(key).unlink(missing_ok=True)

    def connect(self) -> None:
        """Nothing takes time."""

    def path(self, key: str) -> str:
        return str(self._file(key))

    def below(self, key: str) -> "Folder":
        return Folder(str(self._file(key)))

    def _file(self, key: str) -> Path:
        return self._folder / _checked(key)

    def _walk(self, start: Path) -> Iterator[str]:
        for folder, folders, files in os.walk(start, onerror=_raise_unless_missing):
            folders[:] = [name for name in folders if not name.startswith(".")]
            parent = Path(folder).relative_to(self._folder)
            yield from ((parent / name).as_posix() for name in files if not name.startswith("."))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the store's lock; the system releases it when the process ends, however it ends."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / _LOCK).open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextmanager
    def _telling(self, action: str, key: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise StorageError(f"{key} is not in {self.root}") from error
        except OSError as error:
            cause = _CAUSES.get(error.errno or 0, error.strerror or type(error).__name__)
            raise StorageError(f"cannot {action} {key!r} in {self.root}: {cause}") from error


class Bucket:
    """A store below a prefix of an S3 bucket. Credentials come from where boto3 looks for them."""

    def __init__(self, root: str, endpoint: str | None = None):
        location = root.removeprefix("s3://").rstrip("/")
        self.root = f"s3://{location}"
        self._endpoint = endpoint
        self._bucket, _, prefix = location.partition("/")
        self._prefix = f"{_checked(prefix)}/" if prefix else ""
        if not self._bucket:
            raise StorageError(f"{root!r} names no bucket; give s3://bucket/prefix")
        if "@" in self._bucket:  # it holds a secret, so it is not shown
            raise StorageError("an s3:// address has no credentials; they come from where boto3 looks for them")

    def read(self, key: str) -> bytes:
        found = self.read_with_state(key)
        if found is None:
            raise StorageError(f"{key} is not in {self.root}")
        return found[0]

    def read_with_state(self, key: str) -> tuple[bytes, State] | None:
        with self._telling("read", key):
            try:
                answer = self._client.get_object(Bucket=self._bucket, Key=self._name(key))
            except self._client.exceptions.NoSuchKey:
                return None
            return answer["Body"].read(), answer["ETag"]

    def write(self, key: str, data: bytes) -> None:
        with self._telling("write", key):
            self._client.put_object(Bucket=self._bucket, Key=self._name(key), Body=data)

    def write_if(self, key: str, data: bytes, state: State | None) -> None:
        condition = {"IfNoneMatch": "*"} if state is None else {"IfMatch": state}
        with self._telling("write", key, conflicts=_CONFLICTS):
            self._client_without_retries.put_object(Bucket=self._bucket, Key=self._name(key), Body=data, **condition)

    def exists(self, key: str) -> bool:
        # Not `head_object`: its 404 cannot tell a missing key from a missing bucket.
        name = self._name(key)
        with self._telling("look for", key):
            answer = self._client.list_objects_v2(Bucket=self._bucket, Prefix=name, MaxKeys=1)
        return any(item["Key"] == name for item in answer.get("Contents", []))

    def list(self, prefix: str = "") -> list[str]:
        _checked_prefix(prefix)
        with self._telling("list", prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._prefix + prefix
            )
            names = [item["Key"] for page in pages for item in page.get("Contents", [])]
        keys = (name.removeprefix(self._prefix) for name in names)
        return sorted(key for key in keys if not any(part.startswith(".") for part in key.split("/")))

    def delete(self, key: str) -> None:
        with self._telling("delete", key):
            self._client.delete_object(Bucket=self._bucket, Key=self._name(key))

    def connect(self) -> None:
        with self._telling("reach", ""):
            self._client  # noqa: B018  # made by being asked for

    def path(self, key: str) -> str:
        return f"{self.root}/{_checked(key)}"

    def below(self, key: str) -> "Bucket":
        return Bucket(f"{self.root}/{_checked(key)}", self._endpoint)

    def _name(self, key: str) -> str:
        return self._prefix + _checked(key)

    @cached_property
    def _client(self) -> Any:
        return self._connect(attempts=4)

    @cached_property
    def _client_without_retries(self) -> Any:
        """For conditional writes: repeated after a lost answer, one would lose against itself."""
        return self._connect(attempts=1)

    def _connect(self, attempts: int) -> Any:
        import boto3  # noqa: PLC0415  # 0.4 s, and a local folder never needs it
        from botocore.config import Config  # noqa: PLC0415

        config = Config(
            connect_timeout=5, read_timeout=60, retries={"total_max_attempts": attempts, "mode": "standard"}
        )
        try:
            return boto3.session.Session().client("s3", endpoint_url=self._endpoint, config=config)
        except ValueError as error:
            raise StorageError(f"{self._endpoint!r} is not the address of an S3 endpoint") from error

    @contextmanager
    def _telling(self, action: str, key: str, conflicts: tuple[str, ...] = ()) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415  # as boto3 above

        try:
            yield
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code in conflicts:
                raise ConflictError(
                    f"{key} in {self.root} was changed by somebody else meanwhile; read it again"
                ) from error
            cause = S3_CAUSES.get(code, f"the store answered {code}")
            raise StorageError(f"cannot {action} {key!r} in {self.root}: {cause}") from error
        except BotoCoreError as error:
            # botocore's own sentences: "Unable to locate credentials", "Could not connect to ..."
            raise StorageError(f"cannot {action} {key!r} in {self.root}: {error}") from error


def _checked(key: str) -> str:
    parts = key.split("/")
    if any(not part or part.startswith(".") or not part.isprintable() or "\\" in part for part in parts):
        raise StorageError(
            f"{key!r} is not a storage key: its parts, between slashes, may not be empty, begin with a dot, "
            "or hold a backslash or control character"
        )
    return key


def _checked_prefix(prefix: str) -> str:
    """The prefix's folder part, "" for none."""
    folder, slash, _ = prefix.rpartition("/")
    return _checked(folder) if slash else ""


def _replace(file: Path, data: bytes) -> None:
    """Write beside the file, then rename: the new content is on the disk before the old is gone."""
    file.parent.mkdir(parents=True, exist_ok=True)
    _sweep(file.parent)
    temporary, descriptor = _temporary(file.parent)
    try:
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
            temporary.replace(file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(file.parent)


def _temporary(folder: Path) -> tuple[Path, int]:
    """A new file for its owner alone, locked for as long as it is open, so that nobody sweeps it away."""
    while True:
        place = folder / f".{secrets.token_hex(8)}{_TEMPORARY}"
        descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _PRIVATE)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:  # else it was swept away before it was locked
            return place, descriptor
        os.close(descriptor)


def _sweep(folder: Path) -> None:
    """Remove what a killed writer left: temporary files that nobody holds locked."""
    for place in folder.glob(f".*{_TEMPORARY}"):
        try:
            with place.open("rb") as handle:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                place.unlink(missing_ok=True)
        except (BlockingIOError, FileNotFoundError, PermissionError):
            continue  # being written, gone, or somebody else's


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _raise_unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _digest(data: bytes) -> State:
    return hashlib.sha256(data).hexdigest()
