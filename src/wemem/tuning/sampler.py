"""Which setting to try next: Optuna's multi-objective TPE over what was tried so far.

A proposal is a pure function of the seed, its number and the trials before it: a sampler is made anew for each from a
seed of its own, and its state is kept nowhere. So a search that was killed proposes what it would have proposed.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import TPESampler

from wemem.randomness import derive_seed
from wemem.tuning.space import SPACE, STARTS, Tried

#: Trials at random before the sampler learns from them, the known settings counted.
STARTUP = 10
#: How often a proposal that was tried already is made again: by the sampler, and then at random.
REPEATS, RANDOM = 3, 20


def propose(tried: Sequence[Tried], families: Sequence[str], number: int, seed: int) -> tuple[str, dict[str, Any]]:
    """Kind and settings of the trial of that number.

    Args:
        tried: trials that are finished, in the order of their numbers.
        families: keys of :data:`~wemem.tuning.space.SPACE`; the first trials are their usual settings.
        number: 0-based.
        seed: of the search.
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
