"""The one exception whose message is for the user.

Every message states what was expected, what was received, and a remedy. The command line prints it
on one line and exits with code 2; a caller of the library catches it as a :class:`ValueError`.
"""


class InputError(ValueError):
    """An input that cannot be used: a file, a setting, a data set, or a combination of them."""


class TooFewRecordsError(InputError):
    """Records that do not suffice for the roles that settings give them; other settings may do."""


class DivergedError(InputError):
    """A training whose loss, gradient or output is not finite, under settings that were accepted."""
