import csv
import io
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from health_predict.data.csv_lines import COMMA, TAB, Layout, layout, one_line_end, rows, without_blank_end
from health_predict.errors import DataError

THREE = Layout(("a", "b", "c"), COMMA)


def read(block: bytes, first_line: int = 2):
    return rows(block, THREE, first_line, "file.csv").rows()


@pytest.mark.parametrize(
    ("block", "found"),
    [
        (b"1,2,3\n4,5,6\n", [("1", "2", "3"), ("4", "5", "6")]),
        (b"1,2,3\n4,5,6", [("1", "2", "3"), ("4", "5", "6")]),
        (b",,\n1,,\n", [("", "", ""), ("1", "", "")]),
        (b'"1","2,2","3 ""x"""\n', [("1", "2,2", '3 "x"')]),
        (b'"",2,""\n', [("", "2", "")]),
        ("ä,2,3\n".encode(), [("ä", "2", "3")]),
    ],
)
def test_lines_become_rows(block, found):
    assert read(block) == found


@pytest.mark.parametrize(
    ("block", "says"),
    [
        (b"1,2,3\n1,2\n1,2,3\n", "line 3 has 2 fields"),
        (b"1,2,3\n1,2,3,4\n", "line 3 has 4 fields"),
        (b"1,2\n1,2,3,4\n", "line 2 has 2 fields, line 3 has 4 fields"),
        (b"1,2,3,4\n1,2\n", "line 2 has 4 fields, line 3 has 2 fields"),
        (b'1,2,"3\n1,2,3\n1,2,3"\n', "line 2 has a quote .*, line 4 has a quote"),
        (b'1,2,3"\n4,5,6"\n', "line 2 has a quote"),
        (b'1,2"2,3\n', "line 2 has a quote"),
        (b'1,"2"2,3\n', "line 2 has a quote"),
        (b'1,2,"3,4"\n1,"2,3"\n', "line 3 has 2 fields"),
        (b"1,2,3\n\n1,2,3\n", "line 3 is blank"),
        (b"1,2,3\n1,\xe9,3\n", "not UTF-8 text: line 3 .*Latin-1"),
        (b"1\n" * 9, "line 6 has 1 fields and 4 more"),
    ],
)
def test_a_line_that_does_not_have_the_headers_fields_is_refused_by_number(block, says):
    with pytest.raises(DataError, match=says):
        read(block)


TEXTS = st.text(st.sampled_from('ab ,"\t;é'), max_size=4)


@given(table=st.lists(st.lists(TEXTS, min_size=3, max_size=3), min_size=1, max_size=5), quoting=st.booleans())
def test_what_the_standard_library_writes_is_read_back(table, quoting):
    file = io.StringIO()
    csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL if quoting else csv.QUOTE_MINIMAL).writerows(table)
    assert read(file.getvalue().encode()) == [tuple(row) for row in table]


LINES = st.lists(st.text(st.sampled_from('a,"'), max_size=6), min_size=1, max_size=4)


@given(lines=LINES)
def test_no_line_is_ever_lost_or_filled_up(lines):
    try:
        found = read("\n".join([*lines, ""]).encode())
    except DataError:
        return
    assert found == [tuple(row) for row in csv.reader(lines)]


@pytest.mark.parametrize(
    ("header", "says"),
    [
        (b"a;b;c", "separated by semicolons"),
        (b"a\tb\tc", r"separated by tabs, not by commas: .*name it \.tsv"),
        ("a,b".encode("utf-16"), "UTF-16"),
        ("a,b".encode("utf-16-le"), "UTF-16"),
        (b"PK\x03\x04....", "spreadsheet"),
        (b"PAR1....", "Parquet"),
        (b"a,\xe9", "line 1 .*Latin-1"),
        (b'a,"b,c', "quote"),
    ],
)
def test_a_first_line_that_is_no_header_says_what_it_looks_like(header, says):
    with pytest.raises(DataError, match=says):
        layout(header, COMMA, "file.csv")


def test_a_header_may_have_quotes_spaces_and_a_byte_order_mark():
    assert layout(b'\xef\xbb\xbf"a", b ,"c,d"', COMMA, "file.csv").columns == ("a", "b", "c,d")
    assert layout(b"a\tb", TAB, "file.tsv").columns == ("a", "b")


def test_line_ends_are_one_and_blank_lines_at_the_end_are_counted():
    assert one_line_end(b"a\r\nb\rc\n") == b"a\nb\nc\n"
    assert without_blank_end(b"1,2\n\n , ,\n\t\n", COMMA) == (b"1,2\n", 3)
    assert without_blank_end(b"1,2", COMMA) == (b"1,2", 0)
    assert without_blank_end(b"\n\n", COMMA) == (b"", 2)
    assert without_blank_end(b"1,2\n,\n, ", COMMA) == (b"1,2\n", 2)
    assert without_blank_end(b"1, \n,", COMMA) == (b"1, \n", 1)
    assert without_blank_end(b"", COMMA) == (b"", 0)


def test_a_sheet_s_million_empty_lines_take_no_time():
    block = b"1,2\n" + b",\n" * 1_000_000
    began = time.process_time()
    assert without_blank_end(block, COMMA) == (b"1,2\n", 1_000_000)
    assert time.process_time() - began < 1
