"""The two roots of every failure: one that waiting helps and one that needs a person."""


class Failure(Exception):
    """
    Something did not work. The message holds codes, trace ids and row ids, never a token, code, header or body.

    `code` is the short name a person can search for, such as "AADSTS50173", "vault-403" or "unreachable".
    """

    def __init__(self, message: str, *, code: str = "", correlation_id: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.correlation_id = correlation_id


class Transient(Failure):
    """Waiting helps; `retry_after` is in seconds, None when the other side named no time."""

    def __init__(
        self, message: str, *, code: str = "", correlation_id: str = "", retry_after: float | None = None
    ) -> None:
        super().__init__(message, code=code, correlation_id=correlation_id)
        self.retry_after = retry_after


class Permanent(Failure):
    """Waiting does not help: a person must act."""
