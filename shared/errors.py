"""Errors say who acts next."""


class PipelineError(Exception):
    """Anything that Hune itself raises about the world outside."""


class Poison(PipelineError):
    """No retry will help this record: quarantine it."""


class Transient(PipelineError):
    """Try again later: the same work may succeed."""


class Misconfigured(PipelineError):
    """Do not start; the text names the setting and the fix."""
