"""Files as people have them: each is scored as what it is with every line accounted for, or refused by name."""

import gzip
import io
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import factories
from health_predict.bundle.model import load_bundle
from health_predict.data.cohort import select_cohort
from health_predict.errors import DataError, StorageError
from health_predict.steps.model.predict import predict
from health_predict.store.encounter_files import open_encounters
from health_predict.store.received import read_file, read_outcomes
from health_predict.store.score_files import private_folder
from serving.support import export_bundle
from stores import environment_of

ENCOUNTERS = select_cohort(factories.encounters(60, seed=78))
OTHERS = select_cohort(factories.encounters(90, seed=79))
LINES = factories.raw_csv(ENCOUNTERS).splitlines()


@pytest.fixture(scope="module")
def bundle_folder(tmp_path_factory):
    return export_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def bundle(bundle_folder):
    return load_bundle(bundle_folder)


def silent(_done, _total):
    pass


def parquet(table: pl.DataFrame) -> bytes:
    file = io.BytesIO()
    table.write_parquet(file)
    return file.getvalue()


def numbers(source: str, endpoint: str | None = None) -> list[int]:
    """Identifiers of what is read."""
    return read_file(source, endpoint)["encounter_id"].to_list()


CSV, IDS = factories.raw_csv(ENCOUNTERS), ENCOUNTERS["encounter_id"].to_list()
NAMES = ["risk[2]", "risk?", "risk*", "risk%202", "{a,b}", "with space", "ü"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_name_is_that_file_and_no_pattern(storage, s3_endpoint, name, suffix):
    write = factories.raw_csv if suffix == "csv" else parquet
    for other in ("risk2", "riskX", "risk 2", "a", "b"):
        storage.write(f"{other}.{suffix}", write(OTHERS))
    storage.write(f"{name}.{suffix}", write(ENCOUNTERS))
    assert numbers(storage.path(f"{name}.{suffix}"), s3_endpoint) == IDS


@pytest.mark.parametrize("name", NAMES)
def test_a_folders_name_is_that_folder(storage, s3_endpoint, name):
    storage.write("risk2/part-0.csv", factories.raw_csv(OTHERS))
    storage.write(f"{name}/part-0.csv", CSV)
    assert numbers(storage.path(name), s3_endpoint) == IDS


def test_what_is_not_there_is_not_looked_for_as_a_pattern(storage, s3_endpoint):
    storage.write("risk2.csv", CSV)
    with pytest.raises(StorageError, match=r"risk\[2\]\.csv does not exist"):
        open_encounters(storage.path("risk[2].csv"), s3_endpoint)


def test_a_name_that_is_not_utf8_is_read(bundle, tmp_path):
    source = os.fsdecode(os.fsencode(tmp_path) + b"/donn\xe9es.csv")
    Path(source).write_bytes(CSV)
    target = os.fsdecode(os.fsencode(tmp_path) + b"/r\xe9sultats.csv")
    assert predict(bundle, source, target, silent).target.endswith("r\ufffdsultats.csv")
    assert Path(target).exists()


def lines(change: dict[int, bytes]) -> bytes:
    """The file with other lines, by number."""
    return b"\n".join(change.get(number, line) for number, line in enumerate(LINES, 1)) + b"\n"


def short(number: int, fields: int) -> bytes:
    return LINES[number - 1].rsplit(b",", fields)[0]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (lines({4: short(4, 1)}), "line 4 has 49 fields"),
        (lines({4: short(4, 2), 9: LINES[8] + b",No"}), "line 4 has 48 fields, line 9 has 51 fields"),
        (lines({5: short(5, 1), 6: LINES[5] + b",5"}), "line 5 has 49 fields, line 6 has 51"),
        (CSV[: CSV.rstrip().rindex(b",")], f"line {len(LINES)} has 49 fields"),
        (CSV[: CSV.rstrip().rindex(b",") + 1], "ends inside its last line"),
        (lines({3: b',"'.join(LINES[2].rsplit(b",", 1))}), "line 3 has a quote"),
        (lines({7: b',x"x,'.join(LINES[6].split(b",None,", 1))}), "line 7 has a quote"),
        (lines({8: b""}), "line 8 is blank"),
        (lines({8: b"\xe9" + LINES[7]}), "not UTF-8 text: line 8 .*Latin-1"),
        (CSV.replace(b",", b";"), "separated by semicolons"),
        (CSV.replace(b",", b"\t"), r"separated by tabs.*\.tsv"),
        (CSV.decode().encode("utf-16"), "UTF-16"),
        (CSV.split(b"\n", 1)[1], "Does it begin with a header"),
        (b"," + CSV.replace(b"\n", b"\n1,")[:-2], r"unknown column: `` \(an index column\? write the file without it"),
        (b"", "is empty"),
        (gzip.compress(CSV), r"gzip; name it \.csv\.gz"),
        (parquet(ENCOUNTERS), "Parquet file"),
    ],
)  # fmt: skip
def test_a_file_with_a_line_that_is_not_whole_is_refused_by_line_and_never_scored(tmp_path, bundle, content, says):
    source = tmp_path / "in.csv"
    source.write_bytes(content)
    with pytest.raises(DataError, match=says) as refused:
        predict(bundle, str(source), str(tmp_path / "out.csv"), silent)
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]
    assert str(IDS[3]) not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "blank"),
    [
        (CSV, 0),
        (CSV.rstrip(b"\n"), 0),
        (CSV.replace(b"\n", b"\r\n"), 0),
        (CSV.replace(b"\n", b"\r"), 0),
        (b"\xef\xbb\xbf" + CSV, 0),
        (CSV + b"\n\n  \n", 3),
        (CSV + b"," * 49 + b"\n", 1),
        (CSV.replace(b"Caucasian", b'"Caucasian"'), 0),
        (b"\n".join(b'"' + line.replace(b",", b'","') + b'"' for line in LINES), 0),
    ],
    ids=["as it is", "no last line end", "crlf", "cr", "mark", "blank end", "empty cells", "quotes", "all quoted"],
)  # fmt: skip
def test_the_same_lines_written_differently_are_all_scored_and_counted(tmp_path, bundle, content, blank):
    (tmp_path / "in.csv").write_bytes(content)
    report = predict(bundle, str(tmp_path / "in.csv"), str(tmp_path / "out.csv"), silent)
    found = pl.read_csv(tmp_path / "out.csv")
    assert found["encounter_id"].to_list() == IDS
    assert found["probability_score"].to_list() == bundle.predict_proba(ENCOUNTERS).tolist()
    assert (report.lines, report.rows, report.refused, report.blank_lines) == (len(IDS), len(IDS), 0, blank)
    assert any("no line end" in warning for warning in report.warnings) == (not content.endswith((b"\n", b"\r")))


def test_lines_are_counted_across_blocks(tmp_path, monkeypatch, bundle):
    monkeypatch.setattr("health_predict.store.table_files._BLOCK", 1_000)
    for content in (CSV, CSV.replace(b"\n", b"\r\n")):
        (tmp_path / "in.csv").write_bytes(content + b"\n\n")
        report = predict(bundle, str(tmp_path / "in.csv"), str(tmp_path / "out.csv"), silent)
        assert (report.lines, report.blank_lines) == (len(IDS), 2)
        assert pl.read_csv(tmp_path / "out.csv")["encounter_id"].to_list() == IDS
    (tmp_path / "in.csv").write_bytes(lines({50: short(50, 1)}))
    with pytest.raises(DataError, match="line 50 has 49"):
        open_and_read(tmp_path / "in.csv")
    (tmp_path / "in.csv").write_bytes(lines({50: b""}))
    with pytest.raises(DataError, match="line 50 is blank"):
        open_and_read(tmp_path / "in.csv")


def open_and_read(path) -> int:
    return sum(batch.encounters.height for batch in open_encounters(str(path)).batches(1_000))


@pytest.mark.parametrize("seed", range(60))
def test_parquet_with_flipped_bits_is_refused_or_read_whole(tmp_path, seed):
    source, rng = tmp_path / "in.parquet", np.random.default_rng(seed)
    content = bytearray(parquet(ENCOUNTERS))
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    for position in rng.integers(footer if seed % 2 else 4, len(content), rng.choice([1, 3, 30])):
        content[position] ^= 1 << int(rng.integers(8))
    source.write_bytes(content)
    try:
        assert open_and_read(source) == len(IDS)
    except DataError as refused:
        assert refused.__cause__ is None


def test_parquet_whose_pages_do_not_have_their_checksum_is_refused(tmp_path):
    source = tmp_path / "in.parquet"
    pq.write_table(ENCOUNTERS.to_arrow(), source, compression="none", write_page_checksum=True)
    assert open_and_read(source) == len(IDS)
    content = source.read_bytes()
    assert b"Caucasian" in content
    source.write_bytes(content.replace(b"Caucasian", b"Caucasiam", 1))
    with pytest.raises(DataError, match="cannot be read to its end"):
        open_and_read(source)


def test_parquet_with_texts_that_are_not_utf_8_is_refused(tmp_path):
    source, table = tmp_path / "in.parquet", ENCOUNTERS.to_arrow()
    texts = pa.array([b"\xff"] * len(IDS)).view(pa.string())
    pq.write_table(table.set_column(table.column_names.index("medical_specialty"), "medical_specialty", texts), source)
    with pytest.raises(DataError, match="cannot be read to its end"):
        open_and_read(source)


def test_decimals_of_more_digits_than_are_read_are_named(tmp_path):
    source, table = tmp_path / "in.parquet", ENCOUNTERS.to_arrow()
    position = table.column_names.index("time_in_hospital")
    for kind in (pa.decimal128(38, 9), pa.decimal256(76, 38)):
        days = table.column(position).cast(pa.int64()).cast(kind)
        pq.write_table(table.set_column(position, "time_in_hospital", days), source)
        if kind.bit_width == 128:
            assert open_and_read(source) == len(IDS)
    with pytest.raises(DataError, match="time_in_hospital holds a type that is not read, not a whole number from"):
        open_and_read(source)


@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "tsv", "tsv.gz", "CSV"])
def test_text_of_every_kind_is_read_and_written(storage, s3_endpoint, bundle, suffix):
    text = CSV.replace(b",", b"\t") if "tsv" in suffix else CSV
    storage.write(f"in.{suffix}", gzip.compress(text) if suffix.endswith("gz") else text)
    predict(bundle, storage.path(f"in.{suffix}"), storage.path(f"out.{suffix}"), silent, s3_endpoint)
    written = storage.read(f"out.{suffix}")
    written = gzip.decompress(written) if suffix.endswith("gz") else written
    found = pl.read_csv(io.BytesIO(written), separator="\t" if "tsv" in suffix else ",")
    assert found["encounter_id"].to_list() == IDS


def test_gzip_that_was_cut_is_refused(tmp_path):
    (tmp_path / "in.csv.gz").write_bytes(gzip.compress(CSV)[:-30])
    with pytest.raises(DataError, match="cut short"):
        open_and_read(tmp_path / "in.csv.gz")


HALF = len(IDS) // 2
FIRST, SECOND = ENCOUNTERS[:HALF], ENCOUNTERS[HALF:]


@pytest.mark.parametrize("suffix", ["csv", "parquet", "snappy.parquet", "csv.gz"])
def test_what_spark_writes_is_one_file(storage, s3_endpoint, bundle, suffix):
    write = parquet if suffix.endswith("parquet") else factories.raw_csv
    for number, table in enumerate((FIRST, SECOND)):
        content = write(table)
        storage.write(
            f"out.dir/part-{number:05}-c000.{suffix}", gzip.compress(content) if suffix == "csv.gz" else content
        )
    if suffix == "csv":
        storage.write("out.dir/part-00002-c000.csv", b"")
    storage.write("out.dir/_SUCCESS", b"")
    report = predict(bundle, storage.path("out.dir"), storage.path("scores.csv"), silent, s3_endpoint)
    assert pl.read_csv(io.BytesIO(storage.read("scores.csv")))["encounter_id"].to_list() == IDS
    assert report.lines == report.rows == len(IDS)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_partitioned_folder_is_one_file(storage, s3_endpoint, suffix):
    for (age,), table in ENCOUNTERS.group_by("age", maintain_order=True):
        content = parquet(table.drop("age")) if suffix == "parquet" else without(factories.raw_csv(table), "age")
        storage.write(f"year=2024/age={str(age).replace('[', '%5B')}/part-0.{suffix}", content)
    found = read_file(storage.root, s3_endpoint).sort("encounter_id")
    assert found["encounter_id"].to_list() == sorted(IDS)
    assert found["age"].to_list() == ENCOUNTERS.sort("encounter_id")["age"].to_list()


def without(content: bytes, name: str) -> bytes:
    return pl.read_csv(content, infer_schema=False).drop(name).write_csv().encode()


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        (["part-0.csv", "other.txt"], "neither .csv"),
        (["part-0.csv", "deep/part-1.csv"], "field=value"),
        (["_temporary/0/part-0.csv", "part-0.csv"], "still being written"),
        (["_SUCCESS"], "without files"),
    ],
)
def test_a_folder_of_something_else_is_refused(storage, s3_endpoint, keys, says):
    for key in keys:
        storage.write(f"out/{key}", CSV)
    with pytest.raises(DataError, match=says):
        open_encounters(storage.path("out"), s3_endpoint)


@pytest.mark.parametrize("how", ["same", "hard link", "symbolic link", "relative", "in its folder"])
def test_what_is_read_is_never_written_to(tmp_path, bundle, monkeypatch, how):
    monkeypatch.chdir(tmp_path)
    source, target = tmp_path / "in" / "in.csv", tmp_path / "out.csv"
    source.parent.mkdir()
    source.write_bytes(CSV)
    if how == "hard link":
        target.hardlink_to(source)
    elif how == "symbolic link":
        target.symlink_to(source)
    places = {"same": source, "relative": "./in/../in/in.csv", "in its folder": source.parent / "scores.csv"}
    read = source.parent if how == "in its folder" else source
    with pytest.raises(DataError, match="give another file for the scores"):
        predict(bundle, str(read), str(places.get(how, target)), silent)
    assert source.read_bytes() == CSV


def test_the_same_object_is_never_written_to(bundle, s3_root, s3_endpoint):
    with pytest.raises(DataError, match="give another file for the scores"):
        predict(bundle, f"{s3_root}/in.csv", f"{s3_root}/in.csv", silent, s3_endpoint)


def test_scores_and_what_is_unfinished_are_for_their_owner_alone(tmp_path, bundle):
    (tmp_path / "in.csv").write_bytes(CSV)
    (tmp_path / "out.csv").write_text("old, and readable by everyone")
    modes = []

    def look(_done, _total):
        (folder,) = tmp_path.glob(".health-predict-*")
        modes.extend([stat.S_IMODE(folder.stat().st_mode), stat.S_IMODE((folder / "scores").stat().st_mode)])

    predict(bundle, str(tmp_path / "in.csv"), str(tmp_path / "out.csv"), look)
    assert modes == [0o700, 0o600]
    assert stat.S_IMODE((tmp_path / "out.csv").stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "out.csv"]


ENDED = """
import os, sys
from health_predict.store.score_files import ScoreWriter
from health_predict.steps.model import predict
from health_predict.cli import main
write, predict.BATCH = ScoreWriter.write, 10
def end_after(writer, scores):
    write(writer, scores)
    writer._stream.flush()
    os.kill(os.getpid(), {number})
ScoreWriter.write = end_after
sys.argv = ["health-predict", "predict", *{options!r}]
main()
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_nothing_of_a_run_that_was_ended_is_left(tmp_path, bundle, bundle_folder, number, code):
    (tmp_path / "in.csv").write_bytes(CSV)
    target = tmp_path / "out" / "out.csv"
    options = ["--in", str(tmp_path / "in.csv"), "--out", str(target), "--bundle", str(bundle_folder)]
    script = ENDED.format(number=int(number), options=options)
    ended = subprocess.run(
        [sys.executable, "-c", script], env=environment_of(tmp_path), capture_output=True, check=False, timeout=60
    )
    assert ended.returncode == code, ended.stderr
    left = list(target.parent.iterdir())
    if number != signal.SIGKILL:
        assert left == []
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o700 for path in left)
    predict(bundle, str(tmp_path / "in.csv"), str(target), silent)
    assert list(target.parent.iterdir()) == [target]


def test_the_folder_of_a_living_process_stays(tmp_path):
    with private_folder(tmp_path) as one, private_folder(tmp_path) as other:
        assert one.exists()
        assert other.exists()
    assert list(tmp_path.iterdir()) == []


def test_what_a_join_lost_is_counted_and_warned_of(tmp_path, bundle):
    table = ENCOUNTERS.with_columns(pl.lit(None, pl.String).alias(name) for name in ("diag_1", "diag_2", "diag_3"))
    for suffix in ("csv", "parquet"):
        source = tmp_path / f"in.{suffix}"
        source.write_bytes(factories.raw_csv(table) if suffix == "csv" else parquet(table))
        report = predict(bundle, str(source), str(tmp_path / "out.csv"), silent)
        assert {name: report.missing[name] for name in ("diag_1", "diag_2", "diag_3")} == dict.fromkeys(
            ("diag_1", "diag_2", "diag_3"), len(IDS)
        )
        assert [warning.split()[0] for warning in report.warnings] == ["diag_1", "diag_2", "diag_3"]
    (tmp_path / "in.csv").write_bytes(CSV)
    assert predict(bundle, str(tmp_path / "in.csv"), str(tmp_path / "out.csv"), silent).warnings == ()


MEASURED = ("max_glu_serum", "A1Cresult")


def pandas_files(folder: Path) -> list[Path]:
    """What pandas makes of the dataset's CSV when it is not told that `None` is a text."""
    import pandas as pd

    frame = pd.read_csv(io.BytesIO(CSV), dtype={"diag_1": str, "diag_2": str, "diag_3": str})
    frame.to_csv(folder / "pandas.csv", index=False)
    frame.to_parquet(folder / "pandas.parquet")
    frame.assign(max_glu_serum=float("nan")).to_parquet(folder / "floats.parquet")
    return [folder / "pandas.csv", folder / "pandas.parquet", folder / "floats.parquet"]


def test_none_that_pandas_lost_is_recognised_and_can_be_given_back(tmp_path, bundle):
    plain = ENCOUNTERS.with_columns(max_glu_serum=pl.lit("None"))
    for source in pandas_files(tmp_path):
        with pytest.raises(DataError, match="keep_default_na=False, or score it with --empty-means-not-measured"):
            predict(bundle, str(source), str(tmp_path / "out.csv"), silent)
        target = tmp_path / "scores.csv"
        report = predict(bundle, str(source), str(target), silent, empty_is_not_measured=True)
        meant = plain if source.stem == "floats" else ENCOUNTERS
        expected = {name: int((meant[name] == "None").sum()) for name in MEASURED}
        assert report.not_measured == expected
        assert pl.read_csv(target)["probability_score"].to_list() == bundle.predict_proba(meant).tolist()


def test_identifiers_keep_their_text(tmp_path, bundle):
    rows = [line.split(b",") for line in LINES]
    rows[1][1], rows[2][1], rows[3][1] = b"0008222157", b"107400762.0", b""
    (tmp_path / "in.csv").write_bytes(b"\n".join(map(b",".join, rows)) + b"\n")
    for target in ("out.csv", "out.parquet"):
        predict(bundle, str(tmp_path / "in.csv"), str(tmp_path / target), silent)
        read = pl.read_parquet if target.endswith("parquet") else lambda path: pl.read_csv(path, infer_schema=False)
        assert read(tmp_path / target)["patient_nbr"].to_list()[:3] == ["0008222157", "107400762", None]
    assert read_file(str(tmp_path / "in.csv"))["patient_nbr"].to_list()[:2] == [8_222_157, 107_400_762]


def test_icd10_codes_are_unknown_and_counted_and_the_dataset_s_codes_are_not(tmp_path, bundle):
    codes = {"diag_1": ["I5023", "428"], "diag_2": ["E878", "E878"], "diag_3": ["V45", "E871"]}
    table = ENCOUNTERS[:2].with_columns(pl.Series(name, values) for name, values in codes.items())
    (tmp_path / "in.csv").write_bytes(factories.raw_csv(table))
    report = predict(bundle, str(tmp_path / "in.csv"), str(tmp_path / "out.csv"), silent)
    assert report.unknown == {"diag_1": 1, "diag_2": 1, "diag_3": 2}
    scores = pl.read_csv(tmp_path / "out.csv")["probability_score"].to_list()
    assert scores == pytest.approx([bundle.predict_one(row) for row in table.to_dicts()], abs=1e-6)
    named = [field for row in table.to_dicts() for field in bundle.score(row)[1]]
    assert {field: named.count(field) for field in set(named)} == report.unknown


def test_the_version_is_what_the_registry_calls_it(tmp_path, bundle, bundle_folder, health_predict):
    (tmp_path / "in.csv").write_bytes(CSV)
    folder = tmp_path / "bundle"
    folder.mkdir()
    for file in bundle_folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    arguments = [
        "predict",
        "--in",
        str(tmp_path / "in.csv"),
        "--out",
        str(tmp_path / "out.csv"),
        "--bundle",
        str(folder),
    ]
    report = health_predict(tmp_path, *arguments, "--json").json
    assert (report["version"], report["bundle"]) == (bundle.sha256[:12], bundle.sha256)
    (folder / "version.json").write_text(f'{{"name": "HealthPredict", "version": "7", "sha256": "{bundle.sha256}"}}')
    report = health_predict(tmp_path, *arguments, "--json").json
    assert (report["version"], report["bundle"]) == ("7", bundle.sha256)
    assert f"{len(IDS)} encounters read, {len(IDS)} scored with version 7" in health_predict(tmp_path, *arguments).out
    (folder / "version.json").write_text('{"version": "7", "sha256": "0"}')
    assert health_predict(tmp_path, *arguments).code == 13


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_store_without_credentials_or_without_an_answer_says_so(s3_root, monkeypatch, suffix):
    with pytest.raises(StorageError, match="does not exist"):
        open_encounters(f"{s3_root}/in.{suffix}")
    with pytest.raises(StorageError, match="the bucket does not exist"):
        open_encounters(f"s3://none-such-bucket/in.{suffix}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    with pytest.raises(StorageError, match="Unable to locate credentials"):
        open_encounters(f"{s3_root}/in.{suffix}")


def test_an_endpoint_that_does_not_answer_is_a_store_that_cannot_be_read(s3_root, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    with pytest.raises(StorageError, match="Could not connect"):
        open_encounters("s3://bucket/in.csv", "http://127.0.0.1:9")


def test_an_address_of_another_kind_is_refused(tmp_path, bundle):
    with pytest.raises(StorageError, match="neither a local file nor s3://"):
        open_encounters("https://example.invalid/in.csv")


@pytest.mark.parametrize("suffix", ["csv", "parquet", "tsv"])
def test_outcomes_are_read_from_the_file_that_is_named_with_every_line(storage, s3_endpoint, suffix):
    outcomes = ENCOUNTERS.select("encounter_id", "readmitted")
    text = outcomes.write_csv(separator="\t" if suffix == "tsv" else ",").encode()
    storage.write(f"outcomes[1].{suffix}", parquet(outcomes) if suffix == "parquet" else text)
    storage.write(f"outcomes1.{suffix}", b"")
    found = read_outcomes(storage.path(f"outcomes[1].{suffix}"), s3_endpoint)
    assert found.equals(outcomes.cast(found.schema))
    storage.write(
        "cut.csv", outcomes.write_csv().encode().replace(b",", b"", 3).replace(b"encounter_id", b"encounter_id,")
    )
    with pytest.raises(DataError, match="line 2 has 1 fields, line 3 has 1 fields"):
        read_outcomes(storage.path("cut.csv"), s3_endpoint)


@pytest.mark.parametrize(
    "numbers",
    [[2.0**53 + 2, 7.0], [1.5, 7.0], pl.Series(["1.50", "7"]).cast(pl.Decimal(38, 2)), ["1.5", "7"], ["9" * 20, "7"]],
    ids=["beyond exact floats", "fraction", "decimal fraction", "text of a fraction", "too large"],
)
def test_outcomes_of_numbers_that_are_no_identifiers_are_refused(tmp_path, numbers):
    source = tmp_path / "outcomes.parquet"
    pl.DataFrame({"encounter_id": numbers, "readmitted": ["NO", "<30"]}).write_parquet(source)
    with pytest.raises(DataError, match="1 values that are missing or do not fit"):
        read_outcomes(str(source))


@pytest.mark.parametrize("numbers", [[6.0, 7.0], ["6.0", "7"], pl.Series(["6.00", "7"]).cast(pl.Decimal(38, 2))])
def test_outcomes_of_whole_numbers_are_read_however_they_are_stored(tmp_path, numbers):
    source = tmp_path / "outcomes.parquet"
    pl.DataFrame({"encounter_id": numbers, "readmitted": ["NO", "<30"]}).write_parquet(source)
    assert read_outcomes(str(source))["encounter_id"].to_list() == [6, 7]


@pytest.mark.parametrize(
    ("column", "values"), [("encounter_id", [True, False]), ("readmitted", [1, 2]), ("readmitted", [True, False])]
)
def test_outcomes_in_columns_of_another_type_are_refused(tmp_path, column, values):
    source = tmp_path / "outcomes.parquet"
    table = pl.DataFrame({"encounter_id": [6, 7], "readmitted": ["NO", "<30"]})
    table.with_columns(pl.Series(column, values)).write_parquet(source)
    with pytest.raises(DataError, match=f"{column} holds .* not "):
        read_outcomes(str(source))


@pytest.mark.parametrize("linked", ["part", "folder"])
def test_parts_behind_links_are_read(tmp_path, linked):
    """As in a volume of Kubernetes: names lead through `..data` to where the files are."""
    place, elsewhere = tmp_path / "in", tmp_path / "elsewhere"
    for folder, table in (("age=a", FIRST), ("age=b", SECOND)):
        (elsewhere / folder).mkdir(parents=True)
        (elsewhere / folder / "part.csv").write_bytes(factories.raw_csv(table))
    place.mkdir()
    if linked == "part":
        (place / "..2026").mkdir()
        (place / "..2026" / "0.csv").write_bytes(factories.raw_csv(FIRST))
        (place / "..data").symlink_to("..2026")
        (place / "0.csv").symlink_to("..data/0.csv")
        (place / "1.csv").symlink_to(elsewhere / "age=b" / "part.csv")
    else:
        (place / "year=1").symlink_to(elsewhere / "age=a")
        (place / "year=2").symlink_to(elsewhere / "age=b")
    assert numbers(str(place)) == IDS


@pytest.mark.parametrize("what", ["link to nothing", "pipe", "link to above", "folder twice"])
def test_no_part_is_passed_over(tmp_path, what):
    place = tmp_path / "in"
    (place / "year=1").mkdir(parents=True)
    (place / "year=1" / "part-0.csv").write_bytes(CSV)
    extra = place / "year=1" / "part-1.csv"
    if what == "link to nothing":
        extra.symlink_to("gone.csv")
    elif what == "pipe":
        os.mkfifo(extra)
    else:
        (place / "year=2").symlink_to(place if what == "link to above" else place / "year=1")
    with pytest.raises((DataError, StorageError), match=r"cannot be read|read once only|read already"):
        numbers(str(place))


@pytest.mark.parametrize("name", ["pipe.csv", "pipe.parquet"])
def test_what_can_be_read_only_once_is_refused(tmp_path, name):
    """The header would be read, and what was read with it be gone."""
    os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match="read once only"):
        open_encounters(str(tmp_path / name))


def test_a_part_that_is_a_link_is_never_written_to(tmp_path, bundle):
    place, elsewhere = tmp_path / "in", tmp_path / "elsewhere.csv"
    place.mkdir()
    elsewhere.write_bytes(CSV)
    (place / "part-0.csv").symlink_to(elsewhere)
    with pytest.raises(DataError, match="give another file for the scores"):
        predict(bundle, str(place), str(elsewhere), silent)
    assert elsewhere.read_bytes() == CSV


@pytest.mark.parametrize("becomes", [b"", CSV.replace(b"insulin", b"x").replace(b"glipizide", b"insulin", 1)])
def test_a_file_that_is_replaced_after_its_header_was_read_is_refused(tmp_path, becomes):
    source = tmp_path / "in.csv"
    source.write_bytes(CSV)
    found = open_encounters(str(source))
    source.write_bytes(becomes)
    with pytest.raises(StorageError, match="another header"):
        list(found.batches(10))


def test_outcomes_that_are_there_twice_are_refused(tmp_path):
    place = tmp_path / "outcomes.csv"
    place.write_text("encounter_id,readmitted,readmitted\n1,NO,<30\n")
    with pytest.raises(DataError, match="readmitted is there twice"):
        read_outcomes(str(place))
