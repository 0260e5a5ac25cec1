"""The one exception that means: the user can mend this."""


class UserError(Exception):
    """A mistake by the user, worded for the user.

    The message is one line that says what is wrong, what is allowed and what to do. The commands
    print it on stderr and leave with exit code 2; every other exception is a bug of ours and keeps
    its traceback.
    """
