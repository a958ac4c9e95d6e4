"""Texts of messages: errors without numbers of the operating system, and escaped characters."""

import errno

_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""Errors that only writing raises."""


def describe_error(error: Exception) -> str:
    """Returns an error's message, or its type, without numbers of the operating system."""
    if isinstance(error, OSError) and error.strerror:
        place = "" if error.filename is None else f"{error.filename}: "
        verb = "can't write " if place and error.errno in _UNWRITABLE else ""
        return f"{verb}{place}{error.strerror}"
    return str(error) or type(error).__name__


def escape(text: str, *, keep: str = "") -> str:
    """Escapes characters that aren't printable, which a terminal may obey or fail to encode.

    Args:
        text: any text.
        keep: characters that aren't escaped, such as the end of a line.
    """
    return "".join(
        char if char.isprintable() or char in keep else ascii(char)[1:-1] for char in text
    )
