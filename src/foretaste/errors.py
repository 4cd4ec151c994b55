"""The ways a call fails through no fault of ours; they end the command line with exit code 2."""

SECRET = "secret"
"""The kind of a ``PydanticCustomError`` whose value must not be said again."""


class InputError(ValueError):
    """The user's input is wrong. The message is one line: the value, the place, the way out."""


class EmptyLogError(InputError):
    """A log can be read, and holds nothing, or less than can be learnt from."""


class WriteError(InputError):
    """The disk is full or the place cannot be written; what was there is as it was."""


class NotNumbersError(InputError):
    """A model gave NaN where a score was wanted, mostly because training went to infinity."""


class MissingExtraError(InputError):
    """An optional package is not installed.

    Args:
        package: what was imported, for example ``"implicit"``.
        extra: the extra of Foretaste that brings it, for example ``"als"``.
    """

    def __init__(self, package: str, extra: str) -> None:
        """The message names both."""
        super().__init__(
            f'{package} is not installed. Install it with: pip install "foretaste[{extra}]"'
        )
