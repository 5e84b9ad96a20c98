"""The diagnosis: controlled exposures, leakage within a record, and the scenario that follows."""

import copy
import json
import sys
import tomllib

import jsonschema
import numpy as np
import pytest

from exposure_scenarios import planted, study
from small_study import as_toml, table, write_data
from wemem import cli
from wemem.config.parse import parse_study
from wemem.diagnosis.design import BASE, NEVER, draw_exposures
from wemem.diagnosis.diagnose import diagnose
from wemem.diagnosis.experiment import DiagnosisSettings
from wemem.diagnosis.results import diagnosis_content, diagnosis_schema
from wemem.diagnosis.scenario import Decision, Effect, EffectName, Scenario
from wemem.diagnosis.within_record import compare, contrast, higher, levelled, surplus
from wemem.errors import InputError
from wemem.metrics.intervals import Estimate
from wemem.pipeline.progress import Silent
from wemem.reporting.diagnosis import diagnosis_sentences
from wemem.reporting.diagnosis_figures import write_figures
from wemem.results.build import environment
from wemem.store.store import Store
from wemem.training import choose_device

pytestmark = pytest.mark.slow

STUDY = study(rounds=2, scores=10)


def data(scenario):
    return planted(scenario, seed=100, records=1200)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Two of the planted scenarios, diagnosed; the benchmark does all four, ten times each."""
    store = Store(tmp_path_factory.mktemp("store"))
    return {
        name: diagnose(STUDY, DiagnosisSettings(models=12), store, Silent(), data(name))
        for name in ("reuse", "memorability")
    }


@pytest.fixture(scope="module")
def content(found):
    return diagnosis_content(STUDY, data("reuse"), found["reuse"], environment(choose_device(STUDY.device)))


# Leakage within a record


def answers(rng, *, models=12, records=300, leak=0.0, share=0.2):
    """Confidences with difficulties of records and levels of models, and ``leak`` added where a record was shown."""
    role = rng.random((models, records))
    shown, never = role < share, role > 0.6
    values = 3 * rng.normal(0, 1, records) + rng.normal(0, 1, (models, 1)) + rng.normal(0, 1, (models, records))
    return values + leak * shown, shown, never


def test_the_mean_is_that_of_all_comparisons_made_one_by_one():
    values, shown, never = answers(np.random.default_rng(0), models=5, records=30, leak=0.5)
    values = values.round(0)  # ties
    pairs = [
        np.mean(
            [(values[k, i] > values[j, i]) + 0.5 * (values[k, i] == values[j, i]) for j in np.flatnonzero(never[:, i])]
        )
        for k, i in zip(*np.nonzero(shown), strict=True)
        if never[:, i].any()
    ]
    assert compare(values, never, [shown], higher)[0].mean == pytest.approx(np.mean(pairs))


def test_a_model_left_out_is_left_out_on_both_sides():
    values, shown, never = answers(np.random.default_rng(1), models=5, records=40)
    rest = [0, 1, 3, 4]
    without = compare(values[rest], never[rest], [shown[rest]], surplus)[0].mean
    assert compare(values, never, [shown], surplus)[0].without[2] == pytest.approx(without)


def test_hard_records_do_not_pass_for_leaking_ones():
    values, shown, never = answers(np.random.default_rng(2), models=30, records=400)
    hard = np.arange(400) < 100
    values[:, hard] -= 5
    cells = compare(values, never, [shown & hard, shown & ~hard], higher)
    gap = contrast([(1, cells[0]), (-1, cells[1])], 0.99)
    assert gap.low < 0 < gap.high


def test_a_model_that_is_surer_of_a_class_is_not_thought_to_leak_it():
    values, _, never = answers(np.random.default_rng(3))
    labels = np.arange(300) % 3
    shifted = values + np.random.default_rng(4).normal(0, 9, (12, 3))[:, labels]
    assert np.allclose(levelled(values, never, labels), levelled(shifted, never, labels))


def test_intervals_cover_the_truth_as_often_as_they_say():
    truth, covered, widths = 0.0, [], []
    for seed in range(100):
        values, shown, never = answers(np.random.default_rng(seed), leak=0.7)
        first, second = compare(
            values, never, [shown & (np.arange(300) < 150), shown & (np.arange(300) >= 150)], higher
        )
        gap = contrast([(1, first), (-1, second)])
        covered.append(gap.low <= truth <= gap.high)
        widths.append(gap.high - gap.low)
    assert np.mean(covered) >= 0.9
    assert np.mean(widths) < 0.2  # and not by being endless


def test_cells_that_agree_in_every_pair_still_have_an_interval():
    values, shown, never = answers(np.random.default_rng(5), leak=1000.0)
    told = contrast([(1, compare(values, never, [shown], higher)[0])])
    assert told.value == 1.0
    assert told.low < 0.9


# Exposures


def exposures(models=6, rounds=4):
    labels = np.arange(600) % 3
    return draw_exposures(labels, np.arange(500), np.arange(500, 560), 300, rounds, models, seed=1)


def test_parts_are_equal_disjoint_and_unknown_to_the_dense_model():
    drawn = exposures()
    for k in range(6):
        sizes = [int((drawn.part[k] == d).sum()) for d in range(4)]
        assert sizes == [300 // 8] * 4
        assert (drawn.part[k] == BASE).sum() + sum(sizes) == 300
    assert not (drawn.shown("reused", 0) & (drawn.base.roles == 1)).any()
    assert not (drawn.never & (drawn.everything.roles == 1)).any()


def test_arms_show_equally_many_records_and_end_on_the_same_ones():
    drawn = exposures()
    for index in range(4):
        assert np.array_equal(drawn.shown("fresh", index).sum(1), drawn.shown("reused", index).sum(1))
    assert np.array_equal(drawn.shown("fresh", 3), drawn.shown("reused", 3))
    assert not (drawn.shown("fresh", 0) & drawn.shown("fresh", 1)).any()


@pytest.mark.parametrize("rounds", [2, 3, 5, 7])
def test_a_dose_is_the_number_of_rounds_and_the_last_one_always_counts(rounds):
    drawn = exposures(rounds=rounds, models=2)
    times = sum(drawn.shown("dosed", index).astype(int) for index in range(rounds))
    for part in range(rounds):
        assert (times[drawn.part == part] == part + 1).all()
    assert drawn.shown("dosed", rounds - 1)[drawn.part >= 0].all()
    assert (times[drawn.part == NEVER] == 0).all()


def test_a_model_does_not_depend_on_how_many_there_are():
    assert np.array_equal(exposures(models=6).part[:3], exposures(models=3).part)


def test_a_class_that_cannot_be_in_every_part_is_refused():
    labels = np.zeros(560, np.int64)
    labels[[0, 1, 2, 3, 4, 5, 500]] = 1
    with pytest.raises(InputError, match=r"give more records of it, or lower pruning\.rounds"):
        draw_exposures(labels, np.arange(500), np.arange(500, 560), 300, 4, 2, seed=0)


# The rule


def effect(name: EffectName, output: Decision) -> Effect:
    low, high = {"counts": (0.03, 0.2), "excluded": (-0.1, 0.01), "open": (0.0, 0.1)}[output]
    return Effect(name, Estimate((low + high) / 2, low, high), relevant=0.02)


@pytest.mark.parametrize(
    ("decisions", "name", "defense"),
    [
        (("counts", "excluded", "counts"), "reuse", "rsw"),
        (("open", "counts", "counts"), "memorability", "rmr"),
        (("counts", "counts", "excluded"), "both", "swmr"),
        (("excluded", "excluded", "counts"), "both", "swmr"),
        (("open", "excluded", "open"), "neither", None),
    ],
)
def test_the_rule_names_the_scenario_and_its_defense(decisions, name, defense):
    names: list[EffectName] = ["reuse", "memorability", "interaction"]
    named = Scenario(*(effect(*one) for one in zip(names, decisions, strict=True)))
    assert tuple(one.decision for one in named.effects) == decisions
    assert (named.name, named.defense) == (name, defense)
    if named.snippet is not None:
        told = tomllib.loads(named.snippet)
        assert list(parse_study({"data": {"source": "digits"}, **told}).defenses) == [defense]


# The whole


@pytest.mark.parametrize("name", ["reuse", "memorability"])
def test_a_planted_scenario_is_named(found, name):
    assert found[name].scenario.name == name


def test_nothing_leaks_where_nothing_can(found):
    for one in found.values():
        for control in one.controls.values():
            assert control.low < 0.5 < control.high


def test_the_dose_within_a_model_confirms_the_arms(found):
    leakage, _ = found["reuse"].comparisons["shown in 2 rounds - in 1, within a model"]
    assert leakage.low > 0.02


def test_what_is_written_keeps_its_promise(content):
    jsonschema.Draft202012Validator.check_schema(diagnosis_schema())
    jsonschema.validate(json.loads(json.dumps(content, allow_nan=False)), diagnosis_schema())


def test_the_words_name_scenario_rule_controls_and_advice(content):
    told = "\n".join(diagnosis_sentences(content))
    for expected in ("DATA REUSE drives", "counts if its whole interval lies above 2 points", "Controls", "Use RSW"):
        assert expected in told
    assert "WARNING" not in told


def test_an_open_effect_is_not_called_absent(content):
    open_content = copy.deepcopy(content)
    open_content["scenario"].update(name="neither", defense=None, snippet=None)
    for effect in open_content["scenario"]["effects"]:
        effect.update(ci=[-0.01, 0.09], output="open")
    told = "\n".join(diagnosis_sentences(open_content))
    assert "one of up to 9.0 points is compatible" in told
    assert "not excluded either" in told


def test_a_control_that_fails_warns(content):
    failed = copy.deepcopy(content)
    failed["controls"][0]["leakage"]["ci"] = [0.52, 0.6]
    assert any(line.startswith("WARNING") for line in diagnosis_sentences(failed))


def tiny(folder, **changed):
    path = folder / "study.toml"
    path.write_text(as_toml(table(write_data(folder), scores={"models": 6}, name="<b>tiny</b>", **changed)))
    return path


def run(arguments, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["wemem", "diagnose", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return stopped.value.code


def test_the_command_leaves_numbers_a_page_that_needs_no_other_file_and_figures_that_come_out_the_same(
    tmp_path, capsys, monkeypatch
):
    path = tiny(tmp_path)
    assert run([path, "--out", tmp_path / "a", "--models", 6, "--jobs", 2], monkeypatch) == 0
    printed = capsys.readouterr().out
    assert "The rule" in printed
    page = (tmp_path / "a" / "diagnosis.html").read_text()
    assert "&lt;b&gt;tiny" in page
    assert "<b>tiny" not in page
    assert page.count("data:image/svg+xml") == 4
    assert "http" not in page
    told = json.loads((tmp_path / "a" / "diagnosis.json").read_text())
    for svg in write_figures(told, tmp_path / "again"):
        for path in (svg, svg.with_suffix(".png")):
            assert path.read_bytes() == (tmp_path / "a" / "figures" / path.name).read_bytes()


class KilledError(Exception):
    pass


class KillsAfter(Silent):
    """Ends the process, as it were, after some rounds."""

    def __init__(self, rounds):
        self.left = rounds

    def advance(self, fraction, detail):
        self.left -= detail.startswith("round ") and "epoch" not in detail
        if self.left < 0:
            raise KilledError


def test_a_killed_diagnosis_goes_on_and_finds_the_same(tmp_path):
    config = parse_study(table(write_data(tmp_path), scores={"models": 6}))
    settings = DiagnosisSettings(models=6)
    whole = diagnose(config, settings, Store(tmp_path / "whole"), Silent())
    for rounds in (1, 3):  # within an arm, and at the end of the next one's first
        with pytest.raises(KilledError):
            diagnose(config, settings, Store(tmp_path / "killed"), KillsAfter(rounds))
    resumed = diagnose(config, settings, Store(tmp_path / "killed"), Silent())
    assert resumed.measured == whole.measured
    # no round's weights are left behind
    assert not list((tmp_path / "killed" / "exposed_round").rglob("data.safetensors"))


def test_another_pruning_method_never_gets_the_stored_results_of_the_first(tmp_path):
    """On the store of a magnitude run, a diagnosis of filter pruning finds what it finds on an empty store."""
    small = {"scores": {"models": 6}, "pruning": {"rounds": 2}}
    file, settings = write_data(tmp_path), DiagnosisSettings(models=6)
    by_norm = parse_study(table(file, **{**small, "pruning": {"rounds": 2, "method": "l1_filter"}}))
    by_weight = diagnose(parse_study(table(file, **small)), settings, Store(tmp_path / "used"), Silent())
    on_used = diagnose(by_norm, settings, Store(tmp_path / "used"), Silent())
    on_empty = diagnose(by_norm, settings, Store(tmp_path / "empty"), Silent())
    assert on_used.measured == on_empty.measured
    assert on_used.measured != by_weight.measured


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("pruning.rewind=initial", "rewinding undoes the exposures"),
        ("pruning.rounds=1", "at least 2 rounds"),
    ],
)
def test_what_cannot_be_diagnosed_is_refused(override, expected, tmp_path, capsys, monkeypatch):
    assert run([tiny(tmp_path), "--out", tmp_path / "out", "--set", override], monkeypatch) == 2
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_settings_out_of_range_are_refused(tmp_path, capsys, monkeypatch):
    for option, value in (("--models", "3"), ("--relevant", "0.7"), ("--top", "0")):
        assert run([tiny(tmp_path), "--out", tmp_path / "out", option, value], monkeypatch) == 2
        assert value.rstrip("0") in capsys.readouterr().err
