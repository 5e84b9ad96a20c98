"""What an attacker may see: the outputs of ``K`` models on ``N`` records, and who was trained on what.

An attack gets nothing else: no weights, no data. Member 0 is the victim; its roles are what the audit judges by and
what no attack may read (:meth:`Signals.without` is how an attack calibrates itself on the other members only).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, Protocol

import numpy as np
from jaxtyping import Float, Float32, Int8, Int64, Real
from scipy.special import log_softmax, softmax

from wemem.data.split import Role
from wemem.defenses import Defense, OutputPostprocessing
from wemem.errors import InputError
from wemem.randomness import generator

SignalLayout = Literal["disjoint", "shadows", "shared"]

#: The provenance of a model that came without a certificate.
UNKNOWN = "unknown"

#: Optional signals, each with leading axes ``(K, N)``, and what they hold.
EXTRAS: Mapping[str, str] = {
    "sensitivity": "(K, N, C) mean |f(x + eps u) - f(x)| / eps of the probabilities over Gaussian u",
    "queries": "(K, N, Q, C) logits of Q augmented queries, the plain record first",
    "robustness": "(K, N) share of perturbed copies of the record that get its label",
    "repeated": "(K, N, C) mean over repeated queries of the answers' log-probabilities",
    "trajectory": "(K, N, R, C) logits after each pruning round, the last one being `logits`",
    "dense": "(K, N, C) logits of the original, unpruned model",
}

#: Perturbed copies of a record whose labels give its robustness.
ROBUSTNESS_COPIES = 60
#: Times the same query is repeated where answers are drawn at random.
REPEATS = 64

#: Probability with which a feature that is a whole number is replaced where others move by a small step.
REPLACED = 0.05
#: Distance from 1 of the sum of a record's outputs, up to which they count as probabilities.
SUM_ERROR = 2e-3
#: Rows that are looked at first for probabilities.
FEW_ROWS = 64

#: Logits taken at a time, 1 MiB in float64: small enough for the cache, large enough for NumPy.
BLOCK = 1 << 17


@dataclass(frozen=True, eq=False)
class Signals:
    """Outputs of ``K`` models on ``N`` records.

    Args:
        logits: float32, shape ``(K, N, C)``.
        labels: int64, shape ``(N,)``.
        roles: int8, shape ``(K, N)``, values of :class:`~wemem.data.split.Role`.
        records: int64, shape ``(N,)``, each row's index in the data set.
        layout: ``disjoint`` if no row has a role both for member 0 and for another, ``shadows`` for those others by
            themselves (they share rows as it happens), ``shared`` if the members are random halves of the same rows.
        provenance: one fingerprint per member of how it was made (architecture, schedule, mask rule, defense and its
            settings), or :data:`UNKNOWN`. The audit calls itself adaptive only if all are known and equal.
        extras: further arrays with leading axes ``(K, N)``, named in :data:`EXTRAS`.

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
    confidences: dict[float, Float[np.ndarray, "K N"]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.logits.ndim != 3:
            raise InputError(f"expected logits (K, N, C), got {self.logits.shape}")
        k, n, c = self.logits.shape
        for name, array, shape in (
            ("labels", self.labels, (n,)), ("roles", self.roles, (k, n)), ("records", self.records, (n,)),
            *((name, array, (k, n)) for name, array in self.extras.items()),
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
            require_logits(logits, f"model {k}")
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
    def adaptive(self) -> bool:
        """True if every member was made exactly as the victim was, and that is known."""
        return set(self.provenance) == {self.provenance[0]} - {UNKNOWN}

    def audited(self, member: int) -> Int64[np.ndarray, " n"]:
        """Rows on which ``member`` is judged: its members and its non-members, ascending."""
        return np.flatnonzero((self.roles[member] == Role.TRAIN) | (self.roles[member] == Role.AUDIT))

    def is_member(self, member: int) -> np.ndarray:
        """bool, shape ``(n,)``: which of :meth:`audited` rows ``member`` was trained on."""
        return np.asarray(self.roles[member, self.audited(member)] == Role.TRAIN)

    @property
    def population(self) -> Int64[np.ndarray, " p"]:
        """Rows that no member uses in any role."""
        return np.flatnonzero((self.roles == Role.UNUSED).all(axis=0))

    def log_probabilities(self, member: int, rows: Int64[np.ndarray, " n"]) -> Float[np.ndarray, "n C"]:
        """float64 log-softmax of one member's logits."""
        return np.asarray(log_softmax(self.logits[member, rows].astype(np.float64), axis=-1))

    def probabilities(self, member: int, rows: Int64[np.ndarray, " n"]) -> Float[np.ndarray, "n C"]:
        """float64 softmax of one member's logits."""
        return np.asarray(np.exp(self.log_probabilities(member, rows)))

    @property
    def logit_confidence(self) -> Float[np.ndarray, "K N"]:
        """:func:`logit_confidence` of every model and record."""
        return self.confidence_at(1.0)

    def confidence_at(self, temperature: float) -> Float[np.ndarray, "K N"]:
        """The same of the softmax at a temperature; leave-one-out attacks compute it once."""
        if temperature not in self.confidences:
            self.confidences[temperature] = logit_confidence(self.logits, self.labels, temperature=temperature)
        return self.confidences[temperature]

    @cached_property
    def query_logit_confidence(self) -> Float[np.ndarray, "K N Q"]:
        """:func:`logit_confidence` of every augmented query, the plain record first."""
        queries = np.moveaxis(self.extras["queries"], 2, 1)
        return np.moveaxis(logit_confidence(queries, self.labels), 1, 2)

    def select(self, members: list[int]) -> "Signals":
        """The same rows for some of the members, in the given order."""
        chosen = replace(
            self,
            layout="shadows" if self.layout == "disjoint" and members[:1] != [0] else self.layout,
            logits=self.logits[members],
            roles=self.roles[members],
            provenance=tuple(self.provenance[m] for m in members),
            extras={name: array[members] for name, array in self.extras.items()},
        )
        chosen.confidences.update({at: array[members] for at, array in self.confidences.items()})
        if "query_logit_confidence" in self.__dict__:  # computed already
            chosen.__dict__["query_logit_confidence"] = self.query_logit_confidence[members]
        return chosen

    def without(self, member: int) -> "Signals":
        """The signals as the adversary knows them when ``member`` is attacked: every member but that one."""
        return self.select([m for m in range(self.num_models) if m != member])


def logit_confidence(
    logits: Float[np.ndarray, "... N C"], labels: Int64[np.ndarray, " N"], *, temperature: float = 1.0
) -> Float[np.ndarray, "... N"]:
    """``log p_y - log sum_{c != y} p_c = x_y - logsumexp_{c != y} x_c``, the true-class probability's logit, float64.

    From logits the softmax's normalizer cancels and nothing saturates: probabilities that round to 1 keep their
    order. It is LiRA's statistic (Carlini et al., S&P 2022), close to normal over models.

    Args:
        logits: shape ``(..., N, C)``, any floating type; read in blocks, so that no float64 copy of them is made.
        labels: shape ``(N,)``.
        temperature: of the softmax; the logits are divided by it.

    Raises:
        InputError: fewer than two classes.

    With two classes it is the difference of the logits, here far beyond where ``1 - p`` is 0 in float64:

    >>> logit_confidence(np.array([[90.0, -10.0], [0.5, 2.0]]), np.array([0, 0])).tolist()
    [100.0, -1.5]
    """
    *leading, n, classes = logits.shape
    if classes < 2:
        raise InputError(f"expected logits of at least 2 classes, got {classes}; one class tells nothing")
    confidence = np.empty((*leading, n))
    step = max(1, BLOCK // classes)
    for index in np.ndindex(*leading):
        for start in range(0, n, step):
            # Classes first: NumPy reduces a long contiguous axis several times faster than many short ones.
            x = logits[index][start : start + step].T.astype(np.float64, order="C")
            if temperature != 1:
                x /= temperature
            true = labels[start : start + step], np.arange(x.shape[1])
            own = x[true]
            x[true] = -np.inf
            peak = x.max(axis=0)
            rest = np.log(np.exp(x - peak).sum(axis=0))
            confidence[index][start : start + step] = (own - peak) - rest
    return confidence


def require_logits(outputs: Float[np.ndarray, "N C"], source: str) -> None:
    """Refuse outputs of one model that are probabilities: every record's lie in [0, 1] and sum to 1.

    Attacks take the softmax of logits. Of probabilities it would be almost uniform, and a model that leaks would look
    safe.

    Args:
        outputs: the outputs of some records.
        source: the name of the model, function or file that gave them.

    Raises:
        InputError: probabilities.

    >>> require_logits(np.array([[2.0, -1.0], [0.5, 0.5]]), "model 0")
    >>> require_logits(np.array([[0.75, 0.25], [0.5, 0.5]]), "model 0")
    Traceback (most recent call last):
        ...
    wemem.errors.InputError: expected logits from model 0, got probabilities: ...
    """
    for rows in (outputs[:FEW_ROWS], outputs):  # the first rows show it almost always
        if not len(rows) or (rows < 0).any() or (np.abs(rows.sum(axis=1, dtype=np.float64) - 1) > SUM_ERROR).any():
            return
    raise InputError(
        f"expected logits from {source}, got probabilities: every record's outputs lie in [0, 1] and sum to 1; "
        "give the outputs before the softmax, or their logarithm: np.log(np.maximum(outputs, 1e-30))"
    )


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
    """Models that answer as a defense has them answer; the models themselves if it alters no output.

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
) -> dict[str, np.ndarray]:
    """What an adversary gets by querying every member: ``logits`` and those signals that queries can give.

    Args:
        ensemble: K models.
        features: N records.
        labels: their labels.
        required_signals: names of :data:`EXTRAS`; ``trajectory`` and ``dense`` need other models and are not
            collected here.
            ``queries`` are the record and its mirror image, and need images ``(N, C, H, W)``.
        seed: for the random queries.
    """
    found: dict[str, np.ndarray] = {"logits": ensemble.logits(features)}
    if "sensitivity" in required_signals:
        found["sensitivity"] = sensitivity(ensemble, features, softmax(found["logits"], axis=-1), seed=seed)
    if "queries" in required_signals:
        mirrored = ensemble.logits(np.ascontiguousarray(features[..., ::-1]))
        found["queries"] = np.stack([found["logits"], mirrored], axis=2)
    if "robustness" in required_signals:
        found["robustness"] = robustness(ensemble, features, labels, seed=seed)
    if "repeated" in required_signals:
        found["repeated"] = mean_answer(ensemble, features, found["logits"])
    return found


def mean_answer(
    ensemble: Queried,
    features: Real[np.ndarray, "N ..."],
    first: Float32[np.ndarray, "K N C"],
    *,
    repeats: int = REPEATS,
) -> Float32[np.ndarray, "K N C"]:
    """Mean log-probabilities of repeated queries; one query is enough of models that answer alike twice.

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


def sensitivity(
    ensemble: Queried,
    features: Float32[np.ndarray, "N ..."],
    probabilities: Float32[np.ndarray, "K N C"],
    *,
    seed: int,
    directions: int = 10,
    step: float = 1e-3,
) -> Float32[np.ndarray, "K N C"]:
    """Mean ``|p(x + eps u) - p(x)| / eps`` over Gaussian directions ``u`` (Yuan & Zhang, USENIX Security 2022).

    Features that are :func:`whole_numbers`, such as tokens, cannot move by a small step: ``x + eps u`` is then the
    record with each feature replaced, with a probability of :data:`REPLACED`, by that of another record, and ``eps``
    that probability.
    """
    whole = whole_numbers(features)
    total = np.zeros_like(probabilities)
    for d in range(directions):
        rng = generator(seed, "sensitivity", d)
        if whole:
            moved = replace_features(features, REPLACED, rng)
        else:
            moved = features + step * rng.standard_normal(features.shape, np.float32)
        total += np.abs(softmax(ensemble.logits(moved), axis=-1) - probabilities)
    return total / np.float32(directions * (REPLACED if whole else step))


def robustness(
    ensemble: Queried,
    features: Float32[np.ndarray, "N ..."],
    labels: Int64[np.ndarray, " N"],
    *,
    seed: int,
    copies: int = ROBUSTNESS_COPIES,
) -> Float32[np.ndarray, "K N"]:
    """Share of perturbed copies that get the record's label (Choquette-Choo et al., ICML 2021).

    Features that are all 0 or 1 are flipped at rates from 1 % to 20 %, other :func:`whole_numbers` are replaced by
    those of other records at the same rates, and the rest get Gaussian noise of 0.05 to 1 standard deviations. Weak and
    strong perturbations tell apart records near the decision boundary and records far from it.
    """
    binary, whole = bool(np.isin(features, (0, 1)).all()), whole_numbers(features)
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
            scale = np.float32((0.05 + 0.95 * share) * features.std())
            noisy = features + scale * rng.standard_normal(features.shape, np.float32)
        right += ensemble.logits(noisy.astype(np.float32)).argmax(-1) == labels
    return right / np.float32(copies)


def whole_numbers(features: Float32[np.ndarray, "N ..."]) -> bool:
    """True for features that are whole numbers with more than two values, such as tokens or counts.

    Features of 0 and 1 are none: published attacks perturb them as any real number.
    """
    return bool((features == np.floor(features)).all() and not np.isin(features, (0, 1)).all())


def replace_features(
    features: Float32[np.ndarray, "N ..."], rate: float, rng: np.random.Generator
) -> Float32[np.ndarray, "N ..."]:
    """Replace features, each with a probability of ``rate``, by the same feature of a random other record.

    >>> replaced = replace_features(np.array([[1.0, 7.0], [2.0, 9.0]]), 1.0, np.random.default_rng(0))
    >>> set(replaced[:, 0].tolist()) <= {1.0, 2.0}, set(replaced[:, 1].tolist()) <= {7.0, 9.0}
    (True, True)
    """
    donors = rng.integers(0, len(features), features.shape)
    replaced = np.take_along_axis(features, donors, axis=0)
    return np.where(rng.random(features.shape) < rate, replaced, features)
