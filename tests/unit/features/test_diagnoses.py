"""Every code finds its place, from both ends of every range."""

from collections import Counter

import pytest

from health_predict.features.diagnoses import (
    CCS_GROUPS,
    CHARLSON,
    CODES,
    COMORBIDITIES,
    DIAGNOSIS,
    STRACK_GROUPS,
    charlson_index,
    charlson_weights,
    describe,
    expand,
    is_icd10,
    normalise,
    settle,
)


@pytest.mark.parametrize(
    ("spelling", "canonical"),
    [
        ("8", "008"),
        ("08", "008"),
        ("008", "008"),
        ("8.45", "008"),
        ("38", "038"),
        ("428", "428"),
        ("428.31", "428"),
        ("365.44", "365"),
        ("999.9", "999"),
        ("250", "250.00"),
        ("250.0", "250.00"),
        ("250.8", "250.80"),
        ("250.83", "250.83"),
        ("V45", "V45"),
        ("v45.81", "V45"),
        ("E849", "E849"),
        ("E849.0", "E849"),
        (" 428 ", "428"),
    ],
)
def test_every_spelling_has_one_canonical_code(spelling, canonical):
    assert normalise(spelling) == canonical
    assert normalise(canonical) == canonical


@pytest.mark.parametrize(
    "garbage",
    [
        "?",
        "0",
        "000",
        "1000",
        "42831",
        "250.04",
        "250.123",
        "428.",
        ".5",
        "-8",
        "4E2",
        "V00",
        "V92",
        "V4",
        "E799",
        "E871",
        "E1165",
        "E87.1",
        "V4581",
        "V4352XA",
        "E84",
        "I50.9",
        "unknown",
        "missing",
        "４２８",
    ],
)
def test_garbage_is_unknown(garbage):
    assert normalise("") == "unknown"
    assert normalise(garbage) == "unknown"
    assert describe(garbage).strack_group == describe(garbage).ccs_group == "unknown"
    assert charlson_index([garbage]) == 0


@pytest.mark.parametrize("code", ["E812", "E849", "E870", "E878", "E888", "E933", "V45", "V57", "V85"])
def test_the_codes_that_the_dataset_has_stay_codes(code):
    assert normalise(code) == code


@pytest.mark.parametrize("code", ["I50.23", "i5023", "E11", "E1165", "E119", "E87.1", "V4352XA", "Z9981", "C7A.1"])
def test_what_can_only_be_icd10_is_recognised(code):
    assert is_icd10(code)


@pytest.mark.parametrize("code", ["E871", "E878", "E8788", "E849.0", "V45", "V45.81", "V4581", "428", "I", "", None])
def test_what_may_be_icd9_or_nothing_is_not_taken_for_icd10(code):
    assert not is_icd10(code)


def test_beside_icd10_a_code_of_either_system_is_unknown_and_others_stay():
    assert settle({"diag_1": "I5023", "diag_2": "E878", "diag_3": "V45"}) == {
        "diag_1": "I5023",
        "diag_2": "unknown",
        "diag_3": "unknown",
    }
    ours = {"diag_1": "428", "diag_2": "E878", "diag_3": None}
    assert settle(ours) is ours


def test_a_diagnosis_that_is_not_read_decides_nothing_about_the_others():
    encounter = {"diag_1": "I5023", "diag_2": "E878"}
    assert settle(encounter, ["diag_2", "diag_3"]) is encounter


def test_missing_stays_apart_from_unknown():
    assert normalise(None) is None
    assert describe(None).ccs_group == describe(None).category == "missing"
    assert charlson_index([None, None]) == 0
    assert charlson_index([]) == 0


def test_every_code_is_described_by_itself():
    recorded = sum(code.startswith("E8") for code in CODES)
    assert len(set(CODES)) == len(CODES) == 998 + 40 + recorded + 100 + 91
    assert list(DIAGNOSIS) == list(CODES)
    assert all(normalise(code) == code == DIAGNOSIS[code].code for code in CODES)
    assert {DIAGNOSIS[code].strack_group for code in CODES} == {*STRACK_GROUPS, "other"}
    assert {DIAGNOSIS[code].ccs_group for code in CODES} == set(CCS_GROUPS)


@pytest.mark.parametrize("table", [STRACK_GROUPS, CCS_GROUPS], ids=["strack", "ccs"])
def test_groups_do_not_overlap(table):
    counts = Counter(code for ranges in table.values() for code in expand(ranges))
    assert [code for code, count in counts.items() if count > 1] == []


def test_conditions_of_one_charlson_family_do_not_overlap():
    counts = Counter((c.family, code) for c in CHARLSON.values() for code in expand(c.codes))
    assert [code for code, count in counts.items() if count > 1] == []


@pytest.mark.parametrize(
    ("attribute", "table"), [("strack_group", STRACK_GROUPS), ("ccs_group", CCS_GROUPS)], ids=["strack", "ccs"]
)
def test_both_ends_of_every_range_are_in_their_group(attribute, table):
    for group, ranges in table.items():
        for part in ranges.split():
            for end in part.split("-"):
                assert getattr(describe(end), attribute) in (group, "unknown" if end.startswith("E8") else group), end


def test_both_ends_of_every_range_have_their_condition():
    for condition, ranges in COMORBIDITIES.items():
        for end in ranges.replace("-", " ").split():
            assert condition in describe(end).comorbidities, end
    for condition in CHARLSON.values():
        for end in condition.codes.replace("-", " ").split():
            assert charlson_index([end]) >= condition.weight, end


@pytest.mark.parametrize(
    ("inside", "outside", "group"),
    [
        ("390", "389", "circulatory"),
        ("459", "460", "circulatory"),
        ("785", "784", "circulatory"),
        ("460", "459", "respiratory"),
        ("519", "520", "respiratory"),
        ("786", "787", "respiratory"),
        ("520", "519", "digestive"),
        ("579", "580", "digestive"),
        ("787", "788", "digestive"),
        ("250.00", "249", "diabetes"),
        ("250.93", "251", "diabetes"),
        ("800", "799", "injury"),
        ("999", "E812", "injury"),
        ("710", "709", "musculoskeletal"),
        ("739", "740", "musculoskeletal"),
        ("580", "579", "genitourinary"),
        ("629", "630", "genitourinary"),
        ("788", "789", "genitourinary"),
        ("140", "139", "neoplasms"),
        ("239", "240", "neoplasms"),
        ("001", "390", "other"),
        ("V01", "410", "other"),
        ("V91", "410", "other"),
        ("E812", "999", "other"),
        ("E999", "999", "other"),
    ],
)
def test_the_nine_groups_end_where_the_publication_says(inside, outside, group):
    assert describe(inside).strack_group == group
    assert describe(outside).strack_group != group


@pytest.mark.parametrize(
    ("code", "group"),
    [
        ("250.01", "diabetes_uncomplicated"),
        ("250.02", "diabetes_uncontrolled"),
        ("250.33", "diabetes_uncontrolled"),
        ("250.6", "diabetes_neurological"),
        ("410", "myocardial_infarction"),
        ("428.0", "heart_failure"),
        ("486", "pneumonia"),
        ("491", "copd"),
        ("584.9", "renal_failure_acute"),
        ("996", "device_complication"),
        ("V57", "rehabilitation"),
        ("V08", "hiv"),
        ("E932", "adverse_drug_effect"),
    ],
)
def test_frequent_diagnoses_are_in_their_clinical_group(code, group):
    assert describe(code).ccs_group == group


@pytest.mark.parametrize(
    ("code", "diabetes", "type_1"),
    [
        ("250.01", True, True),
        ("250.83", True, True),
        ("250.02", True, False),
        ("250", True, False),
        ("251", False, False),
        (None, False, False),
        ("?", False, False),
    ],
)
def test_type_1_is_the_fifth_digit(code, diabetes, type_1):
    assert (describe(code).diabetes, describe(code).type_1) == (diabetes, type_1)


@pytest.mark.parametrize(
    ("codes", "index"),
    [
        (["410", "412"], 1),  # one condition, once
        (["410", "428"], 2),
        (["571", "572"], 3),  # severe liver disease replaces mild
        (["250.0", "250.6"], 2),  # complicated diabetes replaces uncomplicated
        (["153", "197"], 6),  # metastatic cancer replaces cancer
        (["173"], 0),  # skin cancer other than melanoma does not count
        (["585", "250.4", "428.0"], 5),
        (["401", "V45", "E849"], 0),
    ],
)
def test_charlson_index(codes, index):
    assert charlson_index(codes) == index
    assert charlson_index(reversed(codes)) == index


def test_charlson_has_seventeen_conditions_of_known_weight():
    assert len(CHARLSON) == 17
    assert len(charlson_weights()) == 14
    assert {condition.weight for condition in CHARLSON.values()} == {1, 2, 3, 6}
