"""Keys: every field of every value that a stage reads is in its key, and no key is made elsewhere."""

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import pytest

from wemem.attacks import ATTACKS
from wemem.config.budget import Budget
from wemem.config.settings import ScoreSettings
from wemem.data.teachers import Teachers
from wemem.data.views import Views
from wemem.defenses import DEFENSES, make_defense
from wemem.files.hashing import sha256_of
from wemem.models import MODELS, FullyConnected
from wemem.pruning import CRITERIA, L1Filter, Pruning, Schedule
from wemem.store import diagnosis_keys, keys
from wemem.store.fingerprint import PACKAGE, spelled
from wemem.store.key import Key, PieceKey, StageKey
from wemem.training import Recipe

KEY = Key.of("dense", {})
ENSEMBLE = keys.EnsembleInputs(keys.Architecture(FullyConnected(), None), "data", "split", (0, 1), "auto", "cpu")
PRUNING = Pruning(Schedule(0.6, 3))
SWMR = make_defense("swmr")
LIRA = ATTACKS["lira"]()

#: One value of every kind of key.
EXAMPLES: tuple[StageKey, ...] = (
    keys.DenseKey(ENSEMBLE, Recipe()),
    keys.UntrainedKey(ENSEMBLE.architecture, "data", (0, 1)),
    keys.ScoresKey((KEY,), "split", "probability"),
    keys.ScoreFileKey((0.5, None)),
    keys.DenseTargetsKey(KEY, "data", "split", "cpu"),
    keys.TeacherTargetsKey((KEY,), "data", "split", Teachers(4, 2, views=Views(1, 0.5))),
    keys.RoundKey(KEY, 0.6, keys.rules_of(PRUNING), SWMR, (KEY, None), None, ENSEMBLE),
    keys.VictimKey(ENSEMBLE.architecture, "weights", None),
    keys.ShippedVictimKey("file", "runtime", KEY),
    keys.SelectionKey(KEY, (0, 2)),
    keys.SwappedKey(KEY, KEY),
    keys.SignalsKey(KEY, "data", (1, 2), ("noise",), 0, "cpu", make_defense("hamp"), 1),
    keys.DisjointSignalsKey((KEY,), "split"),
    keys.SharedSignalsKey((KEY,), ("split", "other")),
    keys.AttackKey(KEY, LIRA, 0),
    keys.LeaveOneOutKey(KEY, LIRA, 0, ("auc",)),
    keys.FunctionKey("module:train", "source", "data", "split", 1, 0),
    keys.PanelKey(KEY, (KEY,), KEY, 4),
    keys.FiguresKey(KEY, 4, PRUNING, SWMR, Recipe(), ENSEMBLE, (LIRA,), 0.01, 0, (1, 2)),
    keys.SearchKey("try", KEY, 4, PRUNING, ("rsw",), 0.01, 0),
    keys.SearchedKey(KEY, Budget(), PRUNING, Recipe(), ENSEMBLE),
    PieceKey(KEY, 0),
    diagnosis_keys.ExposedRoundKey(KEY, 0, 0.6, keys.rules_of(PRUNING), ENSEMBLE),
    diagnosis_keys.ExposedAnswersKey(KEY, "data", (1, 2), "cpu"),
)


def variants(value: Any, where: str) -> Iterator[tuple[str, Any]]:
    """The value with one thing in it changed, for everything in it; values of settings need not be allowed ones."""
    if is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            for place, other in variants(getattr(value, field.name), f"{where}.{field.name}"):
                changed = copy.copy(value)
                object.__setattr__(changed, field.name, other)
                yield place, changed
    elif isinstance(value, Mapping):
        for name in value:
            yield from ((place, {**value, name: other}) for place, other in variants(value[name], f"{where}.{name}"))
    elif isinstance(value, tuple | list):
        yield f"{where}[]", (*value, value[0] if value else "x")
        for i, item in enumerate(value):
            yield from (
                (place, (*value[:i], other, *value[i + 1 :])) for place, other in variants(item, f"{where}[{i}]")
            )
    elif isinstance(value, bool):
        yield where, not value
    elif isinstance(value, int | float):
        yield where, value + 1
    elif value is None or isinstance(value, str):
        yield where, f"{value or ''}x"


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: type(example).__name__)
def test_every_field_of_every_value_is_in_the_key(example):
    found = {example.key(): "as it is"}
    for place, other in variants(example, type(example).__name__):
        key = other.key()
        assert key not in found, f"{place} gives the key of {found[key]}"
        found[key] = place
    assert len(found) > len(fields(example))


def test_the_criterion_of_pruning_and_its_library_are_in_the_key(monkeypatch):
    structured = keys.rules_of(Pruning(Schedule(0.6, 3), criterion=L1Filter()))
    one, other = (
        keys.RoundKey(KEY, 0.6, rules, SWMR, (), None, ENSEMBLE) for rules in (keys.rules_of(PRUNING), structured)
    )
    assert one.key() != other.key()
    before = one.key(), other.key()
    monkeypatch.setattr("wemem.store.fingerprint.version", lambda name: f"another {name}")
    assert one.key() == before[0]
    assert other.key() != before[1]


def test_every_kind_of_key_has_an_example():
    assert {type(example) for example in EXAMPLES} == set(StageKey.__subclasses__())


def test_rules_of_a_pruning_are_all_of_it_but_the_schedule():
    names = {field.name for field in fields(Pruning)}
    assert {*keys.rules_of(PRUNING), "schedule"} == names


def test_no_key_is_made_elsewhere():
    """A key is the value's own ``key()``; nobody else names a stage and its determinants."""
    spelling = re.compile(r"Key\.of\(|\bKey\(\{|sha256_of\(.*stage")
    makers = {path for path in PACKAGE.rglob("*.py") if spelling.search(path.read_text("utf-8"))}
    assert makers == {PACKAGE / "store" / "key.py"}


# Fingerprints of settings


def certified_values() -> dict[str, Any]:
    """Everything built in that a certificate speaks of, at its defaults."""
    defenses = {kind: cls() for kind, cls in DEFENSES.items()} | {"swmr": SWMR}
    required: dict[str, dict[str, Any]] = {"entity_embedding": {"categories": (7, 0)}}
    models = {kind: cls(**required.get(kind, {})) for kind, cls in [*MODELS.items(), *CRITERIA.items()]}
    # how others than the victim are scored is no part of its recipe
    scores = {name: value for name, value in spelled(ScoreSettings()).items() if name != "drawn_from"}
    return {**defenses, **models, "recipe": Recipe(), "pruning": PRUNING, "scores": scores}


#: The first digits of their fingerprints. A certificate beside a model holds the hash of them: a change here makes all
#: that were written before speak of another recipe.
GOLDEN: dict[str, str] = {
    "undefended": "04086e723d25",
    "rsw": "b47821f91ae0",
    "rmr": "004fe4ce59f1",
    "oosd": "ee97d446dff5",
    "radd": "481ba8897a0c",
    "ppb": "db0cf0a59ae3",
    "advreg": "ee1d1e61381b",
    "relaxloss": "d1b99e868f12",
    "hamp": "fd6aea60eb34",
    "label_smoothing": "db1c80f02989",
    "early_stopping": "3061aefa37b8",
    "dpsgd": "01616b5fcaf5",
    "swmr": "0b973a2f202c",
    "fc": "8032f0c0d395",
    "convnet": "920486077e4f",
    "resnet8": "8db138ad5329",
    "resnet9": "4f514c451ccc",
    "resnet20": "0e8212ab4349",
    "resnet18": "4a7962f117d0",
    "vgg16_bn": "7ff46378bee8",
    "densenet121": "09c0a92c4fa1",
    "mobilenet_v2": "883ac1fbc318",
    "vit": "0962f4e0a175",
    "text_transformer": "9afcbe8a6f5e",
    "lstm": "bc34fc724515",
    "gru": "0d20011f2fec",
    "entity_embedding": "6861024ae6ec",
    "magnitude": "33e803e79de6",
    "lamp": "c44340638e4d",
    "erk": "7da9b83edd6e",
    "taylor": "727bc3e9e3b8",
    "n_of_m": "1d85bdf6545f",
    "l1_filter": "5a80c83198dc",
    "l2_filter": "a2fca1394abe",
    "taylor_filter": "0f00626bf9e7",
    "bn_scale": "b503266b642e",
    "heads_and_neurons": "33f031646255",
    "taylor_heads_and_neurons": "545893e1c9ce",
    "recipe": "844d5d700496",
    "pruning": "75ae24deec85",
    "scores": "800fff00d107",
}


def test_built_in_settings_have_the_fingerprints_that_certificates_know():
    assert {name: sha256_of(spelled(value))[:12] for name, value in certified_values().items()} == GOLDEN


@pytest.mark.parametrize("value", certified_values().values(), ids=certified_values())
def test_fingerprints_hold_the_names_of_a_study_and_no_path_of_a_class(value):
    assert "wemem" not in str(spelled(value))
