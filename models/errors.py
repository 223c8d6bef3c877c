"""What can be wrong with a wish for a model."""


class ModelError(ValueError):
    """A model cannot be had as asked: unknown name, no weights, misfits. The message says the remedy."""
