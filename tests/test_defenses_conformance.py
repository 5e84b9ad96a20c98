"""The table of defenses: every kind with the settings at which it is plain fine-tuning."""

import re
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wemem.defenses import (
    DEFENSES,
    DPSGD,
    HAMP,
    PPB,
    RADD,
    AdvReg,
    Capability,
    Defense,
    EarlyStopping,
    LabelSmoothing,
    MemoryRegularizer,
    OnlineController,
    OutOfSampleDistillation,
    OutputPostprocessing,
    RelaxLoss,
    SlidingWindow,
    Undefended,
    chain,
    make_defense,
)
from wemem.testing import check_defense
from wemem.testing.defenses import check_limit, check_loss, check_outputs, check_plan, check_pruning, check_value

FULL_WINDOW, NOBODY_RISKY = SlidingWindow(width=1.0, stride=0), MemoryRegularizer(threshold=1.5)
LIMITS: dict[str, Defense] = {
    "undefended": Undefended(),
    "rsw": FULL_WINDOW,
    "rmr": NOBODY_RISKY,
    "oosd": OutOfSampleDistillation(start="dense", hard=1.0, views=0),
    "radd": RADD(threshold=1.5, width=1.0, stride=0.0, entropy=0.0),
    "ppb": PPB(alpha=0.0),
    "advreg": AdvReg(theta=0.0),
    "relaxloss": RelaxLoss(alpha=0.0),
    "hamp": HAMP(gamma=0.0, alpha=0.0),
    "label_smoothing": LabelSmoothing(smoothing=0.0),
    "early_stopping": EarlyStopping(stop_after=3),
    "dpsgd": DPSGD(clip=1e9, noise=0.0),
    "swmr": chain(FULL_WINDOW, NOBODY_RISKY),
}


def test_the_table_has_every_defense():
    assert list(LIMITS) == [*DEFENSES, "swmr"]


@pytest.mark.parametrize("kind", LIMITS)
def test_every_defense_conforms_and_is_plain_fine_tuning_at_its_limit(kind):
    check_defense(make_defense(kind), limit=LIMITS[kind])


@pytest.mark.parametrize("defense", [
    chain(OutOfSampleDistillation(teachers=3, held_out=1, clusters=0, views=0), EarlyStopping(2)),
    chain(AdvReg(), SlidingWindow(width=0.5)),
])  # fmt: skip
def test_chains_conform(defense):
    check_defense(defense)


def test_a_controller_conforms_and_is_plain_fine_tuning_where_any_gap_is_allowed():
    check_defense(OnlineController(), limit=OnlineController(max_gap=1.0))


def test_the_defense_in_the_documentation_conforms(tmp_path, monkeypatch):
    text = (Path(__file__).parents[1] / "docs" / "defenses.md").read_text(encoding="utf-8")
    module, test = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (tmp_path / "penalty.py").write_text(module)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "penalty", raising=False)
    namespace: dict[str, Any] = {}
    exec(test, namespace)  # noqa: S102  (our own documentation)
    namespace["test_it_conforms_and_is_plain_fine_tuning_without_weight"]()


# --- planted faults: each is found by the check that is for it ---


@dataclass(frozen=True)
class Faulty(Defense):
    """A defense of a user's, to be given one fault at a time."""

    share: float = 0.5

    @property
    def name(self):
        return "faulty"


class Mutable(Faulty):
    __hash__ = None  # type: ignore[assignment]  # as of a dataclass that is not frozen


class WithAnotherRepr(Faulty):
    def __repr__(self):
        return "a defense"


@dataclass(frozen=True)
class WithSettingsThatAreNoFields(Faulty):
    @property
    def settings(self):
        return {"half": 0.5}


@dataclass(frozen=True)
class ShowsDevRecords(Faulty):
    def plan(self, epoch, groups, records):
        return tuple(replace(g, records=np.arange(len(records.labels))) for g in groups)


@dataclass(frozen=True)
class ShowsRecordsTwice(Faulty):
    def plan(self, epoch, groups, records):
        return tuple(replace(g, records=np.repeat(g.records, 2)) for g in groups)


@dataclass(frozen=True)
class CountsLabelsOfAll(Faulty):
    def plan(self, epoch, groups, records):
        common = np.bincount(records.labels).argmax() if epoch % 2 else records.labels[-1]
        return tuple(replace(g, records=g.records[records.labels[g.records] != common]) for g in groups)


@dataclass(frozen=True)
class CountsPadding(Faulty):
    def loss(self, batch):
        return batch.cross_entropy().mean(1)


@dataclass(frozen=True)
class DrawsGlobally(Faulty):
    def loss(self, batch):
        return batch.mean(batch.cross_entropy()) * (1 + np.random.random())  # noqa: NPY002  (the fault)


@dataclass(frozen=True)
class ChangesLogits(Faulty):
    @property
    def capabilities(self):
        return (OutputPostprocessing((negate,)),)


def negate(logits, rng):
    logits *= -1
    return logits


@pytest.mark.parametrize(("check", "defense", "message"), [
    (check_value, Mutable(), "frozen dataclass"),
    (check_value, WithAnotherRepr(), "repr of a defense to evaluate"),
    (check_value, WithSettingsThatAreNoFields(), "settings"),
    (check_plan, ShowsDevRecords(), "show training records"),
    (check_plan, ShowsRecordsTwice(), "at most once in an epoch"),
    (check_plan, CountsLabelsOfAll(), "depend on training records alone"),
    (check_loss, CountsPadding(), "padding"),
    (check_outputs, ChangesLogits(), "logits changed"),
    (check_pruning, DrawsGlobally(), "global generators"),
    (check_limit, LabelSmoothing(0.3), "to be plain fine-tuning"),
])  # fmt: skip
def test_a_planted_fault_is_found_by_name(check, defense, message):
    with pytest.raises(AssertionError, match=message):
        check(defense)


# --- capabilities ---


@dataclass(frozen=True)
class Warmth(Capability):
    """A capability that nothing in the package knows."""

    degrees: tuple[float, ...]

    def then(self, later):
        return Warmth((*self.degrees, *later.degrees))


@dataclass(frozen=True)
class Warm(Defense):
    degrees: float = field(default=1.0)

    @property
    def name(self):
        return f"warm{self.degrees:g}"

    @property
    def settings(self):
        return {}

    @property
    def capabilities(self):
        return (Warmth((self.degrees,)),)


def test_a_chain_composes_a_capability_that_it_does_not_know():
    assert chain(Warm(1.0), SlidingWindow(), Warm(2.0)).capability(Warmth) == Warmth((1.0, 2.0))
    assert chain(SlidingWindow(), MemoryRegularizer()).capability(Warmth) is None
