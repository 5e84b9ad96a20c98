"""ONNX files: what is written answers as PyTorch does, and what is read can neither reach out nor grow."""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from small_images import images
from small_study import table
from test_structured_files import fresh
from wemem import api, cli
from wemem.cli.commands import app
from wemem.config.parse import parse_study
from wemem.errors import InputError
from wemem.exporting import onnx as onnx_file
from wemem.exporting.checkpoint import write_weights
from wemem.exporting.onnx import OnnxModel, read_onnx
from wemem.pruning import L1Filter, LayerChoice
from wemem.training import Ensemble

for extra in ("onnx", "onnxruntime", "onnxscript", "torch_pruning"):
    pytest.importorskip(extra, reason="needs the extras onnx and structured")

import onnx  # noqa: E402
from onnx import TensorProto, helper  # noqa: E402

pytestmark = pytest.mark.slow

DATA = images(180)


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> tuple[Path, dict[str, Any], list[str]]:
    """A model that lost channels, pruned by the library and written as ONNX; the study of it and what was told."""
    folder = tmp_path_factory.mktemp("onnx")
    np.savez(folder / "images.npz", x=DATA.features, y=DATA.labels)
    np.savez(folder / "members.npz", members=np.random.default_rng(0).permutation(len(DATA))[:60])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        write_weights(folder / "given.safetensors", fresh().state_dict())
    study = table(
        folder / "images.npz", attacks=["confidence"], defenses=["undefended"],
        model={"kind": "small_images:residual"}, pruning={"rounds": 2, "method": "l1_filter"},
        training={"epochs": 1, "batch_size": 32}, finetune={"epochs": 1, "batch_size": 32},
        victim={"weights": str(folder / "given.safetensors"), "members": str(folder / "members.npz")},
    )  # fmt: skip
    api.prune(parse_study(study), "undefended", folder / "pruned", folder / "store")
    arguments = ["export", "--weights", str(folder / "pruned"), "--data", str(folder / "images.npz")]
    arguments += ["--model", "small_images:residual", "--out", str(folder / "out")]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    told = done.output.splitlines()
    study["victim"]["weights"] = str(folder / "out/model.onnx")
    return folder, study, told


def test_the_file_answers_as_pytorch_does_for_batches_of_any_size(exported):
    from wemem.exporting.checkpoint import load_pruned

    folder, _, told = exported
    model, module = read_onnx(folder / "out/model.onnx"), load_pruned(fresh(), folder / "pruned")
    with torch.inference_mode():
        expected = module(torch.from_numpy(DATA.features)).numpy()
    for size in (1, 3, 180):
        np.testing.assert_allclose(model.logits(DATA.features[:size]), expected[:size], rtol=1e-4, atol=1e-5)
    parity = json.loads((folder / "out/export.json").read_text())["parity"]
    assert parity["records"] == len(DATA)
    assert parity["difference"] <= parity["allowed"]
    assert any(model.sha256 in line for line in told)


def test_the_file_tells_nothing_of_the_machine_it_was_written_on(exported):
    folder, _, _ = exported
    content = (folder / "out/model.onnx").read_bytes()
    assert b".py" not in content
    assert str(Path.cwd()).encode() not in content
    assert not list((folder / "out").glob("*.data"))


def test_an_export_that_answers_otherwise_is_refused(exported, monkeypatch, tmp_path):
    """The export is the real one; what the file is compared with is moved by a hundredth of a logit."""
    folder, study, _ = exported
    logits = OnnxModel.logits
    monkeypatch.setattr(OnnxModel, "logits", lambda self, features: logits(self, features) + np.float32(1e-2))
    content = (folder / "out/model.onnx").read_bytes()
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: Program(content))
    with pytest.raises(InputError, match="nothing was written"):
        api.export(parse_study(study), folder / "pruned", tmp_path / "out")
    assert not (tmp_path / "out").exists()


class Program:
    def __init__(self, content):
        self.model_proto = onnx.load_model_from_string(content)


def test_an_audit_of_the_file_is_adaptive_and_carries_its_hash(exported, tmp_path):
    folder, study, _ = exported
    results, samples = api.audit(parse_study(study), "undefended", tmp_path / "onnx", folder / "store")
    (run,) = results["runs"]
    content = (folder / "out/model.onnx").read_bytes()
    assert run["audited_file"] == {"name": "model.onnx", "sha256": hashlib.sha256(content).hexdigest()}
    assert run["audited_file"]["sha256"] == results["notes"][0]["sha256"]
    assert run["certificate"]["adaptive"]
    assert "footprint" not in run
    study = study | {"victim": study["victim"] | {"weights": str(folder / "pruned/weights.safetensors")}}
    weights, by_weights = api.audit(parse_study(study), "undefended", tmp_path / "weights", folder / "store")
    assert run["accuracy"] == weights["runs"][0]["accuracy"]
    np.testing.assert_allclose(samples["confidence"], by_weights["confidence"], atol=1e-4)


def test_a_file_that_was_swapped_is_not_certified(exported, tmp_path):
    folder, study, _ = exported
    with_note = onnx.load_model(folder / "out/model.onnx")
    with_note.doc_string = "another file"
    (tmp_path / "model.onnx").write_bytes(with_note.SerializeToString())
    (tmp_path / "export.json").write_bytes((folder / "out/export.json").read_bytes())
    study = study | {"victim": study["victim"] | {"weights": str(tmp_path / "model.onnx")}}
    results, _ = api.audit(parse_study(study), "undefended", tmp_path / "audit", folder / "store")
    assert not results["runs"][0]["certificate"]["adaptive"]


def test_command_audits_the_file_and_prints_its_hash(exported, tmp_path, capsys, monkeypatch):
    folder, _, _ = exported
    study = tmp_path / "quick.toml"
    study.write_text(
        '[model]\nkind = "small_images:residual"\n[split]\nshadows = 2\n[training]\nepochs = 1\n[finetune]\n'
        'epochs = 1\n[pruning]\nrounds = 2\nmethod = "l1_filter"\n'
    )
    arguments = ["audit", "--onnx", str(folder / "out/model.onnx"), "--members", str(folder / "members.npz"), "--data",
                 str(folder / "images.npz"), "--study", str(study), "--defense", "undefended", "--attacks",
                 "confidence,entropy", "--out", str(tmp_path / "out")]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["wemem", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 0
    assert hashlib.sha256((folder / "out/model.onnx").read_bytes()).hexdigest() in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["wemem", *arguments, "--weights", "w.safetensors"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    assert "no --weights" in capsys.readouterr().err


def test_an_onnx_file_cannot_be_pruned(exported, tmp_path):
    _, study, _ = exported
    for call in (
        lambda: api.run(parse_study(study), tmp_path / "out"),
        lambda: api.prune(parse_study(study), "undefended", tmp_path / "out"),
    ):
        with pytest.raises(InputError, match="wemem audit --onnx"):
            call()


def test_data_of_another_shape_or_number_of_classes_are_refused_before_training(exported, tmp_path):
    _, study, _ = exported
    np.savez(tmp_path / "members.npz", members=np.arange(180))
    study = study | {"victim": study["victim"] | {"members": str(tmp_path / "members.npz")}}
    for name, x, y, message in (
        ("other", np.zeros((360, 2, 5, 6), np.float32), np.arange(360) % 3, r"fails on .* of shape"),
        ("more", np.concatenate([DATA.features] * 2), np.arange(360) % 4, "4 classes, got 3"),
    ):
        np.savez(tmp_path / f"{name}.npz", x=x, y=y)
        other = study | {"data": {"source": str(tmp_path / f"{name}.npz")}, "split": {"shadows": 1}}
        with pytest.raises(InputError, match=message):
            api.audit(parse_study(other), None, tmp_path / "out", tmp_path / "store")
    assert not list((tmp_path / "store").rglob("data.safetensors"))


def linear(
    nodes=(), *, inputs=("x",), initializers=(), opsets=(("", 18),), batch: Any = "n", functions=(), outputs=("y",)
):
    """Three features to three logits, by the nodes that are given, which end in ``y``."""
    graph = helper.make_graph(
        list(nodes) or [helper.make_node("Identity", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, 3]) for name in inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        initializer=list(initializers),
    )
    imports = [helper.make_opsetid(domain, number) for domain, number in opsets]
    return helper.make_model(graph, opset_imports=imports, ir_version=9, functions=list(functions))


def written(folder: Path, model: Any) -> Path:
    path = folder / "m.onnx"
    path.write_bytes(model.SerializeToString())
    return path


X = np.arange(15, dtype=np.float32).reshape(5, 3)


def test_a_file_of_a_fixed_batch_size_answers_any_number_of_records(tmp_path):
    for batch in (1, 2, 7, "n"):
        assert np.array_equal(read_onnx(written(tmp_path, linear(batch=batch))).logits(X), X)


def external():
    tensor = helper.make_tensor("w", TensorProto.FLOAT, [3], [0.0] * 3)
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../../etc/passwd"
    return tensor


def external_without_saying_so():
    tensor = external()
    tensor.data_location = TensorProto.DEFAULT
    return tensor


def value(name, kind=TensorProto.FLOAT, shape=None):
    return helper.make_tensor_value_info(name, kind, shape)


def loop():
    again = [helper.make_node("Identity", ["c"], ["d"]), helper.make_node("Identity", ["v"], ["w"])]
    given = [value("i", TensorProto.INT64, []), value("c", TensorProto.BOOL, []), value("v")]
    body = helper.make_graph(again, "body", given, [value("d", TensorProto.BOOL, []), value("w")])
    return helper.make_node("Loop", ["", "", "x"], ["y"], body=body)


def node(kind, given="x", made="y", **settings):
    return helper.make_node(kind, given.split(), made.split(), **settings)


ADD = node("Add", "x w")
CONSTANT = [helper.make_node("Constant", [], ["w"], value=external()), ADD]
OWN = helper.make_function("own", "F", ["a"], ["b"], [node("Identity", "a", "b")], [helper.make_opsetid("", 18)])
MICROSOFT = (("", 18), ("com.microsoft", 1))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (linear([ADD], initializers=[external()]), "in another file"),
        (linear([ADD], initializers=[external_without_saying_so()]), "in another file"),
        (linear(CONSTANT), "in another file"),
        (linear([node("Gelu", domain="com.microsoft")], opsets=MICROSOFT), "standard operators"),
        (linear([node("F", domain="own")], opsets=(("", 18), ("own", 1)), functions=[OWN]), "inline it"),
        (linear([loop()]), "without control flow"),
        (linear([node("RandomNormalLike")]), "expected a deterministic model"),
        (linear([node("NoSuchOperator")]), "valid ONNX model"),
        (linear([node("Identity", "absent")]), "valid ONNX model"),
        (linear(inputs=("x", "z")), "expected one input, float32 or whole numbers"),
        (linear([node("Identity"), node("Neg", "x", "z")], outputs=("y", "z")), "2 output"),
    ],
)
def test_files_that_need_more_than_themselves_are_refused_in_one_line(model, message, tmp_path):
    with pytest.raises(InputError, match=message) as refused:
        read_onnx(written(tmp_path, model))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x08" * 100, b"\xff" * 100])
def test_what_is_no_onnx_file_is_refused_in_one_line(content, tmp_path):
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(InputError, match=r"m\.onnx") as refused:
        read_onnx(tmp_path / "m.onnx")
    assert "\n" not in str(refused.value)


def test_truncated_files_are_refused_or_answer_as_before(exported, tmp_path):
    whole = (exported[0] / "out/model.onnx").read_bytes()
    for size in range(0, len(whole), len(whole) // 15):
        (tmp_path / "m.onnx").write_bytes(whole[:size])
        with pytest.raises(InputError):
            read_onnx(tmp_path / "m.onnx")


def test_a_missing_or_too_large_file_is_one_line(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="got no such file"):
        read_onnx(tmp_path / "absent.onnx")
    path = written(tmp_path, linear())
    monkeypatch.setattr(onnx_file, "FILE_LIMIT", 10)
    with pytest.raises(InputError, match="less than 2 GiB"):
        read_onnx(path)


def test_a_small_file_that_asks_for_more_memory_than_there_is_is_refused(tmp_path):
    """A terabyte of zeros, whether the runtime makes them when it loads the file or when it answers."""
    shape = helper.make_tensor("v", TensorProto.INT64, [2], [2**20, 2**18])
    zeros = [helper.make_node("Constant", [], ["s"], value=shape), node("ConstantOfShape", "s", "big")]
    bomb = linear([*zeros, node("ReduceSum", "big", "r", keepdims=0), node("Add", "x r")])
    with pytest.raises(InputError, match=r"fails on records|valid ONNX model"):
        read_onnx(written(tmp_path, bomb)).logits(X)


@pytest.mark.parametrize("keepdims", [0, 1])
def test_one_number_for_each_record_is_the_log_odds_of_class_1(keepdims, tmp_path):
    axis = helper.make_tensor("v", TensorProto.INT64, [1], [1])
    nodes = [helper.make_node("Constant", [], ["a"], value=axis), node("ReduceSum", "x a", keepdims=keepdims)]
    logits = read_onnx(written(tmp_path, linear(nodes))).logits(X)
    assert np.array_equal(logits, np.stack([np.zeros(5), X.sum(1)], 1))


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([node("ReduceSum")], "shape"),
        ([node("Log")], "finite"),
        ([node("Transpose")], "shape"),
        ([node("SequenceConstruct")], "shape|valid"),
    ],
)
def test_answers_that_are_no_finite_logits_are_refused(nodes, message, tmp_path):
    with pytest.raises(InputError, match=message):
        read_onnx(written(tmp_path, linear(nodes))).logits(X)


def test_a_model_that_the_exporter_cannot_express_is_one_line():
    class Data(torch.nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(InputError, match="cannot be written as ONNX") as refused:
        onnx_file.onnx_bytes(Data().eval(), X)
    assert "\n" not in str(refused.value)


def test_pruning_in_memory_and_from_the_file_remove_the_same(exported):
    """The exported model has the channels that the pruned weights have, no more: its first weights say so."""
    folder, _, _ = exported
    shapes = {tuple(t.dims) for t in onnx.load_model(folder / "out/model.onnx").graph.initializer}
    example = torch.from_numpy(DATA.features[:2])
    pruned = L1Filter().prune(Ensemble.from_modules([fresh()]), 0.6, example, LayerChoice(), "layer")
    assert tuple(pruned.parameters["narrow.weight"].shape[1:]) in shapes
    assert (5, 6, 1, 1) not in shapes
