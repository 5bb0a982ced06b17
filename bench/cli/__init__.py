"""The command `bench`: a table of commands, imported when asked for, and the place where endings become exit codes.

0 pass, 1 regression, 2 inconclusive, 3 invalid measurement, 4 usage or configuration, 5 internal, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from keyword import iskeyword
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from bench.cli.output import whole
from bench.cli.signals import interrupted, never_unheard
from bench.errors import BenchError, Exit, ScenarioError, UnknownName

if TYPE_CHECKING:
    from collections.abc import Sequence

# Command → its line in `bench --help`, in the order in which people need them. `bench NAME` is bench.cli.NAME.NAME.
COMMANDS = {
    "check": "Say everything that is wrong with scenario files; start nothing.",
    "plan": "Show every launch of a scenario in its order, minutes and disk; start nothing.",
    "run": "Launch every variant of a scenario, in random blocks, and say what was seen.",
    "suite": "Run the shipped scenarios for a board or a desktop GPU, with one report.",
    "report": "Write a run's page, tables and figures.",
    "compare": "Compare two variants, or two runs, launch by launch.",
    "gate": "Judge a run against its margins; the exit code is the verdict.",
    "baseline": "Keep, list and prune baselines.",
    "aa": "Measure the false-alarm rate: two labels, one variant.",
    "inject": "Slow the stream by a known amount and see whether the gate finds it.",
    "history": "Look for change points over stored sessions.",
    "quality": "Compare answers: perplexity, divergence, and what quantization buys.",
    "serve": "Start one variant with its warm-up and keep it serving.",
    "ready": "Say whether a server's first token is warm, inside what a run measured of it.",
    "deploy": "Write a folder that serves a measured variant; say whether it still is as quick.",
    "fleet": "Run scenarios on many boards, reached through Ansible; say how much boards differ.",
    "chat": "Put a chat page before a server or a variant.",
    "layers": "Say what nginx, a gateway or a page adds between a client and an engine.",
    "tune": "Search engine flags for a faster first token.",
    "engines": "List engines and install their environments.",
    "models": "List, fetch and quantize models.",
    "images": "List and remove the images that engines are restored from.",
    "doctor": "Say what can be measured on this machine, what can't, and how to fix it.",
    "monitor": "Watch served endpoints by canaries: six figures, their limits, alarms.",
    "sensors": "Watch the machine's sensors.",
    "selfcheck": "Measure this client's own error on this machine.",
    "simulate": "Serve scripted answers with known timing.",
    "export": "Write results in other tools' formats.",
    "import": "Read results of other tools.",
    "schema": "Print the JSON Schema of scenario files.",
    "plugins": "List registered engines, warm-ups, workloads, probes and formats.",
}
# The root of the CLI library's own errors, wherever this version of it keeps that.
_REFUSAL: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
RESUMED = ("run", "suite", "aa", "inject", "tune")
# What a shell reports for a process that ended because nobody read its output any more.
BROKEN_PIPE = 141


class Commands(TyperGroup):
    """Knows every command by name and imports its module only when it is called for."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Every command."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """One command, or group of commands; None if there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        home = f"{cmd_name}_" if iskeyword(cmd_name) else cmd_name
        found = getattr(import_module(f"{__name__}.{home}"), home)
        part = typer.Typer(rich_markup_mode=None, add_completion=False, callback=lambda: None)
        if isinstance(found, typer.Typer):
            part.add_typer(found, name=cmd_name)
        else:
            part.command(cmd_name)(found)
        group: Any = typer.main.get_command(part)
        return group.commands.get(cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """As usual, but an unknown name is answered with the known ones."""
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            raise UnknownName("command", args[0], COMMANDS)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The table, without importing what it lists."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


app = typer.Typer(
    cls=Commands,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        from bench import __version__

        typer.echo(f"firsttoken {__version__}")
        raise typer.Exit


@app.callback()
def bench(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """How long until the first token, why, and what makes it shorter.

    Example: bench check scenarios/quick.yaml && bench run scenarios/quick.yaml

    Exit codes: 0 pass, 1 regression, 2 inconclusive, 3 invalid measurement, 4 usage or configuration, 5 internal.
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@never_unheard()
def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    whole()
    try:
        command: Any = typer.main.get_command(app)
        result = command.main(args=arguments, prog_name="bench", standalone_mode=False)
        sys.stdout.flush()
    except SystemExit as ending:
        # The CLI library ends like this when the reader of a pipe has gone; nobody is left to complain to.
        return BROKEN_PIPE if isinstance(ending.__context__, BrokenPipeError) else _code(ending.code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except (KeyboardInterrupt, typer.Abort):
        result = Exit.INTERRUPTED
    except Exception as error:
        if not interrupted() or isinstance(error, (BenchError, _REFUSAL)):
            return _failed(error)
        result = Exit.INTERRUPTED
    if result == Exit.INTERRUPTED:
        print(f"bench: interrupted{_further(sys.argv[1:] if arguments is None else arguments)}", file=sys.stderr)
    return _code(result)


def _further(arguments: Sequence[str]) -> str:
    """How to go on after an interruption, where a command can."""
    name = next(iter(arguments), "")
    return f"\n  → `bench {name} … --resume` goes on from what is finished" if name in RESUMED else ""


def _code(result: object) -> int:
    """A command's result as exit code: whole numbers count, everything else is success."""
    return int(result) if isinstance(result, int) and not isinstance(result, bool) else 0


def _failed(error: Exception) -> int:
    """Say what went wrong in words, and turn it into an exit code."""
    if isinstance(error, ScenarioError):
        print("\n".join(str(problem) for problem in error.problems), file=sys.stderr)
        return error.exit_code
    if isinstance(error, BenchError):
        print(f"bench: {error}", file=sys.stderr)
        return error.exit_code
    # The CLI library's own errors: wrong options and arguments. Its exit code 2 means something else here.
    if isinstance(error, _REFUSAL):
        error.show()
        return Exit.USAGE
    from bench.cli.crash import report

    print(f"bench: {report(error)}", file=sys.stderr)
    return Exit.INTERNAL
