"""Every leaf of the recipe as a command-line flag: `layout.max_overlap` is `--max-overlap`.

The flags are made from the model itself, so that an option exists in both places or in neither. A flag that is not
given leaves the recipe file's value alone.
"""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args, get_origin

import typer

from rarefill import recipe as recipes
from rarefill.errors import UsageError
from rarefill.recipe import Recipe

PANELS = {
    (): "Run",
    ("layout",): "Layouts",
    ("generator",): "Generator",
    ("hub",): "Published checkpoints",
    ("annotator",): "Checker",
    ("versions",): "Versions",
}
BY_HAND = frozenset({"data", "pictures", "out"})
"""Leaves that commands declare themselves."""

NOT_OF_VERSIONS = frozenset(
    {
        "fill",
        "evaluation",
        "redraw",
        "repair",
        "collateral",
        "top_ups",
        "model",
        "conditioning",
        "strength",
        "redraw_strength",
        "paste_above",
        "blends",
        "photometric",
        "enhance",
        "describe",
        "refuse_copies",
        "min_visible",
        "segmenter",
    }
)
"""Leaves of a run of objects that mean nothing to versions of whole images."""

LISTS = {
    "fill": "NAME=N|auto|none",
    "redraw": "NAME=N",
    "region": "X,Y X,Y X,Y",
    "no_mirror": "NAME",
    "only": "NAME",
    "describe": "NAME=TEXT",
    "vary": "LIST=A|B",
}
"""Leaves whose flag may be given several times."""


def with_recipe(
    *,
    sections: Sequence[str] = ("run", "layout", "generator", "hub", "annotator"),
    leave_out: frozenset[str] = frozenset(),
    called: Mapping[str, str] = MappingProxyType({}),
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command the recipe flags of some sections, and its `recipe` argument the resolved Recipe.

    The command keeps its own parameters; those called data, pictures and out flow into the recipe too.

    Args:
        sections: by default all that `generate` has.
        leave_out: leaves that mean nothing to the command.
        called: leaves whose flag has another name here.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        own = inspect.signature(command, eval_str=True).parameters
        flags = {
            called.get(path[-1], path[-1]): path
            for path, _ in recipes.leaves()
            if path[-1] not in {*BY_HAND, *own, *leave_out} and _section(path) in sections
        }

        @functools.wraps(command)
        def run(**values: Any) -> Any:
            options: dict[str, Any] = {}
            for name, path in flags.items():
                value = values.pop(name)
                if value is not None and value != []:
                    options = recipes.merged(options, _nested(path, _parsed(path, value)))
            options |= {k: v for k, v in values.items() if k in {"data", "pictures", "out"} and v is not None}
            config = values.pop("config")
            below = recipes.read(config) if config else {}
            where = config.name if config else "recipe"
            recipe = recipes.resolve(recipes.merged(below, options), where=where)
            return command(**{k: v for k, v in values.items() if k in own}, recipe=recipe)

        parameters = [p for name, p in own.items() if name != "recipe"]
        parameters.append(_config())
        parameters += [_flag(path, name) for name, path in flags.items()]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        return run

    return decorate


def _section(path: tuple[str, ...]) -> str:
    return path[0] if len(path) > 1 else "run"


def _nested(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    for name in reversed(path):
        value = {name: value}
    return dict(value)


def _config() -> inspect.Parameter:
    option = typer.Option(
        None, "--config", help="recipe file (YAML); flags hold over it", rich_help_panel="Run"
    )
    return inspect.Parameter("config", inspect.Parameter.KEYWORD_ONLY, default=option, annotation=Path | None)


def _flag(path: tuple[str, ...], name: str) -> inspect.Parameter:
    info = next(i for p, i in recipes.leaves() if p == path)
    kind, metavar = str | None, None
    annotation: Any = info.annotation
    members = [a for a in get_args(annotation) if a is not type(None)] or [annotation]
    if name in LISTS:
        kind, metavar = list[str] | None, LISTS[name]  # type: ignore[assignment]
    elif annotation is bool:
        kind = bool | None  # type: ignore[assignment]
    elif get_origin(annotation) is Literal:
        metavar = "|".join(get_args(annotation))
    elif get_origin(annotation) is tuple:
        metavar = ",".join(get_args(members[0])) if get_origin(members[0]) is Literal else "X,X"
    elif int in members:
        kind = int | None  # type: ignore[assignment]
    elif float in members or any(get_args(m)[:1] == (float,) for m in members):
        kind = float | None  # type: ignore[assignment]
    flag = f"--{name.replace('_', '-')}"
    names = f"{flag}/--no-{flag[2:]}" if kind == bool | None else flag
    default = info.default
    silent = default is None or default in ((), {}, "") or isinstance(default, bool)
    shown = "" if silent else f" [{_plain(default)}]"
    option = typer.Option(
        None,
        names,
        help=f"{info.description}{shown}",
        metavar=metavar,
        rich_help_panel=PANELS[path[:-1]],
        show_default=False,
    )
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=kind)


def _plain(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _parsed(path: tuple[str, ...], value: Any) -> Any:
    match path[-1]:
        case "fill":
            return _fill(value)
        case "redraw":
            return _counts(value, "--redraw", "NAME=N")
        case "region":
            return [_polygon(text) for text in value]
        case "describe" | "vary":
            return _texts(value, f"--{path[-1]}")
        case _:
            return value


def _texts(texts: Sequence[str], flag: str) -> dict[str, str]:
    """NAME=TEXT, each name once."""
    said: dict[str, str] = {}
    for text in texts:
        name, equals, words = text.partition("=")
        if not equals or not name.strip() or not words.strip():
            raise UsageError(f"{flag} takes {LISTS[flag[2:]]}, got {text!r}")
        if name.strip() in said:
            raise UsageError(f"{flag} names {name.strip()!r} twice")
        said[name.strip()] = words.strip()
    return said


def _fill(texts: Sequence[str]) -> dict[str, int] | str:
    for word in ("auto", "none"):
        if word in texts:
            if len(texts) > 1:
                raise UsageError(f"--fill {word} stands alone; leave out the other --fill")
            return word
    return _counts(texts, "--fill", "NAME=N, auto or none")


def counts_of(texts: Sequence[str]) -> "dict[str, int] | Literal['auto']":
    """A budget as `--fill` gives it, where one has to be given.

    Raises:
        UsageError: not NAME=N, a name twice, or auto beside names.
    """
    if texts == ["auto"]:
        return "auto"
    if "auto" in texts:
        raise UsageError("--fill auto stands alone; leave out the other --fill")
    return _counts(texts, "--fill", "NAME=N or auto")


def _counts(texts: Sequence[str], flag: str, takes: str) -> dict[str, int]:
    asked: dict[str, int] = {}
    for text in texts:
        name, equals, count = text.rpartition("=")
        if not equals or not name or not count.strip().isdigit():
            raise UsageError(f"{flag} takes {takes}, got {text!r}; for example {flag} 'stop sign=20'")
        if name in asked:
            raise UsageError(f"{flag} names {name!r} twice")
        asked[name] = int(count)
    return asked


def _polygon(text: str) -> list[tuple[float, float]]:
    try:
        points = [tuple(float(v) for v in pair.split(",")) for pair in text.split()]
    except ValueError:
        points = []
    if len(points) < 3 or any(len(p) != 2 or not (0 <= p[0] <= 1 and 0 <= p[1] <= 1) for p in points):
        raise UsageError(f"--region takes three or more points 'x,y x,y x,y' from 0 to 1, got {text!r}")
    return [(p[0], p[1]) for p in points]


def defaults() -> str:
    """The commented default recipe, without the places that only a command can name."""
    return recipes.as_yaml(Recipe())
