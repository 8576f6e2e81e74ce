"""What can keep the embedded stores from starting, told in one sentence."""

from shared.errors import Misconfigured


class StackError(Misconfigured):
    """The stores cannot start; the text says why and what to do."""
