"""What is a user's to mend: printed as one message, without a traceback, by every stage and command."""


class UserError(ValueError):
    """Something outside the program is wrong; the message says what, where, and what to do."""


class DatasetError(UserError):
    """The data break their contract; the message has the first ten offenders and the total."""
