"""The one exception for mistakes that a user can mend."""


class UserError(Exception):
    """A mistake of the user's: the message names the offending value, the rule and the next move.

    Scripts print the message alone and exit with code 2; a traceback would only hide it.
    """
