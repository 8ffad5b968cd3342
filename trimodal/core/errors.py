"""The base class of errors that a user can mend."""


class UserError(Exception):
    """Something a user can mend: input, settings, the machine. The message says what and where;
    commands show it alone, without a traceback. Every error class of this package derives from it.
    """
