"""Models by defenses: every family is pruned, fine-tuned, exported, loaded back and audited under each."""

import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch

from toy import split_of
from wemem import api
from wemem.config.parse import parse_study
from wemem.defenses import DEFENSES
from wemem.errors import InputError
from wemem.exporting.checkpoint import load_pruned
from wemem.models import make_model
from wemem.pipeline.loading import study_data
from wemem.pruning import CRITERIA, Pruning, pruned_share
from wemem.pruning.gradients import gradient_sizes
from wemem.training import Ensemble

pytestmark = pytest.mark.slow

N, CLASSES = 72, 3
RNG, LABELS = np.random.default_rng(0), np.arange(N) % CLASSES
RECORDS = {
    "table": (LABELS[:, None] + RNG.normal(0, 1, (N, 4))).astype(np.float32),
    "codes": np.stack([LABELS + RNG.integers(0, 2, N), RNG.normal(0, 1, N)], 1).astype(np.float32),
    "tokens": RNG.integers(1, 6, (N, 5)) + 5 * LABELS[:, None],
    "images": (LABELS[:, None, None, None] + RNG.normal(0, 1, (N, 1, 8, 8))).astype(np.float32),
}
TRANSFORMER = {"width": 8, "depth": 1, "heads": 2, "hidden": 8}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "fc": ("table", {"hidden": [8]}),
    "entity_embedding": ("codes", {"categories": [4, 0], "hidden": [8]}),
    "convnet": ("images", {"width": 0.1}),
    "resnet8": ("images", {"width": 0.1}),
    "vit": ("images", TRANSFORMER),
    "text_transformer": ("tokens", {"vocabulary": 20, **TRANSFORMER}),
    "lstm": ("tokens", {"vocabulary": 20, "width": 4, "hidden": 4}),
    "gru": ("tokens", {"vocabulary": 20, "width": 4, "hidden": 4}),
}
DEFENDED: dict[str, Any] = {
    **{kind: kind for kind in [*DEFENSES, "swmr"]},
    "oosd": {"kind": "oosd", "teachers": 2, "held_out": 1},
}
BATCH_NORM = ("convnet", "resnet8")
#: Pairs that are refused in one line, with the words of the line.
REFUSED = {(family, "dpsgd"): "dpsgd expected a model without BatchNorm" for family in BATCH_NORM}
SHORT = {"epochs": 1, "batch_size": 16, "patience": None}
SPARSITY = 0.5


def study(folder: Path, family: str, **changed: Any) -> dict[str, Any]:
    records, settings = FAMILIES[family]
    np.savez(folder / "data.npz", x=RECORDS[records], y=LABELS)
    return {
        "seeds": [0], "attacks": ["confidence"], "controls": [], "data": {"source": str(folder / "data.npz")},
        "model": {"kind": family, **settings}, "split": {"shadows": 1, "references": 2, "train": 0.5, "dev": 0.2},
        "scores": {"models": 12, "fraction": 0.5, "drawn_from": "pool"}, "training": SHORT, "finetune": SHORT,
        "pruning": {"rounds": 1, "sparsity": SPARSITY}, "defenses": ["undefended"], **changed,
    }  # fmt: skip


@cache
def everything(family: str) -> tuple[TemporaryDirectory[str], dict[str, Any]]:
    """One study of a family under every defense that takes it."""
    folder = TemporaryDirectory()
    defenses = [entry for kind, entry in DEFENDED.items() if (family, kind) not in REFUSED]
    table = study(Path(folder.name), family, defenses=defenses)
    return folder, api.run(parse_study(table), Path(folder.name) / "out")


def loaded(family: str, run: dict[str, Any]) -> torch.nn.Module:
    folder, _ = everything(family)
    table = study(Path(folder.name), family, defenses=["undefended"])
    config = parse_study(table)
    data = study_data(config)
    return load_pruned(config.model.build(data.input_shape, CLASSES), Path(folder.name) / "out" / run["model_file"])


@pytest.mark.parametrize("kind", DEFENDED)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_pruned_loaded_back_and_audited_under_a_defense(family, kind, tmp_path):
    if (family, kind) in REFUSED:
        with pytest.raises(InputError, match=REFUSED[family, kind]):
            api.run(parse_study(study(tmp_path, family, defenses=[kind])), tmp_path / "out")
        return
    (run,) = (run for run in everything(family)[1]["runs"] if run["label"] == kind)
    assert run["sparsity"] == pytest.approx(SPARSITY, abs=0.05)  # rounding of layers of few weights
    assert 0 <= run["attacks"]["confidence"]["auc"] <= 1
    module = loaded(family, run)
    state = module.state_dict()
    assert sum(int((t == 0).sum()) for t in state.values()) >= 0.8 * run["whole_model_sparsity"] * sum(
        p.numel() for p in module.parameters()
    )
    config = parse_study(study(tmp_path, family, defenses=["undefended"]))
    logits = module(torch.from_numpy(study_data(config).features)).detach()
    assert logits.shape == (N, CLASSES)
    assert logits.isfinite().all()
    test = run["accuracy"]["test_records"]
    assert abs((logits.argmax(1).numpy() == LABELS).sum() - run["accuracy"]["test"] * test) <= N - test


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_exported_and_audited_as_the_file_that_ships(family, tmp_path):
    pytest.importorskip("onnxscript", reason="needs the extra onnx")
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    (run,) = (run for run in everything(family)[1]["runs"] if run["label"] == "rmr")
    folder = Path(everything(family)[0].name)
    np.savez(tmp_path / "members.npz", members=np.arange(24))
    table = study(folder, family, defenses=["rmr"])
    api.export(parse_study(table), folder / "out" / run["model_file"], tmp_path / "shipped")
    table["victim"] = {"weights": str(tmp_path / "shipped/model.onnx"), "members": str(tmp_path / "members.npz")}
    results, _ = api.audit(parse_study(table), "rmr", tmp_path / "audit")
    assert results["runs"][0]["attacks"]["confidence"]["members"] > 0
    assert results["runs"][0]["audited_file"]["name"] == "model.onnx"


@pytest.mark.parametrize("method", CRITERIA)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_pruned_by_a_criterion_or_refused_in_one_line(family, method, tmp_path):
    cls = CRITERIA[method]
    if cls.structured:
        pytest.importorskip("torch_pruning", reason="needs the extra structured")
    config = parse_study(study(tmp_path, family, pruning={"method": method, "scope": cls.scopes[0]}))
    data, (pruning,) = study_data(config), config.prunings
    example, split = torch.from_numpy(data.features[:2]), split_of(data, members=2, train=40)
    ensemble = Ensemble.initialize(config.model, data.input_shape, CLASSES, [0, 1])
    if (family, method) not in SUPPORTED:
        with pytest.raises(InputError) as caught:
            pruning.require_prunable(ensemble, example)
        assert "\n" not in str(caught.value)
        return
    pruning.require_prunable(ensemble, example)
    gradients = gradient_sizes(ensemble, data, split, seeds=[0, 1], batch_size=32)
    pruned = pruning.prune(ensemble, SPARSITY, example, gradients)
    assert pruned_share(pruned) == pytest.approx(SPARSITY, abs=0.1)  # rounding of layers of few channels
    assert pruned.module(1)(example).shape == (2, CLASSES)


CONVOLUTIONS, TRANSFORMERS = ("convnet", "resnet8"), ("vit", "text_transformer")
FILTERS = ("l1_filter", "l2_filter", "taylor_filter")
SUPPORTED = {
    *((family, method) for family in FAMILIES for method, cls in CRITERIA.items() if not cls.structured),
    *((family, method) for family in CONVOLUTIONS for method in (*FILTERS, "bn_scale")),
    *((family, method) for family in ("fc", "entity_embedding") for method in FILTERS),
    *((family, method) for family in TRANSFORMERS for method in ("heads_and_neurons", "taylor_heads_and_neurons")),
}


def conformance_table() -> str:
    """The table of docs/models.md."""
    lines = ["| model | " + " | ".join(DEFENDED) + " |", "|---" * (len(DEFENDED) + 1) + "|"]
    for family in FAMILIES:
        cells = ["refused" if (family, kind) in REFUSED else "yes" for kind in DEFENDED]
        lines.append(f"| `{family}` | " + " | ".join(cells) + " |")
    lines += ["", "| model | " + " | ".join(CRITERIA) + " |", "|---" * (len(CRITERIA) + 1) + "|"]
    for family in FAMILIES:
        cells = ["yes" if (family, method) in SUPPORTED else "refused" for method in CRITERIA]
        lines.append(f"| `{family}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def test_the_table_of_the_docs_is_this_one():
    assert conformance_table() in (Path(__file__).parents[1] / "docs" / "models.md").read_text("utf-8")


@pytest.mark.parametrize(("name", "library", "records"), [
    ("hugging_face_text", "transformers", "tokens"),
    ("hugging_face_image", "transformers", "images"),
    ("timm_image", "timm", "images"),
    ("torchvision_image", "torchvision", "images"),
])  # fmt: skip
def test_a_factory_of_the_examples_builds_a_classifier_that_is_pruned(name, library, records, monkeypatch):
    pytest.importorskip(library, reason=f"needs {library}, which has no version for this PyTorch", exc_type=ImportError)
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "examples"))
    features = RECORDS[records]
    if name == "torchvision_image":
        features = np.repeat(features, 3, axis=1)
    ensemble = Ensemble.initialize(make_model(f"factories:{name}", {}), features.shape[1:], CLASSES, [0])
    example = torch.from_numpy(features[:2])
    assert pruned_share(Pruning().prune(ensemble, SPARSITY, example)) == pytest.approx(SPARSITY, abs=0.01)
    assert ensemble.module(0)(example).shape == (2, CLASSES)


if __name__ == "__main__":
    sys.stdout.write(conformance_table() + "\n")
