"""End every command in one line and with an exit code that means one thing.

====  ==========================================================================================
code  meaning
====  ==========================================================================================
0     the command did its work; for ``gate``, ``verify`` and ``store verify``: everything holds
1     ``gate``, ``verify`` and ``store verify`` alone: a limit or a check failed
2     an input that cannot be used, or an output that cannot be written, standard output included
3     a fault of WeMem itself
130   stopped by Ctrl-C; 143 by SIGTERM, 129 by SIGHUP
====  ==========================================================================================
"""

import io
import logging
import os
import re
import sys
import sysconfig
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import typer
from typer.main import get_command

from wemem.cli.commands import app
from wemem.cli.signals import STOPPED, Stopped, say
from wemem.errors import InputError

UNUSABLE, FAULT, INTERRUPTED = 2, 3, 130
#: Characters of a message, and of a word in it, that are shown.
LONGEST, LONGEST_WORD = 1200, 240
#: Set to show the traceback of every error, as ``--debug`` does.
DEBUG = "WEMEM_DEBUG"
#: Environment of this process and its workers: no warnings of libraries on a user's terminal.
QUIET = {"PYTHONWARNINGS": "ignore", "TORCH_CPP_LOG_LEVEL": "ERROR", "MLFLOW_LOGGING_LEVEL": "WARNING"}
#: Set by the shell that asks for completions, and the options that print or install its script.
COMPLETE, COMPLETION = "_WEMEM_COMPLETE", ("--show-completion", "--install-completion")

#: The folder of this package.
PACKAGE = str(Path(__file__).parents[1])

_UsageError: type[Exception] = typer.BadParameter.__mro__[2]  # the base of all errors of the command-line parser


class OutputError(Exception):
    """Raised where standard output cannot take what a command prints."""


def run_command() -> int:
    """Run the command that ``sys.argv`` names.

    Returns:
        The exit code, as in the table above.
    """
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1 or bool(os.environ.get(DEBUG))
    try:
        with _checked_output(), _quiet_libraries(debug):
            return _invoke(arguments or ["--help"])
    except (KeyboardInterrupt, typer.Abort):
        say(STOPPED)
        return INTERRUPTED
    except Stopped as stopped:
        say(STOPPED)
        return int(str(stopped.code))
    except SystemExit as error:
        if COMPLETE in os.environ or any(option in arguments[:1] for option in COMPLETION):
            return error.code if isinstance(error.code, int) else 0  # completion ends in this way
        say(f"wemem: expected code that returns, got sys.exit({error.code!r}) from a function of yours; return from it")
        return UNUSABLE
    except Exception as error:
        if debug:
            traceback.print_exc()
        line, code = _explained(error)
        say(f"wemem: {line}")
        return code


def _invoke(arguments: list[str]) -> int:
    code = get_command(app)(args=arguments, prog_name="wemem", standalone_mode=False)
    if code == INTERRUPTED:  # the exit code of the parser for Ctrl-C
        raise KeyboardInterrupt
    return code if isinstance(code, int) else 0


def _explained(error: Exception) -> tuple[str, int]:
    """The one-line message of an error, and the exit code."""
    from wemem.results.wording import printable

    line, code = _plain_line(error)
    return clipped(printable(line)), code


def _plain_line(error: Exception) -> tuple[str, int]:
    if isinstance(error, InputError):
        return str(error), UNUSABLE
    if isinstance(error, OutputError):
        return f"cannot write to standard output: {error}; nothing was printed from there on", UNUSABLE
    if isinstance(error, _UsageError):
        context = getattr(error, "ctx", None)
        command = "wemem" if context is None else context.command_path
        message: Any = getattr(error, "format_message", error.__str__)()
        return f"{' '.join(message.split())} See {command} --help.", UNUSABLE
    if isinstance(error, MemoryError):
        return "expected more memory than there is; give less data, fewer models or fewer --jobs", UNUSABLE
    if isinstance(error, SyntaxError) and error.filename is not None and _is_users(error.filename):
        return f"expected Python in {error.filename}, got {error.msg} in line {error.lineno}; mend it", UNUSABLE
    frames = traceback.extract_tb(error.__traceback__)
    user = next((frame for frame in reversed(frames) if _is_users(frame.filename)), None)
    if user is not None:
        return f"expected {user.name}() in {user.filename} to succeed, got {error!r} in line {user.lineno}", UNUSABLE
    ours = [frame for frame in frames if frame.filename.startswith(PACKAGE)]
    place = f" in {Path(ours[-1].filename).relative_to(PACKAGE)}, line {ours[-1].lineno}" if ours else ""
    return (
        f"a fault of this program and not of yours: {error!r}{place}; please report it to the maintainers, with the "
        "traceback that the same command prints with --debug",
        FAULT,
    )


def _is_users(file: str) -> bool:
    """True if a file of Python source is neither of this package nor of an installed library."""
    libraries = (PACKAGE, *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")))
    return not file.startswith(("<", *libraries)) and "site-packages" not in file and Path(file).suffix == ".py"


def clipped(message: str) -> str:
    """A message with overlong words and an overlong whole cut in the middle.

    >>> len(clipped("x" * 10_000)) < 300
    True
    """
    half = LONGEST_WORD // 2
    text = re.sub(rf"(\S{{{half}}})\S{{{half},}}(\S{{{half}}})", r"\1...\2", message)
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"


@contextmanager
def _quiet_libraries(debug: bool) -> Iterator[None]:
    """Keep warnings and log records of libraries off the terminal, in this process and its workers."""
    if debug:
        yield
        return
    unset = {name: value for name, value in QUIET.items() if name not in os.environ}
    os.environ.update(unset)
    last, logging.lastResort = logging.lastResort, None
    try:
        with warnings.catch_warnings():
            if "PYTHONWARNINGS" in unset:
                warnings.simplefilter("ignore")
            yield
    finally:
        logging.lastResort = last
        for name in unset:
            os.environ.pop(name, None)


@contextmanager
def _checked_output() -> Iterator[None]:
    """Turn every failure to write to standard output into an :class:`OutputError`, that at the end
    included.
    """
    plain = sys.stdout
    if plain is None:
        raise OutputError("it is closed")
    if isinstance(plain, io.TextIOWrapper):
        plain.reconfigure(errors="backslashreplace")  # a terminal that cannot show a character is no reason to stop
    checked = _Checked(plain)
    sys.stdout = checked
    try:
        yield
        checked.flush()
    except OutputError:
        _discard(plain)
        raise
    finally:
        sys.stdout = plain


def _discard(stream: TextIO) -> None:
    """Let the interpreter's own last flush succeed, which would otherwise print an error and change
    the exit code.
    """
    try:
        number = stream.fileno()
    except (OSError, ValueError):
        return
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, number)
    os.close(null)


class _Checked:
    """A text stream that raises :class:`OutputError` where another raises OSError, which libraries
    would swallow.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except (OSError, ValueError) as error:
            raise OutputError(_reason(error)) from error

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            raise OutputError(_reason(error)) from error

    def __enter__(self) -> "_Checked":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
