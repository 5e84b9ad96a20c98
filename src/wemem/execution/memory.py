"""The memory that a task is granted, by the bound that the trainer uses."""

from dataclasses import dataclass

import torch

from wemem.data.dataset import Dataset
from wemem.execution.graph import Node
from wemem.pipeline.cost import CHUNK
from wemem.pipeline.pipeline import Pipeline
from wemem.training.memory import GRANTED, bound

#: Bytes of a worker before it holds anything: the interpreter and its libraries.
INTERPRETER = 400 * 2**20
#: Copies of the records and of answers that are at hand at once.
COPIES = 3
#: Records that are evaluated at a time.
EVALUATED = 1000


@dataclass(frozen=True)
class TaskMemory:
    """Bounds on the memory of the tasks of one study, in bytes.

    Args:
        always: what every task needs: the interpreter and the records.
        answers: the answers of one model on all records.
        training: the training of one model.
    """

    always: int
    answers: int
    training: int

    @classmethod
    def of(cls, pipeline: Pipeline) -> "TaskMemory":
        """The bounds for the model and the records of a study."""
        space = pipeline.workspace
        data: Dataset = space.data
        module = space.untrained([0]).module(0)
        batch = max(space.config.training.batch_size, space.config.finetune.batch_size)
        training = bound(module, torch.from_numpy(data.features[:2]), batch, EVALUATED)
        return cls(INTERPRETER + COPIES * data.features.nbytes, COPIES * 4 * len(data) * data.classes, training)

    def of_task(self, node: Node) -> int:
        """The bound of one task; what trains no models puts answers together."""
        models = min(node.effort.models, CHUNK)
        return self.always + (GRANTED + models * self.training if models else CHUNK * self.answers)
