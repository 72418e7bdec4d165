"""One vocabulary: words that were replaced stand in no code, option, output or document, and no two classes share a name.

Allowed in `configs/renamed.py`, which reads them in older files, and in CHANGELOG.md, docs/decisions and docs/results: history.
`python tests/test_vocabulary.py` prints every place, and the counts by folder.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
HISTORY = ("configs/renamed.py", "store/renamed.py", "tests/fixtures/", "CHANGELOG.md", "docs/decisions/", "docs/results/")
THIS = (
    "tests/test_vocabulary.py",
    "tests/configs/",
    "tests/store/test_older_runs.py",
)  # they name the old words to refuse, or to read, them


class Word(NamedTuple):
    old: str  # a regular expression
    new: str
    where: str = ""  # only in files whose path begins so


# In code, comments, docstrings, messages and documents alike.
WORDS = [
    Word(r"\bcop(?:y|ies) (?:of|in) (?:the |an |one |each )?(?:environment|world|batch)s?\b", "environment(s)"),
    Word(r"\b(?:[NnKk]|\d[\d_,]*|num|few|many|all|more|of|other|two|both|these|those|the) copies\b", "environments"),
    Word(r"\bcopies\b(?! (?:of (?:it|them|themselves|local|metrics|files))|:)", "environments"),
    Word(
        r"\b(?:each|every|one|of a|of one|per|a single|whose|which|finished|first|that|this|another) copy\b(?! of)",
        "environment",
    ),
    Word(r"\bcopy (?:i\b|\d|\{|k\b|n\b|has|is|that|ended|draws|behaves)", "environment i"),
    Word(r"\bcop(?:y's|ies')", "environment's"),
    Word(r"\bsingle-copy\b", "single-environment"),
    Word(r"\bExploring\b|\bExploration_?Rollout\b", "CollectsNatively"),
    Word(r"\bKept\b|\bkept: *Kept\b", "RolloutBuffer"),
    Word(r"\bMemoryActor\b|\bmemory_actor\b", "RecurrentActor"),
    Word(r"\bEager\w*\b|\beager_\w+\b|\beager(?:ly)?\b", "torch learner, torch_*"),
    Word(r"\b[Aa]pprais\w+\b", "bootstrap_value"),
    Word(r"\b[Pp]ractis\w+\b", "fit"),
    Word(r"\bepsilon_share\b", "exploration_fraction"),
    Word(r"\btarget_every\b", "target_update_interval"),
    Word(r"(?<!learning_)\brate_final\b", "learning_rate_final"),
    Word(r"\bgoing_on\b", "continue_"),
    Word(r"\bDreamEnv\b|\bDream\b|\b[Dd]reams?\b|\b[Dd]reamt\b|\b[Dd]reaming\b", "imagined trajectory, WorldModelEnv"),
    Word(
        r"\bAwake\b|\b[Aa]sleep\b|\bbelieve\b(?! that)|\bremembered\(", "WorldModelPolicy, initial_carry, observe, next_carry"
    ),
    Word(r"\b_(?:tell|look|foresee|told)\b", "posterior, observe_step, imagine_step, prior", "core_ml/models/"),
    Word(r"\bCoder\b", "autoencoder module"),
    Word(r"\bContender\w*\b|\bcontender\w*\b", "result"),
    Word(r"\bjudge\b", "compare, evaluate", "experiments/"),
    Word(r"\bBroken\b", "PluginError"),
    Word(r"\bunasked\b", "in_leaderboard"),
    Word(r"\bpeers?\b", "baselines"),
    Word(r"\b[Ff]oreign\b", "external"),
    Word(r"\b[Pp]ortraits?\b", "value_map"),
    Word(r"\b[Ss]pecialis\w+\b", "partial evaluation"),
    Word(r"\binverse[-_]dynamics\b", "icm"),
    Word(r"\b_?(?:far|near)_scores\b|\bwaves\b", "position scores, content scores, sinusoids"),
    Word(r"\blearner\.memory\b|\bdevice\.Memory\b", "parameters, DeviceRolloutBuffer"),
]

# Options of agents, worlds and components that were renamed.
OPTIONS = {
    "epochs": "update_epochs",
    "minibatches": "num_minibatches",
    "capacity": "buffer_size",
    "until": "freeze_after",
    "epsilon_share": "exploration_fraction",
    "target_every": "target_update_interval",
    "rate_final": "learning_rate_final",
}
OPTIONS_OF = {
    "dqn": {"heads": "ensemble_size", "prior": "prior_scale"},
    "dreamer": {"behaviour": "actor_critic", "dreams": "imagined_batch_size"},
}


class Place(NamedTuple):
    path: str
    line: int
    text: str
    new: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text} -> {self.new}"


def files() -> list[Path]:
    """Text files of the repository that people read: code, presets, templates, documents."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    ends = (".py", ".md", ".yaml", ".yml", ".toml", ".j2", ".ipynb", ".cff", "Makefile")
    paths = [path for path in listed.stdout.splitlines() if path.endswith(ends)]
    return [ROOT / path for path in paths if not path.startswith((*HISTORY, *THIS)) and (ROOT / path).is_file()]


def folder_of(path: Path) -> str:
    """The first folder of a path, "." for files at the top."""
    return path.relative_to(ROOT).parts[0] if path.parent != ROOT else "."


def places(path: Path) -> Iterator[Place]:
    name = path.relative_to(ROOT).as_posix()
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        readable = re.sub(r"\]\([^)]*\)|tests/proofs/\w+|results/[\w.*-]+", "", line)  # addresses of links and files may stay
        for word in WORDS:
            for match in re.finditer(word.old, readable) if name.startswith(word.where) else ():
                yield Place(name, number, match.group(), word.new)


def modules() -> dict[str, ast.Module]:
    """Syntax trees of the package's files by path; tests, documents' tools and examples left out."""
    paths = {path.relative_to(ROOT).as_posix(): path for path in files() if path.suffix == ".py"}
    outside = ("tests/", "docs/", "examples/")
    return {name: ast.parse(path.read_text()) for name, path in paths.items() if not name.startswith(outside)}


def double_names() -> dict[str, list[str]]:
    """Names of top-level classes, those of one file's own (`_Net`) left out, that more than one file of the package uses."""
    found = defaultdict(list)
    for path, tree in modules().items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].append(f"{path}:{node.lineno}")
    return {name: where for name, where in found.items() if len(where) > 1}


def fields() -> Iterator[tuple[str, str, str]]:
    """(owner, option, description) of everything that is registered: agents, worlds, components, runs."""
    from gumdrop.agents.registry import agents
    from gumdrop.configs.schema import RunConfig
    from gumdrop.core_ml.component import SLOTS, components
    from gumdrop.envs.registry import worlds

    owners = [(f"agent {name}", cls.Config) for name, cls in agents().items()]
    owners += [(f"world {name}", cls.Config) for name, cls in worlds().items()]
    owners += [(f"{slot} {name}", entry.cls.Config) for slot in SLOTS for name, entry in components(slot).items()]
    owners.append(("run", RunConfig))
    for owner, config in owners:
        for option, field in config.model_fields.items():
            yield owner, option, field.description or ""


# ---- tests ----


@pytest.mark.parametrize("folder", sorted({folder_of(path) for path in files()}))
def test_no_old_word_is_left(folder: str) -> None:
    found = [str(place) for path in files() if folder_of(path) == folder for place in places(path)]
    assert not found, f"{len(found)} old words:\n" + "\n".join(found)


OLD = [
    "in each copy",
    "N copies step",
    "copy 3: obs",
    "a copy's episode",
    "class EagerQ",
    "eager_q",
    "a dream",
    "foreign",
    "unasked",
]
NEW = [
    "a copy of the array",
    "obs.copy()",
    "learning_rate_final",
    "DreamerV3",
    "dreamer",
    "deepcopy",
    "kept on disk",
    "_look(lock)",
]


def test_the_search_finds_what_it_should() -> None:
    def found(text: str) -> list[str]:
        return [word.new for word in WORDS if not word.where and re.search(word.old, text)]

    assert [text for text in OLD if not found(text)] == []
    assert [(text, found(text)) for text in NEW if found(text)] == []


def test_no_option_has_an_old_name() -> None:
    found = []
    for owner, option, _ in fields():
        old = OPTIONS | OPTIONS_OF.get(owner.removeprefix("agent "), {})
        if option in old and not owner.startswith("bonus"):
            found.append(f"{owner}: {option} -> {old[option]}")
    assert not found, "\n".join(found)


def test_every_option_has_a_description() -> None:
    missing = [f"{owner}: {option}" for owner, option, description in fields() if not description]
    assert not missing, f"{len(missing)} options say nothing:\n" + "\n".join(missing)


def test_no_two_classes_share_a_name() -> None:
    shared = double_names()
    assert not shared, "\n".join(f"{name}: {', '.join(where)}" for name, where in sorted(shared.items()))


if __name__ == "__main__":
    everything = [place for path in files() for place in places(path)]
    print("\n".join(map(str, everything)))
    for folder, count in Counter(place.path.split("/")[0] for place in everything).most_common():
        print(f"{count:6} {folder}", file=sys.stderr)
