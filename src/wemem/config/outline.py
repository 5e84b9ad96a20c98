"""An outline of a study in sentences, computed without training anything."""

from wemem.config.study import StudyConfig
from wemem.data.dataset import Dataset


def outline(config: StudyConfig, data: Dataset) -> list[str]:
    """Sentences on what a study would do.

    Args:
        config: the study.
        data: the data set that it loads.

    >>> from wemem.config.parse import parse_study
    >>> config = parse_study({"data": {"source": "digits"}, "attacks": ["lira"], "defenses": ["undefended"]})
    >>> print(outline(config, config.data.load())[0])
    Would read 1,797 records of shape (64,) in 10 classes.
    """
    references = max(config.references_of(label) for label in config.labels)
    models = [f"{config.split.shadows} shadow models"] if config.uses("disjoint") else []
    models += [f"{references} reference models"] if config.uses("shared") else []
    sentences = [
        f"Would read {len(data):,} records of shape {data.input_shape} in {data.classes} classes.",
        f"Would train the dense model {config.model!r}, {' and '.join(['the victim', *models])}, for each of the seeds "
        f"{', '.join(map(str, config.seeds))}.",
    ]
    if config.needs_scores:
        sentences.append(
            f"Would train up to {config.scores.models} subset models for each scored model, for memorization scores."
        )
    sentences += [
        f"Would prune as {label} in {pruning.schedule.rounds} rounds to sparsity {pruning.schedule.sparsity:.4g}."
        for label, pruning in config.arms
    ]
    return [*sentences, f"Would attack every model by {', '.join(config.attacks)}."]
