"""Errors of building and loading models."""


class ModelError(ValueError):
    """A model cannot be built as requested, such as for an unknown name; the message gives the remedy."""


class WeightsNotHereError(ModelError):
    """Published weights are not on disk and cannot be fetched.

    situation: the message without the remedy that only train.py has.
    """

    def __init__(self, situation: str) -> None:
        super().__init__(f"{situation}, or train from random weights with --no-pretrained")
        self.situation = situation
