"""Proposals of settings by Optuna's multi-objective TPE, from the settings tried so far.

A proposal is a pure function of the seed, its number and the trials before it: the sampler is made
anew for each from a seed of its own, and keeps no state. A search that was killed therefore
continues with the proposals that it would have made.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import TPESampler

from wemem.randomness import derive_seed
from wemem.tuning.space import SPACE, STARTS, Tried

#: Random trials before the sampler learns from them; the usual settings count as such.
STARTUP = 10
#: Attempts at a proposal that was not tried yet: first by the sampler, then at random.
REPEATS, RANDOM = 3, 20


def propose(tried: Sequence[Tried], families: Sequence[str], number: int, seed: int) -> tuple[str, dict[str, Any]]:
    """Propose kind and settings of a trial.

    Args:
        tried: finished trials, in the order of their numbers.
        families: keys of :data:`~wemem.tuning.space.SPACE`; the first trials are their usual
            settings.
        number: 0-based number of the trial.
        seed: seed of the search.
    """
    if number < len(families):
        return families[number], dict(STARTS[families[number]])
    known = [(one.kind, dict(one.settings)) for one in tried]
    for turn in range(REPEATS + RANDOM):
        learnt = tried if turn < REPEATS else ()
        proposal = _ask(learnt, families, derive_seed(seed, "propose", number, turn) % 2**32)
        if proposal not in known:
            break
    return proposal


def _ask(tried: Sequence[Tried], families: Sequence[str], seed: int) -> tuple[str, dict[str, Any]]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = TPESampler(n_startup_trials=STARTUP, seed=seed)
        study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
        study.add_trials([_frozen(one, families) for one in tried])
        trial = study.ask()
        kind = str(trial.suggest_categorical("kind", list(families)))
        settings = {}
        for name, values in SPACE[kind].items():
            if isinstance(values[0], str):
                settings[name] = trial.suggest_categorical(name, values)
            else:
                settings[name] = values[trial.suggest_int(name, 0, len(values) - 1)]
    return kind, settings


def _frozen(one: Tried, families: Sequence[str]) -> optuna.trial.FrozenTrial:
    params: dict[str, Any] = {"kind": one.kind}
    distributions: dict[str, BaseDistribution] = {"kind": CategoricalDistribution(list(families))}
    for name, values in SPACE[one.kind].items():
        named = isinstance(values[0], str)
        params[name] = one.settings[name] if named else values.index(one.settings[name])
        distributions[name] = CategoricalDistribution(values) if named else IntDistribution(0, len(values) - 1)
    return optuna.create_trial(params=params, distributions=distributions, values=[one.drop, one.leakage])
