"""CSV and Parquet files as data sets."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wemem.data.dataset import Dataset
from wemem.data.sources import load_dataset
from wemem.data.table_form import Column
from wemem.errors import InputError


def csv(tmp_path, text):
    path = tmp_path / "toy.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def columns_of(data: Dataset) -> tuple[Column, ...]:
    assert data.table is not None
    return data.table.columns


def parquet(tmp_path, **columns):
    pq.write_table(pa.table(columns), tmp_path / "toy.parquet")
    return str(tmp_path / "toy.parquet")


def test_csv_columns_become_features_and_labels(tmp_path):
    toy = load_dataset(csv(tmp_path, "a,label,b\n1,0,2.5\n3,1,-4e1\n5,1,6\n"))
    np.testing.assert_array_equal(toy.features, np.array([[1, 2.5], [3, -40], [5, 6]], np.float32))
    assert (toy.name, toy.labels.tolist(), toy.classes) == ("toy", [0, 1, 1], 2)


@given(
    st.lists(
        st.tuples(st.integers(-1000, 1000), st.floats(width=32, allow_nan=False, allow_infinity=False), st.booleans()),
        min_size=3,
        max_size=20,
    ),
    st.sampled_from([["no", "yes"], [0, 1], ["0", "1"]]),
)
def test_same_table_is_the_same_data_set_in_either_format(tmp_path_factory, rows, names):
    folder = tmp_path_factory.mktemp("tables")
    rows = [*rows, (0, 0.0, False), (0, 0.0, True)]
    lines = [f"{a},{b!r},{names[c]}\n" for a, b, c in rows]
    from_csv = load_dataset(csv(folder, "a,b,y\n" + "".join(lines)))
    a, b, c = zip(*rows, strict=True)
    from_parquet = load_dataset(parquet(folder, a=a, b=b, y=[names[i] for i in c]))
    assert from_csv.fingerprint == from_parquet.fingerprint


def test_names_are_numbered_in_sorted_order(tmp_path):
    toy = load_dataset(csv(tmp_path, "a,y\n1,pear\n2,apple\n3,pear\n4,quince\n"))
    assert toy.labels.tolist() == [1, 0, 1, 2]


@pytest.mark.parametrize(
    ("first", "second"), [("9", "10"), ("-1", "1"), ("0", "2000000000"), ("7.0", "8"), ("no", "yes")]
)
def test_labels_are_numbered_in_ascending_order_and_their_names_are_kept(tmp_path, first, second):
    toy = load_dataset(csv(tmp_path, "a,y\n" + f"1,{second}\n1,{first}\n" * 3))
    names = tuple(name.removesuffix(".0") for name in (first, second))
    assert (toy.labels.tolist(), toy.classes, toy.class_names) == ([1, 0] * 3, 2, names)
    assert [*map(str, toy.notes)] == [f"the labels {names[0]}, {names[1]} are the classes 0..1"]


def test_labels_from_0_on_keep_their_numbers_and_need_no_note(tmp_path):
    toy = load_dataset(csv(tmp_path, "a,y\n1,2\n1,0\n1,1\n"))
    assert (toy.labels.tolist(), toy.classes, toy.class_names, toy.notes) == ([2, 0, 1], 3, (), ())


@pytest.mark.parametrize("label", ["kind", 1, -2])
def test_label_column_is_chosen_by_name_or_position(tmp_path, label):
    toy = load_dataset(csv(tmp_path, "a,kind,y\n5,0,7\n6,1,8\n"), label=label)
    assert toy.labels.tolist() == [0, 1]
    assert toy.features.tolist() == [[5, 7], [6, 8]]


def test_missing_label_column_names_the_columns(tmp_path):
    with pytest.raises(InputError, match="expected one column called label or y or target, got the columns a, kind;"):
        load_dataset(csv(tmp_path, "a,kind\n1,0\n2,1\n"))


def test_misspelt_label_column_is_named_with_its_neighbour(tmp_path):
    with pytest.raises(
        InputError, match="expected a label column 'knid', got the columns a, kind; did you mean 'kind'"
    ):
        load_dataset(csv(tmp_path, "a,kind\n1,0\n2,1\n"), label="knid")


@pytest.mark.parametrize("position", [2, -3])
def test_label_position_outside_the_table_is_refused(tmp_path, position):
    with pytest.raises(InputError, match="expected a label position below 2"):
        load_dataset(csv(tmp_path, "a,kind\n1,0\n2,1\n"), label=position)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "Empty CSV"),
        ("\n\n", "expected a table that can be read"),
        ("a,y\n", "expected at least one record"),
        ("a,y\n1,0\nx,1\n", "expected numbers or names in column 'a', got 'x' beside numbers"),
        ("a,y,b\n1,0,2\n3,1,it's\n", "expected numbers or names in column 'b', got \"it's\" beside numbers"),
        ("a,y\n1,0\n2\n", "Expected 2 columns, got 1: 2; give each line as many values"),
        ("a,y\n,0\n,1\n", "expected values in column 'a', got none"),
        ("a,y\ninf,0\n2,1\n", "expected finite numbers in column 'a', got infinity in record 0"),
        ("a,y\n1e99,0\n2,1\n", "expected finite numbers in column 'a', got infinity in record 0"),
        ("a,y\n1,0\n2,\n", "expected a label in every record"),
        ("a,y\n1,0.5\n2,1.5\n", "got '0.5'; choose another label column"),
        ("a,y\n1,0\n2,nan\n", "expected a label in every record"),
        ("a,y\n1,0\n2,99999999999999999999\n", "got '99999999999999999999'"),
        ("a,y\n1,0\n2,0\n", "expected at least 2 classes"),
        ("1,0\n2,1\n", "expected a header line, got numbers"),
        ("a:y\n1:0\n", "got the columns a:y; check the delimiter"),
        ("y\n1\n0\n", "expected features and a label"),
        ("a,a,y\n1,2,0\n3,4,1\n", "expected column names that differ"),
        ("label,a,y\n0,2,0\n1,4,1\n", "name the label column with label"),
        (",a,y\n0,2,0\n1,4,1\n", r"got column ''; set data.drop = \[''\]"),
        ("a;y\n1,5;0\n2;1\n", r"expected numbers with a decimal point in column 'a', got '1,5'; set data.decimal"),
        ("a,y\n1,0\n".encode("utf-16"), "got UTF-16; save the file as UTF-8"),
        (b"a,y\n1,\xff\n2,x\n", "invalid UTF8"),
        (b"a\xff,y\n1,0\n2,1\n", "expected text in utf8, got other bytes .* data.encoding"),
    ],
)
def test_bad_csv_is_refused(tmp_path, text, said):
    with pytest.raises(InputError, match=said) as caught:
        load_dataset(csv(tmp_path, text))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiter_is_found_in_the_line_of_names(tmp_path, delimiter):
    text = 'a,"b;c|d",y\n1.5,x,0\n2,z,1\n'.replace(",", delimiter)
    toy = load_dataset(csv(tmp_path, text))
    assert [column.name for column in columns_of(toy)] == ["a", "b;c|d"]
    assert toy.features.tolist() == [[1.5, 0], [2, 1]]


def test_delimiter_may_be_given(tmp_path):
    assert load_dataset(csv(tmp_path, "a#b#y\n1#2#0\n3#4#1\n"), delimiter="#").features.tolist() == [[1, 2], [3, 4]]
    with pytest.raises(InputError, match="expected a delimiter of one character, got '##'"):
        load_dataset(csv(tmp_path, "a#b#y\n1#2#0\n"), delimiter="##")


def test_decimal_commas_are_numbers_where_they_are_declared(tmp_path):
    path = csv(tmp_path, "a;y\n1,5;0\n-2;1\n")
    assert load_dataset(path, decimal=",").features.tolist() == [[1.5], [-2]]
    declared = load_dataset(path, categorical=["a"])
    assert columns_of(declared)[0].categories == ("-2", "1,5")
    with pytest.raises(InputError, match=r"expected '\.' or ',' as the decimal point, and another character than"):
        load_dataset(path, decimal=",", delimiter=",")


def test_spaces_around_a_value_do_not_count(tmp_path):
    toy = load_dataset(csv(tmp_path, "a,b,y\n 1, x,no\n ?,x , yes\n3, ?,no \n"), missing=["?"])
    assert [column.categories for column in columns_of(toy)] == [(), ("x",)]
    assert [column.missing for column in columns_of(toy)] == [True, True]
    assert (toy.labels.tolist(), toy.class_names) == ([0, 1, 0], ("no", "yes"))


def test_dates_that_name_each_record_get_their_own_remedy(tmp_path):
    rows = "".join(f"{1900 + i}-01-02,{i % 2}\n" for i in range(120))
    with pytest.raises(InputError, match=r"120 different values .* write a date as a number, such as days"):
        load_dataset(csv(tmp_path, "day,y\n" + rows))


def test_text_of_another_encoding_is_read_where_it_is_named(tmp_path):
    content = "ort,y\nKöln,0\nBonn,1\nKöln,1\n".encode("latin-1")
    assert columns_of(load_dataset(csv(tmp_path, content), encoding="latin-1"))[0].categories == ("Bonn", "Köln")
    with pytest.raises(InputError, match=r"expected text in utf8, got other bytes .* data.encoding"):
        load_dataset(csv(tmp_path, content))
    for encoding in ("klingon", "utf-16"):
        with pytest.raises(InputError, match="expected"):
            load_dataset(csv(tmp_path, content), encoding=encoding)


def test_missing_values_may_have_marks_of_their_own(tmp_path):
    text = "a,b,y\n1,x,0\n?,?,1\n-,y,1\n4,NA,0\n"
    toy = load_dataset(csv(tmp_path, text), missing=["?", "-"])
    assert np.isnan(toy.features).tolist() == [[False, False], [True, True], [True, False], [False, True]]
    with pytest.raises(InputError, match=r"expected numbers or names in column 'a', got '\?' beside numbers"):
        load_dataset(csv(tmp_path, text))


def test_columns_are_kept_and_dropped_by_name(tmp_path):
    path = csv(tmp_path, "a,b,c,y\n1,2,x,0\n3,4,x,1\n")
    options: Any
    for options in ({"keep": ["b", "a"]}, {"drop": ["c"]}, {"keep": ["a", "b", "c"], "drop": ["c"]}):
        assert load_dataset(path, **options).features.tolist() == [[1, 2], [3, 4]]
    for options in ({"keep": ["d"]}, {"drop": ["d"]}, {"categorical": ["d"]}, {"id": "d"}, {"text": "d"}):
        with pytest.raises(InputError, match=r"expected a column 'd' \(data\.\w+\), got the columns a, b, c, y"):
            load_dataset(path, **options)


def test_numbers_may_stand_for_categories(tmp_path):
    path = csv(tmp_path, "month,y\n10,0\n2,1\n10,1\n")
    assert columns_of(load_dataset(path, categorical=["month"]))[0].categories == ("2", "10")
    assert columns_of(load_dataset(path))[0].categories == ()


def test_table_of_numbers_that_stay_as_they_are_has_no_preprocessing(tmp_path):
    path = csv(tmp_path, "a,y\n1,0\n3,1\n")
    assert load_dataset(path, standardize=False).table is None
    assert load_dataset(path).table is not None


def test_name_far_down_in_a_column_makes_it_one_of_categories(tmp_path, monkeypatch):
    monkeypatch.setattr("wemem.files.tables.BLOCK_BYTES", 64)
    path = csv(tmp_path, "a,y\n" + "1,0\n2,1\n" * 40 + "x,1\n")
    assert columns_of(load_dataset(path, categorical=["a"]))[0].categories == ("1", "2", "x")
    with pytest.raises(InputError, match="expected numbers or names in column 'a', got 'x' beside numbers"):
        load_dataset(path)


@pytest.mark.parametrize("name", ["id", "client_id", "Index"])
def test_column_that_numbers_the_records_is_no_feature(tmp_path, name):
    path = csv(tmp_path, f"{name},a,y\n" + "".join(f"{i},{i % 3},{i % 2}\n" for i in range(9)))
    with pytest.raises(InputError, match=f"expected no record numbers as a feature, got column '{name}'"):
        load_dataset(path)
    ids = load_dataset(path, id=name).ids
    assert ids is not None
    assert ids.values[:2] == ("0", "1")


def test_ids_that_repeat_are_refused(tmp_path):
    with pytest.raises(InputError, match="expected another 'id' for each of 3 records, got 2 different ones"):
        load_dataset(csv(tmp_path, "id,a,y\nx,1,0\nz,2,1\nx,3,1\n"), id="id")


def test_keys_of_a_table_are_refused_beside_other_sources():
    with pytest.raises(InputError, match="got categorical; leave it out"):
        load_dataset("digits", categorical=["a"])


def test_text_is_tokens_of_a_stated_length(tmp_path):
    path = csv(tmp_path, 'text,y\n"Good, good film",1\nbad,0\n')
    toy = load_dataset(path, text="text", tokens=3, vocabulary=100)
    assert toy.features.tolist() == [[53, 45, 53], [toy.features[1, 0], 0, 0]]
    assert str(toy.notes[0]) == "1 of 2 texts have more than 3 tokens and were cut"
    with pytest.raises(InputError, match="expected tokens and vocabulary beside text, got no text"):
        load_dataset(path, tokens=3)
    with pytest.raises(InputError, match="as the only feature, got the columns a too; drop them"):
        load_dataset(csv(tmp_path, "text,a,y\nx,1,1\nz,2,0\n"), text="text")
    with pytest.raises(InputError, match="expected a text in every record of column 'text', got none in record 1"):
        load_dataset(csv(tmp_path, "text,y\nx,1\n?!,0\n,1\n".replace("?!", '""')), text="text")


def test_byte_order_mark_and_blank_lines_do_not_matter(tmp_path):
    toy = load_dataset(csv(tmp_path, b"\xef\xbb\xbfy,a\r\n0,1\r\n\r\n1,2\r\n"))
    assert toy.features.tolist() == [[1], [2]]


def test_table_beyond_the_memory_limit_is_refused(tmp_path):
    path = csv(tmp_path, "a,y\n" + "1,0\n2,1\n" * 5000)
    assert len(load_dataset(path)) == 10_000
    with pytest.raises(InputError, match="raise memory_gib"):
        load_dataset(path, memory_gib=1e-4)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"a": [[1], [2]], "y": [0, 1]}, "expected numbers or text in column 'a', got list"),
        ({"a": [1, 2], "y": [[0], [1]]}, "expected numbers or text as labels, got list"),
        ({"a": [1, 2], "y": [0, None]}, "expected a label in every record"),
        ({"a": [1, 2], "y": ["x", None]}, "expected a label in every record"),
        ({"a": [1, 2], "y": [0.0, float("nan")]}, "got 'nan'"),
        ({"a": [1, 2], "y": [0.5, 1.0]}, "got '0.5'"),
        ({"a": [1, 2], "b": [0, 1]}, "got the columns a, b"),
        ({"a": [1, 2], "y": [0, 1], "__index_level_0__": [5, 6]}, "expected no record numbers as a feature"),
        ({"a": pa.array([], pa.int64()), "y": pa.array([], pa.int64())}, "expected at least one record"),
    ],
)
def test_bad_parquet_is_refused(tmp_path, columns, said):
    with pytest.raises(InputError, match=said):
        load_dataset(parquet(tmp_path, **columns))


def test_parquet_categories_that_do_not_occur_are_no_classes(tmp_path):
    labels = pa.DictionaryArray.from_arrays(pa.array([2, 0, 2]), pa.array(["c", "b", "a"]))
    assert load_dataset(parquet(tmp_path, a=[1, 2, 3], y=labels)).labels.tolist() == [0, 1, 0]


def test_parquet_booleans_are_numbers(tmp_path):
    toy = load_dataset(parquet(tmp_path, a=[True, False], y=[False, True]))
    assert (toy.features.tolist(), toy.labels.tolist()) == ([[1], [0]], [0, 1])


def test_small_parquet_that_unfolds_to_a_huge_table_is_refused(tmp_path):
    path = parquet(tmp_path, a=np.zeros(10**6), b=np.zeros(10**6), y=np.arange(10**6) // 500_000)
    assert Path(path).stat().st_size < 20_000
    with pytest.raises(InputError, match="raise memory_gib"):
        load_dataset(path, memory_gib=0.01)


def test_long_label_that_repeats_is_held_once(tmp_path):
    labels = pa.DictionaryArray.from_arrays(np.arange(4000) % 2, pa.array(["x" * 10**6, "y"]))
    toy = load_dataset(parquet(tmp_path, a=np.arange(4000) % 2, y=labels), memory_gib=0.01)
    assert toy.labels.tolist() == [0, 1] * 2000


@pytest.mark.parametrize("keep", [0, 3, 100, -20])
def test_truncated_parquet_is_refused(tmp_path, keep):
    path = Path(parquet(tmp_path, a=[1, 2], y=[0, 1]))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match="expected a table that can be read"):
        load_dataset(str(path))
