"""Models without some channels on disk: from a study and from one model, loaded back to the bit, resumed, audited."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from small_images import MODEL, images, residual
from small_study import table, without_times
from test_resume import KilledError, killed_after, same_files
from wemem import api
from wemem.config.parse import parse_study
from wemem.errors import InputError
from wemem.exporting.checkpoint import channels_path, load_pruned, read_channels, write_weights
from wemem.pipeline.progress import Silent
from wemem.store.store import Store
from wemem.study.single_model import prune_model

pytestmark = pytest.mark.slow

pytest.importorskip("torch_pruning", reason="needs the extra structured")

DATA = images(180)


def study_of(folder: Path, **changed: Any) -> dict[str, Any]:
    np.savez(folder / "images.npz", x=DATA.features, y=DATA.labels)
    return table(
        folder / "images.npz", attacks=["confidence"], defenses=["undefended"],
        model={"kind": "small_images:residual"}, pruning={"rounds": 3, "method": "l1_filter"},
        training={"epochs": 2, "batch_size": 32}, finetune={"epochs": 1, "batch_size": 32},
    ) | changed  # fmt: skip


def fresh() -> torch.nn.Module:
    return residual(DATA.input_shape, DATA.classes)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A study that was left alone: its folder, its table and its results."""
    folder = tmp_path_factory.mktemp("structured")
    study = study_of(folder, attacks=["confidence", "pruning_trajectory"])
    return folder, study, api.run(parse_study(study), folder / "whole/out")


def test_a_study_leaves_smaller_models_that_load_back_and_are_as_accurate(ran):
    folder, _, results = ran
    dense, pruned = results["runs"]
    weights = folder / "whole/out/models/undefended-sparsity0.6-seed0.safetensors"
    module, stored = load_pruned(fresh(), weights), load_file(weights)
    assert all(torch.equal(tensor, stored[name]) for name, tensor in module.state_dict().items())
    assert module.get_parameter("hidden.weight").shape == (3, 18)
    assert pruned["footprint"]["parameters"] == sum(p.numel() for p in module.parameters())
    assert pruned["footprint"]["macs"] < dense["footprint"]["macs"] / 2
    sizes = [run["footprint"]["parameters"] for run in (pruned, dense)]
    assert (pruned["whole_model_sparsity"], dense["whole_model_sparsity"]) == (1 - sizes[0] / sizes[1], 0)
    assert pruned["footprint"]["dense_bytes"] == weights.stat().st_size
    assert pruned["certificate"]["adaptive"]
    assert pruned["sparsity"] == pytest.approx((3 * 4 + 3 + 5) / 31)


def test_killed_after_every_stage_it_ends_as_one_left_alone(ran, tmp_path, monkeypatch):
    folder, study, results = ran
    out, deaths = tmp_path / "out", 0
    while not (out / "results.json").exists():
        with monkeypatch.context() as patch:
            patch.setattr(Store, "put", killed_after(Store.put, 1))
            try:
                found = api.run(parse_study(study), out)
            except KilledError:
                deaths += 1
    assert deaths > 8
    assert without_times(found) == without_times(results)
    same_files(out, folder / "whole/out")


@pytest.fixture
def given(tmp_path) -> dict[str, Any]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        write_weights(tmp_path / "given.safetensors", fresh().state_dict())
    np.savez(tmp_path / "members.npz", members=np.arange(0, len(DATA), 4))
    victim = {"weights": str(tmp_path / "given.safetensors"), "members": str(tmp_path / "members.npz")}
    return study_of(tmp_path, victim=victim)


@pytest.mark.parametrize("method", ["magnitude", "l1_filter", "l2_filter"])
def test_every_method_prunes_a_given_model_whose_files_predict_the_same(method, given, tmp_path):
    config = parse_study(given | {"pruning": {"rounds": 2, "method": method}})
    told = api.prune(config, "undefended", tmp_path / "out", tmp_path / "store")
    pruned = prune_model(config, "undefended", Store(tmp_path / "store"), Silent()).stage.ensemble
    module = load_pruned(fresh(), tmp_path / "out")
    with torch.inference_mode():
        again = module(torch.from_numpy(DATA.features)).numpy()
    assert np.array_equal(pruned.logits(DATA.features)[0], again)
    costs = json.loads((tmp_path / "out/pruning.json").read_text())["footprint"]
    smaller = method != "magnitude"
    assert (costs["pruned"]["macs"] < costs["dense"]["macs"]) == smaller
    assert (costs["pruned"]["dense_bytes"] < costs["dense"]["dense_bytes"]) == smaller
    assert (tmp_path / "out/masks.safetensors").exists() != smaller == (tmp_path / "out/weights.channels.json").exists()
    assert ("wemem.load_pruned" in told[-1]) == smaller


def test_another_method_into_the_same_folder_leaves_no_file_of_the_first(given, tmp_path):
    for method, left in (("l1_filter", "weights.channels.json"), ("magnitude", "masks.safetensors")):
        config = parse_study(given | {"pruning": {"rounds": 1, "method": method}})
        api.prune(config, "undefended", tmp_path / "out", tmp_path / "store")
        beside = {p.name for p in (tmp_path / "out").iterdir()} & {"weights.channels.json", "masks.safetensors"}
        assert beside == {left}
        load_pruned(fresh(), tmp_path / "out")


def test_a_structurally_pruned_model_is_audited_by_models_made_alike(given, tmp_path):
    config = parse_study(given)
    api.prune(config, "undefended", tmp_path / "out", tmp_path / "store")
    given["victim"]["weights"] = str(tmp_path / "out/weights.safetensors")
    results, _ = api.audit(parse_study(given), "undefended", tmp_path / "audit", tmp_path / "store")
    (run,) = results["runs"]
    assert run["certificate"]["adaptive"]
    assert run["attacks"]["confidence"]["adaptive"]


@pytest.mark.parametrize(
    "pruning",
    [{"rounds": 2}, {"rounds": 2, "method": "l1_filter", "sparsity": 0.3}],
)
def test_a_model_pruned_otherwise_than_its_shadows_will_be_is_refused(pruning, given, tmp_path):
    api.prune(parse_study(given), "undefended", tmp_path / "out", tmp_path / "store")
    given["victim"]["weights"] = str(tmp_path / "out/weights.safetensors")
    with pytest.raises(InputError, match="as in models that this study prunes"):
        api.audit(parse_study(given | {"pruning": pruning}), "undefended", tmp_path / "audit", tmp_path / "store")


def test_what_cannot_lose_channels_is_refused_before_any_training(given, tmp_path):
    study = given | {"model": {"kind": "fc", "hidden": [8], "dropout": 0.0}, "pruning": {"method": "l3_filter"}}
    with pytest.raises(InputError, match="method"):
        parse_study(study)
    del given["victim"]
    flat = parse_study(given | {"model": {"kind": "test_structured_files:flat"}})
    with pytest.raises(InputError, match="besides the classifier"):
        api.run(flat, tmp_path / "out")
    assert not list((tmp_path / ".store").rglob("data.safetensors"))


def flat(input_shape: tuple[int, ...], classes: int) -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(int(np.prod(input_shape)), classes))


@pytest.fixture(scope="module")
def pruned_files(ran) -> Path:
    folder: Path = ran[0]
    return folder / "whole/out/models/undefended-sparsity0.6-seed0.safetensors"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda told: told | {"weights_sha256": "0" * 64}, "belongs to other weights"),
        (lambda told: {}, "list the remaining channels"),
        (lambda told: [], "list the remaining channels"),
        (
            lambda told: told | {"layers": {"hidden": {"of": 8, "kept": [0, 0, 1]}}},
            "channels that the layer does not have",
        ),
        (
            lambda told: told | {"layers": {"hidden": {"of": 8, "kept": [0, 1, 8]}}},
            "channels that the layer does not have",
        ),
        (lambda told: told | {"layers": {"hidden": {"of": 8, "kept": []}}}, "channels that the layer does not have"),
        (lambda told: told | {"layers": {"hidden": {"of": 8, "kept": [0, 1]}}}, "2 of 8 filters"),
        (lambda told: told | {"layers": {"hidden": {"of": 9, "kept": [0, 1, 2]}}}, "3 of 9 filters"),
        (lambda told: told | {"layers": {"nowhere": {"of": 9, "kept": [0, 1, 2]}}}, "3 of 9 filters"),
    ],
)
def test_channel_files_that_do_not_fit_are_refused_in_one_line(spoil, message, pruned_files, tmp_path):
    weights = Path(shutil.copy(pruned_files, tmp_path / "w.safetensors"))
    told = json.loads(channels_path(pruned_files).read_text())
    channels_path(weights).write_text(json.dumps(spoil(told)))
    with pytest.raises(InputError, match=message) as refused:
        load_pruned(fresh(), weights)
    assert "\n" not in str(refused.value)


def test_smaller_weights_without_their_channel_file_are_of_another_architecture(pruned_files, tmp_path):
    weights = Path(shutil.copy(pruned_files, tmp_path / "w.safetensors"))
    with pytest.raises(InputError, match="another architecture"):
        load_pruned(fresh(), weights)
    assert read_channels(weights) == {}


def test_loading_leaves_the_given_module_alone(pruned_files):
    module = fresh()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    assert load_pruned(module, pruned_files) is not module
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_a_dense_model_loads_too(tmp_path):
    module = MODEL.build(DATA.input_shape, DATA.classes)
    save_file(module.state_dict(), tmp_path / "weights.safetensors")
    again = load_pruned(fresh(), tmp_path)
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in module.state_dict().items())
