"""A study from a table: what is set, what is refused, and what tells two studies apart."""

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

from wemem.api import read_study
from wemem.config.override import override_key
from wemem.config.parse import load_study, parse_study
from wemem.config.study import StudyConfig
from wemem.data.sources import DataSource
from wemem.defenses import MemoryRegularizer, SlidingWindow, Undefended
from wemem.errors import InputError
from wemem.models import FullyConnected
from wemem.store.fingerprint import spelled
from wemem.store.sources import source_fingerprint
from wemem.study.plan import plan_in_words
from wemem.training import Recipe

OWN = """
from dataclasses import dataclass
from functools import partial
import numpy as np
from torch import nn
from wemem.attacks import Attack
from wemem.defenses import Defense

def model(input_shape, classes, width=4):
    return nn.Sequential(nn.Linear(*input_shape, width), nn.Tanh(), nn.Linear(width, classes))

bound = partial(model, width=7)

def records():
    return np.eye(4, dtype=np.float32), np.array([0, 1, 0, 1])

@dataclass(frozen=True)
class Half(Defense):
    share: float = 0.5
    name = "half"
    def loss(self, batch):
        return self.share * batch.mean(batch.cross_entropy())

@dataclass(frozen=True)
class Coin(Attack):
    name = "coin"
    layout = "disjoint"
    def score(self, signals, target, *, seed):
        return np.zeros(len(signals.audited(target)))
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of a user's own parts in the working directory, imported anew in every test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_parts", raising=False)
    path = tmp_path / "own_parts.py"
    path.write_text(OWN)
    return path


def study(**changed: Any) -> StudyConfig:
    return parse_study({"data": {"source": "digits"}, "attacks": "threshold", **changed})


def test_nothing_but_data_gives_the_papers_setting():
    made = parse_study({"data": {"source": "digits"}})
    assert list(made.defenses) == ["undefended", "rsw", "rmr", "swmr"]
    assert len(made.attacks) == 10
    assert made.model == FullyConnected((256, 128), 0.1)
    assert (made.training, made.finetune) == (Recipe(epochs=100), Recipe(epochs=21))
    assert (made.pruning.sparsities, made.pruning.rounds, made.split.shadows) == ((0.6,), 5, 5)


@pytest.mark.parametrize("file", sorted((Path(__file__).parents[1] / "studies").rglob("*.toml")), ids=lambda f: f.stem)
def test_shipped_studies_can_be_read(file: Path):
    assert load_study(file).defenses


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"seeds": [3, 1], "model": {"hidden": [5]}, "pruning": {"sparsity": [0.5, 0.7], "rewind": "initial"}},
        {"defenses": ["rsw", {"kind": "rsw", "width": 15}, {"kind": "rsw+rmr", "label": "both", "threshold": 0.3}]},
        {"victim": {"weights": "w.safetensors", "members": "m.csv", "adversary_share": 0.5}},
        {"model": {"kind": "own_parts:model", "width": 3}, "defenses": [{"kind": "own_parts:Half"}]},
        {"defenses": ["undefended", {"kind": "ppb", "references": 64, "grid": {"alpha": [1, 2]}}, {"kind": "rsw"}]},
        {
            "defenses": [{"kind": "rsw", "order": "random", "grid": {"width": [3, 0.5]}}],
            "selection": {"max_accuracy_drop": 0},
        },
        {"attacks": ["own_parts:Coin", "lira"], "data": {"source": "own_parts:records"}},
    ],
)
def test_table_in_results_gives_the_same_study_again(changed: dict[str, Any], own: Path):
    made = study(**changed)
    assert parse_study(made.table) == made


def test_defenses_of_one_kind_are_labelled_by_their_settings():
    made = study(defenses=["undefended", "rmr", {"kind": "rsw", "width": 3}, {"kind": "rsw", "width": 0.5}])
    assert list(made.defenses) == ["undefended", "rmr", "rsw width=3", "rsw width=0.5"]
    assert made.defenses["rsw width=3"] == SlidingWindow(width=3)


def test_reference_models_of_an_arm_are_its_own_and_those_of_the_dense_model_the_most():
    made = study(defenses=["undefended", {"kind": "rsw", "references": 64}, {"kind": "rmr", "references": 8}])
    counts = {label: made.references_of(label) for label in ("dense", "undefended", "rsw", "rmr")}
    assert counts == {"dense": 64, "undefended": 16, "rsw": 64, "rmr": 8}


def test_defenses_compared_by_lira_have_64_reference_models_and_five_seeds_where_none_are_named():
    made = study(attacks="ten")
    assert (made.reference_models, made.seeds) == (64, (0, 1, 2, 3, 4))
    assert {made.references_of(label) for label in ("dense", "unpruned", *made.labels)} == {64}
    alone, by_rmia = study(attacks="ten", defenses=["rsw"]), study(attacks=["rmia"])
    assert (alone.reference_models, alone.seeds, by_rmia.reference_models) == (16, (0,), 16)
    named = study(attacks="ten", split={"references": 8}, seeds=[3])
    assert (named.reference_models, named.seeds) == (8, (3,))


def test_the_plan_states_seeds_arms_references_and_work():
    text = plan_in_words(study(attacks="ten"))
    assert text.startswith(
        "Plan: 5 seeds; dense models and 6 arms (unpruned, one_shot, undefended, rsw, rmr, swmr); 64 "
    )
    made = study(
        attacks="confidence", defenses=["undefended"], controls=[], pruning={"rounds": 1}, finetune={"epochs": 21}
    )
    # 6 unpruned models, and 6 rounds of as many epochs
    assert plan_in_words(made).endswith(
        "(undefended); no reference models; in all the work of training about 12 unpruned models."
    )


def test_given_label_stands():
    assert study(defenses=[{"kind": "rmr", "label": "mine", "top": 0.1}]).defenses == {
        "mine": MemoryRegularizer(top=0.1)
    }


@pytest.mark.parametrize(
    "defenses",
    [
        ["rsw", "rsw"],
        [{"kind": "rsw", "label": "a"}, {"kind": "rmr", "label": "a"}],
        [{"kind": "rsw", "label": "a b"}, {"kind": "rmr", "label": "a/b"}],
        [{"kind": "rsw", "label": "α"}, {"kind": "rmr", "label": "β"}],
        [{"kind": "undefended", "label": "dense"}],
    ],
)
def test_labels_that_would_share_a_file_are_refused(defenses: list[Any]):
    with pytest.raises(InputError, match="different labels"):
        study(defenses=defenses)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"attacks": 3}, "attacks to be a name, or a list"),
        ({"attacks": True}, "attacks to be a name, or a list"),
        ({"attacks": []}, "at least one attack"),
        ({"attacks": [3]}, "a name or a table with a kind"),
        ({"attacks": ["lira", "lira"]}, "different labels"),
        ({"model": {"kind": 3}}, "kind of .model. to be a string"),
        ({"model": 3}, r"expected \[model\] to be a table"),
        ({"victim": 3}, r"expected \[victim\] to be a table"),
        ({"victim": {"weights": "w"}}, "key 'members'"),
        ({"victim": {"weights": "w", "members": "m", "adversary_share": 1.0}}, "adversary_share must be in"),
        ({"data": {}}, "with a source"),
        ({"data": "digits"}, r"expected \[data\] to be a table"),
        ({"seeds": [0, 0]}, "different seeds"),
        ({"seeds": 0}, "seeds to be"),
        ({"device": "gpu"}, "device must be auto, cpu, cuda or cuda:N, got 'gpu'"),
        ({"device": "cuda:99"}, "device = 'cuda:99' expected"),
        ({"training": {"precision": "fp16"}}, "precision to be 'fp32', 'tf32' or 'bf16', got 'fp16'"),
        ({"seeds": ["a"]}, "seeds"),
        ({"pruning": {"sparsity": [0.5, 0.5]}}, "different sparsities"),
        ({"pruning": {"sparsity": []}}, "one or more values"),
        ({"pruning": {"rounds": 2.5}}, "rounds"),
        ({"pruning": {"scope": "layers"}}, "scope"),
        ({"split": {"train": 0.0}}, "train > 0"),
        ({"split": {"train": 0.9, "dev": 0.1}}, r"train \+ dev < 1"),
        ({"split": {"shadows": 0}}, "at least 1 shadow"),
        ({"scores": {"models": 1}}, "models must be at least 2"),
        ({"scores": {"fraction": 1.0}}, "fraction must be in"),
        ({"selection": {"max_accuracy_drop": 1.5}}, "max_accuracy_drop must be in"),
        ({"selection": {"max_drop": 0.1}}, "max_accuracy_drop"),
        ({"training": {"epochs": 0}}, "epochs must be at least 1"),
        ({"training": {"learning_rate": float("inf")}}, "finite numbers"),
        ({"defenses": 3}, "defenses to be a list"),
        ({"defenses": "rsw"}, "defenses to be a list"),
        ({"defenses": [3]}, "to have a kind"),
        ({"defenses": [{"width": 3}]}, "to have a kind"),
        ({"defenses": ["rsw+rsw"]}, "two or more different defenses"),
        ({"defenses": ["undefended+nothing"]}, "expected a defense among"),
        ({"defenses": [{"kind": "rmr", "threshold": float("inf")}]}, "finite numbers"),
        ({"defenses": [{"kind": "rmr", "top": 0.2, "threshold": 0.5}]}, "either top or threshold"),
        ({"defenses": [{"kind": "own_parts:model"}]}, "subclass of wemem.defenses.Defense"),
        ({"attacks": ["own_parts:Half"]}, "subclass of wemem.attacks.Attack"),
        ({"model": {"kind": "own_parts:modle"}}, "did you mean 'model'"),
        ({"model": {"kind": "own_parts:bound"}}, "that a Python file defines"),
        ({"data": {"source": "digits", "path": "x"}}, "leave it out"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(changed: dict[str, Any], message: str, own: Path):
    with pytest.raises(InputError, match=message) as refused:
        study(**changed)
    assert "\n" not in str(refused.value)


def test_two_defenses_that_replace_the_loss_cannot_be_chained(own: Path):
    own.write_text(OWN + "\nclass Other(Half):\n    name = 'other'\n    share = None\n")
    with pytest.raises(InputError, match=r"half and other both replace the loss"):
        study(defenses=["own_parts:Half+own_parts:Other"])


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("name=a study", ["name"], "a study"),
        ("seeds=[0, 1]", ["seeds"], [0, 1]),
        ("finetune.epochs=5", ["finetune", "epochs"], 5),
        ("pruning.sparsity=0.5", ["pruning", "sparsity"], 0.5),
        ("defenses.0.width=0.5", ["defenses", 0, "width"], 0.5),
        ("defenses.0={kind='rmr'}", ["defenses", 0], {"kind": "rmr"}),
        ("data.source=a=b.csv", ["data", "source"], "a=b.csv"),
        ("non_adaptive=true", ["non_adaptive"], True),
    ],
)
def test_override_sets_one_key(override: str, path: list[Any], value: Any):
    table: dict[str, Any] = {"defenses": [{"kind": "rsw"}]}
    override_key(table, override)
    found: Any = table
    for part in path:
        found = found[part]
    assert found == value


@pytest.mark.parametrize(
    "override",
    ["seeds", "=3", "defenses.1.width=3", "defenses.x.width=3", "defenses.-1=3", "name.x=3", "attacks.0.x=3"],
)
def test_override_that_leads_nowhere_is_refused(override: str):
    with pytest.raises(InputError, match="--set"):
        override_key({"name": "study", "attacks": ["lira"], "defenses": [{"kind": "rsw"}]}, override)


def test_options_take_the_place_of_tables_and_overrides_of_options(tmp_path: Path):
    path = tmp_path / "study.toml"
    path.write_text('[data]\nsource = "location"\npath = "x"\n[[defenses]]\nkind = "rsw"\nwidth = 7\nlabel = "mine"\n')
    made = read_study(path, ["defenses.0.stride=2"], data="digits", defense="mine")
    assert made.data == DataSource("digits")
    assert made.defenses == {"mine": SlidingWindow(width=7, stride=2)}
    assert read_study(path, data="digits", defense="undefended").defenses == {"undefended": Undefended()}
    assert read_study(path, data="digits", defense="rsw").defenses == {"rsw": SlidingWindow(width=7)}


def test_defense_that_could_be_two_is_refused(tmp_path: Path):
    path = tmp_path / "study.toml"
    path.write_text('defenses = [{kind = "rsw", width = 7}, {kind = "rsw", width = 8}]\n[data]\nsource = "digits"\n')
    with pytest.raises(InputError, match="give each a label"):
        read_study(path, defense="rsw")


@pytest.mark.parametrize(("text", "message"), [("victim = 3", "victim to be"), ("defenses = 3", "defenses to be")])
def test_options_over_wrong_types_are_refused(text: str, message: str, tmp_path: Path):
    path = tmp_path / "study.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_study(path, data="digits", weights=Path("w"), members=Path("m"), defense="rsw")


def test_study_file_that_cannot_be_read_is_refused(tmp_path: Path):
    path = tmp_path / "study.toml"
    for content in (b"\xff\xfe", b"seeds = [", b"a = " + b"[" * 5000, b"#" * (2**20 + 1)):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"study\.toml"):
            load_study(path)
    with pytest.raises(InputError, match="expected a study file"):
        load_study(tmp_path)


def test_edited_file_of_the_user_is_another_defense_attack_and_model(own: Path):
    def identities() -> list[Any]:
        sys.modules.pop("own_parts", None)
        importlib.invalidate_caches()
        made = study(
            model={"kind": "own_parts:model"}, defenses=[{"kind": "own_parts:Half"}], attacks=["own_parts:Coin"]
        )
        return [spelled(part) for part in (made.model, *made.defenses.values(), *made.attacks.values())]

    first = identities()
    assert identities() == first
    own.write_text(OWN + "# edited\n")
    assert all(new != old for new, old in zip(identities(), first, strict=True))


def test_file_that_is_edited_while_the_study_runs_does_not_speak_for_what_was_imported(own: Path):
    made = study(defenses=[{"kind": "own_parts:Half"}])
    before = source_fingerprint(type(made.defenses["own_parts:Half"]))
    own.write_text(OWN + "# edited\n")
    assert spelled(made.defenses["own_parts:Half"])["source"] == before
