"""A plan as a table and sentences on the console."""

from rich.table import Table

from wemem.execution.outlook import Outlook
from wemem.execution.plan import Plan
from wemem.results.wording import duration, printable


def plan_table(plan: Plan) -> Table:
    """The tasks by kind, for 80 columns."""
    table = Table(box=None, pad_edge=False)
    table.add_column("task", overflow="fold")
    for name in ("tasks", "stored", "models", "records shown", "one worker"):
        table.add_column(name, justify="right", no_wrap=True)
    for kind in plan.kinds:
        table.add_row(
            printable(kind.kind), f"{kind.tasks:,}", f"{kind.stored:,}", f"{kind.models:,}" if kind.models else "",
            f"{kind.records:,.0f}" if kind.records else "", duration(kind.seconds),
        )  # fmt: skip
    table.add_row(
        "all", f"{plan.tasks:,}", f"{plan.stored:,}", f"{plan.models:,}", f"{plan.records:,.0f}",
        duration(plan.seconds), style="bold",
    )  # fmt: skip
    return table


def plan_sentences(plan: Plan) -> list[str]:
    """The plan in sentences."""
    todo = plan.tasks - plan.stored
    threads = "1 thread" if plan.threads == 1 else f"{plan.threads} threads"
    walls = "; ".join(f"{workers:,}: {duration(seconds)}" for workers, seconds in plan.wall.items())
    return [
        f"{todo:,} of {plan.tasks:,} tasks would run; {plan.stored:,} need not, for their results are stored.",
        f"Wall time by number of workers, each task on {threads} of a core like this one: {walls}.",
        f"The longest chain of tasks takes {duration(plan.critical_path)}; no number of workers is faster.",
        f"About {plan.bytes / 1e6:,.0f} MB would be written into the store.",
        *plan.assumptions,
    ]


def outlook_sentence(outlook: Outlook) -> str:
    """The models, records and time of a command before it runs.

    >>> outlook_sentence(Outlook(2, 3000, 90.0))[:60]
    'Would train 2 models on 3,000 records in all, each as often '
    """
    models = "models" if outlook.models is None else f"{outlook.models:,} model{'s' * (outlook.models != 1)}"
    return (
        f"Would train {models} on {outlook.records:,.0f} records in all, each as often as it is seen: about "
        f"{duration(outlook.seconds)} here by the time of one step of one model. Models that train together take less; "
        "queries and attacks come on top."
    )
