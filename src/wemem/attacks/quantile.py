"""The quantile regression attack: a threshold for each record, learned from records the target has
not seen.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from sklearn.ensemble import HistGradientBoostingRegressor

from wemem.attacks.base import Attack, Scores
from wemem.attacks.population import foreign_rows
from wemem.data.split import Role
from wemem.randomness import derive_seed
from wemem.signals import Signals

#: The median, and the quantile one standard deviation above it were the values normal.
QUANTILES = (0.5, 0.8413)


@dataclass(frozen=True)
class QuantileRegression(Attack):
    """``(s - q50(x)) / (q84(x) - q50(x))``, s the logit of the true-class probability, q its
    quantiles for non-members.

    Bertran et al., "Scalable membership inference attacks via quantile regression", NeurIPS 2023.
    Quantiles of the *target's* confidence are regressed on features of records that it was not
    trained on (:func:`foreign_rows`): no shadow's behaviour is taken for the target's, and no
    audited row is learned from. Two quantiles give a score for every false positive rate, as the
    paper's Gaussian form does. The paper regresses on the record itself; an attack here sees
    outputs only, and the record's class and difficulty stand in: the mean statistic of the shadows
    that were not trained on it.

    Args:
        trees: boosted trees per quantile.
    """

    trees: int = 60

    name = "quantile"
    layout = "disjoint"

    def score(self, signals: Signals, target: int, *, seed: int) -> Scores:
        learned, audited = foreign_rows(signals, target), signals.audited(target)
        statistic, features = signals.logit_confidence[target], difficulty(signals, target)
        low, high = (
            HistGradientBoostingRegressor(
                loss="quantile", quantile=quantile, max_iter=self.trees, max_leaf_nodes=8, early_stopping=False,
                random_state=derive_seed(seed, "quantile") % 2**32,
            ).fit(features[learned], statistic[learned]).predict(features[audited])
            for quantile in QUANTILES
        )  # fmt: skip
        # Where the two quantiles meet or cross, the width is the usual one: the record's own is
        # unknown.
        usual = np.median(np.abs(statistic[learned] - np.median(statistic[learned])))
        return np.asarray((statistic[audited] - low) / np.maximum(high - low, 0.1 * usual + 1e-12))


def difficulty(signals: Signals, target: int) -> Float[np.ndarray, "N 2"]:
    """Each row's mean statistic over other models not trained on it, NaN where there is none, and
    its class.
    """
    out = np.delete(signals.roles != Role.TRAIN, target, axis=0)
    values = np.delete(signals.logit_confidence, target, axis=0)
    count = out.sum(axis=0)
    total = np.where(out, values, 0.0).sum(axis=0)
    mean = np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)
    return np.stack([mean, signals.labels.astype(np.float64)], axis=1)
