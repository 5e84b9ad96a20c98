"""Notes on soft targets that know the data too little to keep the pruned model's accuracy."""

from wemem.data.dataset import Dataset
from wemem.data.teachers import Teachers
from wemem.defenses import Defense, Distillation
from wemem.notes import Note
from wemem.pipeline.artifacts import TrainedModels
from wemem.training.teacher_targets import are_weak


def weak_targets(
    defense: Defense, pruned: TrainedModels, reached: float, data: Dataset, label: str = "", seed: int = 0
) -> Note | None:
    """Give a note if teachers name far fewer classes than the unpruned model does.

    Args:
        defense: the defense under which the model was pruned.
        pruned: the pruned model; where it learned from targets, its stored description has the share
            of its training records whose class these name.
        reached: accuracy of the unpruned model on its dev records.
        data: the data set.
        label: label of the arm; empty if there is only one model.
        seed: seed of the arm.
    """
    distillation, named = defense.capability(Distillation), pruned.meta.get("named")
    if distillation is None or not isinstance(distillation.source, Teachers):
        return None
    if named is None or not are_weak(named, reached):
        return None
    place = {"label": label, "seed": seed} if label else {}
    networks = not distillation.source.linear(data)
    return Note("weak_targets", {"named": named, "reached": reached, "networks": networks, **place})
