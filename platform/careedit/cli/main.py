"""The command `careedit`: sub-commands from entry points, errors as one sentence, exit codes 0, 1 and 2.

Every distribution may add sub-commands through the entry-point group `careedit.commands`. Each names a `typer.Typer`:
one that holds a single command of the entry's own name becomes `careedit NAME`, any other becomes the group
`careedit NAME COMMAND`. A sub-command's module is imported when it is invoked, not before, so `careedit --help` answers
at once; the line shown there is the first line of the module's docstring, read without executing the module.
"""

from __future__ import annotations

import ast
import importlib.util
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import metadata
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_command_name, get_group

from careedit.cli.output import emit, note, set_up_logging
from careedit.errors import CareEditError, ExpertError, InputError

GROUP = "careedit.commands"
"""The entry-point group that sub-commands are found in."""


class LazyCommand(TyperCommand):
    """Stands for a sub-command until it is invoked, then hands over to the real one."""

    def __init__(self, entry: EntryPoint) -> None:
        super().__init__(name=entry.name)
        self.entry = entry

    def make_context(self, info_name: Any, args: Any, parent: Any = None, **extra: Any) -> Any:
        """The context of the real command, which is imported here."""
        return _load(self.entry).make_context(info_name, args, parent=parent, **extra)


class LazyGroup(TyperGroup):
    """A group that describes its sub-commands without importing them."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Read each sub-command's one-line help, then format as usual."""
        for command in self.commands.values():
            if isinstance(command, LazyCommand):
                command.help = _summary(command.entry)
        super().format_help(ctx, formatter)


def build_command() -> TyperGroup:
    """The root command with one lazy sub-command per entry point, in alphabetical order."""
    app = typer.Typer(
        cls=LazyGroup,
        add_completion=False,
        no_args_is_help=True,
        epilog="Exit codes: 0 = done, 1 = failed, 2 = the input is wrong.",
    )
    app.callback()(_root)
    group = get_group(app)
    for entry in sorted(metadata.entry_points(group=GROUP), key=lambda entry: entry.name):
        if entry.name not in group.commands:
            group.add_command(LazyCommand(entry))
    return group


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: the process's own) and return its exit code."""
    set_up_logging(debug=os.environ.get("CAREEDIT_DEBUG", "0") not in ("", "0"))
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        code = build_command().main(args=arguments, prog_name="careedit", standalone_mode=False)
    except typer.TyperException as error:
        return _usage_error(error)
    except (InputError, ExpertError) as error:
        return _failed(error, str(error), code=2)
    except CareEditError as error:
        return _failed(error, str(error), code=1)
    except (KeyboardInterrupt, typer.Abort):
        return _failed(None, "Interrupted.", code=130)
    except Exception as error:  # noqa: BLE001 - the last resort: a person gets a sentence, whatever happened
        hint = "run `careedit --debug ...` for the stack trace"
        return _failed(error, f"Unexpected {type(error).__name__}: {_one_line(error)} ({hint}).", code=1)
    return code if isinstance(code, int) else 0


def _show_version(wanted: bool) -> None:
    if wanted:
        emit(f"careedit {metadata.version('careedit')}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Log everything; show the stack trace of an error.")] = False,
) -> None:
    """Edit images by instruction, with routed LoRA experts on a diffusion transformer."""
    if debug:
        set_up_logging(debug=True)


def _load(entry: EntryPoint) -> Any:
    """Import the entry's Typer and build its command."""
    try:
        app = entry.load()
    except ModuleNotFoundError as error:
        raise CareEditError(_missing(entry, error.name or "")) from error
    commands = app.registered_commands
    plain = (
        len(commands) == 1
        and not app.registered_groups
        and app.registered_callback is None
        and (commands[0].name or get_command_name(commands[0].callback.__name__)) == entry.name
    )
    return get_command(app) if plain else get_group(app)


def _missing(entry: EntryPoint, module: str) -> str:
    """What to tell the person whose sub-command cannot be imported for want of `module`."""
    if module and f"{entry.module}.".startswith(f"{module}."):
        return (
            f"The command '{entry.name}' is not in this installation ({entry.module} is missing); reinstall careedit."
        )
    wanted = f"The command '{entry.name}' needs the package '{module}', which is not installed"
    if entry.extras:
        return f"{wanted}; install it with: pip install 'careedit[{','.join(entry.extras)}]'"
    return f"{wanted}; reinstall careedit, or install that package."


def _summary(entry: EntryPoint) -> str:
    """The first line of the docstring of the entry's module, read without executing the module."""
    try:
        spec = importlib.util.find_spec(entry.module)
    except ModuleNotFoundError:
        spec = None
    if spec is None or spec.origin is None:
        return "(not in this installation)"
    docstring = ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))) or ""
    return docstring.split("\n", 1)[0]


def _usage_error(error: typer.TyperException) -> int:
    """Say what is wrong with the command line; an empty message means that help was shown instead."""
    message = error.format_message().rstrip(".")
    if message:
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "careedit"
        note(f"error: {message}; see '{command} --help'.")
    return error.exit_code


def _failed(error: BaseException | None, message: str, *, code: int) -> int:
    if error is not None and logging.getLogger("careedit").isEnabledFor(logging.DEBUG):
        traceback.print_exception(error)
    note(f"error: {message}")
    return code


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or "no message"
