"""Data in which what drives memorization is known by construction: two switches, four worlds.

A *typical* record is its class's prototype with a little jitter, one of hundreds alike: whether a model was shown it
makes no difference to speak of, however often. With the switch ``own`` every typical record also carries noise of its
own, in many dimensions and of one length. All such records are exchangeable, so that none is more memorable than
another; each is as easy to classify as the prototype; and every further exposure ties the model more to that noise.

With the switch ``atypical`` some records are mislabelled and carry strong features of their own. One exposure
is enough to tie the model to them, and nothing else explains their labels.
"""

import numpy as np

from wemem.config.parse import parse_study
from wemem.data.dataset import Dataset

CLASSES, SIGNAL, OWN = 4, 12, 256
RECORDS = 1600
#: By scenario: the length of typical records' own noise, and the share of atypical records.
WORLDS = {"reuse": (3.0, 0.0), "memorability": (0.0, 0.15), "both": (3.0, 0.15), "neither": (0.0, 0.0)}
STRONG, JITTER = 12.0, 0.1


def planted(scenario, *, seed, records=RECORDS):
    """The data of one of :data:`WORLDS`."""
    own, share = WORLDS[scenario]
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(records) % CLASSES)
    prototypes = rng.choice([-1.0, 1.0], (CLASSES, SIGNAL))
    signal = prototypes[labels] + rng.normal(0, JITTER, (records, SIGNAL))
    directions = rng.normal(0, 1, (records, OWN))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    atypical = rng.random(records) < share
    labels = np.where(atypical, (labels + rng.integers(1, CLASSES, records)) % CLASSES, labels)
    features = np.hstack([signal, directions * np.where(atypical, STRONG, own)[:, None]])
    return Dataset.from_arrays(scenario, features, labels, CLASSES)


def study(*, rounds=3, epochs=6, scores=24):
    """A study of seconds on such data; the data are handed to the diagnosis."""
    return parse_study(
        {
            "data": {"source": "digits"},
            "model": {"kind": "fc", "hidden": [32, 16], "dropout": 0.0},
            "scores": {"models": scores},
            "training": {"epochs": 12, "batch_size": 48, "patience": None, "keep": "last"},
            "finetune": {"epochs": epochs, "batch_size": 48, "patience": None, "keep": "last"},
            "pruning": {"rounds": rounds},
        }
    )
