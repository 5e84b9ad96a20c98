"""The one exception that a user is meant to read.

Every message says what was expected, what came, and what to do. The command line prints it on one line
and exits with 2; a library caller catches it as a :class:`ValueError`.
"""


class InputError(ValueError):
    """Something the user gave cannot be used: a file, a setting, a data set, a combination of them."""
