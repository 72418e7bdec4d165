"""Which errors are the user's to mend (exit status 2) and which are ours (1), and what to print for each."""

from __future__ import annotations

import dis
import json


def explain(error: BaseException) -> tuple[int, list[str]]:
    """Exit status and lines for stderr."""
    if hasattr(error, "format_message"):  # a misused option or an unknown command, from typer
        return 2, _usage(error)
    if isinstance(error, ModuleNotFoundError) and (error.name or "").startswith("gumdrop"):
        return 1, [f"gumdrop: this build has no {error.name} yet"]
    message = str(error).strip()
    if isinstance(error, MemoryError):
        return 2, [f"gumdrop: not enough memory: {message or 'allocation failed'}; take a smaller num_envs"]
    if isinstance(error, OSError) and error.strerror:
        name = f"{error.filename}: " if error.filename is not None else ""
        return 2, [f"gumdrop: {name}{error.strerror[:1].lower()}{error.strerror[1:]}"]
    if _expected(error):
        return 2, [f"gumdrop: {line.strip()}" for line in message.splitlines() if line.strip()] or [
            f"gumdrop: {type(error).__name__}"
        ]
    if isinstance(error, ArithmeticError) and type(error).__module__.startswith("gumdrop."):
        return 1, [f"gumdrop: training failed: {message}"]  # a NaN or infinity, with its source
    first = message.splitlines()[0] if message else ""
    return 1, [f"gumdrop: {type(error).__name__}: {first}", "set GUMDROP_DEBUG=1 for the traceback"]


def _usage(error: BaseException) -> list[str]:
    message = " ".join(error.format_message().split()).replace(": Value error, ", ": ")  # type: ignore[attr-defined]
    context = getattr(error, "ctx", None)
    command = getattr(context, "command_path", "gumdrop")
    return [f"gumdrop: {message[:1].lower()}{message[1:]}".rstrip("."), f"see `{command} --help`"]


def _expected(error: BaseException) -> bool:
    """Messages to the user: a ValueError that a `raise` in this package made, or an error of Gymnasium's.

    A ValueError out of numpy, torch or C code is a bug of ours, whatever its type.
    """
    if any(cls.__module__ == "gymnasium.error" for cls in type(error).__mro__):
        return True
    if isinstance(error, json.JSONDecodeError) or not isinstance(error, ValueError):
        return False
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return False
    frame = trace.tb_frame
    ours = str(frame.f_globals.get("__name__", "")).partition(".")[0] == "gumdrop"
    return ours and frame.f_code.co_code[trace.tb_lasti] == dis.opmap["RAISE_VARARGS"]
