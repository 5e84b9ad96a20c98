"""The commands on objects compute what the commands compute, and refuse what they cannot keep apart."""

import gc
import re
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.utils.data import Dataset, IterableDataset, TensorDataset

import wemem
from small_study import as_toml, table, without_times, write_data
from wemem import api
from wemem.models.fresh import factory_of
from wemem.objects.code import architecture_of, given_function
from wemem.objects.inputs import loaded_data, numbered_records, record_numbers, study_of
from wemem.objects.outcome import PruneResult
from wemem.results.read import read_results

MEMBERS = np.arange(200)
THREE: Any = 3
SMALL = {key: value for key, value in table(Path("none"), attacks=["confidence", "rmia"]).items() if key != "data"}
CALLS: list[int] = []


@pytest.fixture(scope="module")
def arrays(tmp_path_factory):
    with np.load(write_data(tmp_path_factory.mktemp("data"))) as file:
        return file["x"], file["y"]


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))


def factory(input_shape, classes):
    return nn.Sequential(nn.Linear(input_shape[0], 16), nn.ReLU(), nn.Linear(16, classes))


def fit(x, y, seed: int = 0, epochs: int = 40) -> nn.Module:
    torch.manual_seed(seed % 2**31)
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(epochs):
        nn.functional.cross_entropy(model(torch.tensor(x)), torch.tensor(y)).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def counted(x, y, seed):
    CALLS.append(seed)
    return fit(x, y, seed)


@pytest.fixture(scope="module")
def model(arrays):
    x, y = arrays
    return fit(x[MEMBERS], y[MEMBERS])


def audited(model, arrays, **changed):
    given = {"study": SMALL, "attacks": ["confidence"], "progress": False, **changed}
    return wemem.audit(model, arrays, MEMBERS, **given)


def test_an_audit_of_objects_is_the_audit_of_their_files(arrays, tmp_path):
    torch.manual_seed(0)
    architecture = wemem.FullyConnected((24, 12))
    trained = architecture.build((8,), 3)
    mine = wemem.audit(trained, arrays, MEMBERS, architecture=architecture, study=SMALL, out=tmp_path / "a",
                       progress=False)  # fmt: skip
    np.savez(tmp_path / "data.npz", x=arrays[0], y=arrays[1])
    victim = {name: str(tmp_path / "a/inputs" / file) for name, file in
              (("weights", "model.safetensors"), ("members", "members.npz"))}  # fmt: skip
    study = {**SMALL, "data": {"source": str(tmp_path / "data.npz")}, "victim": victim}
    results, _ = api.audit(wemem.parse_study(study), None, tmp_path / "b")
    assert without_times(results)["runs"] == without_times(mine.to_dict())["runs"]


def test_data_in_any_form_is_the_same_records(arrays):
    x, y = arrays
    forms: list[Any] = [
        (x, y),
        wemem.Dataset.from_arrays("mine", x, y),
        TensorDataset(torch.tensor(x), torch.tensor(y)),
    ]
    assert len({loaded_data(form).load().fingerprint for form in forms}) == 1


def test_record_numbers_survive_as_features():
    labels = np.arange(70_000) % 2
    assert (record_numbers(numbered_records(labels).features) == np.arange(70_000)).all()


def test_an_instance_and_its_name_are_the_same_study(arrays):
    window = wemem.SlidingWindow(width=0.5, stride=0.1)
    swmr = wemem.chain(window, wemem.MemoryRegularizer())
    lira = wemem.make_attack("lira", {"variance": "record"})
    study = study_of(SMALL, data=arrays, defenses=[swmr, window], attacks=[lira, "rmia"])
    assert list(study.defenses.values()) == [swmr, window]
    assert list(study.defenses) == ["swmr", "rsw"]
    assert study.attacks["lira"].settings == lira.settings


@pytest.mark.parametrize("layer", [nn.Linear(3, 2), nn.BatchNorm1d(4), nn.MultiheadAttention(4, 2), nn.LSTM(3, 2),
                                   nn.Embedding(3, 2)])  # fmt: skip
def test_a_fresh_module_shares_no_learned_number(layer):
    with torch.no_grad():
        for tensor in layer.state_dict().values():
            tensor.fill_(7)
    fresh = factory_of(layer)((3,), 2)
    assert not any((tensor == 7).any() for tensor in fresh.state_dict().values())
    assert all((tensor == 7).all() for tensor in layer.state_dict().values())


def own_parameter() -> nn.Module:
    module = nn.Sequential(nn.Linear(2, 2))
    module.scale = nn.Parameter(torch.ones(2))
    return module


def with_table() -> nn.Module:
    module = nn.Sequential(nn.Linear(2, 2))
    module.register_buffer("average", torch.ones(2))
    return module


@pytest.mark.parametrize("module", [
    own_parameter(), with_table(), prune.l1_unstructured(nn.Linear(2, 2), "weight", 1),
    parametrizations.weight_norm(nn.Linear(2, 2)),
])  # fmt: skip
def test_a_module_whose_copy_would_keep_what_it_learned_is_refused(module):
    with pytest.raises(wemem.InputError, match="give a factory"):
        factory_of(module)


@pytest.mark.slow
def test_a_pruned_module_is_audited_adaptively(model, arrays):
    window = wemem.SlidingWindow(width=0.5, stride=0.1, order="random")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    pruned = wemem.prune(model, arrays, MEMBERS, defense=window, study=SMALL, progress=False)
    assert float((pruned.model().state_dict()["0.weight"] == 0).float().mean()) == pytest.approx(0.6, abs=0.02)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    result = audited(pruned.weights, arrays, architecture=model, defense=window)
    assert result.to_dict()["runs"][0]["attacks"]["confidence"]["adaptive"] is True


@pytest.mark.slow
def test_a_closure_is_never_served_from_the_store_and_a_module_s_function_is(model, arrays, tmp_path):
    calls = []

    def closure(x, y, seed):
        calls.append(seed)
        return fit(x, y, seed)

    for _ in range(2):
        audited(model, arrays, train=closure, store=tmp_path / "store")
    assert len(calls) == 2 * SMALL["split"]["shadows"]
    CALLS.clear()
    for _ in range(2):
        audited(model, arrays, train=counted, store=tmp_path / "store")
    assert len(CALLS) == SMALL["split"]["shadows"]


def test_a_refused_call_leaves_no_inputs_and_those_of_an_earlier_call_as_they_were(model, arrays, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(wemem.InputError):
        audited(model, arrays, out=out, settings={"split": {"shadows": -1}})
    assert not out.exists()
    audited(model, arrays, out=out)
    before = {path: path.read_bytes() for path in (out / "inputs").iterdir()}
    assert before
    with pytest.raises(wemem.InputError):
        audited(network(), arrays, out=out, settings={"split": {"shadows": -1}})
    assert {path: path.read_bytes() for path in (out / "inputs").iterdir()} == before
    assert sorted(path.name for path in out.iterdir()) == ["inputs", "per_sample.parquet", "results.json"]


def broken(x, y, seed):
    """A training whose model ignores its input."""
    return lambda features: np.tile([1.0, 0.0, -1.0], (len(features), 1))


def test_constant_answers_are_noted_and_fail_a_gate(arrays, tmp_path):
    x, y = arrays
    result = wemem.audit(
        broken(x, y, 0), (x, y), MEMBERS, train=broken, study=SMALL, attacks=["confidence"], progress=False,
        out=tmp_path / "out",
    )  # fmt: skip
    assert "constant_answers" in [note["code"] for note in result.to_dict()["notes"]]
    gate = wemem.gate(result, max_auc=0.99)
    assert "constant-answers" in str(gate)
    assert not gate


NUMBERED = """
import numpy as np, torch
from torch import nn

with np.load("data.npz") as file:
    X, Y = torch.tensor(file["x"]), torch.tensor(file["y"])

def train(records, seed):
    torch.manual_seed(seed % 2**31)
    rows = torch.as_tensor(records)
    model = nn.Linear(X.shape[1], 3)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(30):
        nn.functional.cross_entropy(model(X[rows]), Y[rows]).backward()
        optimizer.step()
        optimizer.zero_grad()
    return lambda records: model(X[torch.as_tensor(records)]).detach().numpy()

predict = train(np.arange(200), 7)
"""


@pytest.mark.slow
def test_the_command_audits_by_functions_of_record_numbers(arrays, tmp_path):
    x, y = arrays
    np.savez(tmp_path / "data.npz", x=x, y=y)
    np.savez(tmp_path / "labels.npz", labels=y)
    np.savez(tmp_path / "members.npz", members=MEMBERS)
    (tmp_path / "numbered.py").write_text(NUMBERED)
    given = ["--predict", "numbered:predict", "--train", "numbered:train", "--members", "members.npz", "--out", "out"]
    small = [part for key in ("shadows", "references") for part in ("--set", f"split.{key}=4")]
    command = [sys.executable, "-m", "wemem", "audit", *given, *small, "--attacks", "confidence,rmia"]
    done = subprocess.run(
        [*command, "--labels", "labels.npz"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    results = read_results(tmp_path / "out")
    assert set(results["runs"][0]["attacks"]) == {"confidence", "rmia"}
    assert results["runs"][0]["attacks"]["rmia"]["members"] > 50
    mixed = [*command, "--labels", "labels.npz", "--data", "data.npz"]
    refused = subprocess.run(mixed, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "--labels with --predict" in refused.stderr


@pytest.mark.slow
def test_functions_of_record_numbers_audit_as_functions_of_features(model, arrays):
    x, y = arrays

    def logits(of, records):
        with torch.no_grad():
            return of(torch.tensor(x[records])).numpy()

    by_features = audited(model, arrays, train=lambda x, y, seed: fit(x, y), attacks=["confidence", "rmia"])
    by_numbers = wemem.audit(
        lambda records: logits(model, records), members=MEMBERS, labels=y, study=SMALL, progress=False,
        train=lambda records, seed: partial(logits, fit(x[records], y[records])),
    )  # fmt: skip
    pair = [one.to_dict()["runs"][0]["attacks"] for one in (by_features, by_numbers)]
    assert pair[0]["confidence"]["auc"] == pair[1]["confidence"]["auc"]


@pytest.mark.slow
def test_a_comparison_draws_its_figures_and_passes_its_gate(arrays, tmp_path):
    defenses: list[Any] = ["undefended", wemem.make_defense("label_smoothing", {"smoothing": 0.2})]
    result = wemem.compare(SMALL, data=arrays, architecture=factory, defenses=defenses, attacks=["confidence"],
                           out=tmp_path / "out", progress=False)  # fmt: skip
    assert (tmp_path / "out/report.html").exists()
    assert isinstance(result.figure(result.figures[0]), Figure)
    with pytest.raises(wemem.InputError, match="did you mean 'roc'"):
        result.figure("rok")
    assert len(repr(result).splitlines()) < 40
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frame = result.to_pandas()
    assert set(frame["label"]) >= {"undefended", "label_smoothing"}
    gate = wemem.gate(result, max_auc=0.0)
    assert not gate
    assert not gate.passed
    assert gate.to_pandas()["passed"].tolist() == [False, False]


def test_a_temporary_folder_lives_as_long_as_its_result(model, arrays):
    result = audited(model, arrays, train=counted)
    folder = result.folder
    assert (folder / "results.json").exists()
    del result
    gc.collect()
    assert not folder.exists()


def test_without_pandas_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(wemem.InputError, match="pip install pandas"):
        PruneResult(Path("x"), {"rounds": []}).to_pandas()


def test_markup_in_a_name_is_text_in_a_notebook():
    shown = PruneResult(Path("<b>x</b>"), {}, None, ("<script>alert(1)</script>",))._repr_html_()
    assert "<script" not in shown
    assert "<b>" not in shown
    assert "&lt;script&gt;" in shown


class Mappings(Dataset[Any]):
    def __len__(self) -> int:
        return 3

    def __getitem__(self, i):
        return {"ids": i}


class Stream(IterableDataset[Any]):
    def __iter__(self):
        yield torch.zeros(2), 0


@pytest.mark.parametrize(("call", "words"), [
    (lambda x, y: study_of(SMALL, data=Stream()), "map-style"),
    (lambda x, y: study_of(SMALL, data=Mappings()), "labels=..."),
    (lambda x, y: wemem.audit(network(), (x, y), np.zeros(600, bool), progress=False), "np.flatnonzero"),
    (lambda x, y: wemem.audit(network(), (x, y)), "members"),
    (lambda x, y: wemem.audit(lambda x: x, (x, y), [1]), "train"),
    (lambda x, y: wemem.run(SMALL, data=(x, y), jobs=2), "jobs=1"),
    (lambda x, y: wemem.prune(network(), (x, y), MEMBERS, jobs=2), "jobs=1"),
    (lambda x, y: wemem.audit(network(), (x, y), MEMBERS, ray="auto"), "no ray"),
    (lambda x, y: wemem.diagnose(SMALL, data=(x, y), ray="auto"), "no ray"),
    (lambda x, y: wemem.audit(signals="x.npz", jobs=2), "a model alone"),
    (lambda x, y: wemem.audit(fit, (x, y), MEMBERS, train=fit, ray="auto"), "a model alone"),
    (lambda x, y: wemem.gate([], max_auc=0.5), "result"),
    (lambda x, y: wemem.gate("x"), "limit"),
    (lambda x, y: architecture_of(THREE), "factory"),
    (lambda x, y: given_function(THREE), "function"),
])  # fmt: skip
def test_bad_use_gets_one_line(call, words, arrays):
    with pytest.raises(wemem.InputError, match=re.escape(words)) as refused:
        call(*arrays)
    assert "\n" not in str(refused.value)


INTERACTIVE = """
import numpy as np, wemem
rng = np.random.default_rng(0)
x, y = rng.normal(size=(300, 2)).astype(np.float32), np.arange(300) % 2
def train(x, y, seed):
    middle = x[y == 1].mean(0)
    return lambda x: np.stack([-x @ middle, x @ middle], 1)
result = wemem.audit(train(x, y, 0), (x, y), range(100), train=train, attacks=["confidence"], progress=False,
                     settings={"split": {"shadows": 2}})
print(len(result.to_dict()["runs"]))
class Mine(wemem.Undefended):
    pass
try:
    wemem.run(data=(x, y), defenses=[Mine()])
except wemem.InputError as error:
    print(error)
"""


@pytest.mark.slow
def test_functions_without_a_file_work_and_classes_without_one_are_refused_with_a_remedy():
    done = subprocess.run([sys.executable, "-c", INTERACTIVE], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[0] == "1"
    assert len(lines) == 2
    assert "write it to a .py file" in lines[1]


EXAMPLES = re.findall(r"```python\n(.*?)```", (Path(__file__).parents[1] / "docs/python.md").read_text("utf-8"), re.S)


@pytest.mark.slow
@pytest.mark.parametrize("code", EXAMPLES)
def test_an_example_of_the_guide_runs(code, model, arrays, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("recipe.toml").write_text(as_toml({**SMALL, "attacks": ["confidence"]} | {"data": {"source": "digits"}}))
    names = {"model": model, "x": arrays[0], "y": arrays[1], "members": MEMBERS, "my_training": fit}
    exec(compile(code, "python.md", "exec"), names)  # noqa: S102
    assert len(code.splitlines()) <= 12
    capsys.readouterr()
