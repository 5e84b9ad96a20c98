"""The command that trains one model."""

import typer
from rich.console import Console

from wemem.cli.options import (
    Data,
    Device,
    DryRun,
    Label,
    Members,
    ModelKind,
    Out,
    Overrides,
    StorePlace,
    StudyFile,
)
from wemem.cli.printing import print_outlook, print_plainly

train_app = typer.Typer()


@train_app.command()
def train(
    out: Out,
    members: Members = None,
    data: Data = None,
    label: Label = None,
    model: ModelKind = None,
    study: StudyFile = None,
    set_: Overrides = None,
    device: Device = None,
    store: StorePlace = None,
    dry_run: DryRun = False,
) -> None:
    """Train one model as a study does: weights, members and certificate for prune and audit."""
    from wemem import api
    from wemem.objects.training import train as train_model
    from wemem.reporting.progress import LiveProgress

    config = api.read_study(study, set_ or [], data=data, label=label, model=model, device=device)
    if dry_run:
        from wemem.execution.outlook import outlook
        from wemem.pipeline.cost import training_work
        from wemem.pipeline.loading import study_data
        from wemem.study.single_training import config_for_training, split_for_training

        config, records = config_for_training(config), study_data(config)
        split, _ = split_for_training(config, records, members)
        return print_outlook(Console(), outlook(config, records, training_work(split, config.training), 1), out)
    with LiveProgress(Console(stderr=True)) as progress:
        trained = train_model(members=members, study=config, out=out, store=store, progress=progress)
    for line in (*trained.summary, f"Members {trained.members}"):
        print_plainly(Console(), line)
