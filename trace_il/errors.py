"""The one error class whose message is meant for the user's eyes as it stands."""


class UserError(ValueError):
    """Bad input. The message names the value, what was expected and the way out, on one line.

    The command-line programs print it without a stack trace and exit with status 2.
    """
