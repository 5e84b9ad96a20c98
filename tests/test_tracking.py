"""Figures of results in the files of TensorBoard and the database of MLflow, read back by their own libraries."""

import json

import pytest

from results_example import make_results
from wemem.errors import InputError
from wemem.integrations.tracking import RunLogger, figures, log_study

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

RESULTS = make_results(seeds=(0, 1))
RUN = next(run for run in RESULTS["runs"] if run["defense"] == "swmr" and run["seed"] == 1)


class Recorder(RunLogger):
    def __init__(self):
        self.runs = {}

    def log_run(self, name, settings, figures, curves):
        self.runs[name] = settings, figures, curves


def test_every_run_is_logged_once_with_the_figures_of_its_results():
    recorder = Recorder()
    assert log_study(RESULTS, recorder) == len(RESULTS["runs"]) == len(recorder.runs)
    settings, logged, _ = recorder.runs["location/swmr/sparsity0.6/seed1"]
    assert (settings["defense"], settings["seed"]) == ("swmr", 1)
    assert logged["accuracy/test"] == RUN["accuracy"]["test"]
    assert logged["attacks/lira/tpr_at_0.01"] == RUN["attacks"]["lira"]["tpr_at_fpr"]["0.01"]
    assert logged["strongest/auc"] == RUN["worst"]["auc"]["value"]


def test_tensorboard_reads_the_figures_back(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from wemem.integrations.tensorboard import TensorBoardLogger

    log_study(RESULTS, TensorBoardLogger(tmp_path / "events"))
    folder = tmp_path / "events" / "location_swmr_sparsity0.6_seed1"
    events = EventAccumulator(str(folder)).Reload()
    for name, value in figures(RUN).items():
        assert events.Scalars(name)[0].value == pytest.approx(value, rel=1e-6), name
    rounds = [event.value for event in events.Scalars("rounds/test_accuracy")]
    assert rounds == pytest.approx([one["test_accuracy"] for one in RUN["rounds"]], rel=1e-6)


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """The address of a database of MLflow, whose tables take seconds to make."""
    pytest.importorskip("mlflow")
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


def test_mlflow_reads_the_figures_back(database):
    from mlflow import MlflowClient

    from wemem.integrations.mlflow import MlflowLogger

    some = {**RESULTS, "runs": [RUN, RESULTS["runs"][0]]}
    log_study(some, MlflowLogger(database))
    log_study({**RESULTS, "runs": [RUN]}, MlflowLogger(database))  # the experiment exists by now
    client = MlflowClient(tracking_uri=database)
    experiment = client.get_experiment_by_name("wemem")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=100)
    assert len(runs) == 3
    (run, _) = [one for one in runs if one.info.run_name == "location/swmr/sparsity0.6/seed1"]
    assert run.data.params["defense"] == "swmr"
    assert run.info.status == "FINISHED"
    assert {name: run.data.metrics[name] for name in figures(RUN)} == pytest.approx(figures(RUN))


@pytest.mark.parametrize("name", ["../../../outside", "<script>/*'\"", "a\u202eb/é" * 200, "=" * 5000, "..", ""])
def test_hostile_names_stay_inside_and_are_logged(tmp_path, name):
    pytest.importorskip("tensorboard")
    from wemem.integrations.tensorboard import TensorBoardLogger

    results = json.loads(json.dumps(RESULTS))
    results["study"]["name"] = name
    results["runs"] = [{**results["runs"][0], "label": name, "settings": {name: name}}]
    log_study(results, TensorBoardLogger(tmp_path / "inside"))
    (made,) = tmp_path.iterdir()
    assert made.name == "inside"
    assert list(made.glob("*/events.out.*"))


def test_mlflow_takes_hostile_names_of_figures_and_settings(database):
    from wemem.integrations.mlflow import MlflowLogger

    logger = MlflowLogger(database, "hostile")
    logger.log_run("\u202e<b>" * 200, {"a:b=<c>": "x" * 9000}, {"attacks/../../é:=/auc": 0.5}, {"rounds/<x>": [0.1]})


def test_a_tracking_address_that_mlflow_refuses_is_one_message(tmp_path):
    pytest.importorskip("mlflow")
    from wemem.integrations.mlflow import MlflowLogger

    with pytest.raises(InputError, match="expected a tracking URI that MLflow can use, got"):
        MlflowLogger(str(tmp_path / "folder"))
