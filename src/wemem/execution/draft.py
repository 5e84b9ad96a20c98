"""Drafts of studies: the same tasks of the same sizes, keyed by records that are quicker to draw.

Keys depend on the records that are drawn for every model. The clusters of similar records that a
defense holds out take longest to draw, up to minutes for a study. Where no task can be stored yet,
keys only have to tell the tasks apart.
"""

from collections.abc import Sequence
from dataclasses import replace

from wemem.config.study import StudyConfig
from wemem.defenses import Defense, OutOfSampleDistillation
from wemem.execution.graph import Graph, Node
from wemem.store.key import Key


def without_clusters(config: StudyConfig) -> StudyConfig:
    """The study with defenses that hold out their training records one by one."""
    defenses = {label: _without_clusters(defense) for label, defense in config.defenses.items()}
    grids = {label: tuple(map(_without_clusters, grid)) for label, grid in config.grids.items()}
    return replace(config, defenses=defenses, grids=grids)


def repeated(graph: Graph, seeds: Sequence[int]) -> Graph:
    """The graph of several seeds that have no task in common, from that of one seed.

    Args:
        graph: the tasks of one seed.
        seeds: the seeds.
    """
    nodes: list[Node] = []
    for seed in seeds:
        first = len(nodes)
        nodes += [
            replace(node, key=_of_seed(node.key, seed), seed=seed, after=tuple(first + i for i in node.after))
            for node in graph.nodes
        ]
    return Graph(tuple(nodes))


def _without_clusters(defense: Defense) -> Defense:
    return replace(defense, clusters=0) if isinstance(defense, OutOfSampleDistillation) else defense


def _of_seed(key: Key, seed: int) -> Key:
    own = Key(f"{key}/{seed}")
    own.origin = key.origin
    return own
