"""Text of strangers, names of files first of all, fit for terminals, pictures and pages."""


def printable(text: str) -> str:
    """`text` in one line, with nothing that a terminal obeys: signs that cannot be printed become escapes."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


def encodable(text: str) -> str:
    """`text` with what UTF-8 cannot say as escapes; Python has bytes of file names so that are no UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()
