"""Invented encounters, for tests and where the dataset is unavailable.

They have the dataset's schema, roughly its marginal distributions, returning patients, and readmissions that depend on
the fields about as weakly as real ones. No row comes from a patient: the shares below are frequencies of single values
in the dataset, rounded by hand, and columns are drawn independently except for the few dependencies written out in
`generate`. A field without a line in `generate` takes any value that its rule allows.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from numpy.random import Generator
from numpy.typing import NDArray

from health_predict.data.field import Field
from health_predict.data.schema import AGE_BANDS, DRUG_CODES, DRUGS, EXCLUDED_DISPOSITIONS, FIELDS
from health_predict.data.validation import DTYPES

Shares = Mapping[str | int | None, float]

FIRST_PATIENT = 900_000_001  # above every patient_nbr of the dataset, so that invented patients are recognisable
RETURNING_SHARE = 0.31  # share of rows with a patient of an earlier row

RACE: Shares = {
    "Caucasian": 0.75, "AfricanAmerican": 0.19, None: 0.02, "Hispanic": 0.02, "Other": 0.015, "Asian": 0.005,
}  # fmt: skip
GENDER: Shares = {"Female": 0.54, "Male": 0.46}
AGE: Shares = dict(zip(AGE_BANDS, (0.002, 0.007, 0.016, 0.04, 0.095, 0.17, 0.22, 0.255, 0.17, 0.025), strict=True))
WEIGHT: Shares = {None: 0.97, "[75-100)": 0.014, "[50-75)": 0.009, "[100-125)": 0.006, ">200": 0.001}
ADMISSION_TYPE: Shares = {1: 0.53, 3: 0.19, 2: 0.18, 6: 0.05, 5: 0.047, 8: 0.003}
DISPOSITION: Shares = {
    1: 0.59, 3: 0.14, 6: 0.13, 18: 0.035, 2: 0.02, 22: 0.02, 11: 0.016, 5: 0.012, 25: 0.01, 4: 0.008, 7: 0.006,
    13: 0.004, 14: 0.004, 23: 0.004, 28: 0.001,
}  # fmt: skip
ADMISSION_SOURCE: Shares = {7: 0.565, 1: 0.29, 17: 0.065, 4: 0.03, 6: 0.02, 2: 0.01, 5: 0.01, 20: 0.01}
PAYER: Shares = {
    None: 0.40, "MC": 0.32, "HM": 0.06, "SP": 0.05, "BC": 0.045, "MD": 0.035, "CP": 0.025, "UN": 0.025, "CM": 0.02,
    "OG": 0.01, "PO": 0.005, "DM": 0.005,
}  # fmt: skip
SPECIALTY: Shares = {
    None: 0.49, "InternalMedicine": 0.145, "Emergency/Trauma": 0.075, "Family/GeneralPractice": 0.075,
    "Cardiology": 0.055, "Surgery-General": 0.03, "Nephrology": 0.02, "Orthopedics": 0.015, "Radiologist": 0.01,
    "Pulmonology": 0.01, "Psychiatry": 0.01, "Urology": 0.01, "Oncology": 0.005, "Surgery-Neuro": 0.005,
}  # fmt: skip
DIAGNOSIS: Shares = {
    "428": 0.07, "414": 0.065, "276": 0.05, "250": 0.05, "427": 0.045, "401": 0.045, "786": 0.04, "410": 0.035,
    "486": 0.035, "599": 0.03, "496": 0.03, "403": 0.025, "250.02": 0.025, "491": 0.025, "715": 0.02, "682": 0.02,
    "434": 0.02, "780": 0.02, "996": 0.02, "584": 0.02, "585": 0.02, "38": 0.02, "250.6": 0.015, "250.8": 0.015,
    "707": 0.015, "518": 0.015, "V57": 0.01, "V45": 0.01, "E888": 0.005, "285": 0.015, "272": 0.015, "425": 0.01,
    "820": 0.01, "577": 0.01, "574": 0.01, "197": 0.01, "162": 0.005, "295": 0.01, "250.13": 0.01,
}  # fmt: skip
GLUCOSE: Shares = {"None": 0.95, "Norm": 0.025, ">200": 0.015, ">300": 0.01}
HBA1C: Shares = {"None": 0.835, ">8": 0.08, "Norm": 0.05, ">7": 0.035}
PRESCRIBED = {  # share of encounters with the drug; the rest of the 23 drugs are next to never given
    "insulin": 0.53, "metformin": 0.20, "glipizide": 0.125, "glyburide": 0.105, "pioglitazone": 0.07,
    "rosiglitazone": 0.06, "glimepiride": 0.05, "repaglinide": 0.015, "nateglinide": 0.007,
    "glyburide-metformin": 0.007, "acarbose": 0.003,
}  # fmt: skip
DOSES = {"insulin": (0.57, 0.21, 0.22)}  # shares of those prescribed: steady, up, down
OTHER_DOSES = (0.90, 0.06, 0.04)

# Log-odds of a readmission.
PER_INPATIENT_STAY, PER_EMERGENCY_VISIT, PER_DIAGNOSIS, PER_DAY, PER_DECADE = 0.42, 0.15, 0.06, 0.03, 0.05
OF_DISPOSITION = {22: 1.4, 28: 1.4, 5: 0.9, 2: 0.7, 3: 0.5, 6: 0.3}
OF_DIAGNOSIS = {
    "428": 0.45, "585": 0.5, "584": 0.4, "403": 0.45, "491": 0.4, "V57": 0.9, "197": 0.8, "295": 0.5, "715": -0.6,
}  # fmt: skip
OF_INSULIN_CHANGED, OF_METFORMIN, UNEXPLAINED = 0.15, -0.25, 0.25
WITHIN_30_DAYS, LATER = 0.115, 0.355  # shares of those discharged alive


def generate(rows: int, seed: int) -> pl.DataFrame:
    """Invented typed encounters (DTYPES), encounter_id ascending; the same arguments give the same table.

    About a third of the rows are a patient's later encounters, with the same race and gender. Of the patients
    discharged alive about 11% are readmitted within 30 days and 35% later; a good model reaches an AUROC of about
    .66 to .70 on the former.
    """
    rng = np.random.default_rng(seed)
    patient = _patients(rows, rng)
    frailty = rng.gamma(0.7, 1.4, rows)[patient]  # one value per patient
    columns: dict[str, NDArray[Any]] = {
        "encounter_id": np.cumsum(rng.integers(1, 1 + max(1, min(4_000, 290_000_000 // max(rows, 1))), rows)),
        "patient_nbr": FIRST_PATIENT + patient,
        "race": _draw(RACE, rows, rng)[patient],
        "gender": _draw(GENDER, rows, rng)[patient],
        "age": _draw(AGE, rows, rng)[patient],
        "weight": _draw(WEIGHT, rows, rng),
        "admission_type_id": _draw(ADMISSION_TYPE, rows, rng),
        "discharge_disposition_id": _draw(DISPOSITION, rows, rng),
        "admission_source_id": _draw(ADMISSION_SOURCE, rows, rng),
        "time_in_hospital": np.clip(1 + rng.gamma(1.6, 2.2, rows), 1, 14).astype(int),
        "payer_code": _draw(PAYER, rows, rng),
        "medical_specialty": _draw(SPECIALTY, rows, rng),
        "num_lab_procedures": np.clip(rng.normal(43, 19.5, rows), 1, 132).astype(int),
        "num_procedures": np.clip(rng.geometric(0.43, rows) - 1, 0, 6),
        "num_medications": np.clip(rng.gamma(3.9, 4.1, rows), 1, 81).astype(int),
        "number_outpatient": np.clip(rng.poisson(rng.gamma(0.15, 2.4, rows)), 0, 42),
        "number_emergency": np.clip(rng.poisson(0.2 * frailty * rng.gamma(0.5, 2.0, rows)), 0, 76),
        "number_inpatient": np.clip(rng.poisson(0.65 * frailty), 0, 21),
        **{f"diag_{position}": _draw(DIAGNOSIS, rows, rng) for position in (1, 2, 3)},
        "number_diagnoses": np.clip(10 - rng.geometric(0.38, rows), 1, 9),
        "max_glu_serum": _draw(GLUCOSE, rows, rng),
        "A1Cresult": _draw(HBA1C, rows, rng),
        **{drug.replace("-", "_"): _draw(_doses(drug), rows, rng) for drug in DRUGS},
    }
    drugs = np.column_stack([columns[drug.replace("-", "_")] for drug in DRUGS])
    dose_changed = np.isin(drugs, ("Up", "Down")).any(axis=1)
    columns["change"] = np.where(dose_changed | (rng.random(rows) < 0.28), "Ch", "No")
    columns["diabetesMed"] = np.where((drugs != "No").any(axis=1), "Yes", "No")
    columns["readmitted"] = _readmissions(columns, rng)
    columns |= {field.name: _any_of(field, rows, rng) for field in FIELDS if field.name not in columns}
    return pl.DataFrame({name: pl.Series(columns[name].tolist(), dtype=dtype) for name, dtype in DTYPES.items()})


def _patients(rows: int, rng: Generator) -> NDArray[np.int64]:
    """Patient of each row, shape (rows,), as the number of the patient's first row."""
    row = np.arange(rows)
    earlier = np.minimum((rng.random(rows) * row).astype(int), np.maximum(row - 1, 0))
    patient = np.where(rng.random(rows) < RETURNING_SHARE, earlier, row)
    while not np.array_equal(patient, patient[patient]):
        patient = patient[patient]
    return patient


def _draw(shares: Shares, rows: int, rng: Generator) -> NDArray[Any]:
    values = np.array(list(shares), dtype=object)
    edges = np.cumsum(list(shares.values()))
    drawn: NDArray[Any] = values[np.searchsorted(edges, rng.random(rows) * edges[-1], side="right")]
    return drawn


def _any_of(field: Field, rows: int, rng: Generator) -> NDArray[Any]:
    """Values that the field may have, all equally likely; a tenth is missing where the field may be missing."""
    if field.is_quantity:
        drawn = rng.uniform(field.minimum, field.largest, rows).round(0 if field.step == 0 else 2)
    else:
        drawn = rng.choice(np.array(field.codes or (field.example,), dtype=object), rows)
    values: NDArray[Any] = drawn.astype(field.type).astype(object)
    values[rng.random(rows) < (0.1 if field.nullable else 0)] = None
    return values


def _doses(drug: str) -> Shares:
    given = PRESCRIBED.get(drug, 0.0003)
    doses = (given * share for share in DOSES.get(drug, OTHER_DOSES))
    return dict(zip(DRUG_CODES, (1 - given, *doses), strict=True))


def _readmissions(columns: Mapping[str, NDArray[Any]], rng: Generator) -> NDArray[Any]:
    score = (
        PER_INPATIENT_STAY * np.minimum(columns["number_inpatient"], 6)
        + PER_EMERGENCY_VISIT * np.minimum(columns["number_emergency"], 6)
        + PER_DIAGNOSIS * columns["number_diagnoses"]
        + PER_DAY * columns["time_in_hospital"]
        + PER_DECADE * _look_up(columns["age"], {band: float(decade) for decade, band in enumerate(AGE_BANDS)})
        + _look_up(columns["discharge_disposition_id"], OF_DISPOSITION)
        + sum(_look_up(columns[f"diag_{position}"], OF_DIAGNOSIS) for position in (1, 2, 3))
        + OF_INSULIN_CHANGED * np.isin(columns["insulin"], ("Up", "Down"))
        + OF_METFORMIN * (columns["metformin"] != "No")
        + UNEXPLAINED * rng.standard_normal(len(columns["age"]))
        + rng.logistic(size=len(columns["age"]))
    )
    alive = ~np.isin(columns["discharge_disposition_id"], EXCLUDED_DISPOSITIONS)
    if not alive.any():
        return np.full(len(alive), "NO", dtype=object)
    later, within = np.quantile(score[alive], (1 - WITHIN_30_DAYS - LATER, 1 - WITHIN_30_DAYS))
    readmitted = np.where(score > within, "<30", np.where(score > later, ">30", "NO"))
    return np.where(alive, readmitted, "NO").astype(object)


def _look_up(values: NDArray[Any], table: Mapping[str, float] | Mapping[int, float]) -> NDArray[np.float64]:
    found, position = np.unique(values.astype(str), return_inverse=True)
    weights = {str(value): weight for value, weight in table.items()}
    return np.array([weights.get(value, 0.0) for value in found])[position]
