"""The base class of errors that a user can fix."""


class UserError(Exception):
    """Something a user can fix: input, settings, the machine. The message says what and where;
    commands show only the message, without a traceback. Every error class of this package derives
    from it.
    """
