"""Results of commands as objects that show, export and draw themselves."""

import copy
import html
import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, final

from rich.console import Console, RenderableType
from torch import nn

from wemem import api
from wemem.errors import InputError
from wemem.exporting.checkpoint import load_pruned
from wemem.notes import shown
from wemem.objects.frame import data_frame
from wemem.reporting.captions import Plate, plates
from wemem.reporting.console import accuracy_table, attack_table
from wemem.reporting.csv_tables import run_rows
from wemem.reporting.diagnosis import diagnosis_sentences
from wemem.reporting.report import report_content
from wemem.reporting.summary import plain_summary
from wemem.resolve import did_you_mean
from wemem.results.arms import arms
from wemem.results.combine import read_sources
from wemem.results.gate import FolderGate
from wemem.results.gate_files import gate_content
from wemem.results.wording import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

T = TypeVar("T")

#: Columns of a text; as wide as a notebook shows.
WIDTH = 100


@dataclass(frozen=True, eq=False, repr=False)
class Outcome(ABC):
    """The result of a command.

    Args:
        folder: the output directory with every file of the result.
        content: the numbers, as the command's JSON file has them.
        keeper: the temporary directory that the folder is in, removed with the last result that
            refers to it; None for a folder that the user named.
    """

    folder: Path
    content: Mapping[str, Any]
    keeper: object = None

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as plain dictionaries and lists."""
        return copy.deepcopy(dict(self.content))

    def to_pandas(self) -> "DataFrame":
        """Return the main table as a data frame; shares are fractions.

        Raises:
            InputError: pandas is not installed.
        """
        return data_frame(self._rows())

    def __repr__(self) -> str:
        return f"{self._text().rstrip()}\n\n{type(self).__name__} in {printable(str(self.folder))}"

    def _repr_html_(self) -> str:
        """Return the text for a notebook; names from outside are escaped."""
        return f'<pre style="line-height: 1.2">{html.escape(repr(self))}</pre>'

    @abstractmethod
    def _rows(self) -> Sequence[Mapping[str, Any]]:
        """Rows of the main table."""

    @abstractmethod
    def _text(self) -> str:
        """One screen of text."""


@dataclass(frozen=True, eq=False, repr=False)
class MeasuredOutcome(Outcome):
    """The result of a command that attacks models: what a report is made of."""

    @property
    def figures(self) -> tuple[str, ...]:
        """Names of the figures that the results support."""
        return tuple(self._plates)

    def figure(self, name: str) -> "Figure":
        """Draw a figure of the report.

        Args:
            name: one of :attr:`figures`.

        Raises:
            InputError: an unknown name.
        """
        from wemem.reporting.figures import draw_one

        plate = _named(self._plates, name)
        return draw_one(plate, [arm.defense for arm in arms(self.content)])

    def report(self, path: str | Path) -> Path:
        """Render the report into a folder.

        Returns:
            The page.
        """
        api.report([self.folder], path)
        return Path(path) / "report.html"

    @cached_property
    def _plates(self) -> dict[str, Plate]:
        return {plate.name: plate for plate in plates(report_content(read_sources([self.folder])))}

    def _rows(self) -> Sequence[Mapping[str, Any]]:
        return run_rows(self.content)


@final
class AuditResult(MeasuredOutcome):
    """Leakage of one model: every attack with its intervals, and the chance level."""

    def _text(self) -> str:
        content = self.content
        tables = attack_table(rows := arms(content), content), "", accuracy_table(rows)
        loops = [shown(n) for n in content["notes"] if isinstance(n, Mapping) and str(n["code"]).startswith("loops_")]
        return _printed(*tables, "", *plain_summary(content), *loops)


@final
class StudyResult(MeasuredOutcome):
    """Leakage and accuracy of every defense of a study."""

    def _text(self) -> str:
        return _printed(accuracy_table(arms(self.content)), "", *plain_summary(self.content))


@final
@dataclass(frozen=True, eq=False, repr=False)
class PruneResult(Outcome):
    """A pruned model with its certificate.

    Args:
        summary: sentences on what was done and how the model is loaded.
        build: makes the architecture before pruning.
    """

    summary: tuple[str, ...] = ()
    build: Callable[[], nn.Module] | None = None

    @property
    def weights(self) -> Path:
        """The file of the weights."""
        return self.folder / "weights.safetensors"

    def model(self) -> nn.Module:
        """Return the pruned model, in evaluation mode."""
        assert self.build is not None
        return load_pruned(self.build(), self.weights)

    def _rows(self) -> Sequence[Mapping[str, Any]]:
        return list(self.content["rounds"])

    def _text(self) -> str:
        return "\n".join(map(printable, self.summary))


@final
class DiagnosisResult(Outcome):
    """The cause of memorization under pruning, and the defense that follows from it."""

    @property
    def figures(self) -> tuple[str, ...]:
        """Names of the figures."""
        from wemem.reporting.diagnosis_figures import FIGURES

        return tuple(FIGURES)

    def figure(self, name: str) -> "Figure":
        """Draw a figure of the diagnosis.

        Args:
            name: one of :attr:`figures`.

        Raises:
            InputError: an unknown name.
        """
        from wemem.reporting.diagnosis_figures import FIGURES

        return _named(FIGURES, name)(self.content)

    def report(self, path: str | Path) -> Path:
        """Render the diagnosis into a folder.

        Returns:
            The page.
        """
        from wemem.reporting.diagnosis_html import write_diagnosis

        return write_diagnosis(self.content, Path(path))

    def _rows(self) -> Sequence[Mapping[str, Any]]:
        return [
            {**{k: v for k, v in effect.items() if k != "ci"}, "low": effect["ci"][0], "high": effect["ci"][1]}
            for effect in self.content["scenario"]["effects"]
        ]

    def _text(self) -> str:
        return "\n\n".join(diagnosis_sentences(self.content)[:5])


@final
@dataclass(frozen=True, eq=False, repr=False)
class GateResult(Outcome):
    """The outcome of a gate; true in a condition if every limit holds.

    Args:
        checked: the outcome for each folder.
    """

    checked: tuple[FolderGate, ...] = ()

    @property
    def passed(self) -> bool:
        """True if every limit holds and every reservation is waived, in every folder."""
        return all(one.passed for one in self.checked)

    def __bool__(self) -> bool:
        return self.passed

    def _rows(self) -> Sequence[Mapping[str, Any]]:
        return [
            {"folder": str(one.folder), "label": check.label, "sparsity": check.sparsity, "measure": check.measure,
             "value": check.estimate.value, "low": check.estimate.low, "high": check.estimate.high,
             "limit": check.limit, "passed": check.passed, "attack": check.attack}
            for one in self.checked for check in one.checks
        ]  # fmt: skip

    def _text(self) -> str:
        lines = [str(line) for one in self.checked for line in (*one.checks, *one.reservations)]
        return "\n".join(["passed" if self.passed else "failed", *lines])


@final
@dataclass(frozen=True, eq=False, repr=False)
class ExportResult(Outcome):
    """A model as ONNX, checked against PyTorch.

    Args:
        summary: sentences on what was done.
    """

    summary: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """The ONNX file."""
        return self.folder / "model.onnx"

    def _rows(self) -> Sequence[Mapping[str, Any]]:
        return [self.content["parity"]]

    def _text(self) -> str:
        return "\n".join(map(printable, self.summary))


def gate_outcome(checked: Sequence[FolderGate], waivers: Sequence[str]) -> GateResult:
    """Return the outcome of a gate for folders that were checked."""
    return GateResult(checked[0].folder, gate_content(checked, waivers), None, tuple(checked))


def _named(known: Mapping[str, T], name: str) -> T:
    if name not in known:
        raise InputError(f"expected a figure among {', '.join(known)}, got {name!r}{did_you_mean(name, known)}")
    return known[name]


def _printed(*parts: RenderableType) -> str:
    """Text as a console without colours prints it."""
    file = io.StringIO()
    console = Console(file=file, width=WIDTH, color_system=None, force_terminal=False, force_jupyter=False)
    for part in parts:
        console.print(part, markup=False, highlight=False, emoji=False)
    return file.getvalue()
