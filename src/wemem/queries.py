"""Queries to models: the answers from which an adversary makes signals, through the defense that
may alter them.
"""

from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import Protocol

import numpy as np
from jaxtyping import Float32, Int64, Real
from scipy.special import log_softmax, softmax

from wemem.data.packed_inputs import PackedInputs
from wemem.data.table_form import TableForm
from wemem.defenses import Defense, OutputPostprocessing
from wemem.randomness import generator
from wemem.signals import COPIES_OF_EACH_KIND, ROBUSTNESS_COPIES, logit_confidence

#: Times the same query is repeated where answers are drawn at random.
REPEATS = 64
#: Probability with which a feature that is a whole number is replaced where others move by a small
#: step.
REPLACED = 0.05

#: Shares of the features that are replaced in near and far copies.
COPY_RATES = (0.2, 0.5)
#: Bytes of copies that are kept for the next models.
KEPT_COPIES = 2**28


class DrawnCopies:
    """Copies of records that have some features of others, drawn once for all models that are
    queried on the same records.

    The copies of the last sets of records are kept, up to a number of bytes in all; features that
    are bytes in another type are kept as bytes. A set that does not fit is drawn anew for each
    query.

    Args:
        limit: the number of bytes.
    """

    def __init__(self, limit: int = KEPT_COPIES) -> None:
        self.limit = limit
        self._kept: dict[bytes, list[np.ndarray]] = {}

    def of(self, features: Real[np.ndarray, "N ..."], *, seed: int) -> Iterator[Real[np.ndarray, "N ..."]]:
        """The copies of some records: near ones first, then far ones."""
        content, kind = features.tobytes(), features.dtype
        with np.errstate(invalid="ignore"):  # NaN is no byte
            narrow = features.astype(np.uint8)
        kept_as = narrow.dtype if narrow.astype(kind).tobytes() == content else kind
        if len(COPY_RATES) * COPIES_OF_EACH_KIND * features.size * kept_as.itemsize > self.limit:
            return _draw_copies(features, seed)
        key = sha256(repr((seed, features.shape, kind.str)).encode() + content).digest()
        kept = self._kept.pop(key, None)
        if kept is None:
            kept = [copy.astype(kept_as) for copy in _draw_copies(features, seed)]
        self._kept[key] = kept  # the last one used
        while sum(copy.nbytes for copies in self._kept.values() for copy in copies) > self.limit:
            del self._kept[next(iter(self._kept))]
        return (copy.astype(kind) for copy in kept)


def _draw_copies(features: Real[np.ndarray, "N ..."], seed: int) -> Iterator[Real[np.ndarray, "N ..."]]:
    for rate in COPY_RATES:
        for copy in range(COPIES_OF_EACH_KIND):
            yield replace_features(features, rate, generator(seed, "copies", str(rate), copy))


class Queried(Protocol):
    """``K`` models that answer queries."""

    def __len__(self) -> int: ...

    def logits(self, features: Real[np.ndarray, "N ..."]) -> Float32[np.ndarray, "K N C"]:
        """Answers of every model on the same records."""
        ...


class Postprocessed:
    """Models whose answers are altered before an adversary sees them; every query draws anew."""

    def __init__(self, models: Queried, postprocessing: OutputPostprocessing, *, seed: int) -> None:
        self.models, self.postprocessing, self.seed, self.queries = models, postprocessing, seed, 0

    def __len__(self) -> int:
        return len(self.models)

    def logits(self, features: Real[np.ndarray, "N ..."]) -> Float32[np.ndarray, "K N C"]:
        """Altered logits of every model on the same records."""
        self.queries += 1
        return np.stack(
            [
                self.postprocessing(logits, generator(self.seed, "release", self.queries, k))
                for k, logits in enumerate(self.models.logits(features))
            ]
        )


def postprocessed(models: Queried, defense: Defense, *, seed: int) -> Queried:
    """Models that answer as a defense has them answer; the models themselves if it alters no
    output.

    Args:
        models: the models that compute the logits.
        defense: the defense under which they are released.
        seed: seed of answers that are drawn.
    """
    postprocessing = defense.capability(OutputPostprocessing)
    return models if postprocessing is None else Postprocessed(models, postprocessing, seed=seed)


def query_models(
    ensemble: Queried,
    features: Real[np.ndarray, "N ..."],
    labels: Int64[np.ndarray, " N"],
    required_signals: frozenset[str],
    *,
    seed: int,
    form: TableForm | PackedInputs | None = None,
    copies: DrawnCopies | None = None,
) -> dict[str, np.ndarray]:
    """Query every model: ``logits``, and those of the required signals that queries can give.

    Args:
        ensemble: K models.
        features: N records.
        labels: their labels.
        required_signals: names of :data:`~wemem.signals.EXTRAS`; ``trajectory`` and ``dense`` need
            other models and are not collected here. ``queries`` are the record and its mirror
            image, and need images ``(N, C, H, W)``.
        seed: for the random queries.
        form: the columns of a table, or several inputs; None for other records.
        copies: gives the copies of the records; None draws them anew.
    """
    answers: dict[str, np.ndarray] = {"logits": ensemble.logits(features)}
    if "sensitivity" in required_signals:
        answers["sensitivity"] = sensitivity(
            ensemble, features, softmax(answers["logits"], axis=-1), seed=seed, form=form
        )
    if "queries" in required_signals:
        mirrored = ensemble.logits(np.ascontiguousarray(features[..., ::-1]))
        answers["queries"] = np.stack([answers["logits"], mirrored], axis=2)
    if "copies" in required_signals:
        answers["copies"] = confidence_in_copies(ensemble, (copies or DrawnCopies(0)).of(features, seed=seed), labels)
    if "robustness" in required_signals:
        answers["robustness"] = robustness(ensemble, features, labels, seed=seed, form=form)
    if "repeated" in required_signals:
        answers["repeated"] = mean_answer(ensemble, features, answers["logits"])
    return answers


def mean_answer(
    ensemble: Queried,
    features: Real[np.ndarray, "N ..."],
    first: Float32[np.ndarray, "K N C"],
    *,
    repeats: int = REPEATS,
) -> Float32[np.ndarray, "K N C"]:
    """Mean log-probabilities of repeated queries; one query is enough of models that answer alike
    twice.

    Args:
        ensemble: K models.
        features: N records.
        first: the answers to the first query.
        repeats: number of queries, the first included.
    """
    total = log_softmax(first, axis=-1)
    for _ in range(repeats - 1):
        answer = ensemble.logits(features)
        if np.array_equal(answer, first):
            return np.asarray(log_softmax(first, axis=-1), np.float32)
        total += log_softmax(answer, axis=-1)
    return np.asarray(total / np.float32(repeats), np.float32)


def confidence_in_copies(
    ensemble: Queried, copies: Iterable[Real[np.ndarray, "N ..."]], labels: Int64[np.ndarray, " N"]
) -> Float32[np.ndarray, "K N V"]:
    """Logit confidence in copies of every record.

    Only the confidence is kept: the logits of all copies would take many times the memory.

    Args:
        ensemble: K models.
        copies: V copies of all N records, as :class:`DrawnCopies` gives them.
        labels: the labels of the records.
    """
    seen = [logit_confidence(ensemble.logits(copy), labels).astype(np.float32) for copy in copies]
    return np.stack(seen, axis=2)


def sensitivity(
    ensemble: Queried,
    features: Real[np.ndarray, "N ..."],
    probabilities: Float32[np.ndarray, "K N C"],
    *,
    seed: int,
    directions: int = 10,
    step: float = 1e-3,
    form: TableForm | PackedInputs | None = None,
) -> Float32[np.ndarray, "K N C"]:
    """Mean ``|p(x + eps u) - p(x)| / eps`` over Gaussian directions ``u`` (Yuan & Zhang, USENIX
    Security 2022).

    Features that are :func:`whole_numbers`, such as tokens, cannot move by a small step: ``x + eps
    u`` is then the record with each feature replaced, with a probability of :data:`REPLACED`, by
    that of another record, and ``eps`` that probability. So are tables with categories, and several
    inputs of which one has whole numbers. In a table of numbers alone, ``u`` is in units of each
    column's standard deviation.
    """
    whole = whole_numbers(features) if form is None else form.discrete
    units = np.float32(1) if form is None else np.nanstd(features, axis=0)
    total = np.zeros_like(probabilities)
    for d in range(directions):
        rng = generator(seed, "sensitivity", d)
        if whole:
            moved = replace_features(features, REPLACED, rng)
        else:
            moved = features + step * units * rng.standard_normal(features.shape, np.float32)
        total += np.abs(softmax(ensemble.logits(moved), axis=-1) - probabilities)
    return total / np.float32(directions * (REPLACED if whole else step))


def robustness(
    ensemble: Queried,
    features: Real[np.ndarray, "N ..."],
    labels: Int64[np.ndarray, " N"],
    *,
    seed: int,
    copies: int = ROBUSTNESS_COPIES,
    form: TableForm | PackedInputs | None = None,
) -> Float32[np.ndarray, "K N"]:
    """Share of perturbed copies that get the record's label (Choquette-Choo et al., ICML 2021).

    Features that are all 0 or 1 are flipped at rates from 1 % to 20 %, other :func:`whole_numbers`
    and those of a table with categories are replaced by those of other records at the same rates.
    The rest get Gaussian noise of 0.05 to 1 standard deviations, in a table those of each column.
    Weak and strong perturbations tell apart records near the
    decision boundary and records far from it.
    """
    binary, whole = bool(np.isin(features, (0, 1)).all()), whole_numbers(features)
    if form is not None:
        binary, whole = binary and not form.discrete, whole or form.discrete
    deviation = features.std() if form is None else np.nanstd(features, axis=0)
    right = np.zeros((len(ensemble), len(features)), np.float32)
    for i in range(copies):
        rng = generator(seed, "robustness", i)
        share = i / max(1, copies - 1)
        rate = 0.01 + 0.19 * share
        if binary:
            noisy = np.abs(features - (rng.random(features.shape, np.float32) < rate))
        elif whole:
            noisy = replace_features(features, rate, rng)
        else:
            scale = np.asarray((0.05 + 0.95 * share) * deviation, np.float32)
            noisy = features + scale * rng.standard_normal(features.shape, np.float32)
        right += ensemble.logits(noisy.astype(features.dtype)).argmax(-1) == labels
    return right / np.float32(copies)


def whole_numbers(features: Real[np.ndarray, "N ..."]) -> bool:
    """True for features of an integer type, and for whole numbers with more than two values, such
    as tokens or counts.

    Real features of 0 and 1 are none: published attacks perturb them as any real number.
    """
    if features.dtype.kind in "iu":
        return True
    return bool((features == np.floor(features)).all() and not np.isin(features, (0, 1)).all())


def replace_features(
    features: Real[np.ndarray, "N ..."], rate: float, rng: np.random.Generator
) -> Real[np.ndarray, "N ..."]:
    """Replace features, each with a probability of ``rate``, by the same feature of a random other
    record.

    >>> replaced = replace_features(np.array([[1.0, 7.0], [2.0, 9.0]]), 1.0, np.random.default_rng(0))
    >>> set(replaced[:, 0].tolist()) <= {1.0, 2.0}, set(replaced[:, 1].tolist()) <= {7.0, 9.0}
    (True, True)
    """
    donors = rng.integers(0, len(features), features.shape).ravel()
    moved = np.flatnonzero(rng.random(features.shape) < rate)
    values, of_a_record = features.ravel(), features.size // max(1, len(features))
    replaced = values.copy()
    replaced[moved] = values[donors[moved] * of_a_record + moved % of_a_record]
    return replaced.reshape(features.shape)
