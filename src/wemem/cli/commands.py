"""Commands and their options; a command imports its modules when it runs, so that help is fast."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from wemem.cli.handover import evidence, report, verify
from wemem.cli.options import (
    Data,
    Device,
    DryRun,
    Jobs,
    Label,
    Members,
    ModelKind,
    NonAdaptive,
    OncePerOption,
    Out,
    Overrides,
    Ray,
    StorePlace,
    StudyFile,
    Threads,
    Weights,
)
from wemem.cli.printing import print_outline, print_plainly, print_program, print_results, run_and_print
from wemem.cli.start_commands import start_app
from wemem.cli.store_commands import store_app
from wemem.cli.train_command import train_app
from wemem.errors import InputError

app = typer.Typer(pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]})

app.add_typer(start_app)
app.add_typer(store_app, name="store")
app.add_typer(train_app)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print_plainly(Console(), f"wemem {version('wemem')}")
        raise typer.Exit


@app.callback()
def wemem(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Print the traceback of an error; may stand anywhere.")
    ] = False,
) -> None:
    """Prune neural networks under defenses against membership inference, and audit what models
    leak.
    """


@app.command()
def run(
    study: Annotated[Path, typer.Argument(help="A study file, see studies/.")],
    out: Out,
    set_: Overrides = None,
    data: Data = None,
    label: Label = None,
    weights: Weights = None,
    members: Members = None,
    non_adaptive: NonAdaptive = False,
    jobs: Jobs = 1,
    ray: Ray = None,
    threads: Threads = None,
    device: Device = None,
    store: StorePlace = None,
    dry_run: DryRun = False,
) -> None:
    """Prune under every defense of a study, attack every model, print what leaks."""
    from wemem import api

    settings = _settings(set_, non_adaptive)
    config = api.read_study(study, settings, data=data, label=label, weights=weights, members=members, device=device)
    console = Console()
    if dry_run:
        return print_outline(console, config, out)
    run_and_print(console, config, out, store, jobs, ray, threads)
    print_plainly(
        console, f"\nResults {out / 'results.json'}, records {out / 'per_sample.parquet'}, models {out / 'models'}"
    )


@app.command()
def compare(
    study: Annotated[Path, typer.Argument(help="A study file, such as studies/compare-location.toml.")],
    out: Out,
    set_: Overrides = None,
    data: Data = None,
    label: Label = None,
    non_adaptive: NonAdaptive = False,
    jobs: Jobs = 1,
    ray: Ray = None,
    threads: Threads = None,
    device: Device = None,
    store: StorePlace = None,
    dry_run: DryRun = False,
) -> None:
    """Run every defense of a study and compare those that leak least with all others."""
    from wemem import api
    from wemem.reporting.comparison import sentences
    from wemem.reporting.report import write_report
    from wemem.results.comparison import leaders

    config = api.read_study(study, _settings(set_, non_adaptive), data=data, label=label, device=device)
    console = Console()
    if dry_run:
        return print_outline(console, config, out)
    results = run_and_print(console, config, out, store, jobs, ray, threads)
    write_report([out], out)
    print_plainly(
        console, "\nThe defenses that leak least by balanced accuracy or by TPR at 1 % FPR, against each of the others:"
    )
    for line in sentences(results, leaders(results)):
        print_plainly(console, line)
    print_plainly(console, f"\nResults {out / 'results.json'}, report {out / 'report.html'}, tables {out / 'runs.csv'}")


app.command(cls=OncePerOption)(report)
app.command(cls=OncePerOption)(evidence)


@app.command()
def prune(
    out: Out,
    weights: Weights = None,
    members: Members = None,
    data: Data = None,
    label: Label = None,
    model: ModelKind = None,
    defense: Annotated[str, typer.Option(help="swmr, oosd or any other, a chain a+b, or module:Class.")] = "swmr",
    study: StudyFile = None,
    set_: Overrides = None,
    jobs: Jobs = 1,
    ray: Ray = None,
    threads: Threads = None,
    device: Device = None,
    store: StorePlace = None,
    dry_run: DryRun = False,
) -> None:
    """Prune one trained model under a defense, and write its weights and masks."""
    from wemem import api
    from wemem.execution.program import PruneProgram
    from wemem.reporting.progress import LiveProgress

    config = api.read_study(
        study, set_ or [], data=data, label=label, model=model, weights=weights, members=members, defense=defense,
        device=device,
    )  # fmt: skip
    console = Console()
    if dry_run:
        return print_program(console, PruneProgram(config, defense), out, store)
    with LiveProgress(Console(stderr=True)) as progress:
        summary = api.prune(config, defense, out, store, progress, jobs, ray, threads)
    for line in summary:
        print_plainly(console, line)


@app.command()
def export(
    out: Out,
    weights: Annotated[Path, typer.Option(help="A model's weights (.safetensors), or a folder of wemem prune.")],
    data: Data = None,
    label: Label = None,
    model: ModelKind = None,
    study: StudyFile = None,
    set_: Overrides = None,
) -> None:
    """Write a model as ONNX and check it against PyTorch."""
    from wemem import api

    for line in api.export(api.read_study(study, set_ or [], data=data, label=label, model=model), weights, out):
        print_plainly(Console(), line)


@app.command()
def audit(
    out: Out,
    weights: Weights = None,
    members: Members = None,
    data: Data = None,
    label: Label = None,
    model: ModelKind = None,
    defense: Annotated[
        str | None, typer.Option(help="The defense under which it was pruned; none if unpruned.")
    ] = None,
    signals: Annotated[
        Path | None, typer.Option(help="Outputs of the model and of shadows or references (.npz).")
    ] = None,
    predict: Annotated[
        str | None, typer.Option(help="module:function, features to logits of the audited model.")
    ] = None,
    onnx: Annotated[Path | None, typer.Option(help="The file that ships (.onnx), in place of --weights.")] = None,
    train: Annotated[
        str | None, typer.Option(help="module:function that trains one shadow, with --predict or --weights.")
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="Labels of all records (.npz), where the functions take record numbers; no --data then."),
    ] = None,
    attacks: Annotated[
        str | None, typer.Option(help="ten, full, quick, threshold, all, or names joined by commas.")
    ] = None,
    non_adaptive: NonAdaptive = False,
    canaries: Annotated[
        int, typer.Option(help="Also measure the worst case: train reference models with this many canaries.")
    ] = 0,
    worst: Annotated[int, typer.Option(help="Also print this many of the most exposed records.")] = 0,
    study: StudyFile = None,
    set_: Overrides = None,
    jobs: Jobs = 1,
    ray: Ray = None,
    threads: Threads = None,
    device: Device = None,
    store: StorePlace = None,
    dry_run: DryRun = False,
) -> None:
    """Attack one model, given as weights, as an ONNX file, as outputs, or as a function, and print
    what it leaks.
    """
    from wemem import api
    from wemem.execution.program import AuditProgram
    from wemem.reporting.exposed import exposed_table
    from wemem.reporting.progress import LiveProgress

    named = attacks.split(",") if attacks and "," in attacks else attacks
    settings = _settings([] if named is None else [f"attacks={named!r}"], non_adaptive) + (set_ or [])
    if canaries:
        settings.append(f"canaries={canaries}")
    if canaries and weights is None and onnx is None:
        raise InputError(
            "expected --weights or --onnx beside --canaries, got neither; only models that this program trains can "
            "have canaries"
        )
    if labels is not None and (predict is None or train is None or data is not None):
        raise InputError("expected --labels with --predict and --train and without --data, got another mix")
    if (ray is not None or jobs != 1) and (signals is not None or predict is not None):
        raise InputError("expected --jobs or --ray with --weights or --onnx, got outputs or a function; leave it out")
    if dry_run and (signals is not None or train is not None):
        raise InputError("expected --dry-run with a model that this program audits alone, got outputs or functions")
    console = Console()
    with LiveProgress(Console(stderr=True)) as progress:
        match (_one_file(weights, onnx), signals, predict, train, members):
            case (Path() as victim, None, None, None, Path()):
                config = api.read_study(
                    study, settings, data=data, label=label, model=model, weights=victim, members=members,
                    defense=defense, device=device,
                )  # fmt: skip
                if dry_run:
                    return print_program(console, AuditProgram(config, defense), out, store)
                results, samples = api.audit(config, defense, out, store, progress, jobs, ray, threads)
            case (None, Path(), None, None, None):
                results, samples = api.audit_outputs(signals, named or "ten", out)
            case (file, None, str(), str(), Path()) if labels is not None:
                from wemem.objects.by_numbers import audit_by_numbers

                config = api.read_study(study, settings, data="digits")  # the functions have the records
                results, samples = audit_by_numbers(config, predict, train, labels, members, out, store, progress, file)
            case (file, None, _, str(), Path()) if file or predict:
                config = api.read_study(study, settings, data=data, label=label, model=model)
                results, samples = api.audit_functions(config, predict, train, members, out, store, progress, file)
            case _:
                raise InputError(
                    "expected --weights or --onnx with --members, or --signals, or --train with --members and with "
                    "--predict or --weights, got another mix"
                )
    print_results(console, results)
    if worst:
        console.print(exposed_table(samples, worst))
    print_plainly(console, f"\nResults {out / 'results.json'}, records {out / 'per_sample.parquet'}")


@app.command()
def diagnose(
    study: Annotated[Path, typer.Argument(help="A study file; its defenses and attacks play no part.")],
    out: Out,
    models: Annotated[int, typer.Option(help="Models of each controlled arm; more narrow the intervals.")] = 32,
    relevant: Annotated[float, typer.Option(help="Smallest effect on leakage that matters; 0.02 is 2 points.")] = 0.02,
    top: Annotated[float, typer.Option(help="Share of the records that counts as memorable.")] = 0.2,
    set_: Overrides = None,
    data: Data = None,
    label: Label = None,
    jobs: Jobs = 1,
    ray: Ray = None,
    threads: Threads = None,
    device: Device = None,
    store: StorePlace = None,
    dry_run: DryRun = False,
) -> None:
    """Determine whether data reuse or inherent memorability drives leakage, and name the matching
    defense.
    """
    from wemem import api
    from wemem.diagnosis.experiment import DiagnosisSettings
    from wemem.execution.program import DiagnosisProgram
    from wemem.reporting.diagnosis import LIMITS, diagnosis_sentences, diagnosis_tables
    from wemem.reporting.diagnosis_html import write_diagnosis
    from wemem.reporting.progress import LiveProgress

    settings = DiagnosisSettings(models, relevant, top)
    config = api.read_study(study, set_ or [], data=data, label=label, device=device)
    console = Console()
    if dry_run:
        return print_program(console, DiagnosisProgram(config, settings), out, store)
    with LiveProgress(Console(stderr=True)) as progress:
        diagnosis = api.diagnose(config, out, settings, store, progress, jobs, ray, threads)
    page = write_diagnosis(diagnosis, out)
    console.print(diagnosis_tables(diagnosis))
    for line in [*diagnosis_sentences(diagnosis), diagnosis["scenario"]["snippet"], LIMITS]:
        if line is not None:
            print_plainly(console, f"\n{line}")
    print_plainly(console, f"\nPage {page}, figures {out / 'figures'}, every number {out / 'diagnosis.json'}")


@app.command(cls=OncePerOption)
def gate(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="--out folders of studies or audits.")],
    max_tpr: Annotated[float | None, typer.Option(help="Largest TPR at the FPR below, as a fraction.")] = None,
    at_fpr: Annotated[float, typer.Option(help="The FPR of --max-tpr: 0.1, 0.01 or 0.001.")] = 0.01,
    min_accuracy: Annotated[float | None, typer.Option(help="Smallest test accuracy.")] = None,
    max_auc: Annotated[float | None, typer.Option(help="Largest AUC.")] = None,
    max_balanced_accuracy: Annotated[float | None, typer.Option(help="Largest balanced accuracy.")] = None,
    max_canary_tpr: Annotated[float | None, typer.Option(help="Largest TPR on canaries at that FPR.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="Check this defense only; may be repeated.")] = None,
    shipped: Annotated[Path | None, typer.Option(help="The model file to release: one of the audited ones.")] = None,
    waive: Annotated[
        list[str] | None,
        typer.Option(help="Accept a reservation by its name, such as non-adaptive; may be repeated.", metavar="NAME"),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the outcome as JSON.")] = None,
    junit: Annotated[Path | None, typer.Option(help="Also write the outcome as JUnit XML.")] = None,
) -> None:
    """Check what models leak and achieve against limits: exit code 0 if all hold, 1 if one does
    not.

    Rates are recomputed from the records, and the hashes of all files are compared. A measurement
    that may underestimate the leak fails with its reason, unless that reason is waived.
    """
    from wemem.results.folder import GATE
    from wemem.results.gate import Limits, check_folder
    from wemem.results.gate_files import remove_old_outcome, write_gate_json, write_junit
    from wemem.results.wording import printable

    limits, waivers = Limits(max_tpr, at_fpr, min_accuracy, max_auc, max_balanced_accuracy, max_canary_tpr), waive or []
    for file in (json_file, junit, *(folder / GATE for folder in folders)):
        if file is not None:
            remove_old_outcome(file, folders)
    gated = [check_folder(folder, limits, label or (), waivers, shipped) for folder in folders]
    if json_file is not None:
        write_gate_json(json_file, gated, waivers)
    elif waivers:  # a waiver leaves a trace
        for result in gated:
            write_gate_json(result.folder / GATE, [result], waivers)
    if junit is not None:
        write_junit(junit, gated)
    for result in gated:
        place = "" if len(folders) == 1 else f"{printable(str(result.folder))}: "
        for line in [*map(str, result.checks), *map(str, result.reservations)]:
            print_plainly(Console(), f"{place}{line}")
    if not limits.on_a_leak:
        print_plainly(Console(), "no limit on a leak was given, so none was checked")
    if not all(result.passed for result in gated):
        raise typer.Exit(1)


app.command()(verify)


def _one_file(weights: Path | None, onnx: Path | None) -> Path | None:
    if onnx is not None and (weights is not None or onnx.suffix.lower() != ".onnx"):
        raise InputError(f"expected --onnx with a file ending in .onnx and no --weights, got {onnx.name!r}")
    return weights if onnx is None else onnx


def _settings(given: list[str] | None, non_adaptive: bool) -> list[str]:
    return [*(given or []), *(["non_adaptive=true"] if non_adaptive else [])]
