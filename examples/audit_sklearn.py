"""Audit a scikit-learn classifier by functions: the adversary's models come from the same training.

python examples/audit_sklearn.py
"""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier

import wemem

OUT = Path("runs/audit-sklearn")


def logits_of(classifier: RandomForestClassifier):
    """The function from features to logits that an audit calls; of a share of no tree at all a small one is left."""
    return lambda features: np.log(classifier.predict_proba(features).clip(1e-3))


def train(features: np.ndarray, labels: np.ndarray, seed: int):
    """Train one classifier, as the audited one was trained."""
    return logits_of(RandomForestClassifier(50, random_state=seed).fit(features, labels))


def main() -> None:
    """Train a classifier, attack it, and print what it leaks."""
    x, y = load_breast_cancer(return_X_y=True)
    x = ((x - x.mean(0)) / x.std(0)).astype(np.float32)
    members = np.random.default_rng(0).permutation(len(y))[:200]
    model = train(x[members], y[members], seed=0)
    result = wemem.audit(
        model, (x, y), members, train=train, attacks="quick", settings={"split": {"shadows": 2}}, out=OUT
    )  # fmt: skip
    print(result)
    print(f"Report {result.report(OUT)}")


if __name__ == "__main__":
    main()
