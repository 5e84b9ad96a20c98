"""Model files that a study or ``wemem prune`` writes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wemem.config.defense_entries import file_name
from wemem.config.study import StudyConfig
from wemem.data.split import Role
from wemem.defenses import FreshStart, OutputPostprocessing
from wemem.exporting.checkpoint import (
    ALTERED,
    CERTIFICATE,
    DEV_RECORDS,
    TRAINED,
    certificate_of,
    channels_of,
    channels_path,
    dev_records,
    write_weights,
)
from wemem.exporting.footprint import footprint_lines
from wemem.exporting.preprocess import preprocess_of, preprocess_path
from wemem.exporting.shards import weights_path
from wemem.exporting.sparse import sparse_bytes
from wemem.files.atomic import write_atomically
from wemem.files.record_tables import write_members
from wemem.models.table import table_input
from wemem.pipeline.victim import members_fingerprint
from wemem.results.build import environment
from wemem.study.outcome import Outcome
from wemem.study.single_model import PrunedModel
from wemem.study.single_training import TrainedModel
from wemem.training import Ensemble, choose_device
from wemem.tuning.wording import tuning_in_words


def write_model(folder: Path, outcome: Outcome, class_names: Sequence[str] = ()) -> list[Path]:
    """Write the victim's weights, its masks or channels if it was pruned, and the preprocessing of
    a table.

    Returns:
        The paths of the files, the weights first.
    """
    label = file_name(outcome.label)
    name = label if outcome.defense is None else f"{label}-sparsity{outcome.sparsity}"
    path = folder / f"{name}-seed{outcome.seed}.safetensors"
    return write_weights_and_masks(
        path, outcome.victim.ensemble, path.with_suffix(".masks.safetensors"), class_names
    )  # fmt: skip


def write_weights_and_masks(
    path: Path, ensemble: Ensemble, masks_path: Path, class_names: Sequence[str] = ()
) -> list[Path]:  # fmt: skip
    """Write the weights of the first model, its masks or channels if it was pruned, and the
    preprocessing of a table.
    """
    for stale in (masks_path, channels_path(path), preprocess_path(path)):
        stale.unlink(missing_ok=True)
    write_atomically(path, lambda part: write_weights(part, ensemble.state(0)))
    if ensemble.masks:
        masks = {key: mask[0] for key, mask in ensemble.masks.items()}
        write_atomically(masks_path, lambda part: write_weights(part, masks))
    if ensemble.channels:
        text = channels_of(path, ensemble)
        write_atomically(channels_path(path), lambda part: part.write_text(text, encoding="utf-8"))
    if (document := preprocess_of(path, ensemble.module(0), class_names)) is not None:
        write_atomically(preprocess_path(path), lambda part: part.write_text(document, encoding="utf-8"))
    return [path, *(file for file in (masks_path, channels_path(path), preprocess_path(path)) if file.exists())]


def write_pruned(out: Path, config: StudyConfig, pruned: PrunedModel, costs: Mapping[str, Any]) -> None:
    """Write a pruned model's weights, a sparse copy, its masks or channels, and its certificate.

    Args:
        out: the output folder.
        config: the study with the settings of the pruning.
        pruned: the pruned model.
        costs: the footprints of the model before and after pruning.
    """
    ensemble, rounds = pruned.stage.ensemble, pruned.stage.meta["rounds"]
    versions = environment(choose_device(config.device))
    payload = {"study": config.table, "environment": versions, "rounds": rounds, "footprint": costs}
    own = pruned.split.records(0, Role.DEV).tolist()
    dense = dev_records(weights_path(config.victim.weights)) if config.victim is not None else []
    payload[DEV_RECORDS] = sorted({*own, *dense})
    if pruned.defense.capability(OutputPostprocessing) is not None:
        payload[ALTERED] = pruned.defense.name
    if pruned.tuned is not None:
        payload["auto"] = pruned.tuned.summary
    write_weights_and_masks(out / "weights.safetensors", ensemble, out / "masks.safetensors", pruned.class_names)
    compact = sparse_bytes(ensemble.state(0))
    write_atomically(out / "weights.sparse.safetensors", lambda part: part.write_bytes(compact))
    certificate = certificate_of(out / "weights.safetensors", pruned.stage.provenance[0], payload)
    write_atomically(out / CERTIFICATE, lambda part: part.write_text(certificate, encoding="utf-8"))


def write_trained(out: Path, config: StudyConfig, trained: TrainedModel) -> None:
    """Write a trained model's weights, the list of its training records, and its certificate.

    Args:
        out: the output folder.
        config: the study with the settings of the training.
        trained: the trained model.
    """
    weights = out / "weights.safetensors"
    for stale in (CERTIFICATE, TRAINED, "weights.sparse.safetensors"):
        (out / stale).unlink(missing_ok=True)
    write_weights_and_masks(weights, trained.stage.ensemble, out / "masks.safetensors", trained.class_names)
    write_atomically(out / "members.npz", lambda part: write_members(part, trained.members))
    payload = {
        "members": len(trained.members),
        "members_sha256": members_fingerprint(trained.members),
        "study": config.table,
        "environment": environment(choose_device(config.device)),
        DEV_RECORDS: trained.dev.tolist(),
        **trained.certified(),
    }
    certificate = certificate_of(weights, trained.fingerprint, payload, "wemem.training/1")
    write_atomically(out / TRAINED, lambda part: part.write_text(certificate, encoding="utf-8"))


def training_summary(weights: Path, trained: TrainedModel) -> list[str]:
    """Sentences about a trained model."""
    dev, test = trained.accuracy["dev"], trained.accuracy["test"]
    accuracy = "no dev accuracy" if dev is None else f"dev accuracy {100 * dev:.1f} %"
    if test is not None:
        accuracy += f", accuracy on records it was not trained on {100 * test:.1f} %"
    lines = [f"Trained on {len(trained.members)} records: {accuracy}."]
    if trained.dev_from_training:
        lines.append("The dev records were taken from the given members, and members.npz lists the others alone.")
    if len(trained.dev):
        lines.append(
            f"Its {len(trained.dev)} dev records stand in {TRAINED}, by which an audit counts them neither as members "
            "nor as non-members."
        )
    return [*lines, f"Wrote {weights}."]


def remove_old_model(out: Path, victim: str | None = None) -> None:
    """Remove a model of an earlier command from a folder, with its certificates.

    Args:
        out: the output folder.
        victim: the weights that the present command was given; where they lie in the folder,
            nothing is removed.
    """
    weights = out / "weights.safetensors"
    if victim is not None and weights_path(victim).resolve().is_relative_to(out.resolve()):
        return
    names = (CERTIFICATE, TRAINED, weights.name, "weights.sparse.safetensors", "masks.safetensors")
    for path in (*(out / name for name in names), channels_path(weights), preprocess_path(weights)):
        path.unlink(missing_ok=True)


def pruning_summary(
    weights: Path, config: StudyConfig, label: str, pruned: PrunedModel, costs: Mapping[str, Any]
) -> list[str]:  # fmt: skip
    """Sentences about a pruned model: its pruning, its footprint, and how to load it."""
    rounds = pruned.stage.meta["rounds"]
    accuracy = f"dev accuracy {100 * rounds[-1]['dev_accuracy']:.1f} %"
    if rounds[-1]["test_accuracy"] is not None:
        accuracy += f", accuracy on records it was not trained on {100 * rounds[-1]['test_accuracy']:.1f} %"
    lines = [f"Pruned to sparsity {rounds[-1]['sparsity']:.4f} under {label}: {accuracy}."]
    if pruned.defense.capability(FreshStart) is not None:
        lines.append("It starts from new weights; only the architecture of the given model was used.")
    if pruned.dev_from_training:
        lines.append("The dev records were training records, so dev accuracy is too high; give records it did not see.")
    if pruned.weak_targets is not None:
        lines.append(f"{pruned.weak_targets}.")
    file = str(weights)
    load = f"model.load_state_dict(safetensors.torch.load_file({file!r}))"
    if table_input(pruned.stage.ensemble.template) is not None:
        document = str(preprocess_path(weights))
        load = f"wemem.with_preprocessing(network, wemem.read_preprocessing({document!r})[0]).load_state_dict(...)"
    if pruned.stage.ensemble.channels:
        load = f"wemem.load_pruned(model, {file!r})"
    tuning = tuning_in_words(pruned.tuned.summary) if pruned.tuned else []
    return [*tuning, *lines, *footprint_lines(costs), f"Load it: {load}"]
