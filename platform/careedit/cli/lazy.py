"""Sub-commands from entry points: each is imported only when it is invoked.

An entry names a `typer.Typer`. If that has a single command with the entry's own name, it becomes this command, otherwise a
group. `--help` shows the first line of the docstring of the entry's module, which is read without executing the module.
"""

from __future__ import annotations

import ast
import importlib.util
from importlib import metadata
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, ClassVar

from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_command_name, get_group

from careedit.errors import CareEditError
from careedit.loading import quick_imports
from careedit.progress import progress


class Interrupted(Exception):
    """Ctrl-C in a command. Its cause is the `KeyboardInterrupt`, with what `careedit.progress.keeping` added."""


class LazyCommand(TyperCommand):
    """A placeholder for a sub-command, which is loaded when it is invoked."""

    def __init__(self, entry: EntryPoint) -> None:
        super().__init__(name=entry.name)
        self.entry = entry

    def make_context(self, info_name: Any, args: Any, parent: Any = None, **extra: Any) -> Any:
        """The context of the real command, which is imported here."""
        return _load(self.entry).make_context(info_name, args, parent=parent, **extra)


class LazyGroup(TyperGroup):
    """A group with its own commands and those of an entry-point group; see `lazy_group`."""

    entry_group: ClassVar[str]
    """The entry-point group of the sub-commands."""

    def __init__(self, *args: Any, **extra: Any) -> None:
        super().__init__(*args, **extra)
        for entry in sorted(metadata.entry_points(group=self.entry_group), key=lambda entry: entry.name):
            if entry.name not in self.commands:
                self.add_command(LazyCommand(entry))

    def invoke(self, ctx: Any) -> Any:
        """Run the sub-command. Ctrl-C raises `Interrupted`: typer would turn it into an exit code without a word."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            raise Interrupted from interrupt

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Read each sub-command's one-line help, then format as usual; nothing is imported."""
        for command in self.commands.values():
            if isinstance(command, LazyCommand):
                command.help = _summary(command.entry)
        super().format_help(ctx, formatter)


def lazy_group(entry_group: str) -> type[LazyGroup]:
    """The class of a group whose sub-commands are those of an entry-point group; for `typer.Typer(cls=...)`."""
    return type("LazyGroup", (LazyGroup,), {"entry_group": entry_group})


def _load(entry: EntryPoint) -> Any:
    """Import the entry's Typer and build its command."""
    try:
        with progress(f"Importing what '{entry.name}' needs"), quick_imports():
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
    """The error message for a sub-command that cannot be imported because `module` is missing."""
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
