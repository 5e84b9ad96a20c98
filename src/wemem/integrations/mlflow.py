"""Results for MLflow (``pip install wemem[mlflow]``).

::

    log_study(results, MlflowLogger("sqlite:///mlflow.db"))
"""

import os
from collections.abc import Mapping, Sequence

from wemem.errors import InputError
from wemem.integrations.tracking import RunLogger, Setting

#: Characters that MLflow allows in the name of a figure, besides letters and digits.
ALLOWED = "_-. /"


class MlflowLogger(RunLogger):
    """Creates one MLflow run for each run of the results.

    Args:
        uri: the tracking URI, such as ``sqlite:///mlflow.db`` or ``http://127.0.0.1:5000``.
        experiment: the name of the experiment, created if missing.

    Raises:
        InputError: MLflow is not installed, or the server cannot be used.
    """

    def __init__(self, uri: str, experiment: str = "wemem") -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # reports of use to others, unless they are wanted
        try:
            from mlflow import MlflowClient
            from mlflow.exceptions import MlflowException
        except ImportError as error:
            raise InputError("expected MLflow, got no such library; pip install 'wemem[mlflow]'") from error
        try:
            self._client = MlflowClient(tracking_uri=uri)
            known = self._client.get_experiment_by_name(experiment)
            self._experiment = known.experiment_id if known else self._client.create_experiment(experiment)
        except MlflowException as error:
            raise InputError(f"expected a tracking URI that MLflow can use, got {uri!r}: {error}") from error

    def log_run(
        self,
        name: str,
        settings: Mapping[str, Setting],
        figures: Mapping[str, float],
        curves: Mapping[str, Sequence[float]],
    ) -> None:
        run = self._client.create_run(self._experiment, run_name=name[:250]).info.run_id
        for key, value in settings.items():
            self._client.log_param(run, metric_name(key), str(value)[:500])
        for figure, value in figures.items():
            self._client.log_metric(run, metric_name(figure), value)
        for curve, values in curves.items():
            for index, value in enumerate(values):
                self._client.log_metric(run, metric_name(curve), value, step=index)
        self._client.set_terminated(run)


def metric_name(name: str) -> str:
    """A name with every character and part of a path that MLflow refuses replaced by ``_``.

    >>> metric_name("attacks/lira/tpr_at_0.01"), metric_name("a:b=c")
    ('attacks/lira/tpr_at_0.01', 'a_b_c')
    >>> metric_name("a/../b")
    'a/_/b'
    """
    plain = "".join(c if c.isascii() and (c.isalnum() or c in ALLOWED) else "_" for c in name)[:200]
    return "/".join("_" if part in ("", ".", "..") else part for part in plain.split("/"))
