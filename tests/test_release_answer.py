"""The answer to "may this model ship?": never yes where a limit or a reservation speaks against it."""

from pathlib import Path
from typing import Any

import pytest

from bound_results import LEAKY, SAFE, bound_folder, edit
from wemem.reporting.attackers import access_of, exposed_records
from wemem.reporting.release import REMEDIES, release_answer
from wemem.results.arms import arms
from wemem.results.combine import read_sources
from wemem.results.gate import Limits
from wemem.results.reservations import NAMES

GENEROUS = Limits(max_tpr=0.999, max_auc=0.999)


def answer(folder: Path, limits: Limits | None = None) -> dict[str, Any]:
    found = release_answer(read_sources([folder]), [folder], limits)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def safe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bound_folder(tmp_path_factory.mktemp("safe"), {"dense": 0.5, "rsw": SAFE})


def test_no_leak_within_limits_and_without_reservations_is_a_yes(safe: Path):
    found = answer(safe, Limits(max_tpr=0.1, max_auc=0.6))
    assert (found["decision"], found["reservations"]) == ("yes", [])
    assert found["answer"].startswith("Yes, by these limits and these attacks. rsw: an attacker (")


def test_leak_above_the_limit_is_a_no(tmp_path: Path):
    found = answer(bound_folder(tmp_path, {"dense": 0.5, "rsw": LEAKY}))
    assert found["decision"] == "no"
    assert found["answer"].startswith("No. rsw: an attacker (")
    assert (
        "of the training records with false alarms on at most 1 % of the others, with 95 % confidence at most "
        in found["answer"]
    )
    assert "do not release this model" in found["next"][-1]


def test_interval_that_reaches_over_the_limit_is_not_a_yes(safe: Path):
    value = answer(safe)["values"][0]["estimate"]
    limit = (value["value"] + value["high"]) / 2
    assert answer(safe, Limits(max_tpr=limit))["decision"] == "undecided"
    assert answer(safe, Limits(max_tpr=value["high"]))["decision"] == "yes"


@pytest.mark.parametrize(("doubt", "given"), [
    ("non-adaptive", {"adaptive": False}), ("few-references", {"references": 8}),
    ("missing-attacks", {"attacks": ("confidence", "lira")}), ("altered-answers", {"altered": True}),
])  # fmt: skip
def test_reservation_is_not_a_yes(tmp_path: Path, doubt: str, given: dict[str, Any]):
    found = answer(bound_folder(tmp_path, {"dense": 0.5, "rsw": SAFE}, **given), GENEROUS)
    assert found["decision"] == "undecided"
    assert any(f"({doubt})" in one for one in found["reservations"])
    assert REMEDIES[doubt] in found["next"]


def test_changed_results_are_a_no(tmp_path: Path):
    folder = bound_folder(tmp_path, {"dense": 0.5, "rsw": SAFE})
    edit(folder, lambda results: results["runs"][1]["accuracy"].update(test=0.95, test_ci=[0.9, 0.97]))
    assert answer(folder, GENEROUS)["decision"] == "no"


def test_end_just_above_the_limit_is_shown_with_the_digits_that_tell_it_from_the_limit(safe: Path):
    high = answer(safe)["values"][0]["estimate"]["high"]
    limit = round(high, 4) if round(high, 4) < high else round(high, 4) - 1e-4
    found = answer(safe, Limits(max_tpr=limit))
    assert found["decision"] == "undecided"
    assert f"at most {100 * high:.3f} %" in found["answer"]


def test_profile_is_named_as_no_norm_where_no_limits_are_given(safe: Path):
    assert "which are no norm: TPR at 1 % FPR at most 5 %, AUC at most 60 %" in answer(safe)["limits"]


def test_every_reservation_has_a_remedy():
    assert REMEDIES.keys() == NAMES.keys()


def test_weights_held_need_the_weights_and_unknown_attacks_are_not_known():
    assert access_of("rmia (weights held)") == "the weights"
    assert access_of("label_noise") == "the predicted class of many perturbed copies of a record"
    assert access_of("mine").startswith("an access that is not known")


def test_most_exposed_records_are_members_in_order_of_their_rank(safe: Path):
    combined = read_sources([safe])
    listed = exposed_records(combined, arms(combined.results))
    for arm in listed:
        ranks = [record["rank"] for record in arm["records"]]
        assert ranks == sorted(ranks)
        scores = combined.scores[arm["label"], arm["sparsity"], arm["seed"]]
        assert scores.records is not None
        members = set(scores.records[scores.member].tolist())
        assert len(ranks) == 10
        assert all(record["record"] in members for record in arm["records"])
