"""The ``attacks`` of a study: names and tables, labels, and what is refused."""

from dataclasses import dataclass

import numpy as np
import pytest

from small_study import table, write_data
from wemem.attacks import PRESETS, TEN, Attack, make_attack
from wemem.attacks.lira import Lira
from wemem.attacks.rmia import Rmia
from wemem.config.attack_entries import make_attacks, read_attack_entries
from wemem.config.parse import parse_study
from wemem.errors import InputError


@dataclass(frozen=True)
class Scaled(Attack):
    factor: float = 1.0

    name = "scaled"
    layout = "disjoint"

    def score(self, signals, target, *, seed):
        return self.factor * np.ones(len(signals.audited(target)))


def test_presets_name_attacks():
    for name, kinds in PRESETS.items():
        assert list(make_attacks(name)) == list(kinds)
    assert len(TEN) == 10


def test_a_table_gives_the_attack_with_its_settings():
    attacks = make_attacks(["confidence", {"kind": "lira", "variance": "record"}, {"kind": "rmia", "gamma": 2}])
    assert list(attacks) == ["confidence", "lira", "rmia"]
    assert attacks["lira"] == Lira(variance="record")
    assert attacks["rmia"] == Rmia(gamma=2.0)


def test_one_kind_under_two_settings_has_two_labels():
    entries = read_attack_entries(["lira", {"kind": "lira", "variance": "record"}, {"kind": "lira", "label": "mine"}])
    assert [entry.label for entry in entries] == ["lira", "lira variance=record", "mine"]


def test_an_attack_of_ones_own_takes_settings():
    own = f"{__name__}:Scaled"
    assert make_attacks([own, {"kind": own, "factor": 3}]) == {"scaled": Scaled(), "scaled factor=3": Scaled(3.0)}
    assert make_attack(own) == Scaled()


def test_entries_spelled_out_give_the_same_attacks(tmp_path):
    own = table(write_data(tmp_path), attacks=["confidence", {"kind": "lira", "variance": "record", "label": "l"}])
    study = parse_study(own)
    assert study.table["attacks"][1]["variance"] == "record"
    again = parse_study(study.table)
    assert again.attacks == study.attacks
    assert list(again.attacks) == ["confidence", "l"]
    assert parse_study({**own, "attacks": "threshold"}).table["attacks"] == "threshold"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("lirra", "did you mean 'lira'"),
        (["ten"], "expected an attack among confidence"),
        ([], "at least one attack, got none"),
        (["lira", "rmia", "lira"], "got 'lira' 2 times; name each attack once, or give each a label"),
        ([{"kind": "lira", "label": "rmia"}, "rmia"], "different labels, got 'rmia' 2 times"),
        ([3], "a name or a table with a kind, got 3"),
        ([{"variance": "record"}], "a name or a table with a kind"),
        (7, "expected attacks to be a name, or a list of names and tables, got 7"),
        ([{"kind": "lira", "varience": "record"}], "expected keys among .*, got 'varience'; did you mean 'variance'"),
        ([{"kind": "lira", "variance": "none"}], "attack 'lira': expected variance to be"),
        ([{"kind": "rmia", "gamma": -1}], "expected gamma above 0, got -1"),
        ([{"kind": "rmia", "label": 3}], "label of the attack 'rmia' to be a string, got 3"),
        ([{"kind": "rmia", "label": "rmia (weights held)"}], "'rmia' not to end with ' .weights held.', got"),
        (["math:floor"], "to name a subclass of wemem.attacks.Attack"),
        (["wemem.attacks.learned:LearnedAttack"], "to define 'name'"),
    ],
)  # fmt: skip
def test_what_names_no_attack_is_refused(spec, message):
    with pytest.raises(InputError, match=message):
        make_attacks(spec)
