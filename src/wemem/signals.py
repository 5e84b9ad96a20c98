"""Signals: the outputs of ``K`` models on ``N`` records, and the records that each was trained on.

An attack gets nothing else: no data, and of the weights at most which are pruned. Model 0 is the
victim. The audit compares scores with its roles, which no attack may read; an attack calibrates
itself on the other models alone, which :meth:`Signals.without` gives.
"""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, TypeVar

import numpy as np
from jaxtyping import Bool, Float, Float32, Int8, Int64
from scipy.special import log_softmax

from wemem.data.split import Role
from wemem.errors import InputError

T = TypeVar("T")
SignalLayout = Literal["disjoint", "shadows", "shared"]

#: The provenance of a model that came without a certificate.
UNKNOWN = "unknown"

#: End of the label of an attack on the unaltered answers of a model whose defense alters them.
WEIGHTS_HELD = " (weights held)"

#: Optional signals, each with leading axes ``(K, N)``, and what they hold.
EXTRAS: Mapping[str, str] = {
    "sensitivity": "(K, N, C) mean |f(x + eps u) - f(x)| / eps of the probabilities over Gaussian u",
    "queries": "(K, N, Q, C) logits of Q augmented queries, the plain record first",
    "copies": "(K, N, V) logit confidence of V copies of the record with some features of others, near ones first",
    "robustness": "(K, N) share of perturbed copies of the record that get its label",
    "repeated": "(K, N, C) mean over repeated queries of the answers' log-probabilities",
    "trajectory": "(K, N, R, C) logits after each pruning round, the last one being `logits`",
    "dense": "(K, N, C) logits of the original, unpruned model",
    "releases": "(K, N, R) logit confidence of the unpruned model and after each pruning round, that of `logits` last",
}

#: The name by which attacks require :attr:`Signals.masks`, which are no answers to queries.
MASKS = "masks"

#: Perturbed copies of a record whose labels give its robustness.
ROBUSTNESS_COPIES = 60

#: Copies of a record that may help attacks by reference models: near ones, with a fifth of the
#: features of other records, and as many far ones, with half of them.
COPIES_OF_EACH_KIND = 12
#: Which of them count besides the record.
Copies = Literal["none", "near", "far", "all"]
COPIES: Mapping[Copies, slice] = {
    "near": slice(0, COPIES_OF_EACH_KIND), "far": slice(COPIES_OF_EACH_KIND, None), "all": slice(None)
}  # fmt: skip

#: Relative distance of a record's sum from 1 or 100, up to which outputs count as probabilities.
SUM_ERROR = 2e-3
#: The same at most for probabilities that were rounded, and the units they may be rounded to.
LARGEST_SUM_ERROR, ROUNDING_UNITS = 0.25, (0.1, 0.01, 0.001, 0.0001)
#: Rows that are looked at first for probabilities.
FEW_ROWS = 64

#: Bytes of shared values, about, and the most numbers that one value has for each record.
RECENT_BYTES, RECENT_ARRAYS = 2**27, 5

#: Logits taken at a time, 1 MiB in float64: small enough for the cache, large enough for NumPy.
BLOCK = 1 << 17


class RecentValues:
    """Values by key, of which the least recently used are dropped.

    Args:
        most: the number of values that are kept.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._values: dict[Hashable, Any] = {}

    def get(self, key: Hashable, compute: Callable[[], T]) -> T:
        """The value of a key, computed if it is not kept."""
        value: T = self._values.pop(key) if key in self._values else compute()
        self._values[key] = value  # the last one used
        if len(self._values) > self.most:
            del self._values[next(iter(self._values))]
        return value


@dataclass(frozen=True, eq=False)
class Signals:
    """Outputs of ``K`` models on ``N`` records.

    Args:
        logits: float32, shape ``(K, N, C)``.
        labels: int64, shape ``(N,)``.
        roles: int8, shape ``(K, N)``, values of :class:`~wemem.data.split.Role`.
        records: int64, shape ``(N,)``, each row's index in the data set.
        layout: ``disjoint`` if no row has a role both for model 0 and for another, ``shadows`` for
            those others by themselves (they may share rows), ``shared`` if the models were trained
            on random halves of the same rows.
        provenance: one fingerprint per model of how it was made (architecture, schedule, mask rule,
            defense and its settings), or :data:`UNKNOWN`. The audit calls itself adaptive only if
            all are known and equal.
        extras: further arrays with leading axes ``(K, N)``, named in :data:`EXTRAS`.
        masks: by tensor, each bool, shape ``(K, ...)``, True for weights, or channels, that are
            kept; empty if no model is pruned, None if masks were not collected.

    Attacks on several targets share what they compute, by name: ``statistics`` of every model and
    record, small ``figures``, and the last used of other values (:attr:`recent`).

    Raises:
        InputError: shapes that do not fit, NaN logits, or a layout that does not hold.
    """

    logits: Float32[np.ndarray, "K N C"]
    labels: Int64[np.ndarray, " N"]
    roles: Int8[np.ndarray, "K N"]
    records: Int64[np.ndarray, " N"]
    layout: SignalLayout
    provenance: tuple[str, ...]
    extras: Mapping[str, np.ndarray] = field(default_factory=dict)
    masks: Mapping[str, Bool[np.ndarray, "K ..."]] | None = None
    statistics: dict[float | str, Float[np.ndarray, "K N"]] = field(default_factory=dict, init=False, repr=False)
    figures: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.logits.ndim != 3:
            raise InputError(f"expected logits (K, N, C), got {self.logits.shape}")
        k, n, c = self.logits.shape
        for name, array, shape in (
            ("labels", self.labels, (n,)), ("roles", self.roles, (k, n)), ("records", self.records, (n,)),
            *((name, array, (k, n)) for name, array in self.extras.items()),
            *((f"the mask of {name!r}", array, (k,)) for name, array in (self.masks or {}).items()),
        ):  # fmt: skip
            if array.shape[: len(shape)] != shape:
                raise InputError(f"expected {name} of shape {shape} for logits {(k, n, c)}, got {array.shape}")
        if len(self.provenance) != k:
            raise InputError(f"expected {k} provenance fingerprints, got {len(self.provenance)}")
        unknown = sorted(set(self.extras) - set(EXTRAS))
        if unknown:
            raise InputError(f"expected extras among {sorted(EXTRAS)}, got {unknown[0]!r}")
        if n and (self.labels.min() < 0 or self.labels.max() >= c):
            raise InputError(f"expected labels 0..{c - 1}, got {int(self.labels.min())}..{int(self.labels.max())}")
        for name, array in {"logits": self.logits, **self.extras}.items():
            if not np.isfinite(array).all():
                model, record = np.argwhere(~np.isfinite(array))[0][:2]
                raise InputError(
                    f"expected finite {name}, got NaN or infinity for model {model} and record "
                    f"{int(self.records[record])}; the model diverged or the file is broken"
                )
        for k, logits in enumerate(self.logits):
            refuse_probabilities(logits, f"model {k}")
        if self.layout == "disjoint":
            shared = (self.roles[0] != Role.UNUSED) & (self.roles[1:] != Role.UNUSED).any(axis=0)
            if shared.any():
                raise InputError(
                    f"expected no audited record among the shadows' records, got {int(shared.sum())} shared; "
                    "an attack that learns from shadows would be scored on what it has learned"
                )

    @property
    def num_models(self) -> int:
        """K, the number of models."""
        return len(self.logits)

    @property
    def classes(self) -> int:
        """C, the number of classes."""
        return int(self.logits.shape[2])

    @property
    def collected(self) -> frozenset[str]:
        """Names of the signals besides the logits that an attack can require."""
        return frozenset(self.extras) | (frozenset() if self.masks is None else {MASKS})

    @property
    def adaptive(self) -> bool:
        """True if every model was made exactly as the victim was, and that is known."""
        return set(self.provenance) == {self.provenance[0]} - {UNKNOWN}

    def audited(self, model: int) -> Int64[np.ndarray, " n"]:
        """Rows on which a model is attacked: its members and its non-members, ascending."""
        return np.flatnonzero((self.roles[model] == Role.TRAIN) | (self.roles[model] == Role.AUDIT))

    def is_member(self, model: int) -> Bool[np.ndarray, " n"]:
        """True for the :meth:`audited` rows that the model was trained on."""
        return np.asarray(self.roles[model, self.audited(model)] == Role.TRAIN)

    @property
    def population(self) -> Int64[np.ndarray, " p"]:
        """Rows that no model uses in any role."""
        return np.flatnonzero((self.roles == Role.UNUSED).all(axis=0))

    def log_probabilities(self, model: int, rows: Int64[np.ndarray, " n"]) -> Float[np.ndarray, "n C"]:
        """Float64 log-softmax of one model's logits."""
        return np.asarray(log_softmax(self.logits[model, rows].astype(np.float64), axis=-1))

    def probabilities(self, model: int, rows: Int64[np.ndarray, " n"]) -> Float[np.ndarray, "n C"]:
        """Float64 softmax of one model's logits."""
        return np.asarray(np.exp(self.log_probabilities(model, rows)))

    @property
    def logit_confidence(self) -> Float[np.ndarray, "K N"]:
        """:func:`logit_confidence` of every model and record."""
        return self.confidence_at(1.0)

    def confidence_at(self, temperature: float) -> Float[np.ndarray, "K N"]:
        """The same of the softmax at a temperature; leave-one-out attacks compute it once."""
        return self.statistic(temperature, lambda: logit_confidence(self.logits, self.labels, temperature=temperature))

    def confidence_with(self, copies: Copies) -> Float[np.ndarray, "K N"]:
        """Mean of the logit confidence in a record and in some of its copies; leave-one-out attacks
        compute it once.
        """
        if copies == "none":
            return self.logit_confidence
        chosen = self.extras["copies"][..., COPIES[copies]]
        return self.statistic(
            copies,
            lambda: np.asarray((self.logit_confidence + chosen.sum(axis=2, dtype=np.float64)) / (1 + chosen.shape[2])),
        )

    def statistic(self, name: float | str, compute: Callable[[], Float[np.ndarray, "K N"]]) -> Float[np.ndarray, "K N"]:
        """A statistic of every model and record, computed once.

        Args:
            name: of the statistic, or the temperature of a confidence.
            compute: computes it.
        """
        if name not in self.statistics:
            self.statistics[name] = compute()
        return self.statistics[name]

    @cached_property
    def recent(self) -> "RecentValues":
        """Values that depend on some models and records, of which the last used are kept."""
        return RecentValues(max(16, RECENT_BYTES // (RECENT_ARRAYS * 8 * max(1, len(self.labels)))))

    @cached_property
    def query_logit_confidence(self) -> Float[np.ndarray, "K N Q"]:
        """:func:`logit_confidence` of every augmented query, the plain record first."""
        queries = np.moveaxis(self.extras["queries"], 2, 1)
        return np.moveaxis(logit_confidence(queries, self.labels), 1, 2)

    def select(self, models: list[int]) -> "Signals":
        """The same rows for some of the models, in the given order."""
        chosen = replace(
            self,
            layout="shadows" if self.layout == "disjoint" and models[:1] != [0] else self.layout,
            logits=self.logits[models],
            roles=self.roles[models],
            provenance=tuple(self.provenance[k] for k in models),
            extras={name: array[models] for name, array in self.extras.items()},
            masks=None if self.masks is None else {name: mask[models] for name, mask in self.masks.items()},
        )
        chosen.statistics.update({name: array[models] for name, array in self.statistics.items()})
        if "query_logit_confidence" in self.__dict__:  # computed already
            chosen.__dict__["query_logit_confidence"] = self.query_logit_confidence[models]
        return chosen

    def without(self, model: int) -> "Signals":
        """The signals of every model but one, as the adversary knows them when that one is
        attacked.
        """
        return self.select([k for k in range(self.num_models) if k != model])


def logit_confidence(
    logits: Float[np.ndarray, "... N C"], labels: Int64[np.ndarray, " N"], *, temperature: float = 1.0
) -> Float[np.ndarray, "... N"]:
    """``log p_y - log sum_{c != y} p_c = x_y - logsumexp_{c != y} x_c``, the true-class
    probability's logit, float64.

    From logits nothing saturates: probabilities that round to 1 keep their order. It is LiRA's
    statistic (Carlini et al., S&P 2022), close to normal over models.

    Args:
        logits: shape ``(..., N, C)``, any floating type; read in blocks, not copied as float64.
        labels: shape ``(N,)``.
        temperature: of the softmax; the logits are divided by it.

    Raises:
        InputError: fewer than two classes.

    With two classes it is the difference of the logits, here far beyond where ``1 - p`` is 0 in
    float64:

    >>> logit_confidence(np.array([[90.0, -10.0], [0.5, 2.0]]), np.array([0, 0])).tolist()
    [100.0, -1.5]
    """
    *leading, n, classes = logits.shape
    if classes < 2:
        raise InputError(f"expected logits of at least 2 classes, got {classes}; one class says nothing of a record")
    confidence = np.empty((*leading, n))
    step = max(1, BLOCK // classes)
    for index in np.ndindex(*leading):
        for start in range(0, n, step):
            # Classes first: NumPy reduces a long contiguous axis several times faster than many
            # short ones.
            x = logits[index][start : start + step].T.astype(np.float64, order="C")
            if temperature != 1:
                x /= temperature
            true = labels[start : start + step], np.arange(x.shape[1])
            truth = x[true]
            x[true] = -np.inf
            peak = x.max(axis=0)
            rest = np.log(np.exp(x - peak).sum(axis=0))
            confidence[index][start : start + step] = (truth - peak) - rest
    return confidence


def refuse_probabilities(outputs: Float[np.ndarray, "N C"], source: str) -> None:
    """Refuse outputs of one model that are probabilities: none is negative, and every record's sum
    to 1 or to 100, but for rounding to a few decimals.

    Attacks take the softmax of logits. Of probabilities it would be almost uniform, and a model
    that leaks would look safe.

    Args:
        outputs: the outputs of some records.
        source: the name of the model, function or file that gave them.

    Raises:
        InputError: probabilities.

    >>> refuse_probabilities(np.array([[2.0, -1.0], [0.5, 0.5]]), "model 0")
    >>> refuse_probabilities(np.array([[0.75, 0.25], [0.5, 0.5]]), "model 0")
    Traceback (most recent call last):
        ...
    wemem.errors.InputError: expected logits from model 0, got probabilities: ...
    """
    for total in (1, 100):
        if all(_are_shares(rows, total) for rows in (outputs[:FEW_ROWS], outputs)):  # the first rows show it mostly
            raise InputError(
                f"expected logits from {source}, got probabilities: every record's outputs lie in [0, {total}] and sum "
                f"to {total}; give the outputs before the softmax, or the logarithm of the probabilities: "
                "np.log(np.maximum(probabilities, 1e-30))"
            )


def of_log_odds(outputs: Float[np.ndarray, "*B 1"]) -> Float[np.ndarray, "*B 2"]:
    """The logits of two classes, ``(0, z)``, from one number ``z`` for each record: the log odds of
    class 1.

    >>> of_log_odds(np.array([[1.5], [-2.0]])).tolist()
    [[0.0, 1.5], [0.0, -2.0]]
    """
    return np.concatenate([np.zeros_like(outputs), outputs], axis=-1)


def refuse_sigmoid(outputs: Float[np.ndarray, "N C"], source: str) -> None:
    """Refuse outputs of one trained model that look like those of a sigmoid: all lie in [0, 1], and
    they vary.

    Logits may lie there by chance. Any constant may be added to the logits of a record, which
    changes no softmax, so that such a model can be audited all the same. One number for each record
    has become two logits, of which the first is 0 (:func:`of_log_odds`).

    Args:
        outputs: the outputs of some records.
        source: the name of the model, function or file that gave them.

    Raises:
        InputError: outputs that all lie in [0, 1], for :data:`FEW_ROWS` records or more.

    >>> rows = np.linspace(0, 1, 128).reshape(64, 2)
    >>> refuse_sigmoid(rows - 1, "model 0")
    >>> refuse_sigmoid(rows, "model 0")
    Traceback (most recent call last):
        ...
    wemem.errors.InputError: expected logits from model 0, got numbers in [0, 1] alone, as a sigmoid gives; ...
    """
    if len(outputs) >= FEW_ROWS and outputs.min() >= 0 and outputs.max() <= 1 and np.ptp(outputs) > 0:
        one = outputs.shape[1] == 2 and not outputs[:, 0].any()
        same = "give two columns, -1 and the log odds less 1" if one else "subtract 1 from all"
        raise InputError(
            f"expected logits from {source}, got numbers in [0, 1] alone, as a sigmoid gives; give the outputs before "
            f"the sigmoid, np.log(p / (1 - p)). If they are {'log odds' if one else 'logits'}, {same}, which changes "
            "no attack"
        )


def _are_shares(rows: Float[np.ndarray, "N C"], total: float) -> bool:
    """Return True if the outputs of every record are shares of a total, up to rounding."""
    if not len(rows) or (rows < 0).any():
        return False
    error = np.abs(rows.sum(axis=1, dtype=np.float64) / total - 1).max()
    return bool(error <= SUM_ERROR or (error <= LARGEST_SUM_ERROR and error <= _rounding_error(rows / total)))


def _rounding_error(rows: Float[np.ndarray, "N C"]) -> float:
    """The error that rounding to a few decimals leaves in a record's sum at most; 0 if the values
    are not rounded.
    """
    for unit in ROUNDING_UNITS:
        steps = rows.astype(np.float64) / unit
        if np.abs(steps - np.rint(steps)).max() < 1e-2:
            return float(rows.shape[1] * unit / 2 + SUM_ERROR)
    return 0.0
