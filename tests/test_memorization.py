"""Memorization scores: against loops and planted truth, honest errors, and files that come back as they went."""

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toy import blobs, ensemble_of
from wemem.data.dataset import Dataset
from wemem.data.split import Role, subsets
from wemem.errors import InputError
from wemem.memorization import Memorization, estimate_memorization, halves_correlation, read_scores, truth_values
from wemem.training import Recipe, fit

IN, OUT = Role.TRAIN, Role.AUDIT


@st.composite
def values_and_roles(draw):
    models, records = draw(st.integers(1, 8)), draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    return rng.random((models, records)), rng.integers(0, 4, (models, records)).astype(np.int8)


def random_roles(rng, models, records):
    """Each record in half of the models, each by itself."""
    half = np.repeat(np.array([IN, OUT], np.int8), models // 2)
    return np.stack([rng.permutation(half) for _ in range(records)], axis=1)


def some_scores():
    rng = np.random.default_rng(0)
    score = rng.normal(0, 1, 7) / 3
    score[[2, 5]] = np.nan
    return Memorization(score, rng.random(7) / 7, np.arange(7), np.arange(7)[::-1].copy())


@pytest.fixture(scope="module")
def planted():
    """Logits, data and roles of a real ensemble on 45 easy records, of which the first is mislabelled."""
    easy = blobs(57, noise=0.3)
    labels = easy.labels.copy()
    labels[0] = (labels[0] + 1) % 3
    data = Dataset.from_arrays("planted", easy.features, labels)
    split = subsets(labels, np.arange(45), 27, 12, seed=0, purpose="victim", dev=np.arange(45, 57))
    recipe = Recipe(epochs=1, batch_size=8, learning_rate=0.05, weight_decay=0)
    ensemble = ensemble_of(data, members=12, hidden=(32,), dropout=0.0)
    for epoch in range(50):  # one by one: no early checkpoint, which has not memorized yet, is the best
        ensemble = fit(ensemble, data, split, recipe, seeds=range(100 * epoch, 100 * epoch + 12)).ensemble
    return ensemble.logits(data.features), data, split.roles


def test_values_that_do_not_depend_on_training_score_zero():
    roles = random_roles(np.random.default_rng(0), 6, 4)
    scores = estimate_memorization(np.full((6, 4), 0.25), roles)
    assert scores.score.tolist() == [0.0] * 4
    assert scores.standard_error.tolist() == [0.0] * 4


def test_what_training_adds_is_the_score():
    rng = np.random.default_rng(0)
    roles, added, base = random_roles(rng, 8, 5), np.linspace(-0.5, 1, 5), rng.random(5)
    scores = estimate_memorization(base + added * (roles == IN), roles)
    np.testing.assert_allclose(scores.score, added, atol=1e-12)
    np.testing.assert_allclose(scores.standard_error, 0, atol=1e-12)


@given(values_and_roles())
def test_scores_are_what_a_loop_over_models_finds(case):
    values, roles = case
    scores = estimate_memorization(values, roles)
    for i in range(values.shape[1]):
        pairs = list(zip(values[:, i], roles[:, i], strict=True))
        inside, outside = ([value for value, role in pairs if role == wanted] for wanted in (IN, OUT))
        assert (scores.inside[i], scores.outside[i]) == (len(inside), len(outside))
        if inside and outside:
            assert scores.score[i] == pytest.approx(np.mean(inside) - np.mean(outside))
        else:
            assert np.isnan(scores.score[i])
        if len(inside) > 1 and len(outside) > 1:
            variance = np.var(inside, ddof=1) / len(inside) + np.var(outside, ddof=1) / len(outside)
            assert scores.standard_error[i] == pytest.approx(np.sqrt(variance))
        else:
            assert np.isnan(scores.standard_error[i])


def test_the_standard_error_is_how_far_scores_scatter_from_draw_to_draw():
    rng = np.random.default_rng(0)
    chance_in, chance_out, draws = np.array([0.9, 0.6, 1.0]), np.array([0.2, 0.6, 0.5]), 4000
    scores, errors = [], []
    for _ in range(draws):
        roles = random_roles(rng, 20, 3)
        values = (rng.random((20, 3)) < np.where(roles == IN, chance_in, chance_out)).astype(float)
        drawn = estimate_memorization(values, roles)
        scores.append(drawn.score)
        errors.append(drawn.standard_error)
    np.testing.assert_allclose(np.mean(scores, axis=0), chance_in - chance_out, atol=4 * 0.25 / np.sqrt(draws))
    np.testing.assert_allclose(np.sqrt(np.mean(np.square(errors), axis=0)), np.std(scores, axis=0), rtol=0.05)


def test_the_standard_error_holds_for_subsets_that_take_turns():
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 3
    # a record's value depends on itself and, a little, on who else is trained on
    influence = rng.normal(0, 0.03, (90, 90)) + 0.3 * np.eye(90)
    scores, errors = [], []
    for seed in range(100):
        roles = subsets(labels, np.arange(90), 54, 20, seed=seed, purpose="victim", dev=6).roles
        drawn = estimate_memorization((roles == IN) @ influence.T, roles)
        scores.append(drawn.score)
        errors.append(drawn.standard_error)
    assert not np.isnan(scores).any()
    np.testing.assert_allclose(np.mean(scores, axis=0), np.diag(influence), atol=0.06)
    assert np.mean(np.std(scores, axis=0)) == pytest.approx(np.mean(errors), rel=0.15)


def test_probability_and_indicator_of_the_true_class():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(0, 3, (4, 6, 3)).astype(np.float32), np.array([0, 1, 2, 2, 1, 0])
    logits[0, 0] = [5, 5, 0]  # a tie goes to the first class
    probability, indicator = (truth_values(logits, labels, form) for form in ("probability", "indicator"))
    for t in range(4):
        for i, label in enumerate(labels):
            odds = np.exp(logits[t, i].astype(np.float64))
            assert probability[t, i] == pytest.approx(odds[label] / odds.sum(), rel=1e-6)
            assert indicator[t, i] == (label == list(logits[t, i]).index(max(logits[t, i])))
    assert probability.dtype == indicator.dtype == np.float64


def test_huge_logits_make_no_nan():
    logits = np.array([[[1e30, -1e30, 0]]], np.float32)
    assert truth_values(logits, np.array([0]), "probability").tolist() == [[1.0]]
    assert truth_values(logits, np.array([1]), "probability").tolist() == [[0.0]]


@pytest.mark.parametrize(("noise", "low", "high"), [(0.0, 1.0, 1.0), (0.1, 0.9, 1.0), (100.0, -0.3, 0.3)])
def test_halves_agree_as_far_as_the_scores_are_not_noise(noise, low, high):
    rng = np.random.default_rng(0)
    roles = random_roles(rng, 40, 200)
    values = rng.random(200) * (roles == IN) + rng.normal(0, noise, (40, 200))
    assert low - 1e-12 <= halves_correlation(values, roles, seed=0) <= high + 1e-12


def test_halves_that_score_nothing_in_common_have_no_correlation():
    roles = np.array([[IN, OUT], [OUT, IN]], np.int8)
    assert np.isnan(halves_correlation(np.eye(2), roles, seed=0))


def test_halves_depend_on_the_seed_only():
    rng = np.random.default_rng(0)
    roles, values = random_roles(rng, 12, 30), rng.random((12, 30))
    first, again, other = (halves_correlation(values, roles, seed=s) for s in (0, 0, 1))
    assert first == again != other


@pytest.mark.parametrize("form", ["probability", "indicator"])
def test_a_mislabelled_record_is_memorized_and_easy_ones_are_not(planted, form):
    logits, data, roles = planted
    scores = estimate_memorization(truth_values(logits, data.labels, form), roles).score[:45]
    assert scores[0] > 0.95
    assert np.quantile(np.abs(scores[1:]), 0.9) < 0.05
    assert scores[0] > scores[1:].max() + 0.2


@pytest.mark.parametrize("name", ["scores.csv", "scores.parquet"])
def test_scores_come_back_bit_by_bit(tmp_path, name):
    written = some_scores()
    written.write(tmp_path / name)
    assert read_scores(tmp_path / name, 7).tobytes() == written.score.tobytes()
    read = pyarrow.csv.read_csv if name.endswith("csv") else pyarrow.parquet.read_table
    table = read(tmp_path / name)
    assert table.column_names == ["record", "score", "standard_error", "inside", "outside"]
    assert table["record"].to_pylist() == [0, 1, 3, 4, 6]
    assert table["standard_error"].to_pylist() == written.standard_error[[0, 1, 3, 4, 6]].tolist()


def test_scores_are_found_by_record_whatever_the_order_of_rows_and_columns(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("note,score,record\nb,0.5,2\na,-1e-3,0\n")
    np.testing.assert_array_equal(read_scores(path, 4), [-1e-3, np.nan, 0.5, np.nan])


def test_no_rows_are_no_scores(tmp_path):
    path = tmp_path / "none.csv"
    path.write_text("record,score\n")
    assert np.isnan(read_scores(path, 3)).all()


@pytest.mark.parametrize(("text", "message"), [
    ("index,score\n0,1\n", "got 0 columns of the name 'record'"),
    ("record,value\n0,1\n", "columns record and score in .*, got 0 columns of the name 'score'"),
    ("record,score,score\n0,1,2\n", "got 2 columns of the name 'score'"),
    ("", "columns record and score that can be read, got: Empty CSV file"),
    ("record,score\n0,0.5\n0,0.6\n", "each record once in 'bad.csv', got some twice"),
    ("record,score\n0,0.5\n4,0.6\n", r"records 0\.\.3 in 'bad.csv', got 0\.\.4"),
    ("record,score\n-2,0.5\n", r"records 0\.\.3 in 'bad.csv', got -2\.\.-2"),
    ("record,score\n,0.5\n", r"records 0\.\.3 in 'bad.csv', got -1\.\.-1"),
    ("record,score\n1.5,0.5\n", "that can be read, got: Float value 1.5"),
    ("record,score\nfirst,0.5\n", "that can be read, got: .*invalid value 'first'|Failed to parse string: 'first'"),
    ("record,score\n0,nan\n", "finite scores in 'bad.csv', got NaN or infinity"),
    ("record,score\n0,inf\n", "finite scores in 'bad.csv', got NaN or infinity"),
    ("record,score\n0,\n", "finite scores in 'bad.csv', got NaN or infinity"),
    ("record,score\n0,high\n", "that can be read, got: .*Failed to parse string: 'high'"),
    ("record,score\n0,1\n1,2,3\n", "that can be read, got: .*Expected 2 columns, got 3"),
    ("record,score\n" + "0,1\n" * 5, "at most 4 rows in .*bad.csv, one a record, got more"),
])  # fmt: skip
def test_a_bad_csv_is_refused_in_one_line(tmp_path, text, message):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_scores(path, 4)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("columns", "message"), [
    ({"record": [0, 1]}, "got 0 columns of the name 'score'"),
    ({"record": [0, 1], "score": [0.1, float("nan")]}, "finite scores"),
    ({"record": [0.5, 1.0], "score": [0.1, 0.2]}, "Float value 0.5"),
    ({"record": [0, None], "score": [0.1, 0.2]}, r"records 0\.\.3"),
    ({"record": [[0], [1]], "score": [0.1, 0.2]}, "that can be read, got"),
    ({"record": [0] * 9, "score": [0.1] * 9}, "at most 4 rows"),
])  # fmt: skip
def test_a_bad_parquet_is_refused_in_one_line(tmp_path, columns, message):
    path = tmp_path / "bad.parquet"
    pyarrow.parquet.write_table(pa.table(columns), path)
    with pytest.raises(InputError, match=message) as caught:
        read_scores(path, 4)
    assert "\n" not in str(caught.value)


def test_a_truncated_parquet_is_refused(tmp_path):
    path = tmp_path / "cut.parquet"
    some_scores().write(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"cut\.parquet: expected memorization scores .* that can be read"):
        read_scores(path, 7)


@pytest.mark.parametrize("name", ["scores.json", "scores", "scores.pkl"])
def test_another_kind_of_file_is_neither_read_nor_written(tmp_path, name):
    with pytest.raises(InputError, match=r"expected a score file ending in .csv or .parquet, got 'scores"):
        some_scores().write(tmp_path / name)
    (tmp_path / name).write_text("record,score\n")
    with pytest.raises(InputError, match=r"a file ending in .csv or .parquet, got 'scores"):
        read_scores(tmp_path / name, 7)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    for name in ("none.csv", "none.parquet"):
        with pytest.raises(InputError, match=f"{name}, got no such file"):
            read_scores(tmp_path / name, 3)
