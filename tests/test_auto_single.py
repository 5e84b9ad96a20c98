"""One given model pruned from a budget, and what an audit of it must be told."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from small_study import CLASSES, FEATURES, RECORDS, table, write_data
from wemem import api
from wemem.config.parse import parse_study
from wemem.config.study import StudyConfig
from wemem.errors import InputError
from wemem.exporting.checkpoint import write_weights
from wemem.models import FullyConnected
from wemem.tuning.wording import settings_in_words

pytestmark = pytest.mark.slow

SEARCH = {"kind": "auto", "families": ["rsw", "rmr"], "trials": 2, "finalists": 1, "models": 3}
ONLINE = {"kind": "auto", "mode": "online"}


def given(folder: Path, auto: dict[str, Any], members: int = RECORDS // 3) -> StudyConfig:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        module = FullyConnected((24, 12), 0.0).build((FEATURES,), CLASSES)
    write_weights(folder / "given.safetensors", module.state_dict())
    np.savez(folder / "members.npz", members=np.arange(members))
    victim = {"weights": str(folder / "given.safetensors"), "members": str(folder / "members.npz")}
    small: dict[str, Any] = {"scores": {"models": 10}, "training": {"epochs": 2}, "finetune": {"epochs": 1}}
    model = {"kind": "fc", "hidden": [24, 12], "dropout": 0.0}
    own = table(write_data(folder), victim=victim, model=model, attacks=["confidence"], **small)
    return parse_study(own | {"defenses": [{**auto, "label": "auto"}]})


@pytest.mark.parametrize("members", [RECORDS // 3, RECORDS])
def test_a_given_model_is_pruned_under_what_was_found_even_without_held_out_records(members, tmp_path):
    lines = api.prune(given(tmp_path, SEARCH, members), "auto", tmp_path / "out")
    told = json.loads((tmp_path / "out/pruning.json").read_text())["auto"]
    assert told["front"]
    assert settings_in_words(told["kind"], told["settings"]) in lines[0]
    assert told["confirmed"]["models"] == (4 if members < RECORDS else 3)
    assert (tmp_path / "out/weights.safetensors").exists()


def test_a_run_that_steered_itself_can_be_audited_by_its_budget_and_a_searched_one_only_by_its_settings(tmp_path):
    steered = given(tmp_path, ONLINE)
    assert "strength" in api.prune(steered, "auto", tmp_path / "out")[0]
    pruned = {"weights": str(tmp_path / "out/weights.safetensors"), "members": str(tmp_path / "members.npz")}
    again = parse_study({**steered.table, "victim": pruned})
    results, _ = api.audit(again, "auto", tmp_path / "audit")
    assert results["runs"][0]["certificate"]["adaptive"]
    with pytest.raises(InputError, match="name the defense that the search found"):
        api.audit(given(tmp_path, SEARCH), "auto", tmp_path / "refused")
