"""Names in narrow columns: a line ends between the parts of a name, never within a part."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from rich.cells import cell_len, chop_cells
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.text import Text

from wemem.results.wording import printable

#: Places within a name where a line may end; a number keeps its point and its sign.
BREAKS = re.compile(r"(?<=[_/:+,])(?=\S)|(?<=[.-])(?=[^\W\d_])|(?<=\s)(?=\S)")


@dataclass(frozen=True)
class Name:
    """A name from a user or of an attack, which wraps after ``_``, ``/``, ``:``, ``+``, ``,`` and
    spaces, and after a point or a hyphen before a letter. A part that is wider than the column is
    folded.

    Args:
        text: the name; characters that could control a terminal are escaped.
        style: the style of the text.
        indent: the number of spaces before each line.
    """

    text: str
    style: str = ""
    indent: int = 0

    def lines(self, width: int) -> list[str]:
        """The lines of the name in a column.

        >>> Name("modified_entropy").lines(13), Name("modified_entropy").lines(16)
        (['modified_', 'entropy'], ['modified_entropy'])
        """
        space, lines = " " * self.indent, [""]
        for part in self._parts(max(1, width - self.indent)):
            if lines[-1] and cell_len(space + (lines[-1] + part).rstrip()) > width:
                lines.append("")
            lines[-1] += part if lines[-1] else part.lstrip()
        return [space + line.rstrip() for line in lines if line]

    def _parts(self, room: int) -> Iterator[str]:
        for part in BREAKS.split(printable(self.text)):
            if cell_len(part) <= room:
                yield part
            else:
                yield from chop_cells(part, room)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text("\n".join(self.lines(options.max_width)), self.style, overflow="fold")

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        parts = [cell_len(part.strip()) for part in BREAKS.split(printable(self.text))]
        whole = cell_len(printable(self.text))
        return Measurement(max(parts, default=0) + self.indent, whole + self.indent).with_maximum(options.max_width)
