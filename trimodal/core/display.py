"""Text from files and archives, as it is shown to people."""


def printable(text: str) -> str:
    """``text`` with control, format and other unprintable characters escaped, as in repr()."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
