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


def _drug(raw: str) -> Field:
    name = raw.replace("-", "_")
    text = f"Was {raw} prescribed, and was its dose changed during the stay."
    return Field(name, "category", text, DRUG_CODES, closed=True, example="No", raw=raw)


FIELDS: tuple[Field, ...] = (
    Field("encounter_id", "identifier", "The hospital stay. Never a feature.", required=False, minimum=1),
    Field("patient_nbr", "identifier", "The patient. Never a feature.", required=False, minimum=1),
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
        "How urgent the admission was: 1 emergency, 2 urgent, 3 elective, 4 newborn, 7 trauma, else not known.",
        tuple(range(1, 9)),
        example=1,
    ),
    Field(
        "discharge_disposition_id",
        "code",
        "Where the patient went: 1 home, 3 skilled nursing, 6 home health service, ... (IDs_mapping.csv).",
        tuple(range(1, 31)),
        example=1,
    ),
    Field(
        "admission_source_id",
        "code",
        "Where the patient came from: 1 physician referral, 7 emergency room, ... (IDs_mapping.csv).",
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
    Field("num_procedures", "count", "Procedures other than laboratory tests.", maximum=100, example=1),
    Field("num_medications", "count", "Distinct medications given.", maximum=300, example=15),
    Field("number_outpatient", "count", "Outpatient visits in the year before.", maximum=500, example=0),
    Field("number_emergency", "count", "Emergency visits in the year before.", maximum=500, example=0),
    Field("number_inpatient", "count", "Inpatient stays in the year before.", maximum=200, example=1),
    Field("diag_1", "diagnosis", "Primary diagnosis, ICD-9-CM.", nullable=True, example="428"),
    Field("diag_2", "diagnosis", "Secondary diagnosis, ICD-9-CM.", nullable=True, example="250.02"),
    Field("diag_3", "diagnosis", "Additional secondary diagnosis, ICD-9-CM.", nullable=True, example="V45"),
    Field("number_diagnoses", "count", "Diagnoses entered for the stay.", minimum=1, maximum=100, example=9),
    Field(
        "max_glu_serum",
        "category",
        "Highest glucose serum test; None: not measured.",
        ("None", "Norm", ">200", ">300"),
        closed=True,
        unit="mg/dL",
        example="None",
    ),
    Field(
        "A1Cresult",
        "category",
        "HbA1c; None: not measured.",
        ("None", "Norm", ">7", ">8"),
        closed=True,
        unit="%",
        example=">8",
    ),
    *(_drug(raw) for raw in DRUGS),
    Field("change", "category", "Was any diabetes medication changed.", ("No", "Ch"), closed=True, example="Ch"),
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
LONGEST_TEXT = 64  # characters that a text may have; the longest value of the dataset has 36
EXCLUDED_DISPOSITIONS = (11, 13, 14, 19, 20, 21)  # expired or hospice: no readmission to predict
