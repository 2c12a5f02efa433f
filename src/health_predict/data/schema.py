"""The schema of an encounter: every column of the dataset, its type, codes, range, unit and meaning.

Decoding, validation, tables and files, features, explanations, drift, invented data, the API's contract and
docs/fields.md derive from one table, `FIELDS`. Plain Python, so that the service can import it.

Source: Strack et al. 2014 (doi 10.1155/2014/781670), table 1, and `IDs_mapping.csv` of UCI dataset 296.
"""

from health_predict.data.field import Factor, Field, factors_of

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
    factor = "Insulin" if raw == "insulin" else "Other diabetes medication"
    return Field(name, "category", text, DRUG_CODES, closed=True, example="No", raw=raw, factor=factor)


# In the order of the explanation's answer where contributions are equal.
_FACTORS = (
    Factor("Hospital use in the year before"),
    Factor("Primary diagnosis"),
    Factor("Other diagnoses"),
    Factor("Discharge destination", can_be_influenced=True),
    Factor("Length of stay", can_be_influenced=True),
    Factor("Tests and procedures", can_be_influenced=True),
    Factor("Number of medications", can_be_influenced=True),
    Factor("Insulin", can_be_influenced=True),
    Factor("Other diabetes medication", can_be_influenced=True),
    Factor("Blood sugar control", can_be_influenced=True),
    Factor("Admission type and source"),
    Factor("Age"),
    Factor("Sex"),
    Factor("Race"),
    Factor("Weight"),
    Factor("Payer"),
    Factor("Specialty of the admitting physician"),
)


FIELDS: tuple[Field, ...] = (
    Field(
        "encounter_id",
        "identifier",
        "The hospital stay. Never a feature.",
        required=False,
        minimum=1,
        example=999_999_999,  # no patient's identifier: those of the dataset are below 450,000,000
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
        factor="Race",
    ),
    Field(
        "gender",
        "category",
        "Sex as recorded by the hospital.",
        ("Female", "Male", "Unknown/Invalid"),
        closed=True,
        example="Female",
        factor="Sex",
    ),
    Field("age", "category", "Age band, years.", AGE_BANDS, closed=True, unit="years", example="[70-80)", factor="Age"),
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
        factor="Weight",
        feature=False,
    ),
    Field(
        "admission_type_id",
        "code",
        f"How urgent the admission was: {_meanings(ADMISSION_TYPES)}.",
        tuple(range(1, 9)),
        example=1,
        factor="Admission type and source",
        administrative=True,
    ),
    Field(
        "discharge_disposition_id",
        "code",
        f"Where the patient went: {_meanings(DISPOSITIONS)}.",
        tuple(range(1, 31)),
        example=1,
        factor="Discharge destination",
    ),
    Field(
        "admission_source_id",
        "code",
        f"Where the patient came from: {_meanings(ADMISSION_SOURCES)}.",
        tuple(range(1, 27)),
        example=7,
        factor="Admission type and source",
        administrative=True,
    ),
    Field(
        "time_in_hospital",
        "count",
        "Length of stay.",
        minimum=1,
        maximum=365,
        published=14,
        unit="days",
        example=3,
        factor="Length of stay",
    ),
    Field(
        "payer_code",
        "category",
        "Who pays.",
        PAYERS,
        nullable=True,
        required=False,
        example="MC",
        factor="Payer",
        administrative=True,
    ),
    Field(
        "medical_specialty",
        "category",
        "Specialty of the admitting physician.",
        nullable=True,
        required=False,
        example="InternalMedicine",
        factor="Specialty of the admitting physician",
        administrative=True,
    ),
    Field(
        "num_lab_procedures",
        "count",
        "Laboratory tests during the stay.",
        maximum=1_000,
        published=132,
        unit="tests",
        example=44,
        factor="Tests and procedures",
    ),
    Field(
        "num_procedures",
        "count",
        "Procedures other than laboratory tests.",
        maximum=100,
        published=6,
        unit="procedures",
        example=1,
        factor="Tests and procedures",
    ),
    Field(
        "num_medications",
        "count",
        "Distinct medications given.",
        maximum=300,
        published=81,
        unit="medications",
        example=15,
        factor="Number of medications",
    ),
    Field(
        "number_outpatient",
        "count",
        "Outpatient visits in the year before.",
        maximum=500,
        published=42,
        unit="visits",
        example=0,
        factor="Hospital use in the year before",
    ),
    Field(
        "number_emergency",
        "count",
        "Emergency visits in the year before.",
        maximum=500,
        published=76,
        unit="visits",
        example=0,
        factor="Hospital use in the year before",
    ),
    Field(
        "number_inpatient",
        "count",
        "Inpatient stays in the year before.",
        maximum=200,
        published=21,
        unit="stays",
        example=1,
        factor="Hospital use in the year before",
    ),
    Field(
        "diag_1", "diagnosis", "Primary diagnosis, ICD-9-CM.", nullable=True, example="428", factor="Primary diagnosis"
    ),
    Field(
        "diag_2",
        "diagnosis",
        "Secondary diagnosis, ICD-9-CM.",
        nullable=True,
        example="250.02",
        factor="Other diagnoses",
    ),
    Field(
        "diag_3",
        "diagnosis",
        "Additional secondary diagnosis, ICD-9-CM.",
        nullable=True,
        example="V45",
        factor="Other diagnoses",
    ),
    Field(
        "number_diagnoses",
        "count",
        "Diagnoses entered for the stay.",
        minimum=1,
        maximum=100,
        published=16,
        unit="diagnoses",
        example=9,
        factor="Other diagnoses",
    ),
    Field(
        "max_glu_serum",
        "category",
        "Highest glucose in serum; None: not measured, Norm: normal, else above that value.",
        ("None", "Norm", ">200", ">300"),
        closed=True,
        unit="mg/dL",
        example="None",
        factor="Blood sugar control",
    ),
    Field(
        "A1Cresult",
        "category",
        "Glycated haemoglobin (HbA1c); None: not measured, Norm: normal, else above that value.",
        ("None", "Norm", ">7", ">8"),
        closed=True,
        unit="%",
        example=">8",
        factor="Blood sugar control",
    ),
    *(_drug(raw) for raw in DRUGS),
    Field(
        "change",
        "category",
        "Was any diabetes medication changed: Ch yes, No no.",
        ("No", "Ch"),
        closed=True,
        example="Ch",
        factor="Other diabetes medication",
    ),
    Field(
        "diabetesMed",
        "category",
        "Was any diabetes medication prescribed.",
        ("No", "Yes"),
        closed=True,
        example="Yes",
        factor="Other diabetes medication",
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

FACTORS = factors_of(FIELDS, _FACTORS)
FIELD = {field.name: field for field in FIELDS}
RAW_COLUMNS = tuple(field.raw_name for field in FIELDS)
IDENTIFIERS = tuple(field.name for field in FIELDS if field.kind == "identifier")
OUTCOME = "readmitted"
INPUTS = tuple(field for field in FIELDS if field.name != OUTCOME)
CLINICAL = tuple(field for field in FIELDS if field.is_clinical)
DIAGNOSES = tuple(field.name for field in FIELDS if field.kind == "diagnosis")
DISCHARGED_ON = "discharged_on"  # the day of discharge, where a file has it; no field, never a feature
MISSING = "?"  # in the raw file; "None" in max_glu_serum and A1Cresult is a value, not missing
MISSING_TEXTS = (MISSING, "")  # in files and requests, where a field may be missing
NOT_MEASURED = "None"
EXCLUDED_DISPOSITIONS = (11, 13, 14, 19, 20, 21)  # expired or hospice: no readmission to predict
TRANSFERRED = (2, 9, 27, 29)  # to another hospital for acute care, or back to inpatient care of the same
AGAINST_ADVICE = (7,)  # left the hospital against medical advice
