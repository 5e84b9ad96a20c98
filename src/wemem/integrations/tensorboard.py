"""Results for TensorBoard (``pip install wemem[tensorboard]``).

::

    log_study(results, TensorBoardLogger("runs/tensorboard"))
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from wemem.errors import InputError
from wemem.files.input_files import user_path
from wemem.integrations.tracking import RunLogger, Setting


class TensorBoardLogger(RunLogger):
    """Writes one folder of event files for each run.

    Args:
        folder: the folder that ``tensorboard --logdir`` reads.

    Raises:
        InputError: TensorBoard is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise InputError("expected TensorBoard, got no such library; pip install 'wemem[tensorboard]'") from error
        self._folder, self._writer = user_path(folder), SummaryWriter

    def log_run(
        self,
        name: str,
        settings: Mapping[str, Setting],
        figures: Mapping[str, float],
        curves: Mapping[str, Sequence[float]],
    ) -> None:
        with self._writer(str(self._folder / safe_name(name)), flush_secs=1) as writer:
            for figure, value in figures.items():
                writer.add_scalar(figure, value)
            for curve, values in curves.items():
                for index, value in enumerate(values):
                    writer.add_scalar(curve, value, index)
            writer.add_text("settings", "\n".join(f"    {key} = {value!r}" for key, value in settings.items()))


def safe_name(name: str) -> str:
    """A name as one folder: letters, digits and ``._-+=``; every other character becomes ``_``.

    >>> safe_name("study/../../x/seed0")
    'study_.._.._x_seed0'
    """
    return "".join(c if c.isascii() and (c.isalnum() or c in "._-+=") else "_" for c in name)[:200].lstrip(".") or "_"
