"""What one encounter is: every column of the dataset, its type, codes, range and meaning.

One table, `FIELDS`, that everything derives from: decoding, validation, the Parquet schema, the synthetic
data, and the API's input model. Plain Python, so that the service can import it.

Source: Strack et al. 2014 (doi 10.1155/2014/781670), table 1, and `IDs_mapping.csv` of UCI dataset 296.
"""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["identifier", "category", "code", "count", "diagnosis", "outcome"]


@dataclass(frozen=True)
class Field:
    """One column.

    `name` is written with underscores, `raw_name` as in the dataset. A `code` is a small whole number that
    names a thing. `codes` are the known values; where `closed` is true another value means nothing and is
    refused, elsewhere it is scored as unknown. `minimum` and `maximum` bound a count: values beyond `maximum`
    are refused, as nobody's stay.
    """

    name: str
    kind: Kind
    description: str
    codes: tuple[str | int, ...] = ()
    closed: bool = False
    nullable: bool = False
    required: bool = True  # in a request to the API
    minimum: int = 0
    maximum: int = 0
    unit: str = ""
    example: str | int | None = None
    raw: str = ""

    @property
    def meaning(self) -> tuple[object, ...]:
        """What decides which values it may have: all but prose."""
        return (
            self.name, self.raw_name, self.kind, self.codes, self.closed, self.nullable, self.required, self.minimum,
            self.maximum,
        )  # fmt: skip

    @property
    def raw_name(self) -> str:
        return self.raw or self.name

    @property
    def is_whole_number(self) -> bool:
        return self.kind in ("identifier", "code", "count")


AGE_BANDS = tuple(f"[{low}-{low + 10})" for low in range(0, 100, 10))
WEIGHT_BANDS = (*(f"[{low}-{low + 25})" for low in range(0, 200, 25)), ">200")
DRUG_CODES = ("No", "Steady", "Up", "Down")
DRUGS = (
    "metformin",
    "repaglinide",
    "nateglinide",
    "chlorpropamide",
    "glimepiride",
    "acetohexamide",
    "glipizide",
    "glyburide",
    "tolbutamide",
    "pioglitazone",
    "rosiglitazone",
    "acarbose",
    "miglitol",
    "troglitazone",
    "tolazamide",
    "examide",
    "citoglipton",
    "insulin",
    "glyburide-metformin",
    "glipizide-metformin",
    "glimepiride-pioglitazone",
    "metformin-rosiglitazone",
    "metformin-pioglitazone",
)
PAYERS = ("BC", "CH", "CM", "CP", "DM", "FR", "HM", "MC", "MD", "MP", "OG", "OT", "PO", "SI", "SP", "UN", "WC")
DIAGNOSES = ("diag_1", "diag_2", "diag_3")

# IDs_mapping.csv, in our words.
_NOT_KNOWN = "not known"
ADMISSION_TYPES = {
    1: "emergency", 2: "urgent", 3: "elective", 4: "newborn", 5: _NOT_KNOWN, 6: _NOT_KNOWN, 7: "trauma centre",
    8: _NOT_KNOWN,
}  # fmt: skip
DISPOSITIONS = {
    1: "home",
    2: "another short-term hospital",
    3: "skilled nursing facility",
    4: "intermediate care facility",
    5: "inpatient care of another kind",
    6: "home with home health service",
    7: "left against medical advice",
    8: "home with intravenous therapy",
    9: "admitted to this hospital as an inpatient",
    10: "another hospital for newborn aftercare",
    11: "died",
    12: "still a patient, or to return as an outpatient",
    13: "hospice at home",
    14: "hospice in a facility",
    15: "swing bed in this hospital",
    16: "outpatient services elsewhere",
    17: "outpatient services of this hospital",
    18: _NOT_KNOWN,
    19: "died at home, hospice",
    20: "died in a facility, hospice",
    21: "died, place not known, hospice",
    22: "rehabilitation",
    23: "long-term care hospital",
    24: "nursing facility of Medicaid only",
    25: _NOT_KNOWN,
    26: _NOT_KNOWN,
    27: "federal facility",
    28: "psychiatric hospital or unit",
    29: "critical access hospital",
    30: "another institution not listed here",
}
ADMISSION_SOURCES = {
    1: "referral by a physician",
    2: "referral by a clinic",
    3: "referral by a health maintenance organisation",
    4: "another hospital",
    5: "skilled nursing facility",
    6: "another health care facility",
    7: "emergency room",
    8: "court or law enforcement",
    9: _NOT_KNOWN,
    10: "critical access hospital",
    11: "normal delivery",
    12: "premature delivery",
    13: "sick newborn",
    14: "born on the way",
    15: _NOT_KNOWN,
    17: _NOT_KNOWN,
    18: "another home health agency",
    19: "readmission to the same home health agency",
    20: _NOT_KNOWN,
    21: _NOT_KNOWN,
    22: "this hospital, as an inpatient, billed apart",
    23: "born in this hospital",
    24: "born outside this hospital",
    25: "ambulatory surgery",
    26: "hospice",
}


def _meanings(table: dict[int, str]) -> str:
    return ", ".join(f"{code} {meaning}" for code, meaning in table.items())


def _drug(raw: str) -> Field:
    name = raw.replace("-", "_")
    text = f"{raw.capitalize()} during the stay; No: not prescribed, else what happened to its dose."
    return Field(name, "category", text, DRUG_CODES, closed=True, example="No", raw=raw)


FIELDS: tuple[Field, ...] = (
    Field(
        "encounter_id",
        "identifier",
        "The hospital stay. Never a feature.",
        required=False,
        minimum=1,
        example=999_999_999,  # nobody's: those of the dataset end below 450,000,000
    ),
    Field(
        "patient_nbr",
        "identifier",
        "The patient. Never a feature.",
        required=False,
        minimum=1,
        example=999_999_999,
    ),
    Field(
        "race",
        "category",
        "Race as recorded by the hospital.",
        ("AfricanAmerican", "Asian", "Caucasian", "Hispanic", "Other"),
        nullable=True,
        example="Caucasian",
    ),
    Field(
        "gender",
        "category",
        "Sex as recorded by the hospital.",
        ("Female", "Male", "Unknown/Invalid"),
        closed=True,
        example="Female",
    ),
    Field("age", "category", "Age band, years.", AGE_BANDS, closed=True, unit="years", example="[70-80)"),
    Field(
        "weight",
        "category",
        "Weight band, pounds; recorded for 3% of encounters.",
        WEIGHT_BANDS,
        closed=True,
        nullable=True,
        required=False,
        unit="pounds",
        example="[75-100)",
    ),
    Field(
        "admission_type_id",
        "code",
        f"How urgent the admission was: {_meanings(ADMISSION_TYPES)}.",
        tuple(range(1, 9)),
        example=1,
    ),
    Field(
        "discharge_disposition_id",
        "code",
        f"Where the patient went: {_meanings(DISPOSITIONS)}.",
        tuple(range(1, 31)),
        example=1,
    ),
    Field(
        "admission_source_id",
        "code",
        f"Where the patient came from: {_meanings(ADMISSION_SOURCES)}.",
        tuple(range(1, 27)),
        example=7,
    ),
    Field("time_in_hospital", "count", "Length of stay.", minimum=1, maximum=365, unit="days", example=3),
    Field("payer_code", "category", "Who pays.", PAYERS, nullable=True, required=False, example="MC"),
    Field(
        "medical_specialty",
        "category",
        "Specialty of the admitting physician.",
        nullable=True,
        required=False,
        example="InternalMedicine",
    ),
    Field("num_lab_procedures", "count", "Laboratory tests during the stay.", maximum=1_000, unit="tests", example=44),
    Field(
        "num_procedures", "count", "Procedures other than laboratory tests.", maximum=100, unit="procedures", example=1
    ),
    Field("num_medications", "count", "Distinct medications given.", maximum=300, unit="medications", example=15),
    Field("number_outpatient", "count", "Outpatient visits in the year before.", maximum=500, unit="visits", example=0),
    Field("number_emergency", "count", "Emergency visits in the year before.", maximum=500, unit="visits", example=0),
    Field("number_inpatient", "count", "Inpatient stays in the year before.", maximum=200, unit="stays", example=1),
    Field("diag_1", "diagnosis", "Primary diagnosis, ICD-9-CM.", nullable=True, example="428"),
    Field("diag_2", "diagnosis", "Secondary diagnosis, ICD-9-CM.", nullable=True, example="250.02"),
    Field("diag_3", "diagnosis", "Additional secondary diagnosis, ICD-9-CM.", nullable=True, example="V45"),
    Field(
        "number_diagnoses",
        "count",
        "Diagnoses entered for the stay.",
        minimum=1,
        maximum=100,
        unit="diagnoses",
        example=9,
    ),
    Field(
        "max_glu_serum",
        "category",
        "Highest glucose in serum; None: not measured, Norm: normal, else above that value.",
        ("None", "Norm", ">200", ">300"),
        closed=True,
        unit="mg/dL",
        example="None",
    ),
    Field(
        "A1Cresult",
        "category",
        "Glycated haemoglobin (HbA1c); None: not measured, Norm: normal, else above that value.",
        ("None", "Norm", ">7", ">8"),
        closed=True,
        unit="%",
        example=">8",
    ),
    *(_drug(raw) for raw in DRUGS),
    Field(
        "change",
        "category",
        "Was any diabetes medication changed: Ch yes, No no.",
        ("No", "Ch"),
        closed=True,
        example="Ch",
    ),
    Field(
        "diabetesMed", "category", "Was any diabetes medication prescribed.", ("No", "Yes"), closed=True, example="Yes"
    ),
    Field(
        "readmitted",
        "outcome",
        "Readmission: within 30 days, later, or none recorded.",
        ("<30", ">30", "NO"),
        closed=True,
        required=False,
    ),
)

FIELD = {field.name: field for field in FIELDS}
RAW_COLUMNS = tuple(field.raw_name for field in FIELDS)
IDENTIFIERS = tuple(field.name for field in FIELDS if field.kind == "identifier")
OUTCOME = "readmitted"
CLINICAL = tuple(field for field in FIELDS if field.kind not in ("identifier", "outcome"))
MISSING = "?"  # in the raw file; "None" in max_glu_serum and A1Cresult is a value, not missing
NOT_MEASURED = "None"
LONGEST_TEXT = 64  # characters that a text may have; the longest value of the dataset has 36
EXCLUDED_DISPOSITIONS = (11, 13, 14, 19, 20, 21)  # expired or hospice: no readmission to predict
