"""From defaults, presets, files, `key=value` and flags to one `RunConfig`, with a line for each mistake.

Precedence, weakest first: defaults < preset < file < key=value < flags. YAML is read by a safe loader that
knows plain data only and reads numbers as everyone expects (1e6, 1_000_000), without the surprises of YAML
1.1: no, 1:30, dates.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pydantic
import yaml

from .renamed import current
from .schema import NAMING, RunConfig
from .suggest import suggest

MAX_BYTES = 1_000_000
MAX_DEPTH = 16
MAX_FAULTS = 3  # lines of one error message

_SCALARS = [  # (tag, pattern, first characters)
    ("tag:yaml.org,2002:bool", r"(?:true|True|TRUE|false|False|FALSE)", "tTfF"),
    ("tag:yaml.org,2002:null", r"(?:~|null|Null|NULL|)", ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:int", r"[-+]?(?:0x[0-9a-fA-F_]+|[0-9][0-9_]*)", "-+0123456789"),
    (
        "tag:yaml.org,2002:float",
        r"[-+]?(?:(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*|[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?|\.?(?:inf|Inf|INF)(?:inity)?)"
        r"|\.?(?:nan|NaN|NAN)",
        "-+0123456789.iInN",
    ),
]


class ConfigError(ValueError):
    """A configuration that cannot be used; the message has a line for each of the first faults."""


class _Loader(yaml.SafeLoader):
    """Plain data only: no tags, aliases, duplicate keys or deep nesting."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        where = f"line {event.start_mark.line + 1}"
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise ConfigError(f"{where}: anchors and aliases (& and *) are not read: write the value out")
        if getattr(event, "tag", None):
            raise ConfigError(f"{where}: tag {event.tag!r:.60} is refused: only plain values are read")
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ConfigError(f"{where}: nested more than {MAX_DEPTH} levels deep")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            where = f"line {key.start_mark.line + 1}"
            if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
                raise ConfigError(f"{where}: key {getattr(key, 'value', 'list or mapping')!r:.60} is not a text")
            if key.value in seen:
                raise ConfigError(f"{where}: key {key.value!r:.60} stands there twice")
            seen.add(key.value)
        return super().construct_mapping(node, deep=True)

    def construct_number(self, node: Any) -> int | float:
        text = node.value.replace("_", "")
        if node.tag.endswith(":int"):
            if len(text) > 400:
                raise ConfigError(f"line {node.start_mark.line + 1}: a number of {len(text)} digits")
            return int(text, 16 if "0x" in text else 10)
        value = float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        if not math.isfinite(value):
            raise ConfigError(f"line {node.start_mark.line + 1}: {node.value:.60} is not a finite number")
        return value


class _Dumper(yaml.SafeDumper):
    """Writes what `_Loader` reads back equal."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}

    def ignore_aliases(self, data: Any) -> bool:
        return True


for _tag, _pattern, _first in _SCALARS:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(_tag, re.compile(f"^(?:{_pattern})$"), list(_first))
for _tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float"):
    _Loader.add_constructor(_tag, _Loader.construct_number)
_Dumper.add_representer(tuple, lambda dumper, data: dumper.represent_list(data))


def parse(text: str, what: str) -> Any:
    """The plain data in YAML `text`. Raises ConfigError that begins with `what`."""
    try:
        return yaml.load(text, _Loader)
    except ConfigError as error:
        raise ConfigError(f"{what}: {error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "not readable"
        raise ConfigError(f"{what}: {where}not YAML: {problem}") from None
    except (RecursionError, ValueError) as error:
        raise ConfigError(f"{what}: not YAML: {str(error).splitlines()[0]:.100}") from None


def dump(config: RunConfig) -> str:
    """`config` in full as YAML; `read_run` gives it back equal."""
    return _yaml(config.model_dump())


def _yaml(data: dict[str, Any]) -> str:
    text: str = yaml.dump(
        data,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=None,
        width=110,
    )
    return text


def read_run(path: Path) -> RunConfig:
    """The resolved configuration in `path`, written by `dump`. Raises ConfigError."""
    return _checked(_current(_read_mapping(path), f"{path}: "), f"{path}: ")


def dump_group(config: RunConfig, seeds: Sequence[int]) -> str:
    """`config` and the seeds it is trained with as YAML; `read_group` gives both back."""
    return dump(config) + _yaml({"seeds": list(seeds)})


def read_group(path: Path) -> tuple[RunConfig, list[int]]:
    """The resolved configuration and the seeds in `path`, written by `dump_group`. Raises ConfigError."""
    data = _read_mapping(path)
    seeds = data.pop("seeds", None)
    sound = isinstance(seeds, list) and seeds and all(type(seed) is int and 0 <= seed < 2**63 for seed in seeds)
    if not sound or len(set(seeds)) < len(seeds):
        raise ConfigError(f"{path}: seeds: should be a list of different whole numbers from 0")
    return _checked(_current(data, f"{path}: "), f"{path}: "), seeds


def presets() -> dict[str, Path]:
    """Preset files by name."""
    folder = Path(__file__).parent / "presets"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def resolve(preset: str | None, file: Path | None, overrides: list[str], flags: dict[str, Any]) -> RunConfig:
    """One configuration from all sources.

    `overrides` are dotted `key=value`; `flags` are named flags, of which None means not given. Where
    a stronger source names another environment or agent, the options for the former one go with it. Raises
    ConfigError.
    """
    layers = []
    if preset is not None:
        known = presets()
        if preset not in known:
            raise ConfigError(f"no preset {preset!r:.80}{suggest(preset, known)}")
        layers.append((_read_mapping(known[preset]), f"preset {preset}: "))
    if file is not None:
        layers.append((_read_mapping(file), f"{file}: "))
    line = _from_overrides(overrides)
    _merge(line, _expanded({key: value for key, value in flags.items() if value is not None}))
    layers.append((line, ""))
    merged: dict[str, Any] = {}
    for layer, where in layers:
        layer = _current(_expanded(layer), where)
        _check_layer(layer, where)
        for part, naming in NAMING.items():
            new = layer.get(part, {}).get(naming)
            if new is not None and merged.get(part, {}).get(naming, new) != new:
                merged[part] = {}  # options for another environment or agent
        _merge(merged, layer)
    for part, naming in NAMING.items():
        if part in merged:
            merged[part] = {naming: RunConfig.model_fields[part].default[naming]} | merged[part]
    return _checked(merged, "")


def _read_mapping(path: Path) -> dict[str, Any]:
    what = str(path)
    try:
        if path.is_file() and path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{what}: larger than {MAX_BYTES:,} bytes, so it is no configuration")
        if path.is_dir():
            raise ConfigError(f"{what}: a folder, not a file")
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        near = suggest(path.name, _siblings(path), list_known=False)
        raise ConfigError(f"{what}: no such file{near}") from None
    except OSError as error:
        raise ConfigError(f"{what}: {error.strerror}") from None
    except ConfigError:
        raise
    except ValueError:  # a null byte in the name
        raise ConfigError(f"{what!r:.80}: not a file name") from None
    if len(raw) > MAX_BYTES:
        raise ConfigError(f"{what}: larger than {MAX_BYTES:,} bytes, so it is no configuration")
    try:
        data = parse(raw.decode("utf-8-sig"), what)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{what}: not UTF-8 text (byte {error.start})") from None
    if data is None:
        raise ConfigError(f"{what}: empty, or nothing but comments: write keys like `steps: 1e6`")
    if not isinstance(data, dict):
        raise ConfigError(f"{what}: holds a {_kind(data)}, not a mapping: write keys like `steps: 1e6`")
    return data


def _siblings(path: Path) -> list[str]:
    try:
        return [p.name for p in path.parent.iterdir()]
    except OSError:
        return []


def parse_value(text: str, what: str) -> Any:
    """A value from the command line: number, true/false, null, "text", [list], {mapping}; else plain text."""
    if text[:1] in tuple("[{\"'!&*|>"):
        return _parse_line(text, what)
    if "\n" in text:
        return text  # an ASCII layout
    tag = yaml.SafeLoader.DEFAULT_SCALAR_TAG
    for candidate, pattern in _Loader.yaml_implicit_resolvers.get(text[:1], []):
        if pattern.match(text):
            tag = candidate
            break
    return text if tag == yaml.SafeLoader.DEFAULT_SCALAR_TAG else _parse_line(text, what)


def _parse_line(text: str, what: str) -> Any:
    try:
        return parse(text, what)
    except ConfigError as error:
        raise ConfigError(str(error).replace("line 1: ", "")) from None


def parse_options(words: Iterable[str], prefix: str = "") -> dict[str, Any]:
    """`size=7 slip=0.1` as a dictionary; `prefix` ("env.") may stand before each key. Raises ConfigError."""
    return _from_overrides([word.removeprefix(prefix) for word in words])


def _from_overrides(words: Iterable[str]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    given: dict[str, str] = {}
    for word in words:
        key, equals, text = word.partition("=")
        key = key.strip()
        parts = key.split(".")
        if not equals:
            raise ConfigError(f"{word!r:.80} is not key=value")
        if not all(re.fullmatch(r"[A-Za-z_][\w-]*", part) for part in parts) or len(parts) > MAX_DEPTH:
            raise ConfigError(f"{word!r:.80}: {key!r:.60} is not a key like env.size")
        if key in given:
            raise ConfigError(f"{key} is given twice: {given[key]!r:.40} and {text!r:.40}")
        given[key] = text
        value = parse_value(text, key)
        for part in reversed(parts):
            value = {part: value}
        _merge(result, _expanded(value))
        outer = next((k for k in given if key.startswith(f"{k}.") and k not in NAMING), None)
        outer = outer or next((k for k in given if k.startswith(f"{key}.") and key not in NAMING), None)
        if outer:
            raise ConfigError(f"{key} and {outer} cannot both be given: one is a group of keys")
    return result


def _current(layer: dict[str, Any], where: str) -> dict[str, Any]:
    try:
        return current(layer, where)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _expanded(layer: dict[str, Any]) -> dict[str, Any]:
    """`env: maze` is short for `env: {id: maze}`."""
    return {key: {NAMING[key]: value} if key in NAMING and isinstance(value, str) else value for key, value in layer.items()}


def _merge(into: dict[str, Any], other: dict[str, Any]) -> None:
    """Put `other` over `into`; mappings are merged, everything else is replaced."""
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = dict(value) if isinstance(value, dict) else value


def _check_layer(layer: dict[str, Any], where: str) -> None:
    """Unknown keys and shapes that cannot be merged, before they meet other layers."""
    faults = []
    for key, value in layer.items():
        if key not in RunConfig.model_fields:
            faults.append(f"{where}no key {key!r:.60}{_suggest_key(key)}")
        elif key in NAMING and not isinstance(value, dict):
            example = f"`{key}: {{{NAMING[key]}: ...}}` or {key}.OPTION=VALUE"
            faults.append(f"{where}{key} is a {_kind(value)}: write {example}")
    _raise(faults)


def _checked(data: dict[str, Any], where: str) -> RunConfig:
    _check_layer(data, where)
    try:
        return RunConfig(**data)
    except pydantic.ValidationError as error:
        _raise([where + _explain(fault) for fault in error.errors()])
        raise


def _explain(fault: Any) -> str:
    key = ".".join(str(part) for part in fault["loc"])
    message = fault["msg"].removeprefix("Value error, ").removeprefix("Input ")
    message = message if message.startswith("it ") else message[:1].lower() + message[1:]
    if fault["type"] == "literal_error":
        near = suggest(str(fault["input"]), ["wandb", "tensorboard"], list_known=False)
        return f"{key}: {message}{near} (got {_shown(fault['input'])})"
    return f"{key}: {message.replace('it should', 'should')} (got {_shown(fault['input'])})"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _raise(faults: list[str]) -> None:
    if not faults:
        return
    if len(faults) > MAX_FAULTS:
        faults = [*faults[: MAX_FAULTS - 1], f"and {len(faults) - MAX_FAULTS + 1} more faults like these"]
    raise ConfigError("\n".join(faults))


@functools.cache
def _suggest_key(key: str) -> str:
    """Near keys, or the place where an option of an environment or agent belongs."""
    near = suggest(key, RunConfig.model_fields, list_known=False, cutoff=0.6)
    return near or f": an option of the environment is env.{key:.40}, one of the agent is agent.{key:.40}"


def _kind(value: object) -> str:
    names = {list: "list", dict: "mapping", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "number")
