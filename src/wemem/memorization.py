"""Memorization scores: the effect that training on a record has on the model's prediction for it.

For record ``i`` of a training set ``S`` and learner ``A`` (Feldman, STOC 2020)::

    mem(i) = Pr[h(x_i) = y_i | h ~ A(S)]  -  Pr[h(x_i) = y_i | h ~ A(S without i)]

It is estimated with ``T`` models, each trained on a random subset of ``S``: the mean over the
models that were trained on the record minus the mean over the others (Feldman & Zhang, NeurIPS
2020). The scores of a party come from models that are trained on the records of that party only.
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
    """Memorization scores of ``N`` records; NaN where no model was trained on a record, or every
    model was.

    Args:
        score: the mean over models inside minus the mean over models outside, in [-1, 1], shape
            ``(N,)``.
        standard_error: the standard error of the score over the random subsets, ``sqrt(s_in^2/n_in
            + s_out^2/n_out)``, shape ``(N,)``; NaN with fewer than two models of a kind.
        inside: the number of models that were trained on the record, shape ``(N,)``.
        outside: the number of models that were not trained on the record, shape ``(N,)``.
    """

    score: Float64[np.ndarray, " N"]
    standard_error: Float64[np.ndarray, " N"]
    inside: Int64[np.ndarray, " N"]
    outside: Int64[np.ndarray, " N"]

    def write(self, path: str | Path) -> None:
        """Write the scored records to a ``.csv`` or ``.parquet`` file, one row per record."""
        path = Path(path)
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
    """Compute the values of which a score is a mean: the probability of the true class, or 1 for a
    correct prediction.

    The probability gives scores of lower variance.
    """
    if form == "indicator":
        return np.asarray(logits.argmax(-1) == labels, np.float64)
    probability = softmax(logits.astype(np.float64), axis=-1)
    return np.asarray(np.take_along_axis(probability, labels[None, :, None], axis=2)[..., 0])


def estimate_memorization(values: Float[np.ndarray, "T N"], roles: Int8[np.ndarray, "T N"]) -> Memorization:
    """Estimate memorization scores from the values of the subset models on every record.

    Args:
        values: the values from :func:`truth_values`.
        roles: the role of each record for each model: train is inside and audit is outside; a
            record with another role does not count for the model.

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
    """The mean, unbiased variance and count over the chosen models; NaN where there are too few."""
    n = chosen.sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.where(n > 0, (values * chosen).sum(0) / n, np.nan)
        squares = (np.square(values - mean) * chosen).sum(0)
        return mean, np.where(n > 1, squares / (n - 1), np.nan), n


def halves_correlation(values: Float[np.ndarray, "T N"], roles: Int8[np.ndarray, "T N"], *, seed: int) -> float:
    """Compute Spearman's rank correlation between the scores of two random disjoint halves of the
    models.

    It measures the reliability of scores from half as many models. By Spearman and Brown, the
    reliability of the scores from all models is ``2r / (1 + r)``. The result is NaN where fewer
    than two records have both scores.
    """
    order = generator(seed, "memorization/halves").permutation(len(values))
    first, second = (estimate_memorization(values[h], roles[h]).score for h in np.array_split(order, 2))
    both = ~(np.isnan(first) | np.isnan(second))
    return float(spearmanr(first[both], second[both]).statistic)


def read_scores(path: Path, records: int) -> Float64[np.ndarray, " N"]:
    """Read a score for each record; NaN where the file has none.

    Args:
        path: the path of a ``.csv`` or ``.parquet`` file with the columns ``record`` (index in the
            data set) and ``score``.
        records: N, the number of records of the data set.

    Raises:
        InputError: the file is of another kind, lacks a column, or holds an unknown or repeated
            record or a score that is not finite.
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
