# SPDX-License-Identifier: Apache-2.0
"""What may be written: names of a length that every database takes, without invisible characters."""

from __future__ import annotations

from tradewind.security.exceptions import InvalidValueError

__all__ = ["clipped", "identifier", "is_identifier"]

_LENGTH = 250


def is_identifier(value: object) -> bool:
    r"""Tell whether something can be the id of a user, a team or a subject.

    >>> is_identifier("alice@acme.example"), is_identifier("alice "), is_identifier("a\x00")
    (True, False, False)
    """
    # MySQL's collation for ids (utf8mb3_bin, as Airflow has it) knows the basic plane only.
    return (
        isinstance(value, str)
        and 0 < len(value) <= _LENGTH
        and value.isprintable()
        and value == value.strip()
        and max(value) <= "\uffff"
    )


def identifier(what: str, value: object) -> str:
    """Give an id back if it can be one.

    Args:
        what: What it is, for the message.
        value: The id.

    Raises:
        InvalidValueError: It can't be one.
    """
    if not is_identifier(value):
        raise InvalidValueError(
            f"{what} {value!r:.300}: expected 1 to {_LENGTH} printable characters without spaces around them"
        )
    return str(value)


def clipped(value: str | None, length: int = _LENGTH) -> str | None:
    r"""Give what a stranger sent, without invisible characters and cut to a length.

    Args:
        value: For example a `User-Agent`.
        length: Longest result, in characters.

    >>> clipped("curl/8\r\n")
    'curl/8'
    """
    if value is None:
        return None
    return "".join(character for character in value[: 2 * length] if character.isprintable())[:length]
