"""Where things stand on this machine."""

import os
from pathlib import Path


def cache_folder(asked: Path | None = None) -> Path:
    """Where fitted models and cut-out shapes are kept between runs.

    `asked`, else $RAREFILL_CACHE, else rarefill/ in $XDG_CACHE_HOME or ~/.cache. Everything in it can be deleted.
    """
    if asked is not None:
        return asked
    if named := os.environ.get("RAREFILL_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rarefill"
