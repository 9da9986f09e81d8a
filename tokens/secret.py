"""A string that does not show itself."""

import hashlib
import hmac
import secrets
from typing import NoReturn

# A fresh salt for each start, so that a fingerprint in a log cannot be matched against a guessed value later.
_SALT = secrets.token_bytes(32)


class Secret:
    """
    A token, key or password; only `reveal()` shows it.

    It cannot be pickled, copied, hashed or written as JSON, so it reaches no cache, message or log by accident.
    """

    __slots__ = ("_value",)
    __hash__ = None  # type: ignore[assignment]  # equal by value: a hash would be a way to compare in the open

    _value: str

    def __init__(self, value: str) -> None:
        if not isinstance(value, str):
            raise TypeError(f"A Secret wraps a str, not {type(value).__name__}.")
        object.__setattr__(self, "_value", value)

    def reveal(self) -> str:
        """Return the value; call it where the value leaves for its destination and nowhere else."""
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value.encode(), other._value.encode())

    def __repr__(self) -> str:
        if not self._value:
            return "<Secret empty>"
        return f"<Secret sha256:{hmac.new(_SALT, self._value.encode(), hashlib.sha256).hexdigest()[:8]}…>"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format(repr(self), spec)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("A Secret does not change.")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError("A Secret does not change.")

    def __reduce_ex__(self, protocol: object) -> NoReturn:  # copy and deepcopy go through it as well
        raise TypeError("A Secret is neither pickled nor copied.")
