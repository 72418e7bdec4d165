"""Conformance checks for any world, ours or a plugin's, and for foreign environments: `gumdrop env check`.

Each check plays random actions and holds one promise of `envs/world.py` against what comes out. A failed
check says in one line which contract was broken and the way out.
"""

from __future__ import annotations

import contextlib
import io
import re
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete

from ...store.arrays import Array
from ..batch import BatchEnv
from ..constants import plain
from ..draw import render
from ..engine.engine import THREAD_FROM, Engine
from ..external.apart import probe
from ..external.batch import ExternalBatch, ReplayMismatch
from ..external.loop import EnvironmentFailed, where_failed
from ..external.make import make_external, own_options
from ..names import is_external
from ..registry import make_world
from ..rng import copy_seeds, fresh_streams
from ..solvers.yardstick import StateIndex
from ..world import Model, World

RAW_STEPS = 60  # that a foreign environment takes by itself
SHORT = 13  # steps: a time limit that lets many episodes end within a check
RESERVED = {  # parameters of the views and of gymnasium.make, which would hide a world's option of that name
    "autoreset_mode", "disable_env_checker", "id", "max_episode_steps", "num_envs", "render_mode",
    "statistics", "threads", "vector_kwargs", "vectorization_mode", "world", "wrappers",
}  # fmt: skip


class Check(NamedTuple):
    """One checked promise; `detail` says what was seen, or what is broken and the way out."""

    name: str
    ok: bool
    detail: str


class Fault(ValueError):
    """A broken promise, in one line."""


class Trace(NamedTuple):
    """What T steps of N copies with A agents gave."""

    obs: Array  # (T + 1, N, A, ...)
    reward: Array  # float32 (T, N, A)
    terminated: Array  # bool (T, N)
    truncated: Array  # bool (T, N)
    final_obs: Array  # (T, N, A, ...), zero where no episode ended
    ended_return: Array  # float64 (T, N, A), zero where no episode ended
    ended_length: Array  # int64 (T, N), zero where no episode ended
    mask: Array  # bool (T + 1, N, A, actions); (T + 1, N, 0) where the environment has no masks


Make = Callable[[int], BatchEnv]  # copies -> environment


def random_actions(env: BatchEnv, steps: int, seed: int = 0) -> Array:
    """Uniform actions (T, N, A, ...) for `env`; normal ones where a Box has no bounds."""
    rng = np.random.default_rng(seed)
    shape, space = (steps, env.num_envs, env.num_agents), env.action_space
    if isinstance(space, Discrete):
        return rng.integers(int(space.n), size=shape)
    if not isinstance(space, Box):
        raise Fault(f"action space is {space}: give a Discrete or a float32 Box")
    noise = rng.normal(size=(*shape, *space.shape))
    bounded = np.isfinite(space.low) & np.isfinite(space.high)
    low, high = np.where(bounded, space.low, 0.0), np.where(bounded, space.high, 0.0)
    uniform = low + (high - low) * rng.random((*shape, *space.shape))
    return np.where(bounded, uniform, noise).astype(np.float32)


def play(env: BatchEnv, actions: Array, seeds: Array | None = None) -> Trace:
    """Step `env` through `actions` (T, N, A, ...), from a reset with `seeds` (N,), or from where it
    stands."""
    obs = env.reset(seeds) if seeds is not None else env.obs
    steps = len(actions)
    mask = env.action_mask()
    t = Trace(
        obs=np.zeros((steps + 1, *obs.shape), obs.dtype),
        mask=np.zeros((steps + 1, env.num_envs, *(mask.shape[1:] if mask is not None else (0,))), np.bool_),
        reward=np.zeros((steps, env.num_envs, env.num_agents), np.float32),
        terminated=np.zeros((steps, env.num_envs), np.bool_),
        truncated=np.zeros((steps, env.num_envs), np.bool_),
        final_obs=np.zeros((steps, *obs.shape), obs.dtype),
        ended_return=np.zeros((steps, env.num_envs, env.num_agents)),
        ended_length=np.zeros((steps, env.num_envs), np.int64),
    )
    t.obs[0], t.mask[0] = obs, _shown(mask)
    for k, action in enumerate(actions):
        mask = env.action_mask()
        out = env.step(action if mask is None or not isinstance(env, ExternalBatch) else nearest_legal(action, mask))
        t.mask[k + 1] = _shown(env.action_mask())
        t.obs[k + 1], t.reward[k], t.terminated[k], t.truncated[k] = (
            out.obs,
            out.reward,
            out.terminated,
            out.truncated,
        )
        ended = out.terminated | out.truncated
        t.final_obs[k, ended] = out.final_obs[ended]
        copies, returns, lengths = env.episodes()
        t.ended_return[k, copies], t.ended_length[k, copies] = returns, lengths
    return t


def _shown(mask: Array | None) -> Array:
    return np.zeros((1, 0), np.bool_) if mask is None else mask


def nearest_legal(action: Array, mask: Array) -> Array:
    """Actions (N, A), each illegal one replaced by the next that `mask` (N, A, actions) allows, from the first again."""
    turns = (action[..., None] + np.arange(mask.shape[-1])) % mask.shape[-1]
    first = np.take_along_axis(mask, turns, -1).argmax(-1)
    legal: Array = np.take_along_axis(turns, first[..., None], -1)[..., 0]
    return legal


def play_plain(world: World, actions: Array, seeds: Array) -> Trace:
    """`play` in plain Python: the same rules, nothing compiled, the engine's bookkeeping written anew."""
    steps, n, agents = actions.shape[:3]
    cls, s, c, rng = type(world), world.allocate(n), plain(world.constants()), fresh_streams(seeds)
    space, limit = world.observation_space, world.config.time_limit
    shape = (n, agents, *(space.shape or ()))
    t = Trace(
        obs=np.zeros((steps + 1, *shape), space.dtype),
        reward=np.zeros((steps, n, agents), np.float32),
        terminated=np.zeros((steps, n), np.bool_),
        truncated=np.zeros((steps, n), np.bool_),
        final_obs=np.zeros((steps, *shape), space.dtype),
        ended_return=np.zeros((steps, n, agents)),
        ended_length=np.zeros((steps, n), np.int64),
        mask=np.zeros((steps + 1, n, *((agents, world.action_space.n) if world.masked else (0,))), np.bool_),  # type: ignore[attr-defined]
    )

    def look(i: int, into: Array, mask: Array | None = None) -> None:
        for k in range(agents):
            cls.observe(s, i, k, c, into[i, k].reshape(-1))
            if world.masked and mask is not None and cls.legal is not None:
                cls.legal(s, i, k, c, mask[i, k])

    with np.errstate(over="ignore"):  # random bits are made of unsigned products that wrap around
        for i in range(n):
            elapsed, total = 0, np.zeros(agents)
            cls.reset(s, i, c, rng)
            look(i, t.obs[0], t.mask[0])
            for k in range(steps):
                terminated = bool(cls.step(s, i, actions[k, i], c, rng, t.reward[k, i]))
                elapsed, total = elapsed + 1, total + t.reward[k, i]
                t.terminated[k, i] = terminated
                t.truncated[k, i] = not terminated and 0 < limit <= elapsed
                if t.terminated[k, i] or t.truncated[k, i]:
                    look(i, t.final_obs[k])
                    t.ended_return[k, i], t.ended_length[k, i] = total, elapsed
                    elapsed, total = 0, np.zeros(agents)
                    cls.reset(s, i, c, rng)
                look(i, t.obs[k + 1], t.mask[k + 1])
    return t


def require_same(a: Trace, b: Trace, what: str, way_out: str) -> None:
    """Raise Fault at the first bit that differs between two traces."""
    for name, x, y in zip(Trace._fields, a, b, strict=True):
        if x.tobytes() != y.tobytes():
            places = np.argwhere(x != y)
            where = f"environment {places[0][1]}, step {places[0][0]}" if len(places) else "a sign of zero or a NaN"
            raise Fault(f"{what}: {name} differs at {where}: {way_out}")


def _way_out(env: BatchEnv, ours: str, theirs: str) -> str:
    """What to mend: in a world's rules, or in a foreign environment."""
    return theirs if isinstance(env, ExternalBatch) else ours


def _part(t: Trace, copies: slice) -> Trace:
    return Trace(*(x[:, copies] for x in t))


def check_spaces(make: Make) -> str:
    env = make(2)
    space, action = env.observation_space, env.action_space
    if not isinstance(space, Box):
        raise Fault(f"observation space is {space}: give the Box of one agent's observation")
    if isinstance(action, Discrete):
        if action.start != 0:
            raise Fault(f"action space starts at {action.start}: actions count from 0")
    elif not isinstance(action, Box) or action.dtype != np.float32:
        raise Fault(f"action space is {action}: give a Discrete or a float32 Box")
    obs = env.reset(0)
    want = (2, env.num_agents, *space.shape)
    if obs.shape != want:
        raise Fault(f"observations have shape {obs.shape}, the space says {want}: (copies, agents, ...)")
    if obs.dtype != space.dtype:
        raise Fault(f"observation at environment 0 is {obs.dtype}, space says {space.dtype}: cast in observe()")
    return f"observation {space.dtype} {space.shape}, action {action}, agents {env.num_agents}"


def check_observations(make: Make) -> str:
    env = make(64)
    t = play(env, random_actions(env, 60), copy_seeds(1, 64))
    space: Any = env.observation_space
    for obs, name in (
        (t.obs, "observation"),
        (t.final_obs[t.terminated | t.truncated][None], "final observation"),
    ):
        wrong = ~((obs >= space.low) & (obs <= space.high))  # a NaN is in no interval
        if wrong.any():
            at = tuple(int(k) for k in np.argwhere(wrong)[0])
            low, high = space.low[at[3:]], space.high[at[3:]]
            place = f"environment {at[1]}, step {at[0]}" if name == "observation" else f"end of episode {at[1]}"
            raise Fault(
                f"{name} at {place}, agent {at[2]} has {obs[at]} at {list(at[3:])}, "
                f"space says {low} to {high}: {_way_out(env, 'correct observe() or the space', 'clip it or correct the space')}"
            )
    return f"{t.obs.shape[0] * 64:,} observations lie in the space"


def check_rewards_and_flags(make: Make) -> str:
    env = make(64)
    t = play(env, random_actions(env, 60), copy_seeds(2, 64))
    out = env.step(random_actions(env, 1)[0])
    for name, array, dtype in (("reward", out.reward, np.float32), ("terminated", out.terminated, np.bool_)):
        if array.dtype != dtype or array.shape != (64, env.num_agents)[: array.ndim]:
            raise Fault(f"{name} is {array.dtype}{array.shape}: core.Step names dtype and shape")
    if not np.isfinite(t.reward).all():
        at = np.argwhere(~np.isfinite(t.reward))[0]
        raise Fault(f"reward at environment {at[1]}, step {at[0]} is {t.reward[tuple(at)]}: rewards are finite")
    if (t.terminated & t.truncated).any():
        copy = np.argwhere(t.terminated & t.truncated)[0][1]
        raise Fault(f"environment {copy} is terminated and truncated at once: terminated wins")
    return f"rewards {t.reward.min():g} to {t.reward.max():g}, no step both terminated and truncated"


def check_statistics(make: Make) -> str:
    env = make(16)
    t = play(env, random_actions(env, 120), copy_seeds(3, 16))
    for i in range(16):
        total, length = np.zeros(env.num_agents), 0
        for k in range(len(t.reward)):
            total, length = total + t.reward[k, i], length + 1
            if t.terminated[k, i] or t.truncated[k, i]:
                if (total != t.ended_return[k, i]).any() or length != t.ended_length[k, i]:
                    seen = f"{t.ended_return[k, i].tolist()} in {t.ended_length[k, i]} steps"
                    raise Fault(f"environment {i}: episode gave {total.tolist()} in {length} steps, episodes() says {seen}")
                total, length = np.zeros(env.num_agents), 0
    return f"returns and lengths of {int((t.terminated | t.truncated).sum())} episodes add up"


def check_seeds(make: Make) -> str:
    a, b = make(16), make(16)
    actions, seeds = random_actions(a, 100), copy_seeds(4, 16)
    first = play(a, actions, seeds)
    ours = "draw random numbers from rng only, keep what changes in State"
    hint = _way_out(a, ours, "draw random numbers from self.np_random, which reset(seed=...) sets, and reset everything else")
    require_same(first, play(b, actions, seeds), "same seeds, another environment", hint)
    require_same(first, play(a, actions, seeds), "same seeds, the same environment again", hint)
    return "equal seeds give equal bits"


def check_alone(make: Make) -> str:
    many, one = make(64), make(1)
    actions, seeds = random_actions(many, 60), copy_seeds(5, 64)
    together = play(many, actions, seeds)
    for i in (0, 17, 63):
        alone = play(one, actions[:, i : i + 1], seeds[i : i + 1])
        ours = "a rule may touch only index i of State, and nothing of c"
        hint = _way_out(many, ours, "keep everything in self, nothing in the class or the module")
        require_same(_part(together, slice(i, i + 1)), alone, f"environment {i} of 64 against the same environment alone", hint)
    return "copies 0, 17 and 63 of 64 play as they do alone"


def check_state(make: Make) -> str:
    a, b = make(8), make(8)
    actions = random_actions(a, 90)
    play(a, actions[:40], copy_seeds(6, 8))
    play(b, actions[:7], copy_seeds(7, 8))
    state = {name: np.array(array) for name, array in a.get_state().items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error", ReplayMismatch)
        try:
            b.set_state(state)
        except ReplayMismatch as mismatch:
            way_out = "let everything follow from reset(seed=...) and the actions"
            raise Fault(f"{str(mismatch).partition(', this')[0]}: {way_out}") from None
    ours = "keep everything that the future depends on in State"
    hint = _way_out(a, ours, "let everything follow from reset(seed=...) and the actions")
    require_same(play(a, actions[40:]), play(b, actions[40:]), "after set_state(get_state())", hint)
    return f"{len(state)} arrays carry on bit by bit in another environment"


def check_masks(make: Make) -> str:
    """Where there are action masks: at least one action is legal, masks belong to the state, legal actions can be taken."""
    env = make(16)
    env.reset(copy_seeds(13, 16))
    if env.action_mask() is None:
        return "it has none: all actions are always legal"
    actions, legal = random_actions(env, 60), 0
    for k, action in enumerate(actions):
        mask = env.action_mask()
        want = (16, env.num_agents, int(env.action_space.n))  # type: ignore[attr-defined]
        if mask is None or mask.dtype != np.bool_ or mask.shape != want:
            what = "gone" if mask is None else f"{mask.dtype}{mask.shape}"
            raise Fault(f"step {k}: the action mask is {what}: it must be bool{want} in every step")
        if not mask.any(-1).all():
            i = int(np.argwhere(~mask.any(-1))[0, 0])
            raise Fault(f"step {k}: no action is legal in environment {i}: leave at least one in legal()")
        if isinstance(env, Engine):
            before = mask.copy()
            env.set_state(env.get_state())
            again = env.action_mask()
            if again is None or not np.array_equal(again, before):
                raise Fault(f"step {k}: legal() says something else after set_state(get_state()): it may read State alone")
        chosen = nearest_legal(action, mask)
        if not np.take_along_axis(mask, chosen[..., None], -1).all():
            raise Fault(f"step {k}: a legal action cannot be chosen from the mask: legal() must write true or false")
        legal += int(mask.sum())
        env.step(chosen)
    share = legal / (len(actions) * 16 * env.num_agents * int(env.action_space.n))  # type: ignore[attr-defined]
    return f"{share:.0%} of the actions are legal, at least one in every state"


def check_illegal_actions(make: Make) -> str:
    env = make(5)
    legal = random_actions(env, 1)[0]
    bad = [("of the wrong shape", legal[:4])]
    if isinstance(env.action_space, Discrete):
        for value in (-1, int(env.action_space.n)):
            action = legal.copy()
            action[3, 0] = value
            bad.append((str(value), action))
    for name, action in bad:
        env.reset(0)
        try:
            env.step(action)
        except ValueError as error:
            if len(action) == 5 and "environment 3" not in str(error):
                raise Fault(f"action {name} of environment 3 is refused without naming the environment: {error}") from None
            continue
        raise Fault(f"an action {name} is accepted: step() raises ValueError for it")
    return ", ".join(name for name, _ in bad) + ": refused"


def check_options(world: World) -> str:
    taken = sorted(RESERVED & set(type(world).Config.model_fields))
    if taken:
        raise Fault(f"option {taken[0]!r} is a parameter of the views or of gymnasium.make: give it another name")
    return f"{len(type(world).Config.model_fields)} options"


def check_time_limit(world: World) -> str:
    env, limit = Engine(world, 16), world.config.time_limit
    steps = min(limit + 1, 2_000) if limit else 200
    t = play(env, random_actions(env, steps), copy_seeds(8, 16))
    elapsed = np.zeros(16, np.int64)
    for k in range(steps):
        elapsed += 1
        want = (elapsed == limit) & ~t.terminated[k] & (limit > 0)
        if (t.truncated[k] != want).any():
            i = int((t.truncated[k] != want).argmax())
            raise Fault(f"environment {i}: truncated is {t.truncated[k, i]} at step {elapsed[i]}, time_limit is {limit}")
        elapsed[t.terminated[k] | t.truncated[k]] = 0
    if limit and not t.truncated.any():
        return f"no random episode lasted {limit} steps, so none was cut"
    return f"{int(t.truncated.sum())} episodes cut at exactly {limit} steps" if limit else "none, and none cut"


def check_final_obs(world: World) -> str:
    auto, manual = Engine(world, 16), Engine(world, 16)
    actions, seeds = random_actions(auto, 100), copy_seeds(9, 16)
    auto.reset(seeds)
    manual.reset(seeds)
    count = 0
    for k, action in enumerate(actions):
        a, m = auto.step(action), manual.step(action, None, False)
        ended = a.terminated | a.truncated
        if ended.any():
            count += int(ended.sum())
            if a.final_obs[ended].tobytes() != m.obs[ended].tobytes():
                raise Fault(f"step {k}: final_obs is not the last observation of the old episode")
            manual.reset_some(ended)
        if a.obs.tobytes() != m.obs.tobytes():
            raise Fault(f"step {k}: resetting later leads elsewhere than in step(): reset() must set all of State")
    return f"right at the end of {count} episodes"


def check_threads(world: World) -> str:
    n = THREAD_FROM + 3
    one, two = Engine(world, n, threads=1), Engine(world, n, threads=2)
    if two.threads < 2:
        return "one core here: not checked"
    actions, seeds = random_actions(one, 30), copy_seeds(10, n)
    hint = "a rule may touch only index i of State, and nothing of c"
    require_same(play(one, actions, seeds), play(two, actions, seeds), "1 thread against 2", hint)
    return f"{n} copies: 1 and 2 threads agree bit by bit"


def check_plain(world: World) -> str:
    env = Engine(world, 3)
    actions, seeds = random_actions(env, 2 * SHORT + 4), copy_seeds(11, 3)
    hint = "mind whole-number types and overflow, which differ between Python and compiled code"
    require_same(play_plain(world, actions, seeds), play(env, actions, seeds), "plain Python against compiled", hint)
    return "the rules give the same bits in plain Python"


def check_scene(world: World) -> str:
    env = Engine(world, 2)
    scene = env.scene(1)
    if scene is not None:
        strange = sorted(set(scene.cells.ravel().tolist()) - render.CELLS) if scene.cells.dtype.kind == "U" else []
        if strange:
            raise Fault(f"scene has cells {strange[0]!r}, which nobody draws: known are {' '.join(sorted(render.CELLS))}")
        if scene.cells.ndim != 2 or scene.cells.dtype.kind != "U":
            raise Fault(f"scene cells are {scene.cells.dtype}{scene.cells.shape}: give characters, (rows, columns)")
        for e in scene.entities:
            if not (0 <= e.row < scene.cells.shape[0] and 0 <= e.column < scene.cells.shape[1]):
                raise Fault(f"scene has a {e.kind} at row {e.row}, column {e.column}, outside {scene.cells.shape}")
    text, picture = render.text(env, 1), render.rgb(env, 1)
    if not text.strip():
        raise Fault("scene renders as empty text: name cells, entities, bars or a caption")
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise Fault(f"picture is {picture.dtype}{picture.shape}: uint8 (H, W, 3) is wanted")
    return f"{len(text.splitlines())} lines of text, picture {picture.shape[1]}x{picture.shape[0]}"


def check_all_written(world: World) -> str:
    """The rules find what is left of somebody else's observation in `out`, and must not let any of it stand."""
    env = Engine(world, 16)
    actions, seen, shown = random_actions(env, 60), [], []
    for rubbish in (0, 1):
        obs, trace, masks = env.reset(copy_seeds(12, 16)), [], []
        for action in actions:
            env._b.obs[...] = rubbish
            env._b.final_obs[...] = rubbish
            env._b.mask[...] = rubbish
            obs = env.step(action).obs
            trace.append(obs.copy())
            masks.append(_shown(env.action_mask()).copy())
        seen.append(np.array(trace))
        shown.append(np.array(masks))
    unwritten = shown[0] != shown[1]
    if unwritten.any():
        raise Fault(f"legal leaves actions {np.argwhere(unwritten)[0][3:]} unwritten: write all of `out` every time")
    wrong = seen[0] != seen[1]
    if wrong.any():
        at = [int(k) for k in np.argwhere(wrong)[0]]
        raise Fault(f"observe leaves {at[3:]} of agent {at[2]} unwritten: write all of `out` every time")
    return "observe writes every number, every time"


def check_model_agrees(world: World) -> str:
    """Where there is an exact model: rules and model are the same world."""
    from . import model_check

    one = Engine(world, 1, seed=7)
    model = world.model(one.state, 0)
    if model is None:
        return "there is none"
    if world.solver == "Bayes":
        return "a model of beliefs: one copy's episode cannot be held against it"
    seen = model_check.run(world, one, model, repeats=100)
    if world.masked != (model.legal is not None):
        raise Fault("legal() and the model disagree whether there are action masks: fill Model.legal where World.masked")
    _require_legal(world, one, model)
    found = model_check.faults(model, seen, alpha=1e-6)
    if found:
        raise Fault(f"rules and model disagree in {found[0]}: correct model() or step()")
    return f"{len(seen.state):,} steps from known states went where the model of {len(model.next_state):,} states says"


def _require_legal(world: World, env: Engine, model: Model) -> None:
    """Raise Fault where `Model.legal` and the rule `legal` differ in a state that random actions come by."""
    if model.legal is None:
        return
    env.reset(np.array([7], np.uint64))
    model = world.model(env.state, 0) or model  # of this episode
    find = StateIndex(model)
    for action in random_actions(env, 200):
        (state,), mask = find(env.state._asdict()), env.action_mask()
        if mask is not None and model.legal is not None and state >= 0 and (mask[0, 0] != model.legal[state]).any():
            raise Fault(f"legal() says {mask[0, 0].tolist()} in state {state}, Model.legal {model.legal[state].tolist()}")
        step = env.step(action, autoreset=False)
        if step.terminated[0] or step.truncated[0]:
            return


def check_raw(id: str, options: dict[str, Any]) -> str:
    """What a foreign environment itself returns, before `ExternalBatch` casts it."""
    env = make_external(id, options)
    single = isinstance(env, gymnasium.Env)
    spaces = {"": env.observation_space} if single else {a: env.observation_space(a) for a in env.possible_agents}
    actions = {"": env.action_space} if single else {a: env.action_space(a) for a in env.possible_agents}
    for number, space in enumerate(actions.values()):
        space.seed(number)
    over, steps = True, 0
    try:
        for steps in range(RAW_STEPS + 1):
            rewards: dict[str, Any] = {}
            if over:
                obs, over = env.reset(seed=steps)[0], False
            elif single:
                obs, rewards[""], terminated, truncated, _ = env.step(actions[""].sample())
                over = terminated or truncated
            else:
                obs, rewards, _, _, _ = env.step({agent: actions[agent].sample() for agent in env.agents})
                over = not env.agents
            for agent, seen in {"": obs}.items() if single else obs.items():
                _require_raw(f"at step {steps}" + (f" of agent {agent}" if agent else ""), spaces[agent], seen)
            for agent, reward in rewards.items():
                if not isinstance(reward, (int, float, np.integer, np.floating)):
                    who = f" of agent {agent}" if agent else ""
                    raise Fault(f"reward at step {steps}{who} is {_kind(reward)}: give one number")
    finally:
        env.close()
    return f"{steps + 1} observations lie in {' and '.join(sorted({str(space) for space in spaces.values()}))}"[:200]


def _kind(value: Any) -> str:
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__


def _require_raw(place: str, space: Any, seen: Any) -> None:
    """Raise Fault where an observation is not in its space, and say in which respect."""
    if space.contains(seen):
        return
    what, way_out = _kind(seen), "cast or clip in the environment"
    if isinstance(space, Box) and isinstance(seen, np.ndarray) and (seen.dtype, seen.shape) == (space.dtype, space.shape):
        at = tuple(int(k) for k in np.argwhere(~((seen >= space.low) & (seen <= space.high)))[0])
        what = f"{seen[at]} at {list(at)}"
    raise Fault(f"observation {place} is {what}, not in {space}: {way_out}"[:400])


def check_by_its_library(id: str, options: dict[str, Any]) -> str:
    """Gymnasium's `check_env` or PettingZoo's `parallel_api_test`: what they assert must hold, their warnings are listed."""
    env = make_external(id, options)
    remarks: list[str] = []
    try:
        with warnings.catch_warnings(record=True) as caught, contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("always")
            if isinstance(env, gymnasium.Env):
                from gymnasium.utils.env_checker import check_env

                name = "gymnasium.utils.env_checker.check_env"
                check_env(env.unwrapped, skip_render_check=True)
            else:
                from pettingzoo.test import parallel_api_test

                name = "pettingzoo.test.parallel_api_test"
                parallel_api_test(env, num_cycles=RAW_STEPS)
        for warning in caught:
            text = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", str(warning.message)).removeprefix("WARN:").split())
            if text not in remarks and not issubclass(warning.category, (DeprecationWarning, ResourceWarning)):
                remarks.append(text)
    except Exception as error:  # an assertion of theirs, or whatever a stranger's environment raises under it
        frame = traceback.extract_tb(error.__traceback__)[-1]
        said = " ".join(str(error).split()) or frame.line
        place = f"{Path(frame.filename).name}:{frame.lineno}"
        raise Fault(f"{type(error).__name__}: {said} ({place}): run {name} on it while mending"[:500]) from None
    finally:
        env.close()
    if not remarks:
        return f"{name} has nothing to say"
    return f"{name} holds, {len(remarks)} remark{'s' * (len(remarks) > 1)}: {'; '.join(remarks)}"[:500]


def _apart(check: Callable[[str, dict[str, Any]], str], id: str, options: dict[str, Any]) -> str:
    """`check`, in a process of its own where worker processes are wanted."""
    _, workers, timeout = own_options(id, options)
    if not workers:
        try:
            return check(id, options)
        except Fault:
            raise
        except Exception as error:  # a stranger's code: whatever it raises is a finding
            raise Fault(where_failed(error)[0]) from None
    from ..external.apart import call_apart

    try:
        return call_apart(check, id, options, 10 * timeout)  # it makes many calls
    except ValueError as error:
        raise Fault(str(error)) from None


def check_foreign(id: str, options: dict[str, Any], check: Callable[[Make], str]) -> str:
    """A check of `BatchEnv` on a foreign environment; what it makes is closed again, worker processes too."""
    made: list[ExternalBatch] = []

    def make(n: int) -> BatchEnv:
        made.append(ExternalBatch(id, options, num_envs=n))
        return made[-1]

    try:
        return check(make)
    finally:
        for env in made:
            with contextlib.suppress(Exception):  # what went wrong has been said
                env.close()


def _checks(id: str, options: dict[str, Any]) -> Iterator[tuple[str, Callable[[], str]]]:
    common = {
        "spaces": check_spaces,
        "observations": check_observations,
        "rewards and flags": check_rewards_and_flags,
        "statistics": check_statistics,
        "seeds": check_seeds,
        "alone": check_alone,
        "state": check_state,
        "masks": check_masks,
        "illegal actions": check_illegal_actions,
    }
    if is_external(id):
        library = probe(id, options)
        yield "raw observation", lambda: _apart(check_raw, id, options)
        for name, check in common.items():
            yield name, lambda check=check: check_foreign(id, options, check)  # type: ignore[misc]
        yield f"{library}'s own check", lambda: _apart(check_by_its_library, id, options)
        return
    world = make_world(id, options)
    short = world
    if not 0 < world.config.time_limit <= SHORT:
        try:
            short = make_world(id, options | {"time_limit": SHORT})
        except ValueError:
            pass  # a world that forbids so short an episode is checked with its own
    for name, check in common.items():
        yield name, lambda check=check: check(lambda n: Engine(short, n))  # type: ignore[misc]
    for name, check_of in (
        ("time limit", check_time_limit),
        ("scene", check_scene),
        ("options", check_options),
        ("model", check_model_agrees),
        ("all written", check_all_written),
    ):
        yield name, lambda check=check_of: check(world)  # type: ignore[misc]
    for name, check_of in (
        ("final_obs", check_final_obs),
        ("threads", check_threads),
        ("plain Python", check_plain),
    ):
        yield name, lambda check=check_of: check(short)  # type: ignore[misc]


def check_world(id: str, options: dict[str, Any] | None = None) -> list[Check]:
    """Check a world or a foreign environment against the contract of `envs/world.py`.

    Raises UnknownName or ValueError if it cannot be made; everything after that becomes a `Check`.
    """
    results = []
    for name, check in _checks(id, dict(options or {})):
        try:
            results.append(Check(name, True, check()))
        except Fault as fault:
            results.append(Check(name, False, str(fault)))
        except EnvironmentFailed as error:
            results.append(Check(name, False, error.line))
        except Exception as error:  # a stranger's rules: whatever they raise is a finding, not our crash
            results.append(Check(name, False, " ".join(f"{type(error).__name__}: {error}".split())[:500]))
    return results
