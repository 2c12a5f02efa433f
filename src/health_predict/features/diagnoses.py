"""ICD-9-CM diagnosis codes: one canonical spelling, and the groups and conditions each code belongs to.

The dataset truncates every code but 250.xx to its three-digit category, so all tables here are finite tables of
categories, plus 250.00 to 250.93. Where a source defines a group or condition by longer codes, it gets a category if
those codes are most of the category; comments name the categories where that is a choice.

Sources:
- Strack et al., BioMed Research International 2014, 781670, table 2: the nine groups.
- AHRQ HCUP, Clinical Classifications Software (CCS) for ICD-9-CM, 2015: the numbers behind CCS_GROUPS.
- Quan et al., Medical Care 2005;43:1130, table 1 (Charlson) and table 2 (Elixhauser), "enhanced ICD-9-CM".
- Charlson et al., Journal of Chronic Diseases 1987;40:373, table 3: the weights.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from health_predict.data.schema import DIAGNOSES

MISSING, UNKNOWN = "missing", "unknown"


def _numbers(ranges: str) -> Iterator[int]:
    for part in ranges.split():
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


_SPELLING = re.compile(r"([0-9]{1,3}|V[0-9]{2}|E[0-9]{3})(?:\.([0-9]{1,2}))?")

# Codes that ICD-9-CM cannot have. Without its point, an ICD-10-CM code of E80 to E89 or of V looks like ICD-9-CM.
_ICD_10_ONLY = re.compile(
    r"(?:[A-DF-UW-Z][0-9][0-9A-Z]|E[0-7][0-9])(?:\.?[0-9A-Z]{1,4})?|E8[0-9]\.[0-9A-Z]{1,4}|V[0-9]{2}\.?[0-9A-Z]{3,4}"
)

# E800 to E899 may be ICD-10-CM (E871 is E87.1, hyponatremia), so only those found in the dataset count as codes.
_RECORDED_E = """
    812-819 821 822 825 826 828 829 849 850 852-855 858 861 864 865 868 870 876 878-888 890 892 894
"""

# 250 is always written with its two decimals: what kind of complication, then type and control.
CODES: tuple[str, ...] = (
    *(f"{number:03}" for number in range(1, 250)),
    *(f"250.{complication}{fifth}" for complication in range(10) for fifth in range(4)),
    *(f"{number:03}" for number in range(251, 1000)),
    *(f"E{number}" for number in (*_numbers(_RECORDED_E), *range(900, 1000))),
    *(f"V{number:02}" for number in range(1, 92)),
)
_KNOWN = frozenset(CODES)

# Strack et al. 2014, table 2. Every other code is "other".
STRACK_GROUPS: Mapping[str, str] = {
    "circulatory": "390-459 785",
    "respiratory": "460-519 786",
    "digestive": "520-579 787",
    "diabetes": "250",
    "injury": "800-999",
    "musculoskeletal": "710-739",
    "genitourinary": "580-629 788",
    "neoplasms": "140-239",
}

# Single-level CCS; the numbers in comments are CCS categories, several where they are rolled up into one group.
# Diabetes with complications (CCS 50) is divided as in the multi-level CCS (3.3.1 to 3.3.7).
CCS_GROUPS: Mapping[str, str] = {
    "tuberculosis": "010-019 137",  # 1
    "septicemia": "038 995",  # 2; 995 is also 253, but 995.9x (sepsis) is most of it in hospital
    "bacterial_infection": "020-037 039-041",  # 3
    "mycosis": "110-118",  # 4
    "hiv": "042-044 V08",  # 5
    "hepatitis": "070",  # 6
    "viral_infection": "045-069 071-079 138",  # 7
    "other_infection": "080-109 119-136 139",  # 8, 9
    "infection_contact_or_immunization": "V01-V07 V09",  # 10
    "cancer_head_neck": "140-149 160-161",  # 11
    "cancer_esophagus_stomach": "150-151",  # 12, 13
    "cancer_colorectal": "153-154",  # 14, 15
    "cancer_liver_pancreas": "155-157",  # 16, 17
    "cancer_other_digestive": "152 158-159",  # 18
    "cancer_lung": "162-163 165-169",  # 19, 20
    "cancer_bone_skin": "170-173 176-178",  # 21, 22, 23
    "cancer_breast": "174-175",  # 24
    "cancer_gynecological": "179-184",  # 25 to 28
    "cancer_male_genital": "185-187",  # 29, 30, 31
    "cancer_urinary": "188-189",  # 32, 33, 34
    "cancer_other": "164 190-195 209",  # 35, 36, 41
    "lymphoma_leukemia": "200-208",  # 37 to 40
    "cancer_secondary": "196-199",  # 42, 43
    "neoplasm_benign": "210-229",  # 46, 47
    "neoplasm_uncertain": "230-239",  # 44
    "thyroid": "240-246",  # 48
    "diabetes_uncomplicated": "250.00-250.01",  # 49
    "diabetes_uncontrolled": "250.02-250.03 250.10-250.33",  # 50 (3.3.1): ketoacidosis, coma, or uncontrolled
    "diabetes_renal": "250.40-250.43",  # 50 (3.3.2)
    "diabetes_eye": "250.50-250.53",  # 50 (3.3.3)
    "diabetes_neurological": "250.60-250.63",  # 50 (3.3.4)
    "diabetes_circulatory": "250.70-250.73",  # 50 (3.3.5)
    "diabetes_other_complication": "249 250.80-250.93",  # 50 (3.3.6, 3.3.7)
    "endocrine_other": "247-248 251-259",  # 51
    "nutritional_deficiency": "260-269 783",  # 52
    "lipid_metabolism": "272",  # 53
    "gout": "274 712",  # 54
    "fluid_electrolyte": "276",  # 55
    "obesity": "278 V85",  # part of 58
    "metabolic_other": "270-271 273 275 277 279",  # 56, 57, rest of 58
    "anemia": "280-285",  # 59, 60, 61
    "coagulation": "286-287",  # 62
    "blood_other": "288-289",  # 63, 64
    "dementia_delirium": "290 293-294 310 331 797",  # 653; 331 is also 95
    "alcohol": "291 303 980",  # 660
    "substance": "292 304-305",  # 661; 305 is also 660 and 663
    "psychosis": "295 297-298",  # 659
    "mood": "296 311",  # 657
    "anxiety_adjustment": "300 308-309",  # 650, 651
    "mental_other": "299 301-302 306-307 312-319",  # 652, 654, 655, 656, 658, 670
    "nervous_infection": "320-326",  # 76, 77, 78
    "nervous_degenerative": "330 332-335 340-341",  # 79, 80, 81
    "paralysis": "342-344",  # 82
    "epilepsy": "345",  # 83
    "headache": "339 346",  # 84
    "nerve_peripheral": "350-359",  # part of 95
    "nervous_other": "327-329 336-338 347-349 781 784",  # 85, rest of 95
    "retina": "361-362",  # 87
    "eye": "360 363-379",  # 86, 88 to 91
    "ear": "380-389",  # 92, 93, 94
    "heart_valve": "393-397 424",  # 96
    "myocardium": "390-392 420-423 425",  # 97
    "hypertension": "401",  # 98
    "hypertension_complicated": "402-405",  # 99
    "myocardial_infarction": "410",  # 100
    "coronary": "411-414",  # 101
    "pulmonary_heart": "415-419",  # 103
    "heart_other": "399-400 406-409 429",  # 104
    "conduction": "426",  # 105
    "dysrhythmia": "427",  # 106, 107
    "heart_failure": "398 428",  # 108; 398 for 398.91
    "stroke": "430-432 434 436",  # 109
    "precerebral_occlusion": "433",  # 110
    "transient_ischemia": "435",  # 112
    "cerebrovascular_other": "437-439",  # 111, 113
    "atherosclerosis": "440 443 557",  # 114
    "aneurysm": "441-442",  # 115
    "arterial_embolism": "444-445 449-450",  # 116
    "circulatory_other": "446-448 457-458",  # 117
    "thrombophlebitis": "451-453",  # 118
    "veins": "454-456 459",  # 119, 120, 121
    "pneumonia": "480-486",  # 122
    "influenza": "487-489",  # 123
    "bronchitis_acute": "466-469",  # 125
    "respiratory_upper": "460-465 470-479",  # 124, 126, 134
    "copd": "490-492 494 496-499",  # 127
    "asthma": "493",  # 128
    "aspiration": "507",  # 129
    "pleura": "509-512",  # 130
    "respiratory_failure": "518",  # 131; 518.0 is 130
    "lung_external_agent": "495 500-506 508",  # 132
    "respiratory_other": "513-517 519",  # 133
    "mouth": "520-529",  # 136, 137
    "esophagus": "530",  # 138
    "ulcer": "531-534",  # 139
    "stomach_other": "535-539",  # 140, 141
    "appendix": "540-549",  # 142
    "hernia": "550-554",  # 143
    "enteritis": "555-556",  # 144
    "gastroenteritis_noninfectious": "558-559",  # 154
    "intestinal_obstruction": "560-561",  # 145
    "diverticula": "562-563",  # 146
    "anorectal": "565-566",  # 147
    "peritonitis": "567",  # 148
    "gastrointestinal_other": "564 568-569 579",  # 155
    "liver": "570-573",  # 150, 151
    "biliary": "574-576",  # 149
    "pancreas": "577",  # 152
    "gastrointestinal_bleeding": "578",  # 153
    "intestinal_infection": "001-009",  # 135
    "nephritis": "580-583 587-589",  # 156
    "renal_failure_acute": "584 586",  # 157
    "kidney_chronic": "585 V56",  # 158
    "urinary_infection": "590 595 597 599",  # 159
    "urinary_stone": "592 594",  # 160
    "kidney_other": "591 593",  # 161
    "bladder_other": "596 598",  # 162
    "genitourinary_symptoms": "788",  # 163
    "prostate": "600-602",  # 164, part of 166
    "male_genital": "603-609",  # 165, 166
    "breast": "610-612",  # 167
    "female_genital": "613-629",  # 168 to 175
    "pregnancy": "630-679 V22-V28",  # 176 to 196
    "skin_infection": "680-689",  # 197
    "skin_inflammation": "690-699",  # 198
    "skin_ulcer": "707",  # 199
    "skin_other": "700-706 708-709 782",  # 200; 782 is also 259
    "bone_infection": "711 730",  # 201
    "rheumatic": "710 714 720",  # 202, 210
    "osteoarthritis": "715",  # 203
    "joint_other": "713 716-719",  # 204
    "back": "721-724",  # 205
    "soft_tissue": "725-729",  # 211
    "bone_other": "731-739",  # 206 to 209, 212
    "congenital": "740-759",  # 213 to 217
    "perinatal": "760-779 V20-V21 V29-V39",  # 218 to 224
    "general_symptoms": "780",  # 83, 93, 245, 246, 252
    "shock_gangrene": "785",  # 248, 249
    "chest_symptoms": "786",  # 102, 133
    "nausea_dysphagia": "787",  # 155, 250
    "abdominal_pain": "789",  # 251
    "findings_unspecific": "790-796 798-799",  # 259
    "fracture_skull_face": "800-804",  # 228
    "fracture_trunk": "805-809",  # 227, 231
    "fracture_arm": "810-819",  # 229
    "fracture_hip": "820",  # 226
    "fracture_leg": "821-829",  # 230
    "sprain_dislocation": "830-849",  # 225, 232
    "injury_intracranial": "850-859",  # 233
    "injury_internal_crush": "860-869 925-929",  # 234
    "open_wound": "870-899",  # 235, 236
    "injury_superficial": "910-924",  # 239
    "burn": "940-949",  # 240
    "poisoning": "960-979 981-989",  # 241, 242, 243
    "injury_other": "900-909 930-939 950-959 990-994",  # 244
    "device_complication": "996",  # 237
    "procedure_complication": "997-999",  # 238
    "history": "V10-V19",  # 259, 663
    "transplant_or_device": "V42-V46",  # 259 and the group of the organ
    "status_other": "V40-V41 V47-V49",  # 259
    "rehabilitation": "V57",  # 254
    "social": "V60-V65 V68-V69",  # 255
    "examination": "V70-V84 V86-V91",  # 256, 258
    "aftercare": "V50-V55 V58-V59 V66-V67",  # 45, 257
    "fall": "E880-E889",  # 2603
    "medical_misadventure": "E870-E879",  # 2616
    "adverse_drug_effect": "E930-E949",  # 2617
    "external_cause_other": "E800-E869 E890-E929 E950-E999",  # 2601 to 2621
}

# Quan et al. 2005, table 2 (Elixhauser). A code may belong to several. Left out, because other diseases are most of
# the category: 093 240 246 253 293 305 333 336 357 437 535 588 701 719 728 729 746 780 783 784 785 799 V45 V53 V65.
COMORBIDITIES: Mapping[str, str] = {
    "heart_failure": "398 425 428",  # 398.91; 402 and 404 with failure cannot be told from those without
    "arrhythmia": "426-427",
    "valvular_disease": "394-397 424",
    "pulmonary_circulation": "415-417",  # 416.8 and 416.9 stand under chronic lung disease as well in the source
    "peripheral_vascular": "440-441 443 447 557",
    "hypertension_uncomplicated": "401",
    "hypertension_complicated": "402-405",
    "paralysis": "342-344",
    "other_neurological": "332 334-335 340-341 345 348",
    "chronic_lung_disease": "490-505",
    "diabetes_uncomplicated": "250.00-250.33",
    "diabetes_complicated": "250.40-250.93",
    "hypothyroidism": "243-244",
    "renal_failure": "403-404 585-586 V42 V56",  # V42: the kidney is most of the transplanted organs
    "liver_disease": "070 456 570-573",
    "peptic_ulcer": "531-534",  # including bleeding ulcers
    "hiv": "042-044",
    "lymphoma": "200-203",
    "metastatic_cancer": "196-199",
    "solid_tumor": "140-172 174-195",
    "rheumatic_disease": "446 710 714 720 725",
    "coagulopathy": "286-287",
    "obesity": "278",
    "weight_loss": "260-263",
    "fluid_electrolyte": "276",
    "deficiency_anemia": "280-281",  # with blood loss anemia (280.0)
    "alcohol": "291 303 980",
    "drugs": "292 304",
    "psychosis": "295 297-298",
    "depression": "296 309 311",
}


@dataclass(frozen=True)
class CharlsonCondition:
    """One condition of the Charlson index. Of the conditions of one family, only the heaviest counts."""

    family: str
    weight: int
    codes: str


# Quan et al. 2005, table 1; weights of 1987. Adapted: dementia takes all of 294 and 331 (the source lists 294.1 and
# 331.2; Alzheimer's disease is coded 331.0 with 294.1 beside it, and only three diagnoses are recorded here).
CHARLSON: Mapping[str, CharlsonCondition] = {
    "myocardial_infarction": CharlsonCondition("myocardial_infarction", 1, "410 412"),
    "heart_failure": CharlsonCondition("heart_failure", 1, "398 425 428"),
    "peripheral_vascular": CharlsonCondition("peripheral_vascular", 1, "440-441 443 447 557"),
    "cerebrovascular": CharlsonCondition("cerebrovascular", 1, "430-438"),
    "dementia": CharlsonCondition("dementia", 1, "290 294 331"),
    "chronic_lung_disease": CharlsonCondition("chronic_lung_disease", 1, "490-505"),
    "rheumatic_disease": CharlsonCondition("rheumatic_disease", 1, "710 714 725"),
    "peptic_ulcer": CharlsonCondition("peptic_ulcer", 1, "531-534"),
    "liver_mild": CharlsonCondition("liver", 1, "070 570-571 573"),
    "liver_severe": CharlsonCondition("liver", 3, "456 572"),
    "diabetes": CharlsonCondition("diabetes", 1, "250.00-250.33 250.80-250.93"),
    "diabetes_complicated": CharlsonCondition("diabetes", 2, "250.40-250.73"),
    "paralysis": CharlsonCondition("paralysis", 2, "342-344"),
    "renal_disease": CharlsonCondition("renal_disease", 2, "403-404 582-583 585-586 V42 V56"),
    "cancer": CharlsonCondition("cancer", 2, "140-172 174-195 200-208"),
    "metastatic_cancer": CharlsonCondition("cancer", 6, "196-199"),
    "hiv": CharlsonCondition("hiv", 6, "042-044"),
}


@dataclass(frozen=True)
class Diagnosis:
    """Groups and conditions of one code; `category` is its three-digit ICD-9-CM category."""

    code: str
    category: str
    strack_group: str
    ccs_group: str
    comorbidities: tuple[str, ...] = ()
    diabetes: bool = False
    type_1: bool = False  # fifth digit of 250.xx: 1 or 3


def expand(ranges: str) -> Iterator[str]:
    """The canonical codes inside ranges written as "390-459 785", both ends included, in the order of CODES.

    >>> list(expand("249-250.01 V45"))
    ['249', '250.00', '250.01', 'V45']
    """
    for part in ranges.split():
        first, _, last = part.partition("-")
        last = last or first
        yield from (code for code in CODES if first <= code and code[: len(last)] <= last)


def normalise(code: str | None) -> str | None:
    """The canonical spelling of an ICD-9-CM code: one of CODES, "unknown" for any other text, None for None.

    Numbers may lack leading zeros ("8" is 008) and 250.xx trailing ones ("250" is 250.00, "250.8" is 250.80), as in
    the dataset. Decimals of all other codes are dropped; the decimal point is required. A code that may be ICD-10-CM is
    unknown (`settle` resolves more of them, from the other diagnoses).

    >>> [normalise(code) for code in ("8", "428.31", "250.8", "v45.81", "?", None)]
    ['008', '428', '250.80', 'V45', 'unknown', None]
    """
    if code is None or code in _KNOWN:
        return code
    spelling = _SPELLING.fullmatch(code.strip().upper())
    if spelling is None:
        return UNKNOWN
    category, decimals = spelling[1].zfill(3), spelling[2] or ""
    canonical = f"250.{decimals:0<2}" if category == "250" else category
    return canonical if canonical in _KNOWN else UNKNOWN


@lru_cache(maxsize=10_000)
def is_icd10(code: str | None) -> bool:
    """Whether the code can be ICD-10-CM and cannot be ICD-9-CM.

    >>> [is_icd10(code) for code in ("I50.23", "E1165", "E87.1", "E871", "V45", "428", None)]
    [True, True, True, False, False, False, False]
    """
    return code is not None and _ICD_10_ONLY.fullmatch(code.strip().upper()) is not None


def is_ambiguous(code: str | None) -> bool:
    """Whether the code begins with E or V, as codes of both ICD-9-CM and ICD-10-CM do."""
    return code is not None and code.strip()[:1].upper() in ("E", "V")


def settle(encounter: Mapping[str, Any], read: Collection[str] = DIAGNOSES) -> Mapping[str, Any]:
    """The encounter with "unknown" for diagnoses that may be ICD-10-CM: codes with E or V in front, if another
    diagnosis of the encounter can only be ICD-10-CM. Diagnoses that are not in `read` count for nothing.

    >>> settle({"diag_1": "I5023", "diag_2": "E878", "diag_3": "428"})
    {'diag_1': 'I5023', 'diag_2': 'unknown', 'diag_3': '428'}
    """
    codes = {field: encounter.get(field) for field in DIAGNOSES if field in read}
    if not any(map(is_icd10, codes.values())):
        return encounter
    return {**encounter, **{field: UNKNOWN for field, code in codes.items() if is_ambiguous(code)}}


def describe(code: str | None) -> Diagnosis:
    """Groups and conditions of a code in any spelling; None has the groups "missing", an invalid code "unknown"."""
    canonical = normalise(code) or MISSING
    return DIAGNOSIS.get(canonical) or Diagnosis(canonical, canonical, canonical, canonical)


@cache
def charlson_weights() -> Mapping[str, Mapping[str, int]]:
    """Weight of each code, by family of Charlson conditions.

    The index is the sum over families of the largest weight among the patient's codes.
    """
    weights: dict[str, dict[str, int]] = {}
    for condition in CHARLSON.values():
        weights.setdefault(condition.family, {}).update(dict.fromkeys(expand(condition.codes), condition.weight))
    return weights


def charlson_index(codes: Iterable[str | None]) -> int:
    """Charlson comorbidity index (0 or more) of one patient's codes, in any spelling; missing and unknown add 0.

    Each condition counts once, and of mild and severe forms (liver, diabetes, cancer) the severe one only.

    >>> charlson_index(["428", "250.40", "250.00", None])
    3
    """
    known = {normalise(code) for code in codes}
    return sum(
        max((weight for code, weight in family.items() if code in known), default=0)
        for family in charlson_weights().values()
    )


def _by_code(groups: Mapping[str, str]) -> dict[str, str]:
    return {code: group for group, ranges in groups.items() for code in expand(ranges)}


def _diagnoses() -> dict[str, Diagnosis]:
    strack, ccs = _by_code(STRACK_GROUPS), _by_code(CCS_GROUPS)
    conditions: dict[str, list[str]] = {}
    for condition, ranges in COMORBIDITIES.items():
        for code in expand(ranges):
            conditions.setdefault(code, []).append(condition)
    return {
        code: Diagnosis(
            code=code,
            category=code.partition(".")[0],
            strack_group=strack.get(code, "other"),
            ccs_group=ccs[code],
            comorbidities=tuple(conditions.get(code, ())),
            diabetes=code.startswith("250."),
            type_1=code.startswith("250.") and code[-1] in "13",
        )
        for code in CODES
    }


DIAGNOSIS: Mapping[str, Diagnosis] = _diagnoses()
