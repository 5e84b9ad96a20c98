"""A study's data, and what its user should know of them."""

from wemem.config.study import StudyConfig
from wemem.data.concerns import concerns
from wemem.data.dataset import Dataset
from wemem.pipeline.progress import Progress


def load_data(config: StudyConfig, progress: Progress) -> Dataset:
    """The data of a study; ``progress`` is warned of what would spoil training or audit.

    Raises:
        InputError: data that cannot be used.
    """
    data = config.data.load()
    for concern in concerns(data):
        progress.warn(f"data: {concern}")
    return data
