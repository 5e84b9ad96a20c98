"""The page of the evidence, in Markdown, from stored figures alone."""

from collections.abc import Iterable, Mapping, Sequence
from textwrap import fill
from typing import Any

from benchmarks.evidence.tables import STUDIES

Study = Mapping[str, Any]
#: By claim: its heading, a sentence on its columns, and the columns.
CLAIMS = {
    "C1": (
        "C1: pruning in rounds",
        "Pruned in rounds (`undefended`) against pruned at once (`one_shot`) and against the same fine-tuning without\n"
        "pruning (`unpruned`).",
        (
            ("accuracy", "undefended", "one_shot"),
            ("leak", "undefended", "one_shot"),
            ("leak", "undefended", "unpruned"),
        ),
    ),
    "C2": (
        "C2: reuse and memorability",
        "Fine-tuning again against the dense model shows reuse. The shares of the least and of the most memorized\n"
        "tenth of the victim's members that are found under no defense show memorability.",
        (("leak", "unpruned", "dense"),),
    ),
    "C3": (
        "C3: the primitives",
        "A window without a ranking (`window`), the ranking added to it (`rsw`), and regularization (`rmr`).",
        (("leak", "window", "undefended"), ("leak", "rsw", "window"), ("leak", "rmr", "undefended")),
    ),
    "C4": (
        "C4: the methods",
        "Leak and test accuracy against undefended pruning; the leak of `rmr` stands under C3.",
        (
            ("leak", "rsw", "undefended"),
            ("leak", "swmr", "undefended"),
            ("accuracy", "rsw", "undefended"),
            ("accuracy", "rmr", "undefended"),
            ("accuracy", "swmr", "undefended"),
        ),
    ),
    "C5": (
        "C5: against an existing defense",
        "PPB (α = 4, not searched) stands for the existing defenses, which were not all run.",
        (("leak", "rsw", "ppb"), ("leak", "swmr", "ppb"), ("accuracy", "rsw", "ppb")),
    ),
}


def page(stored: Mapping[str, Study]) -> str:
    """The page; the figures of a data set are stored under its name."""
    missing = [name for name in STUDIES if _stem(name) not in stored]
    known = [name for name in STUDIES if _stem(name) in stored]
    lines = [
        "# Measured comparisons", "",
        "`make evidence` runs these comparisons, goes on where it was stopped, and writes this page from",
        "[stored figures](../benchmarks/results/evidence.json). A test compares the two. Values are per cent or",
        "points, intervals of 95 %, TPR is at 1 % FPR.", "",
        "**What is not decided here.** One seed, few records, 8 or 16 reference models and short training: sizes were",
        "chosen so that each comparison takes minutes of one core. Each interval is for itself; among the many below",
        "some exclude 0 by chance. An interval that contains 0 means a comparison that is too small, or no difference.",
        "Leaks and their differences are over all targets (leave-one-out), by the strongest attack with",
        "reference models on each arm, except where *victim* stands. *Records shown* are those of fine-tuning the",
        "victim, with repetition and without those of teachers.", "",
    ]  # fmt: skip
    if missing:
        lines += [f"Not run yet: {', '.join(f'`studies/{name}.toml`' for name in missing)}.", ""]
    for claim in CLAIMS:
        lines += [*_claim(claim, {_stem(name): stored[_stem(name)] for name in known}), ""]
    for name in known:
        lines += [*_section(name, stored[_stem(name)]), ""]
    return "\n".join(lines).rstrip() + "\n"


def _stem(name: str) -> str:
    return name.rsplit("/", 1)[-1]


def _claim(claim: str, studies: Mapping[str, Study]) -> list[str]:
    heading, text, columns = CLAIMS[claim]
    heads = [f"{'accuracy' if of == 'accuracy' else 'TPR'}, {one} − {other}" for of, one, other in columns]
    rows = {name: [_cell(study, claim, column) for column in columns] for name, study in studies.items()}
    if claim == "C2":
        heads += ["found of the least memorized tenth, victim", "of the most memorized"]
        for name, study in studies.items():
            tenths = study["deciles"]
            rows[name] += ["not known"] * 2 if tenths is None else [_rate(tenths["least"]), _rate(tenths["most"])]
    rows["**below 0, above 0, not decided**"] = [_decided(studies.values(), claim, column) for column in columns]
    rows = {name: [*cells, *[""] * (len(heads) - len(cells))] for name, cells in rows.items()}
    return [f"## {heading}", "", text, "", *_table(["data", *heads], [[name, *cells] for name, cells in rows.items()])]


def _decided(studies: Iterable[Study], claim: str, column: tuple[str, str, str]) -> str:
    """The numbers of data sets on which an interval lies below 0, above 0, or contains it."""
    known = [ends for study in studies if (ends := _ends(study, claim, column)) is not None and len(ends) == 3]
    below, above = sum(ends[2] < 0 for ends in known), sum(ends[1] > 0 for ends in known)
    return f"**{below}, {above}, {len(known) - below - above}**"


def _ends(study: Study, claim: str, column: tuple[str, str, str]) -> list[float] | None:
    """A difference with the ends of its interval; None where the study lacks an arm."""
    found = [d["difference"] for d in study["differences"] if (d["claim"], d["of"], *d["arms"]) == (claim, *column)]
    return found[0] if found else None


def _cell(study: Study, claim: str, column: tuple[str, str, str]) -> str:
    found = _ends(study, claim, column)
    if found is None:
        return "not run"
    value, *ends = (100 * end for end in found)
    return f"{value:+.1f}" + (f" [{ends[0]:+.1f}, {ends[1]:+.1f}]" if ends else ", no interval")


def _section(name: str, study: Study) -> list[str]:
    seeds = ", ".join(map(str, study["seeds"]))
    text = (
        f"`wemem compare studies/{name}.toml`: {study['records']:,} records, {study['classes']} classes, seeds "
        f"{seeds}, {study['members']:,} members and {study['nonmembers']:,} non-members of the victim, "
        f"{study['references']} reference models, attacks {', '.join(study['attacks'])}; "
        f"study {study['study_sha256'][:12]}."
    )
    heads = [
        "arm", "test accuracy", "balanced accuracy, victim", "TPR, victim", "by chance", "TPR, all targets",
        "combined, all targets", "canaries, worst kind", "records shown",
    ]  # fmt: skip
    return [
        f"## {_stem(name)}", "", fill(text, 100, break_on_hyphens=False), "",
        *_table(heads, [_arm(row) for row in study["rows"]]),
    ]  # fmt: skip


def _arm(row: Mapping[str, Any]) -> list[str]:
    only = " (answers only)" if row["answers_only"] else ""
    targets, canaries = row["targets"], row["canaries"]
    return [
        f"{row['arm']}{only}, {100 * row['sparsity']:.0f} % pruned", _rate(row["accuracy"]),
        f"{_rate(row['balanced_accuracy'])} {row['balanced_by']}", f"{_rate(row['tpr'])} {row['attack']}",
        "not known" if row["chance"] is None else f"{100 * row['chance'][0]:.1f}, at most {100 * row['chance'][1]:.1f}",
        "not run" if targets is None else f"{_rate(targets['tpr'])} {targets['attack']} ({targets['count']})",
        "not run" if row["combined"] is None else _rate(row["combined"]),
        "not run" if canaries is None else f"{_rate(canaries['tpr'])} {canaries['kind']}",
        f"{row['records_seen']:,.0f}",
    ]  # fmt: skip


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows)]


def _rate(value: Sequence[float]) -> str:
    return f"{100 * value[0]:.1f} [{100 * value[1]:.1f}, {100 * value[2]:.1f}]"
