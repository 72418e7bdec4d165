"""The command `gumdrop`: one thin file per verb; a verb's file, and heavy libraries, are imported when it runs.

A new command is a line in `VERBS` and a file with a function of its name.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import sys
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperGroup

HELP = {"help_option_names": ["-h", "--help"]}
LINES, WIDTH = 3, 400  # of an error message


class Verb(NamedTuple):
    """A command: its words, the first sentence of its function's docstring, an example, and the file with that function."""

    words: str
    purpose: str
    example: str
    module: str = ""  # default: named like the last word

    @property
    def name(self) -> str:
        return self.words.rpartition(" ")[2]

    @property
    def function(self) -> Any:
        """The function, imported now."""
        return getattr(importlib.import_module(f".{self.module or self.name}", __package__), self.name)


GROUPS = {
    "env": ("List, show, check, solve and play environments.", "gumdrop env list"),
    "agent": ("List and show agents.", "gumdrop agent show ppo"),
    "bench": ("Measure speed on this machine.", "gumdrop bench env --json"),
}
VERBS = (
    Verb(
        "train", "Train an agent from a preset or from --env and --agent.",
        "gumdrop train candy-ppo env.size=7 agent.gamma=0.98 --seed 1 --seeds 10",
    ),
    Verb(
        "resume", "Go on with a run, or a group of them, from the newest intact checkpoint.", "gumdrop resume candy-ppo-0001"
    ),
    Verb("eval", "Measure a run or an agent on held-out episodes.", "gumdrop eval candy-ppo-0001 --episodes 1000"),
    Verb(
        "rollout", "Show episodes of a run or an agent as text, or draw them to a GIF or MP4 file.",
        "gumdrop rollout candy-ppo-0001 --out episode.gif",
    ),
    Verb("report", "Write report.html into a run folder.", "gumdrop report candy-ppo-0001"),
    Verb(
        "export", "Write a run's policy to a file that other programs can run, and check it there.",
        "gumdrop export candy-ppo-0001 --to onnx",
    ),
    Verb(
        "compare", "Compare runs: what each was, cost and reached.",
        "gumdrop compare candy-ppo-0001 candy-ppo-0002 --out compare.html",
    ),
    Verb(
        "leaderboard", "Train agents in one world with the same steps and seeds, evaluate and rank them.",
        "gumdrop leaderboard maze --agents random,ppo --steps 2e5 --seeds 5 ppo.gamma=0.98",
    ),
    Verb(
        "ablate", "Train an agent with a part, with it untrained and without it, over seeds.",
        "gumdrop ablate t-maze-gru --slot belief --also lstm --seeds 5",
    ),
    Verb("env list", "List all worlds.", "gumdrop env list", "env"),
    Verb(
        "env show", "Show an environment: its options, its spaces and a picture of a first state.",
        "gumdrop env show candy", "env",
    ),
    Verb("env check", "Check that an environment keeps its contract.", "gumdrop env check candy size=7", "env"),
    Verb(
        "env solve", "Solve an environment exactly: what a random and what the best agent gets.",
        "gumdrop env solve maze layout=frozenlake4 slip=0.6666666666666666", "env",
    ),
    Verb("env play", "Play with arrow keys or w a s d.", "gumdrop env play candy slip=0"),
    Verb("agent list", "List all agents.", "gumdrop agent list", "agent"),
    Verb("agent show", "Show an agent's options with their defaults.", "gumdrop agent show ppo", "agent"),
    Verb(
        "bench env", "Measure steps a second of worlds under random actions.",
        "gumdrop bench env candy maze --json", "bench",
    ),
    Verb(
        "bench train", "Measure PPO training in environment steps a second, learning included.",
        "gumdrop bench train --json", "bench",
    ),
    Verb("doctor", "Check versions, threads, GPU, W&B and kernel cache.", "gumdrop doctor"),
)  # fmt: skip


class _Lazy(TyperGroup):
    """A group of commands whose files are imported when one of them is asked for, not to list them."""

    prefix = ""  # of the words of its commands: "env " of the group env

    def list_commands(self, ctx: Any) -> list[str]:
        """The names, in the order of `VERBS`; a group stands where its first command does."""
        rest = [verb.words.removeprefix(self.prefix) for verb in VERBS if verb.words.startswith(self.prefix)]
        return list(dict.fromkeys(words.partition(" ")[0] for words in rest))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if not self.prefix and cmd_name in GROUPS:
            return _group(cmd_name)
        verb = next((verb for verb in VERBS if verb.words == f"{self.prefix}{cmd_name}"), None)
        if verb is None:
            return None
        one = typer.Typer(add_completion=False, rich_markup_mode=None)
        one.command(verb.name, epilog=f"Example: {verb.example}", context_settings=HELP)(verb.function)
        return typer.main.get_command(one)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        purposes = {verb.words: verb.purpose for verb in VERBS} | {name: about for name, (about, _) in GROUPS.items()}
        with formatter.section("Commands"):
            formatter.write_dl([(name, purposes[f"{self.prefix}{name}"]) for name in self.list_commands(ctx)])

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        self.commands = dict.fromkeys(self.list_commands(ctx))  # type: ignore[assignment]  # names that a typing error is near to
        return super().resolve_command(ctx, args)


def _group(name: str) -> Any:
    about, example = GROUPS[name]
    made = typer.Typer(
        name=name, help=about, epilog=f"Example: {example}", cls=type(name, (_Lazy,), {"prefix": f"{name} "}),
        add_completion=False, no_args_is_help=False, context_settings=HELP, rich_markup_mode=None,
    )  # fmt: skip
    made.callback()(lambda: None)
    return typer.main.get_command(made)


# rich_markup_mode=None: help as plain text; importing what draws panels around it took a third of the time
app = typer.Typer(
    help="Train, evaluate and compare agents between two lines: chance, and what is provably best.", cls=_Lazy,
    no_args_is_help=False, context_settings=HELP, rich_markup_mode=None,
)  # fmt: skip


def command() -> Any:
    """The whole command line, as a click group."""
    return typer.main.get_command(app)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(version("gumdrop"))
        raise typer.Exit()


@app.callback(epilog="Example: gumdrop train candy-ppo")
def _root(
    version: Annotated[bool, typer.Option("--version", is_eager=True, callback=_version, help="Print the version.")] = False,
) -> None:
    pass


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit status: 0 done, 1 failed, 2 refused, 130 and 143 interrupted.

    Every error is one to three lines on stderr. GUMDROP_DEBUG=1 shows tracebacks.
    """
    atexit.register(gc.freeze)  # a last search for garbage takes half a second once numba has been at work
    argv = sys.argv[1:] if argv is None else argv
    argv = argv or ["--help"]
    if len(argv) == 1 and argv[0] in GROUPS:
        argv = [*argv, "--help"]
    try:
        status = command().main(args=argv, prog_name="gumdrop", standalone_mode=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except BrokenPipeError:
        return _closed_pipe()
    except SystemExit as stop:
        if isinstance(stop.__context__, BrokenPipeError):  # typer turned it into this
            return _closed_pipe()
        return stop.code if isinstance(stop.code, int) else 1
    except Exception as error:
        return _explain(error)


def _explain(error: Exception) -> int:
    """Say what `error` means, in at most three lines, and return the exit status."""
    import os

    if os.environ.get("GUMDROP_DEBUG"):
        import traceback

        traceback.print_exception(error)
    from . import errors

    status, lines = errors.explain(error)
    for line in lines[:LINES]:
        shown = "".join(c if c.isprintable() else "?" for c in line)
        print(shown if len(shown) <= WIDTH else f"{shown[:250]}...{shown[253 - WIDTH :]}", file=sys.stderr)
    return status


def _closed_pipe() -> int:
    """Whoever read our output went away (`| head`): stay quiet, also when Python flushes at its end."""
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 141  # 128 + SIGPIPE, as other tools


if __name__ == "__main__":
    sys.exit(main())
