"""What can be wrong with a wish for a model."""


class ModelError(ValueError):
    """A model cannot be had as asked: unknown name, no weights, misfits. The message says the remedy."""


class WeightsNotHereError(ModelError):
    """Published weights are neither on disk nor to be fetched.

    situation: the message without the way out that train.py has and others have not.
    """

    def __init__(self, situation: str) -> None:
        super().__init__(f"{situation}, or train from random weights with --no-pretrained")
        self.situation = situation
