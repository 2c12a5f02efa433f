"""Objects of S3 as files to be read piece by piece, and what is below a prefix."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from health_predict.errors import StorageError
from health_predict.store.storage import S3_CAUSES

_BLOCK = 8 * 2**20  # bytes asked for at a time
_ABSENT = ("404", "NoSuchKey", "NotFound")


def split_address(address: str) -> tuple[str, str]:
    """Bucket and key of `s3://bucket/key`."""
    bucket, _, key = address.removeprefix("s3://").partition("/")
    if not bucket:
        raise StorageError(f"{address} names no bucket; give s3://bucket/key")
    return bucket, key


class Objects:
    """Objects of S3, by their addresses. `endpoint` is an S3-compatible address other than AWS."""

    def __init__(self, endpoint: str | None):
        import boto3  # noqa: PLC0415  # .4 s, and a local file never needs it
        from botocore.config import Config  # noqa: PLC0415

        config = Config(connect_timeout=5, read_timeout=60, retries={"total_max_attempts": 4, "mode": "standard"})
        try:
            self._client = boto3.session.Session().client("s3", endpoint_url=endpoint, config=config)
        except ValueError as error:
            raise StorageError("the endpoint is not the address of an S3 store") from error

    def size(self, address: str) -> int | None:
        """Bytes of the object; None where there is none under exactly this key."""
        bucket, key = split_address(address)
        with _telling("read", address):
            # Not `head_object`: its 404 cannot tell a missing key from a missing bucket.
            answer = self._client.list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1) if key else {}
        return next((item["Size"] for item in answer.get("Contents", []) if item["Key"] == key), None)

    def below(self, address: str) -> list[str]:
        """Keys, in order, below the address as a folder, without the address."""
        bucket, key = split_address(address)
        prefix = f"{key.rstrip('/')}/" if key else ""
        with _telling("listed", address):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
            names = [item["Key"] for page in pages for item in page.get("Contents", [])]
        return sorted(name.removeprefix(prefix) for name in names if not name.endswith("/"))

    def open(self, address: str) -> io.BufferedReader:
        """The object, to be read from any place; StorageError where it was replaced meanwhile."""
        return io.BufferedReader(_Object(self._client, address), _BLOCK)

    def upload(self, file: Path, address: str) -> None:
        """Put a file's content under the address, as a whole or not at all."""
        from boto3.exceptions import S3UploadFailedError  # noqa: PLC0415

        bucket, key = split_address(address)
        with _telling("written", address):
            try:
                self._client.upload_file(str(file), bucket, key)
            except S3UploadFailedError as error:
                raise (error.__context__ or error) from None  # the client's own error says why


class _Object(io.RawIOBase):
    def __init__(self, client: Any, address: str):
        self._client, self._address = client, address
        self._bucket, self._key = split_address(address)
        with _telling("read", address):
            head = client.head_object(Bucket=self._bucket, Key=self._key)
        self._size, self._tag, self._place = head["ContentLength"], head["ETag"], 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = max(0, offset + (0, self._place, self._size)[whence])
        return self._place

    def readinto(self, buffer: Any) -> int:
        last = min(self._place + len(buffer), self._size) - 1
        if last < self._place:
            return 0
        with _telling("read", self._address):
            answer = self._client.get_object(
                Bucket=self._bucket, Key=self._key, Range=f"bytes={self._place}-{last}", IfMatch=self._tag
            )
            data = answer["Body"].read()
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)


@contextmanager
def _telling(done: str, address: str) -> Iterator[None]:
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415  # as boto3 above

    try:
        yield
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if code in _ABSENT:
            raise StorageError(f"{address} does not exist") from error
        replaced = code in ("PreconditionFailed", "412")
        cause = "it was replaced meanwhile" if replaced else S3_CAUSES.get(code, f"the store answered {code}")
        raise StorageError(f"{address} cannot be {done}: {cause}") from error
    except BotoCoreError as error:
        # botocore's own sentences: "Unable to locate credentials", "Could not connect to ..."
        raise StorageError(f"{address} cannot be {done}: {error}") from error
