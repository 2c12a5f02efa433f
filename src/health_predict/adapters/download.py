"""Reads the dataset from UCI, a mirror, a local file, or a bucket."""

import gzip
import hashlib
import io
import time
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from health_predict.errors import DataError, StorageError
from health_predict.store.places import is_remote, shown
from health_predict.store.storage import open_storage

if TYPE_CHECKING:
    import httpx

Progress = Callable[[int, int | None], None]  # bytes received, bytes in all if known

CSV_NAME = "diabetic_data.csv"
# SHA-256 of that file in the zip that UCI published, with line ends as \n.
PUBLISHED_SHA256 = "da21942c25a10a51a8842907ab01a8530b06232616b17d317441d592a20c4359"
UCI_HOST = "archive.ics.uci.edu"
WAYS_OUT = (
    "Without the download there are two ways on: give the dataset's zip or CSV, local or s3://, with "
    "`health-predict data fetch --from FILE` or HEALTH_PREDICT_RAW_DATA; or see everything work on invented "
    "patients with `health-predict demo --synthetic`."
)
_BUSY = 429


@dataclass
class _Partial:
    """The bytes received so far of one version of the file; `version` is the server's name for it, "" if none."""

    data: bytearray = field(default_factory=bytearray)
    version: str = ""


def fetch_dataset(url: str, progress: Progress, attempts: int = 4, pause: float = 0.5) -> bytes:
    """Content of the file at the address.

    A broken download is resumed where it broke if the server can resume the same version of the file, and otherwise
    restarted, after `pause` seconds that double each time. Raises StorageError, with the ways to go on without a
    download, after `attempts` attempts, or at once when the server refuses.
    """
    import httpx  # noqa: PLC0415  # only this function needs it

    partial = _Partial()
    with httpx.Client(follow_redirects=True, timeout=httpx.Timeout(30, connect=10)) as client:
        for attempt in range(1, attempts + 1):
            try:
                _receive(client, url, partial, progress)
                return bytes(partial.data)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                if attempt == attempts or not _may_pass(error):
                    raise StorageError(f"cannot download {url}: {error or type(error).__name__}. {WAYS_OUT}") from error
            time.sleep(pause * 2 ** (attempt - 1))
    raise ValueError("attempts must be at least 1")


def read_source(source: str) -> bytes:
    """Content of the file at a local path or `s3://` address, taken literally, not as a pattern. Raises StorageError
    when it cannot be read.
    """
    if is_remote(source):
        root, _, name = source.rpartition("/")
        return open_storage(root).read(name)
    try:
        return Path(source).expanduser().read_bytes()
    except OSError as error:
        said = "it is a folder" if isinstance(error, IsADirectoryError) else error.strerror or type(error).__name__
        raise StorageError(f"{shown(source)} cannot be read: {said}") from error


def extract_csv(content: bytes) -> bytes:
    """The dataset's CSV: `content`, unpacked where it is gzip, or `diabetic_data.csv` from any folder of a zip.

    Raises DataError when the content is cut short, damaged, encrypted, or a zip without that file.
    """
    if content.startswith(b"\x1f\x8b"):
        try:
            return gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError("the gzip file is cut short or damaged; get it again") from error
    if not content.startswith(b"PK"):
        return content
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = [name for name in archive.namelist() if name.rpartition("/")[2] == CSV_NAME]
            if len(names) != 1:
                raise DataError(f"the zip has {len(names)} files named {CSV_NAME}, not one; is it another dataset?")
            return archive.read(names[0])
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DataError("the zip is cut short or damaged; get it again") from error
    except (RuntimeError, NotImplementedError) as error:
        raise DataError("the zip is encrypted or packed in a way that cannot be read; unpack it first") from error


def fingerprint(csv: bytes) -> str:
    r"""SHA-256 of the CSV with line ends as \n: the same for a file with the line ends of a Mac or Windows."""
    return hashlib.sha256(csv.replace(b"\r\n", b"\n")).hexdigest()


def _receive(client: "httpx.Client", url: str, partial: _Partial, progress: Progress) -> None:
    """Add to the bytes received until the file is complete; raises httpx.HTTPError when the download breaks before."""
    headers = {"Accept-Encoding": "identity"}
    if partial.data and partial.version:
        headers |= {"Range": f"bytes={len(partial.data)}-", "If-Range": partial.version}
    with client.stream("GET", url, headers=headers) as response:
        response.raise_for_status()
        resumed = response.headers.get("Content-Range", "").startswith(f"bytes {len(partial.data)}-")
        if not resumed:
            partial.data.clear()
        partial.version = _version(response)
        length = response.headers.get("Content-Length")
        total = len(partial.data) + int(length) if length else None
        for chunk in response.iter_raw():
            partial.data.extend(chunk)
            progress(len(partial.data), total)


def _version(response: "httpx.Response") -> str:
    etag = response.headers.get("ETag", "")
    return "" if etag.startswith("W/") else etag or response.headers.get("Last-Modified", "")


def _may_pass(error: Exception) -> bool:
    """Whether another attempt can succeed after this error."""
    import httpx  # noqa: PLC0415

    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code >= 500 or error.response.status_code == _BUSY
    return isinstance(error, httpx.TransportError) and not isinstance(error, httpx.UnsupportedProtocol)
