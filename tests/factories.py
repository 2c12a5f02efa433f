"""Visibly invented data for tests: patient numbers begin with 9 and exist nowhere."""

import io
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from health_predict.data.decode import encode
from health_predict.features.encoder import Encoder
from health_predict.features.row_encoder import RowEncoder
from health_predict.simulation.synthetic import generate


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


def vectors(encoder: Encoder, encounters: Sequence[Mapping[str, Any]]) -> NDArray[np.float32]:
    """The model's input for encounters encoded one at a time, shape (encounters, outputs)."""
    row_encoder = RowEncoder(encoder)
    return encoder.finish(np.array([row_encoder.encode(encounter)[0] for encounter in encounters]))
