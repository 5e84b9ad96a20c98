"""Command line: parses options, calls :mod:`wemem.api`, and prints results."""


def main() -> None:
    """Run the command that the process was started with, and end the process with its exit code.

    This module imports nothing, so that a signal finds its handler a few milliseconds after the
    start.
    """
    try:
        from wemem.cli.signals import signals_handled
    except KeyboardInterrupt:  # Ctrl-C in the first milliseconds: nothing has begun
        raise SystemExit(130) from None

    with signals_handled():
        from wemem.cli.endings import run_command

        raise SystemExit(run_command())
