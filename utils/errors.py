"""What a person can put right. Scripts print such an error in one line and leave with exit code 2."""

USAGE = 2  # exit code of a mistake that the user can put right, as argparse has it


class UserError(Exception):
    """A mistake in the input. The message says what, got, expected and the remedy."""


class DataError(UserError):
    """A mistake in a data YAML, an image or a label file. The message starts with the file."""
