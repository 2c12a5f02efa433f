"""Visibly invented data for tests: patient numbers begin with 9 and exist nowhere."""

import io
import zipfile

import polars as pl

from health_predict.data.decode import encode
from health_predict.data.synthetic import generate


def encounters(n: int = 200, seed: int = 1) -> pl.DataFrame:
    """Typed encounters in file order, returning patients included."""
    return generate(n, seed)


def raw_csv(table: pl.DataFrame | None = None) -> bytes:
    """The table as the dataset's CSV; without one, 200 encounters."""
    return encode(encounters() if table is None else table)


def zipped(**files: bytes) -> bytes:
    """A zip of CSV files; `__` in a name is a folder: `a__diabetic_data` is a/diabetic_data.csv."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "/") + ".csv", content)
    return file.getvalue()
