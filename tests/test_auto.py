"""Settings found from a budget: the right ones, on the right records, however often it is interrupted."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from small_study import table, write_data
from wemem.config.parse import parse_study
from wemem.config.study import StudyConfig
from wemem.data.split import Role
from wemem.defenses import Undefended, make_defense
from wemem.pipeline.parties import Parties
from wemem.pipeline.pipeline import Pipeline
from wemem.pipeline.progress import Silent
from wemem.pruning import Pruning
from wemem.results.build import study_results
from wemem.results.schema import results_schema
from wemem.store.key import Key
from wemem.store.shared_work import SharedWork
from wemem.store.store import Store
from wemem.study.run import run_study
from wemem.tuning import search as auto_module
from wemem.tuning.objectives import Figures
from wemem.tuning.panel import REFERENCE_ATTACKS, Panel, measure, panel_of, restricted
from wemem.tuning.sampler import propose
from wemem.tuning.search import tune_defense
from wemem.tuning.space import SPACE, STARTS, Tried
from wemem.tuning.wording import tuning_in_words

pytestmark = pytest.mark.slow

SEARCH = {"kind": "auto", "families": ["rsw", "rmr"], "trials": 5, "finalists": 2, "models": 3}


def study(folder: Path, **search: Any) -> StudyConfig:
    small: dict[str, Any] = {"scores": {"models": 6}, "training": {"epochs": 2}, "finetune": {"epochs": 1}}
    return parse_study(table(write_data(folder), **small, attacks=["confidence"], defenses=[SEARCH | search]))


def parties_of(config: StudyConfig, store: Path, progress: Silent | None = None) -> Parties:
    data = config.data.load()
    return Parties.of(Pipeline.open(config, data, Store(store), progress or Silent()), 0)


def found_by(config: StudyConfig, store: Path, progress: Silent | None = None) -> dict[str, Any]:
    """Summary of a search, without times."""
    parties = parties_of(config, store, progress)
    (budget,) = config.budgets.values()
    summary = tune_defense(parties, budget, config.pruning.to(0.6, config.finetune), parties.dense()).summary
    return dict(json.loads(json.dumps({name: value for name, value in summary.items() if name != "seconds"})))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("auto")


@pytest.fixture(scope="module")
def undisturbed(folder: Path) -> dict[str, Any]:
    return found_by(study(folder), folder / "store")


def toy_figures(kind: str, settings: dict[str, Any]) -> tuple[float, float]:
    """Drop and leakage with a planted optimum: half of the records risky at decay 0.1 leaks least at no cost."""
    if kind != "rmr":
        return 0.03, 0.7
    far = abs(SPACE["rmr"]["top"].index(settings["top"]) - 5) + abs(SPACE["rmr"]["decay"].index(settings["decay"]) - 1)
    return 0.002 * far, 0.55 + 0.03 * far


def test_a_planted_optimum_is_proposed_more_often_than_by_chance():
    """The optimum or a neighbour: 5 of the 35 settings of its family; the other family has 120 that lead nowhere."""
    hits = 0
    for seed in range(3):
        tried: list[Tried] = []
        for number in range(25):
            kind, settings = propose(tried, ["rsw", "rmr"], number, seed)
            tried.append(Tried(kind, settings, *toy_figures(kind, settings)))
        hits += min(one.leakage for one in tried) < 0.6
    assert hits == 3


def test_proposals_depend_on_nothing_but_seed_number_and_what_was_tried():
    tried = [Tried(kind, STARTS[kind], 0.01 * i, 0.6) for i, kind in enumerate(SPACE)]
    first = [propose(tried, list(SPACE), number, 7) for number in range(4, 12)]
    np.random.default_rng(0).random(10)
    assert [propose(tried, list(SPACE), number, 7) for number in range(4, 12)] == first
    assert [propose(tried, list(SPACE), number, 8) for number in range(4, 12)] != first


def test_every_proposal_is_a_defense_and_the_first_are_the_usual_settings():
    tried: list[Tried] = []
    for number in range(14):
        kind, settings = propose(tried, list(SPACE), number, 1)
        make_defense(kind, settings)
        tried.append(Tried(kind, settings, 0.0, 0.5 + number / 100))
    assert [(one.kind, one.settings) for one in tried[:4]] == list(STARTS.items())


def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of pruning: figures of the toy objective, with noise of the model's own."""

    def measure(pipeline: Any, panel: Panel, defense: Any, pruning: Pruning, **kwargs: Any) -> Figures:
        settings = {name: value for name, value in defense.settings.items() if value is not None}
        drop, leakage = (0.0, 0.8) if defense == Undefended() else toy_figures(defense.name, settings)
        noise = 0.002 * np.random.default_rng(0).standard_normal(kwargs["models"])
        return Figures(0.6 - drop + noise, {"a": leakage + noise}, {"a": leakage - 0.5 + noise}, 100, 0.0)

    monkeypatch.setattr(auto_module, "measure", measure)


def test_search_chooses_the_planted_optimum_or_a_neighbour(folder, tmp_path, monkeypatch):
    planted(monkeypatch)
    summary = found_by(study(folder, trials=20), tmp_path / "store")
    assert summary["kind"] == "rmr"
    assert summary["confirmed"]["leakage"] < 0.6
    assert summary["met"]
    assert "The budget is met." in tuning_in_words(summary)


def test_a_budget_that_cannot_be_met_is_said_so_with_the_nearest_point(folder, tmp_path, monkeypatch):
    planted(monkeypatch)
    summary = found_by(study(folder, max_tpr=0.02, max_accuracy_drop=0.0), tmp_path / "store")
    assert not summary["met"]
    assert any("NOT met: this is the nearest" in line for line in tuning_in_words(summary))
    nearest = min(summary["front"], key=lambda one: max(0, one["accuracy_drop"]) + max(0, one["tpr"] - 0.02))
    assert summary["settings"].items() >= nearest["settings"].items()


def test_search_sees_one_half_and_everything_else_is_judged_by_the_other(folder, undisturbed):
    config = study(folder)
    parties = parties_of(config, folder / "store")
    held = parties.split.records(0, Role.AUDIT)
    assert np.array_equal(np.union1d(parties.tuning_records, parties.confirmation_records), held)
    assert not len(np.intersect1d(parties.tuning_records, parties.confirmation_records))
    searched, fresh = (
        panel_of(parties, parties.dense().result(), half, purpose, 3)
        for half, purpose in ((parties.tuning_records, "search"), (parties.confirmation_records, "confirm"))
    )
    adversary = np.flatnonzero((parties.split.roles[1:] != Role.UNUSED).any(0))
    for panel, other in ((searched, parties.confirmation_records), (fresh, parties.tuning_records)):
        used = np.flatnonzero((panel.split.roles != Role.UNUSED).any(0))
        assert not len(np.intersect1d(used, other))
        assert not len(np.intersect1d(used, adversary))
    assert not set(searched.seeds[1:]) & set(fresh.seeds[1:])
    for outcome in run_study(config, Store(folder / "store"), Silent()):
        assert np.array_equal(outcome.split.records(0, Role.AUDIT), parties.confirmation_records)
        judged = outcome.report["confidence"]
        assert np.array_equal(judged.records[~judged.member], parties.confirmation_records)


def test_figures_count_the_evaluated_records_alone_and_the_victim_only_by_accuracy(folder, undisturbed):
    parties = parties_of(study(folder), folder / "store")
    unused = parties.confirmation_records
    whole = panel_of(parties, parties.dense().result(), unused, "confirm", 3)
    part = restricted(whole, unused, fpr=0.5)
    pruning = parties.config.pruning.to(0.6, parties.config.finetune)

    def figures(panel: Panel) -> Figures:
        return measure(
            parties.pipeline, panel, Undefended(), pruning, title="test", models=4, attacks=REFERENCE_ATTACKS, fpr=0.5,
            seed=0,
        )  # fmt: skip

    one, other = figures(whole), figures(part)
    assert (one.records, other.records) == (len(whole.evaluated), len(unused))
    assert other.auc.keys() == one.auc.keys()
    assert all(len(values) == 3 for values in other.auc.values())
    assert one.accuracy[0] == other.accuracy[0]  # the victim was trained on no record of the confirm half
    assert one.auc["confidence"][1:].tolist() != other.auc["confidence"].tolist()


def test_the_summary_states_how_many_records_of_the_confirmation_are_new(folder, undisturbed):
    parties = parties_of(study(folder), folder / "store")
    train = parties.split.records(0, Role.TRAIN)
    # too few are held out of this study, so that the confirmation uses all records
    confirmed_on = {
        "records": len(train) + len(parties.confirmation_records),
        "new_records": len(parties.confirmation_records),
    }
    assert undisturbed["confirmed_on"] == confirmed_on
    used = round(100 * len(train) / confirmed_on["records"])
    assert any(f"of which the search used {used} %" in line for line in tuning_in_words(undisturbed))


@pytest.mark.parametrize(("error", "words"), [(0.001, "met."), (0.02, "met, but by less than a standard error")])
def test_a_budget_kept_by_less_than_its_error_is_not_called_met_without_saying_so(undisturbed, error, words):
    confirmed = undisturbed["confirmed"] | {"accuracy_drop": 0.005, "accuracy_drop_se": error}
    summary = undisturbed | {"met": True, "confirmed": confirmed}
    assert any(line.startswith(f"The budget is {words}") for line in tuning_in_words(summary))


def test_results_of_both_modes_keep_the_schema_and_are_adaptive(folder, undisturbed):
    modes = [SEARCH, {"kind": "auto", "mode": "online", "label": "online"}]
    config = parse_study(dict(study(folder).table) | {"defenses": ["undefended", *modes]})
    summary = study_results(config, config.data.load(), list(run_study(config, Store(folder / "store"), Silent())))
    jsonschema.validate(json.loads(json.dumps(summary, allow_nan=False)), results_schema())
    searched, online = (run for run in summary["runs"] if "auto" in run)
    assert searched["auto"]["settings"] == searched["settings"]
    assert searched["auto"]["search"] != searched["auto"]["confirmed"]
    assert online["defense"] == "online"
    assert len(online["auto"]["strengths"]) == config.pruning.rounds
    assert "strength" in tuning_in_words(online["auto"])[0]
    for run in (searched, online):
        assert run["certificate"]["adaptive"]
        drop = summary["runs"][1]["accuracy"]["test"] - run["accuracy"]["test"]
        assert run["auto"]["audited"]["accuracy_drop"] == pytest.approx(drop)


def test_the_same_search_costs_nothing_again_and_a_longer_one_only_what_is_new(folder, undisturbed):
    class Heard(Silent):
        def __init__(self) -> None:
            self.tried: list[str] = []

        def begin(self, stage: str, work: float) -> None:
            self.tried += [stage] if stage.startswith("try") else []

    heard = Heard()
    assert found_by(study(folder), folder / "store", heard) == undisturbed
    assert not heard.tried
    longer = found_by(study(folder, trials=6, max_accuracy_drop=0.2), folder / "store", heard)
    assert longer["trials"] == 6
    assert [title[:5] for title in heard.tried] == ["try 6"]


class Interrupting(Silent):
    """Presses Ctrl-C when the third setting is tried."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def begin(self, stage: str, work: float) -> None:
        if stage.startswith("try 3"):
            raise KeyboardInterrupt

    def tell(self, message: str) -> None:
        self.told.append(message)


def test_an_interrupt_gives_the_best_so_far_and_the_same_search_goes_on(folder, undisturbed, tmp_path):
    hasty = Interrupting()
    summary = found_by(study(folder), tmp_path / "store", hasty)
    assert summary["stopped"] == "user"
    assert summary["trials"] == 2
    assert any("best so far" in message for message in hasty.told)
    assert found_by(study(folder), tmp_path / "store") == undisturbed


def test_time_that_is_up_ends_the_search_and_says_so(folder, tmp_path):
    summary = found_by(study(folder, minutes=1e-6), tmp_path / "store")
    assert summary["stopped"] == "minutes"
    assert summary["trials"] == 1


def search_in_process(folder: Path, store: Path) -> subprocess.Popen[str]:
    script = "import sys, json; from pathlib import Path; import torch; torch.set_num_threads(1)\n"
    script += "from test_auto import study, found_by\n"
    script += "folder, store = map(Path, sys.argv[1:]); print(json.dumps(found_by(study(folder), store)))"
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    return subprocess.Popen(
        [sys.executable, "-c", script, str(folder), str(store)], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )  # fmt: skip


def test_killed_in_the_middle_it_goes_on_and_two_processes_share_what_is_left(folder, undisturbed, tmp_path):
    store = tmp_path / "store"
    killed = search_in_process(folder, store)
    while len(list((store / "auto_piece").rglob("meta.json"))) < 4 and killed.poll() is None:
        time.sleep(0.02)
    assert killed.poll() is None
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert killed.stdout is not None
    killed.stdout.close()
    beside = search_in_process(folder, store)
    summary = json.loads(json.dumps(found_by(study(folder), store)))
    assert json.loads(beside.communicate(timeout=300)[0]) == summary
    assert summary["trials"] == undisturbed["trials"]


def test_killed_after_any_piece_the_end_is_the_same(folder, undisturbed, tmp_path, monkeypatch):
    class KilledError(BaseException):
        pass

    put, deaths = Store.put, 0

    def dying(self: Store, own: Any, *args: Any) -> Any:
        entry = put(self, own, *args)
        if own.origin["stage"] == "auto_piece":
            raise KilledError
        return entry

    while True:
        with monkeypatch.context() as patch:
            patch.setattr(Store, "put", dying)
            try:
                summary = found_by(study(folder), tmp_path / "store")
                break
            except KilledError:
                deaths += 1
    assert deaths > 10
    assert summary == undisturbed


def test_a_piece_is_done_by_one_process_and_taken_over_when_that_is_gone(tmp_path):
    job = Key.of("job", {"of": "the test"})
    script = (
        "import sys; from pathlib import Path; from wemem.store.store import Store; from wemem.store.key import Key\n"
        "from wemem.store.shared_work import SharedWork\n"
        "work = SharedWork(Store(Path(sys.argv[1])), Key.of('job', {'of': 'the test'}), 2)\n"
        "for number in work.claims(): print(number, flush=True); sys.stdin.read()\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert other.stdout is not None
    assert other.stdout.readline() == "0\n"
    work, done = SharedWork(Store(tmp_path), job, 2), []
    for number in work.claims():
        done.append(number)
        work.store.put(work.key(number), {}, {})
        if number == 1:
            other.kill()
            other.communicate()
    assert done == [1, 0]


def test_what_does_not_fit_the_data_is_passed_over_and_only_that(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(STARTS, "rsw", {"width": 500, "stride": 0.0, "order": "low_first"})
    summary = found_by(study(folder, trials=2), tmp_path / "store")
    assert (summary["kind"], summary["trials"]) == ("rmr", 1)


@pytest.mark.parametrize("family", ["rmr", "oosd"])
def test_the_work_that_is_planned_is_about_the_work_that_a_search_turns_out_to_be(folder, tmp_path, family):
    class Heard(Silent):
        planned = begun = 0.0

        def plan(self, work: float) -> None:
            self.planned = work

        def begin(self, stage: str, work: float) -> None:
            self.begun += work

    heard = Heard()
    config = study(folder, families=[family], trials=2, finalists=1)
    list(run_study(config, Store(tmp_path / "store"), heard))
    assert 0.7 < heard.begun / heard.planned < 1.4
