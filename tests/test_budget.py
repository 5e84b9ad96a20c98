"""Budgets: their values, how points are ranked by them, and on which records a choice is confirmed."""

from typing import Any, cast

import numpy as np
import pytest

from wemem.config.budget import Budget
from wemem.config.parse import parse_study
from wemem.data.split import Role, Split
from wemem.defenses import Undefended
from wemem.errors import InputError
from wemem.pruning import Pruning, Schedule
from wemem.store.key import Key
from wemem.tuning.objectives import Figures, Point, excess, finalists, front, point_of, ranked
from wemem.tuning.panel import Panel, restricted
from wemem.tuning.search import quick


def point(drop: float, leakage: float, tpr: float = 0.1, error: float = 0.0, name: float = 0.0) -> Point:
    return Point("rmr", {"top": name}, "full", 0.6 - drop, drop, error, leakage, "a", tpr, 0.0, "a", 8)


def test_of_settings_within_the_budget_the_one_that_leaks_least_is_best():
    points = [point(0.0, 0.7), point(0.009, 0.6), point(0.02, 0.5)]
    assert ranked(Budget(max_accuracy_drop=0.01), points) == [points[1], points[0], points[2]]


def test_a_setting_within_the_budget_by_luck_comes_after_one_surely_within():
    lucky, sure = point(0.009, 0.55, error=0.01), point(0.002, 0.6, error=0.001)
    assert ranked(Budget(max_accuracy_drop=0.01), [lucky, sure]) == [sure, lucky]
    assert excess(Budget(max_accuracy_drop=0.01), lucky) == 0


def test_with_a_bound_on_leaks_alone_the_most_accurate_is_best():
    points = [point(0.05, 0.6, 0.02), point(0.02, 0.6, 0.04), point(0.0, 0.7, 0.2)]
    assert ranked(Budget(max_tpr=0.05), points) == [points[1], points[0], points[2]]


def test_no_point_of_a_front_is_beaten_and_every_other_is():
    rng = np.random.default_rng(0)
    points = [point(*rng.random(2).round(1)) for _ in range(60)]
    best = front(points)
    for one in points:
        beaten = [o for o in best if o.accuracy_drop <= one.accuracy_drop and o.leakage <= one.leakage]
        assert beaten
        assert one not in best or beaten == [one]


def test_finalists_are_different_and_as_many_as_asked_for():
    points = [point(0.01 * i, 0.8 - 0.02 * i, name=float(i)) for i in range(10)]
    chosen = finalists(Budget(max_accuracy_drop=0.03, finalists=6), points)
    assert len({p.settings["top"] for p in chosen}) == 6
    assert chosen[0] == points[3]
    assert finalists(Budget(finalists=6), points[:2]) == ranked(Budget(), points[:2])


def test_drop_is_paired_by_model():
    plain, found = (
        Figures(np.array(a), {"a": np.ones(2)}, {"a": np.ones(2)}, 100, 0.0) for a in ([0.9, 0.5], [0.8, 0.4])
    )
    made = point_of("rmr", {}, found, plain, "full")
    assert made.accuracy_drop == pytest.approx(0.1)
    assert made.accuracy_drop_se == pytest.approx(0.0, abs=1e-12)


def roles_of(*rows: list[Role]) -> Split:
    roles = np.array([[*row, Role.DEV] for row in rows], np.int8)
    return Split(roles, np.zeros(roles.shape[1], np.int64), "subsets")


def panel_with(split: Split) -> Panel:
    everything = np.arange(split.roles.shape[1] - 1)
    return Panel(Key({"of": "the test"}), split, cast("Any", None), [], [], everything, 0.0)


def test_a_confirmation_measures_on_unused_records_if_every_model_has_enough_of_both_kinds():
    unused, half = np.arange(200, 400), [Role.TRAIN, Role.AUDIT] * 100
    victim, model = [Role.TRAIN] * 200 + [Role.AUDIT] * 200, [Role.AUDIT] * 200 + half
    panel = panel_with(roles_of(victim, model))
    assert np.array_equal(restricted(panel, unused, fpr=0.01).evaluated, unused)
    assert restricted(panel, unused, fpr=0.009) is panel
    few = panel_with(roles_of(victim, [Role.AUDIT] * 200 + [Role.TRAIN] * 101 + [Role.AUDIT] * 99))
    assert restricted(few, unused, fpr=0.01) is few
    assert restricted(panel_with(roles_of(victim)), unused, fpr=0.01).evaluated.size == 400


def test_a_quick_look_takes_fewer_rounds_to_the_same_sparsity():
    assert quick(Pruning(Schedule(0.6, rounds=5))).schedule.sparsities[-1] == 0.6
    assert [quick(Pruning(Schedule(0.6, rounds=r))).schedule.rounds for r in (1, 2, 5, 8)] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "guess"}, "mode"),
        ({"max_accuracy_drop": 1.0}, "one point is 0.01"),
        ({"max_tpr": -0.1}, "fraction"),
        ({"at_fpr": 0.0}, "above 0"),
        ({"minutes": 0.0}, "positive"),
        ({"trials": 0}, "at least 1"),
        ({"models": 2}, "at least 3"),
        ({"families": []}, "at least one"),
        ({"families": ["rsw", "rsw"]}, "once"),
        ({"families": ["ppb"]}, "families"),
    ],
)
def test_budgets_out_of_range_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        parse_study({"data": {"source": "digits"}, "defenses": [{"kind": "auto", **settings}]})


def test_a_budget_is_no_part_of_a_chain():
    with pytest.raises(InputError, match="give kind = 'auto' alone"):
        parse_study({"data": {"source": "digits"}, "defenses": ["auto+rsw"]})


def test_a_study_s_defenses_are_defenses_and_its_budgets_stand_apart():
    made = parse_study({"data": {"source": "digits"}, "defenses": [{"kind": "auto", "mode": "online"}, "undefended"]})
    assert made.defenses == {"undefended": Undefended()}
    assert made.budgets == {"auto": Budget(mode="online")}
    assert made.labels == ("undefended", "auto")
    assert made.every_defense == (Undefended(), Budget(mode="online").controller())
    assert (made.searches, made.needs_scores) == (False, True)
