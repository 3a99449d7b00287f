"""What can go wrong, as one small tree. The command line turns the tree into exit codes."""


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


class RunError(RarefillError):
    """A run stopped: the disk is full, an image vanished, nothing was accepted."""
