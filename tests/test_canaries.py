"""Canaries: who trains on them, what attacks make of them, and where they are reported."""

import copy
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from report_example import make_folder, write
from results_example import make_results
from small_study import as_toml, table, without_times, write_data
from toy import blobs
from wemem import api
from wemem.attacks import make_attack
from wemem.auditing.canaries import CanaryRecords
from wemem.auditing.leave_one_out import leave_one_out
from wemem.config.parse import parse_study
from wemem.data.canaries import FEWEST, KINDS, plant
from wemem.data.split import Role, random_halves, victim_and_shadows
from wemem.errors import InputError
from wemem.metrics.over_targets import metrics_over_targets
from wemem.metrics.pooled import pooled_estimate
from wemem.metrics.rates import auc
from wemem.metrics.registry import METRICS
from wemem.notes import shown
from wemem.reporting.canaries import canary_rows
from wemem.reporting.console import results_table
from wemem.results.arms import arms
from wemem.results.canaries import worst_case
from wemem.results.canary_records import canary_differences, read_canaries, write_canaries
from wemem.results.contradictions import contradictions
from wemem.results.folder import CANARIES
from wemem.results.gate import Limits, check
from wemem.results.read import faults
from wemem.results.verify import verify
from wemem.signals import Signals

OPEN = [metric for metric in METRICS.values() if not metric.needs_threshold]


def planted_blobs(records: int = 600, count: int = FEWEST) -> Any:
    data = blobs(records, noise=2.0)
    split = victim_and_shadows(data.labels, 2, seed=3)
    return data, split, plant(data, split, count, seed=3)


def test_records_without_canaries_keep_their_numbers_features_and_labels():
    data, _, planted = planted_blobs()
    assert planted.records == len(data)
    assert np.array_equal(planted.data.features[: len(data)], data.features)
    assert np.array_equal(planted.data.labels[: len(data)], data.labels)


def test_only_the_records_that_canaries_were_made_from_lose_their_role():
    data, split, planted = planted_blobs()
    changed = planted.split.roles[:, : len(data)] != split.roles
    lost = np.flatnonzero(changed.any(0))
    assert len(lost) == 2 * 2 * FEWEST // 3  # singles and twins, of the victim and of the shadows
    assert not planted.split.roles[:, lost].any()
    assert np.isin(planted.sources, lost).all()
    assert not planted.split.roles[:, planted.sources].any()


def test_every_model_trains_on_half_of_the_canaries_of_each_kind_and_on_every_original():
    _, _, planted = planted_blobs()
    for own in planted.canaries.values():
        assert (planted.split.roles[0, own] == Role.TRAIN).sum() == len(own) // 2
        assert (planted.split.roles[0, own] == Role.AUDIT).sum() == len(own) // 2
        assert not planted.split.roles[1:, own].any()  # the shadows have their own
    assert (planted.split.roles[0, planted.originals] == Role.TRAIN).all()
    for k in (1, 2):
        others = planted.split.roles[k, planted.originals[-1] + 1 :]
        assert (others == Role.TRAIN).sum() == FEWEST // 2 + FEWEST // 3
        assert (others == Role.AUDIT).sum() == FEWEST // 2


def test_twins_are_identical_to_their_originals_but_for_the_label():
    _, _, planted = planted_blobs()
    twins, data = planted.canaries["twins"], planted.data
    assert np.array_equal(data.features[twins], data.features[planted.originals])
    assert (data.labels[twins] != data.labels[planted.originals]).all()


def test_out_of_distribution_canaries_have_only_values_that_occur_in_the_data():
    data, _, planted = planted_blobs()
    strangers = planted.data.features[planted.canaries["out_of_distribution"]]
    for feature in range(data.features.shape[1]):
        assert np.isin(strangers[:, feature], data.features[:, feature]).all()
    assert not (strangers[:, None] == data.features[None]).all(-1).any()


def test_of_each_pair_of_reference_models_one_trains_on_a_canary():
    data, split, planted = planted_blobs()
    audited, dev = planted.without_canaries(planted.split).audited(0), split.records(0, Role.DEV)
    outside = np.setdiff1d(np.arange(len(data)), np.concatenate([audited, dev, planted.sources]))
    halves = random_halves(
        data.labels, audited, 6, seed=3, outside=outside, train_size=len(audited) // 2, dev_size=len(dev)
    )
    roles = planted.extended(halves).roles
    for j in range(3):
        members = (roles[2 * j : 2 * j + 2][:, planted.all_canaries] == Role.TRAIN).sum(0)
        assert (members == 1).all()
    assert (roles[:, planted.originals] == Role.TRAIN).all()
    assert np.array_equal(roles[:, : len(data)], halves.roles)


@pytest.mark.parametrize("count", [3, 25, -3])
def test_a_number_that_cannot_be_divided_among_the_kinds_is_refused(count: int):
    with pytest.raises(InputError, match="canaries must be 0 or a multiple of 3"):
        parse_study({"data": {"source": "digits"}, "canaries": count})


def test_canaries_without_an_attack_by_references_are_refused():
    with pytest.raises(InputError, match="attack by reference models"):
        parse_study({"data": {"source": "digits"}, "attacks": ["confidence"], "canaries": 30})


def test_canaries_scored_otherwise_than_the_victim_are_refused():
    with pytest.raises(InputError, match="drawn_from"):
        parse_study({"data": {"source": "digits"}, "canaries": 30, "scores": {"drawn_from": "pool"}})


def test_too_few_records_for_canaries_are_refused():
    with pytest.raises(InputError, match="plant fewer canaries"):
        planted_blobs(records=90, count=60)


def test_a_study_without_canaries_has_the_table_that_it_had_before_there_were_any():
    assert "canaries" not in parse_study({"data": {"source": "digits"}}).table
    assert parse_study({"data": {"source": "digits"}, "canaries": 30}).table["canaries"] == 30


# the rate over all targets


def test_a_pooled_rate_of_one_constant_score_is_one_half():
    member = np.arange(40).reshape(4, 10) % 2 == 0
    estimate = pooled_estimate(METRICS["auc"].value, np.zeros((4, 10)), member, np.random.default_rng(0))
    assert estimate.value == 0.5
    assert estimate.low < 0.5 < estimate.high


def test_a_pooled_rate_is_that_of_all_records_together():
    rng = np.random.default_rng(1)
    scores, member = rng.normal(0, 1, (5, 12)), rng.random((5, 12)) < 0.5
    estimate = pooled_estimate(METRICS["auc"].value, scores, member, rng)
    assert estimate.value == auc(scores[member], scores[~member])
    assert estimate.low < estimate.value < estimate.high


def test_the_interval_of_a_pooled_rate_covers_the_true_value():
    rng, covered = np.random.default_rng(2), 0
    for _ in range(100):
        member = np.array([rng.permutation(20) < 10 for _ in range(8)])
        of_record, of_target = rng.normal(0, 0.5, (1, 20)), rng.normal(0, 0.5, (8, 1))
        scores = rng.normal(0, 1, (8, 20)) + member * (1 + of_record) + of_target
        estimate = pooled_estimate(METRICS["auc"].value, scores, member, rng)
        covered += estimate.low <= 0.727 <= estimate.high  # by a simulation of 10,000 targets and records
    assert covered >= 90


# attacks on signals


def canary_signals(leaking: tuple[str, ...], size: int = 20, models: int = 12) -> tuple[Signals, dict[str, np.ndarray]]:
    """Outputs of models that are surer of the members among some kinds of canaries."""
    rng = np.random.default_rng(5)
    kinds = {kind: np.arange(size) + 1000 + size * place for place, kind in enumerate(KINDS)}
    records = np.concatenate([np.arange(100), *kinds.values()])
    roles = np.zeros((models, len(records)), np.int8)
    for j in range(0, models, 2):
        inside = rng.random(len(records)) < 0.5
        roles[j, 100:] = np.where(inside, Role.TRAIN, Role.AUDIT)[100:]
        roles[j + 1, 100:] = np.where(inside, Role.AUDIT, Role.TRAIN)[100:]
    logits = rng.normal(0, 1, (models, len(records), 2)).astype(np.float32)
    surer = np.isin(records, np.concatenate([kinds[kind] for kind in leaking])) if leaking else np.zeros(len(records))
    logits[:, :, 0] += 6 * (roles == Role.TRAIN) * surer
    labels = np.zeros(len(records), np.int64)
    return Signals(logits, labels, roles, records, "shared", ("same",) * models), kinds


def attacked(leaking: tuple[str, ...], attack: str) -> CanaryRecords:
    signals, kinds = canary_signals(leaking)
    attacked = leave_one_out(signals, {attack: make_attack(attack)}, seed=0)[attack]
    return CanaryRecords.of(signals, kinds, {attack: attacked.scores})


@pytest.mark.parametrize("attack", ["lira", "rmia"])
def test_a_leak_of_twins_alone_is_found_in_twins_alone(attack: str):
    rates: Any = attacked(("twins",), attack).rates(attack, OPEN, seed=0)
    assert list(rates) == list(KINDS)
    assert rates["twins"]["tpr_at_0.01"]["value"] > 0.8
    assert rates["twins"]["targets"] == 12
    assert rates["twins"]["records"] == 20
    for kind in ("mislabelled", "out_of_distribution"):
        assert 0.35 < rates[kind]["auc"]["value"] < 0.65


def test_models_that_leak_nothing_stay_at_chance_on_every_kind():
    rates: Any = attacked((), "lira").rates("lira", OPEN, seed=0)
    for kind in KINDS:
        assert rates[kind]["auc"]["ci"][0] < 0.5 < rates[kind]["auc"]["ci"][1]
        assert rates[kind]["tpr_at_0.01"]["value"] < 0.1


# records and their verification


def run_of(canaries: CanaryRecords) -> dict[str, Any]:
    rates = {name: canaries.rates(name, metrics_over_targets(), seed=0) for name in canaries.scores}
    return {"label": "undefended", "seed": 0, "sparsity": 0.6, "canaries": rates}


def test_rates_on_canaries_follow_from_the_ranks_in_the_file(tmp_path):
    canaries = attacked(("twins",), "lira")
    run = run_of(canaries)
    write_canaries(tmp_path / CANARIES, [(0, "undefended", 0, canaries)])
    ((index, records),) = read_canaries(tmp_path, [run])
    assert index == 0
    assert list(records.kinds) == list(canaries.kinds)
    assert np.array_equal(records.membership, canaries.membership)
    assert not list(canary_differences(run, records))


def test_a_smaller_rate_than_the_records_give_is_found(tmp_path):
    canaries = attacked(("twins",), "lira")
    run = run_of(canaries)
    run["canaries"]["lira"]["twins"]["tpr_at_0.01"]["value"] /= 2
    (difference,) = canary_differences(run, canaries)
    assert difference.startswith("lira on canaries (twins): tpr_at_0.01 is")


def test_attacks_and_kinds_without_records_are_found():
    canaries = attacked((), "lira")
    run = run_of(canaries)
    run["canaries"]["rmia"] = run["canaries"]["lira"]
    assert list(canary_differences(run, canaries)) == ["the attack rmia on canaries has no records"]
    del run["canaries"]["rmia"], run["canaries"]["lira"]["twins"]
    assert list(canary_differences(run, canaries)) == ["lira on canaries has no rates of the kind twins"]


@pytest.mark.parametrize(
    ("place", "label", "words"), [(1, "undefended", "for run 1"), (0, "rsw", "'rsw', seed 0, for run 0")]
)
def test_records_of_another_run_are_refused(tmp_path, place: int, label: str, words: str):
    canaries = attacked((), "lira")
    write_canaries(tmp_path / CANARIES, [(place, label, 0, canaries)])
    with pytest.raises(InputError, match=words):
        list(read_canaries(tmp_path, [run_of(canaries)]))


# results, tables and the gate


def plant_into(results: dict[str, Any], tpr: float) -> dict[str, Any]:
    """Give every run canaries of which the twins are found most."""
    for run in results["runs"]:
        by_kind: dict[str, Any] = {
            kind: {
                "targets": 17, "records": 50, "auc": {"value": 0.6, "ci": [0.5, 0.7]},
                "tpr_at_0.01": {"value": value, "ci": [value / 2, 1.2 * value]},
            }
            for kind, value in zip(KINDS, (tpr / 2, tpr, tpr / 4), strict=True)
        }  # fmt: skip
        weaker = copy.deepcopy(by_kind)
        for rates in weaker.values():
            rates["tpr_at_0.01"]["value"] /= 2
        weaker["mislabelled"]["tpr_at_0.01"]["ci"][1] = 0.95
        run["canaries"] = {"rmia": weaker, "lira": by_kind}
    return results


def with_canaries(tpr: float) -> dict[str, Any]:
    return plant_into(make_results(), tpr)


def test_results_with_canaries_fit_the_schema_and_have_no_contradiction():
    results = with_canaries(0.4)
    assert not list(faults(results))
    assert not list(contradictions(results))


def test_the_worst_case_is_the_strongest_attack_on_the_kind_that_is_found_most():
    worst = worst_case(arms(with_canaries(0.4))[1], "tpr_at_0.01")
    assert worst is not None
    assert (worst.kind, worst.attack, worst.estimate.value) == ("twins", "lira", 0.4)
    assert worst.estimate.high == 0.95  # of all kinds and attacks
    assert worst_case(arms(make_results())[1], "tpr_at_0.01") is None


def test_the_table_and_the_report_show_every_kind_beside_the_population():
    console = Console(width=100, record=True)
    console.print(results_table(with_canaries(0.4)))
    text = console.export_text()
    assert "Worst case" in text
    assert "40.0" in text
    rows = canary_rows(arms(with_canaries(0.4)))
    assert [row["kind"] for row in rows[:3]] == ["Mislabelled", "Twins", "Out of distribution"]
    assert [row["worst"] for row in rows[:3]] == [False, True, False]
    assert canary_rows(arms(make_results())) == []


def test_the_gate_compares_the_upper_end_of_the_worst_case_with_its_limit():
    (passed,) = check(with_canaries(0.04), Limits(max_canary_tpr=0.96), ["rsw"])
    (failed,) = check(with_canaries(0.04), Limits(max_canary_tpr=0.94), ["rsw"])
    assert passed.passed
    assert not failed.passed
    assert "twins" in str(failed)
    with pytest.raises(InputError, match="expected canaries in the results of 'rsw'"):
        check(make_results(), Limits(max_canary_tpr=0.5), ["rsw"])


# a whole study


@pytest.mark.slow
def test_a_study_finds_mislabelled_records_that_undefended_models_memorize(tmp_path):
    attacks = ["lira", "rmia", "lira_releases", "sparsity_pattern"]
    study = table(
        write_data(tmp_path, noise=1.0), attacks=["confidence", *attacks], canaries=FEWEST,
        defenses=["undefended"], training={"epochs": 60, "batch_size": 32, "patience": 60, "keep": "last"},
        model={"kind": "fc", "hidden": [64], "dropout": 0.0}, split={"shadows": 1, "references": 6},
    )  # fmt: skip
    results = api.run(parse_study(study), tmp_path / "out")
    dense, pruned = results["runs"]
    for run in (dense, pruned):
        assert run["certificate"]["adaptive"]
        assert set(run["canaries"]) == set(attacks)
        assert run["canaries"]["lira"]["twins"]["targets"] == 7
    assert dense["canaries"]["rmia"]["mislabelled"]["auc"]["value"] > 0.7
    assert pruned["canaries"]["lira_releases"]["mislabelled"]["auc"]["value"] > 0.7
    assert results["data"]["records"] == 600
    audited = pruned["attacks"]["lira"]["members"] + pruned["attacks"]["lira"]["nonmembers"]
    assert audited <= 0.9 * 300  # canaries and what they were made from are not in the population
    assert not list(faults(results))
    findings = [one for one in verify(tmp_path / "out").findings if one.subject == "canaries"]
    assert [one.passed for one in findings] == [True, True]
    (tmp_path / "out" / CANARIES).unlink()
    assert not verify(tmp_path / "out").passed


@pytest.mark.slow
def test_an_audit_with_canaries_leaves_the_population_as_it_is(tmp_path):
    study = table(
        write_data(tmp_path), attacks=["lira"], defenses=["undefended"], split={"shadows": 1, "references": 6}
    )
    api.run(parse_study(study), tmp_path / "run")
    weights = next((tmp_path / "run/models").rglob("*.safetensors"))
    members = np.flatnonzero(victim_and_shadows(np.arange(600) % 3, 1, seed=0).roles[0] == Role.TRAIN)
    np.savez(tmp_path / "members.npz", members=members)
    given = study | {"victim": {"weights": str(weights), "members": str(tmp_path / "members.npz")}}
    config = parse_study(given)
    plain, _ = api.audit(config, "undefended", tmp_path / "plain")
    planted, _ = api.audit(parse_study(given | {"canaries": FEWEST}), "undefended", tmp_path / "planted")
    without, with_ = without_times(plain)["runs"][0], without_times(planted)["runs"][0]
    canaries = with_.pop("canaries")
    assert canaries["lira"]["twins"]["targets"] == 6  # the victim has none
    assert with_ == without
    assert any("trained without canaries" in note for note in map(shown, planted["notes"]))


def test_canaries_in_a_study_file_are_read(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text(as_toml(table(write_data(tmp_path), canaries=30)))
    assert api.read_study(path).canaries == 30


@pytest.mark.parametrize("planted", [True, False])
def test_the_page_of_a_report_shows_the_worst_case_only_if_there_is_one(tmp_path, planted: bool):
    results = make_folder(tmp_path / "study", seeds=(0,))
    if planted:
        write(tmp_path / "study", plant_into(results, 0.4))
    api.report([tmp_path / "study"], tmp_path / "report")
    page = (tmp_path / "report/report.html").read_text()
    assert ("Worst case: canaries" in page) == planted
    assert (tmp_path / "report/tables/canaries.csv").exists() == planted
