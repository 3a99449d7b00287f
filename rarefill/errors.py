"""What can go wrong, as one small tree. The command line turns the tree into exit codes."""

import json


class RarefillError(Exception):
    """A failure that the user can act on. Its text is one clear line (or a table) and is shown as it is."""


class UsageError(RarefillError):
    """The command line asks for something that cannot be."""


class DataError(RarefillError):
    """The dataset is not what it should be: where, what was expected, what came, what to do."""


class RecipeError(RarefillError):
    """An option has no meaning or an impossible value."""


class LayoutError(RarefillError):
    """A plan cannot be made, read or obeyed."""


class ModelError(RarefillError):
    """A model cannot be found, read, trained or trusted."""


class MissingError(ModelError):
    """A model's file or folder that somebody named is not there: wrong usage, not a model that failed."""


class RunError(RarefillError):
    """A run stopped: the disk is full, an image vanished, nothing was accepted."""


def shown(value: object, most: int = 60) -> str:
    """A value as it came, as JSON, in short: what errors print after "got"."""
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= most else text[: most - 1] + "…"
