"""The command `careedit`: sub-commands from entry points, one-sentence errors, exit codes 0, 1 and 2; gates add 3.

Any distribution can add sub-commands by the entry-point group `careedit.commands`, benchmarks by `careedit.bench` and
commands that compare arms by `careedit.ab` (see `careedit.cli.lazy`). Only the invoked command is imported, so
`careedit --help` is fast.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import metadata
from typing import Annotated

import typer
from typer.core import TyperGroup
from typer.main import get_group

from careedit.cli.lazy import Interrupted, lazy_group
from careedit.cli.output import emit, set_up_logging
from careedit.errors import CareEditError, ExpertError, InputError
from careedit.progress import set_quiet

GROUP = "careedit.commands"
"""The entry-point group of the sub-commands."""

NO_TELEMETRY = {"RAY_USAGE_STATS_ENABLED": "0", "DO_NOT_TRACK": "true"}
"""Environment of every command and of what it starts. MLflow, the libraries of the Hugging Face hub and Ray (`ray start`) report
their use to their makers unless the environment says that they shall not. The user's own values have priority."""


def build_command() -> TyperGroup:
    """The root command with one lazy sub-command per entry point, in alphabetical order."""
    app = typer.Typer(
        cls=lazy_group(GROUP),
        add_completion=False,
        no_args_is_help=True,
        epilog="Exit codes: 0 = success, 1 = failure, 2 = wrong input.",
    )
    app.callback()(_root)
    return get_group(app)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: the process's own) and return its exit code."""
    for name, value in NO_TELEMETRY.items():  # before a command imports a library
        os.environ.setdefault(name, value)
    set_quiet(False)
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
    except BrokenPipeError:
        # The reader of the output has seen enough, as in `careedit ... | head`. What Python flushes at exit has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (Interrupted, KeyboardInterrupt, typer.Abort) as error:
        return _failed(None, _interrupted(error), code=130)
    except Exception as error:  # noqa: BLE001 - the last resort: the user gets a sentence for every exception
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
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Show results and errors only, no progress or notes.")
    ] = False,
) -> None:
    """Edit images by instruction, with routed LoRA experts on a diffusion transformer."""
    if debug and quiet:
        raise InputError("--debug shows more and --quiet shows less; give one of them.")
    if debug or quiet:
        set_up_logging(debug=debug, quiet=quiet)
        set_quiet(quiet)


def _usage_error(error: typer.TyperException) -> int:
    """Report what is wrong with the command line; an empty message means that help was shown instead."""
    message = error.format_message().rstrip(".")
    if message:
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "careedit"
        _say(f"{message}; see '{command} --help'.")
    return error.exit_code


def _failed(error: BaseException | None, message: str, *, code: int) -> int:
    if error is not None and logging.getLogger("careedit").isEnabledFor(logging.DEBUG):
        traceback.print_exception(error)
    _say(message)
    return code


def _say(message: str) -> None:
    """Write an error, which `--quiet` shows too."""
    sys.stderr.write(f"error: {message}\n")


def _interrupted(error: BaseException) -> str:
    """What Ctrl-C ended, in the words of the innermost `keeping`."""
    kept = getattr(error.__cause__, "__notes__", ())
    return f"Interrupted; {kept[0] if kept else 'no result was written. The same command starts again.'}"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or "no message"
