"""Memorization scores: the effect on a model's answer for a record of having been trained on it.

For record ``i`` of a training set ``S`` and learner ``A`` (Feldman, STOC 2020)::

    mem(i) = Pr[h(x_i) = y_i | h ~ A(S)]  -  Pr[h(x_i) = y_i | h ~ A(S without i)]

estimated with ``T`` models, each trained on a random subset of ``S``: the mean over the models that saw the record
minus the mean over those that did not (Feldman & Zhang, NeurIPS 2020). One party's scores come from models trained
on that party's records only.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from jaxtyping import Float, Float32, Float64, Int8, Int64
from scipy.special import softmax
from scipy.stats import spearmanr

from wemem.data.split import Role
from wemem.errors import InputError
from wemem.files.record_tables import RECORD, read_record_table
from wemem.randomness import generator

Form = Literal["probability", "indicator"]


@dataclass(frozen=True, eq=False)
class Memorization:
    """Scores of ``N`` records; NaN where a record has no model of one kind.

    Args:
        score: float64, shape ``(N,)``: mean inside minus mean outside, in [-1, 1].
        standard_error: float64, shape ``(N,)``: of the score over the random subsets,
            ``sqrt(s_in^2/n_in + s_out^2/n_out)``; NaN with fewer than two models of a kind.
        inside: int64, shape ``(N,)``: models that trained on the record.
        outside: int64, shape ``(N,)``: models that did not.
    """

    score: Float64[np.ndarray, " N"]
    standard_error: Float64[np.ndarray, " N"]
    inside: Int64[np.ndarray, " N"]
    outside: Int64[np.ndarray, " N"]

    def write(self, path: Path) -> None:
        """Write the scored records to ``.csv`` or ``.parquet``, one row a record."""
        rows = np.flatnonzero(~np.isnan(self.score))
        table = pa.table(
            {
                "record": rows,
                "score": self.score[rows],
                "standard_error": self.standard_error[rows],
                "inside": self.inside[rows],
                "outside": self.outside[rows],
            }
        )
        if path.suffix == ".csv":
            pyarrow.csv.write_csv(table, path)
        elif path.suffix == ".parquet":
            pyarrow.parquet.write_table(table, path)
        else:
            raise InputError(f"expected a score file ending in .csv or .parquet, got {path.name!r}")


def truth_values(
    logits: Float32[np.ndarray, "T N C"], labels: Int64[np.ndarray, " N"], form: Form
) -> Float64[np.ndarray, "T N"]:
    """The values that a score averages: the true class's probability (less variance), or 1 for a right prediction."""
    if form == "indicator":
        return np.asarray(logits.argmax(-1) == labels, np.float64)
    probability = softmax(logits.astype(np.float64), axis=-1)
    return np.asarray(np.take_along_axis(probability, labels[None, :, None], axis=2)[..., 0])


def estimate_memorization(values: Float[np.ndarray, "T N"], roles: Int8[np.ndarray, "T N"]) -> Memorization:
    """Scores from the subset models' values on every record.

    Args:
        values: values from :func:`truth_values`.
        roles: train (inside) or audit (outside); unused and dev records of a model do not count for it.

    >>> import numpy as np
    >>> m = estimate_memorization(np.array([[1., .5], [.8, .5], [.2, .5]]), np.array([[1, 1], [1, 3], [3, 3]], np.int8))
    >>> m.score.round(6).tolist(), m.inside.tolist()
    ([0.7, 0.0], [2, 1])
    """
    mean_in, var_in, n_in = _moments(values, roles == Role.TRAIN)
    mean_out, var_out, n_out = _moments(values, roles == Role.AUDIT)
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.sqrt(var_in / n_in + var_out / n_out)
    return Memorization(mean_in - mean_out, error, n_in, n_out)


def _moments(
    values: Float[np.ndarray, "T N"], chosen: np.ndarray
) -> tuple[Float64[np.ndarray, " N"], Float64[np.ndarray, " N"], Int64[np.ndarray, " N"]]:
    """Mean, unbiased variance and count over the chosen models; NaN where there are too few."""
    n = chosen.sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.where(n > 0, (values * chosen).sum(0) / n, np.nan)
        squares = (np.square(values - mean) * chosen).sum(0)
        return mean, np.where(n > 1, squares / (n - 1), np.nan), n


def halves_correlation(values: Float[np.ndarray, "T N"], roles: Int8[np.ndarray, "T N"], *, seed: int) -> float:
    """Spearman's rank correlation between the scores of two random disjoint halves of the models.

    It measures the reliability of scores from half as many models; by Spearman and Brown the scores from all of them
    are more reliable: ``2r / (1 + r)``. NaN where either half leaves fewer than two records scored.
    """
    order = generator(seed, "memorization/halves").permutation(len(values))
    first, second = (estimate_memorization(values[h], roles[h]).score for h in np.array_split(order, 2))
    both = ~(np.isnan(first) | np.isnan(second))
    return float(spearmanr(first[both], second[both]).statistic)


def read_scores(path: Path, records: int) -> Float64[np.ndarray, " N"]:
    """Read scores by record, NaN where the file has none.

    Args:
        path: the path of a ``.csv`` or ``.parquet`` file with the columns ``record`` (index in the data set) and
            ``score``.
        records: N, the number of records of the data set.

    Raises:
        InputError: another kind of file, missing columns, an unknown or repeated record, or a score that is not
            finite.
    """
    columns = read_record_table(path, {"score": pa.float64()}, records, "memorization scores")
    record, score = columns[RECORD], columns["score"]
    if ((record < 0) | (record >= records)).any():
        raise InputError(
            f"expected records 0..{records - 1} in {path.name!r}, got {record.min()}..{record.max()}; number the "
            "records of the data set from 0"
        )
    if len(np.unique(record)) < len(record):
        raise InputError(f"expected each record once in {path.name!r}, got some twice; keep one score of each")
    if not np.isfinite(score).all():
        raise InputError(f"expected finite scores in {path.name!r}, got NaN or infinity; leave those records out")
    scores = np.full(records, np.nan)
    scores[record] = score
    return scores
