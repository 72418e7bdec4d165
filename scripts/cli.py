"""The command `gumdrop`: one thin file per verb; heavy libraries are imported when a verb runs."""

from __future__ import annotations

import atexit
import gc
import sys
from typing import Annotated, Any

import typer

from . import ablate, agent, bench, compare, doctor, env, eval, leaderboard, play, report, resume, rollout, train

HELP = {"help_option_names": ["-h", "--help"]}
LINES, WIDTH = 3, 400  # of an error message


def _app(help: str) -> typer.Typer:
    return typer.Typer(help=help, add_completion=False, no_args_is_help=False, context_settings=HELP)


app = _app("Train, evaluate and compare agents between two lines: chance, and what is provably best.")


def _add(to: typer.Typer, function: Any, example: str) -> None:
    to.command(epilog=f"Example: {example}", context_settings=HELP)(function)


_add(app, train.train, "gumdrop train candy-ppo env.size=7 agent.gamma=0.98 --seed 1 --seeds 10")
_add(app, resume.resume, "gumdrop resume candy-ppo-0001")
_add(app, eval.eval, "gumdrop eval candy-ppo-0001 --episodes 1000")
_add(app, rollout.rollout, "gumdrop rollout candy-ppo-0001 --out episode.gif")
_add(app, report.report, "gumdrop report candy-ppo-0001")
_add(app, compare.compare, "gumdrop compare candy-ppo-0001 candy-ppo-0002 --out compare.html")
_add(app, leaderboard.leaderboard, "gumdrop leaderboard maze --agents random,ppo --steps 2e5 --seeds 5 ppo.gamma=0.98")
_add(app, ablate.ablate, "gumdrop ablate t-maze-gru --slot belief --also lstm --seeds 5")
_env = _app("List, show, check, solve and play environments.")
_add(_env, env.list, "gumdrop env list")
_add(_env, env.show, "gumdrop env show candy")
_add(_env, env.check, "gumdrop env check candy size=7")
_add(_env, env.solve, "gumdrop env solve maze layout=frozenlake4 slip=0.6666666666666666")
_add(_env, play.play, "gumdrop env play candy slip=0")
app.add_typer(_env, name="env", epilog="Example: gumdrop env list")
_agent = _app("List and show agents.")
_add(_agent, agent.list, "gumdrop agent list")
_add(_agent, agent.show, "gumdrop agent show ppo")
app.add_typer(_agent, name="agent", epilog="Example: gumdrop agent show ppo")
_bench = _app("Measure speed on this machine.")
_add(_bench, bench.env, "gumdrop bench env candy maze --json")
_add(_bench, bench.train, "gumdrop bench train --json")
app.add_typer(_bench, name="bench", epilog="Example: gumdrop bench env --json")
_add(app, doctor.doctor, "gumdrop doctor")


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
    if len(argv) == 1 and argv[0] in {"env", "agent", "bench"}:
        argv = [*argv, "--help"]
    try:
        status = typer.main.get_command(app).main(args=argv, prog_name="gumdrop", standalone_mode=False)
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
