"""`health-predict data fetch`: copies the dataset into the store."""

from dataclasses import asdict, dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from health_predict.adapters.download import (
    PUBLISHED_SHA256,
    UCI_HOST,
    Progress,
    extract_csv,
    fetch_dataset,
    fingerprint,
    read_source,
)
from health_predict.data.decode import decode, encode
from health_predict.data.schema import DISCHARGED_ON
from health_predict.errors import DataError
from health_predict.params import SEED
from health_predict.simulation.synthetic import generate
from health_predict.store import layout
from health_predict.store.addresses import without_secrets
from health_predict.store.manifests import publish, unaltered
from health_predict.store.storage import Storage


@dataclass(frozen=True)
class Fetched:
    """`sha256` of the CSV with line ends as \\n; `published`: whether the CSV is the one that UCI published.

    `discharge_column` is the CSV's name for the day of discharge; None: the CSV has no such column.
    """

    key: str
    sha256: str
    rows: int
    published: bool
    synthetic: bool
    skipped: bool = False
    discharge_column: str | None = None


def fetch(
    storage: Storage,
    source: str | None,
    url: str,
    synthetic_rows: int | None,
    progress: Progress,
    discharge_column: str = DISCHARGED_ON,
) -> Fetched:
    """Store `synthetic_rows` invented encounters, else the file at `source`, else a download from `url`.

    Skipped when the same data are stored unaltered; a download from the same address is then not repeated. Raises
    StorageError when the file cannot be read, DataError when it is not the dataset; then nothing is written.
    """
    downloads = source is None and synthetic_rows is None
    present = unaltered(storage, layout.RAW_MANIFEST)
    if present and downloads and _is_what_comes_from(url, present):
        return Fetched(**{**present["result"], "skipped": True})
    content = _obtain(source, url, synthetic_rows, progress)
    fetched = _described(content, discharge_column, synthetic=synthetic_rows is not None)
    if downloads and _is_uci(url) and not fetched.published:
        raise DataError(f"{url} gave another file than the one published: SHA-256 {fetched.sha256}")
    origin = without_secrets(url) if downloads else "synthetic" if fetched.synthetic else "file"
    inputs = {"origin": origin, "layout": layout.NUMBER}
    if present and present["inputs"] == inputs and Fetched(**present["result"]) == fetched:
        return replace(fetched, skipped=True)
    publish(
        storage,
        layout.RAW_MANIFEST,
        inputs=inputs,
        files={fetched.key: content},
        result=asdict(fetched),
        replaces=layout.RAW,
    )
    return fetched


def _obtain(source: str | None, url: str, synthetic_rows: int | None, progress: Progress) -> bytes:
    if synthetic_rows is not None:
        return encode(generate(synthetic_rows, SEED))
    return read_source(source) if source else fetch_dataset(url, progress)


def _described(content: bytes, discharge_column: str, synthetic: bool) -> Fetched:
    csv = extract_csv(content)
    digest = fingerprint(csv)
    key = layout.raw_data("csv" if csv is content else "zip")
    rows = decode(csv, discharge_column)
    dated = discharge_column if DISCHARGED_ON in rows.columns else None
    return Fetched(key, digest, rows.height, digest == PUBLISHED_SHA256, synthetic, discharge_column=dated)


def _is_uci(url: str) -> bool:
    return urlsplit(url).hostname == UCI_HOST


def _is_what_comes_from(url: str, present: Any) -> bool:
    return bool(
        present["inputs"]["origin"] == without_secrets(url) or (_is_uci(url) and present["result"]["published"])
    )
