"""The one exception for input that cannot be used."""


class InputError(ValueError):
    """A file, folder or value from the user that cannot be used.

    The message is one line that names it and the fix; the command line prints it and exits with 1.
    """
