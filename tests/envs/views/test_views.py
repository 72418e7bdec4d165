"""The views against other people's checkers, and against Gymnasium's own vector environment as an oracle."""

from __future__ import annotations

import subprocess
import sys
import warnings
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from pettingzoo.test import api_test, parallel_api_test, parallel_seed_test, seed_test

from gumdrop.envs import registry
from gumdrop.envs.declared import declared_worlds
from gumdrop.envs.gym_ids import gym_id
from gumdrop.envs.rng import below
from gumdrop.envs.views.gym_view import GymView
from gumdrop.envs.views.parallel_view import ParallelView, aec
from gumdrop.envs.views.shared import register_all
from gumdrop.envs.views.vector_view import VectorView
from gumdrop.envs.world import World, WorldConfig, rule
from gumdrop.store.arrays import Array

Variant = tuple[str, dict[str, Any]]
MODES = list(AutoresetMode)


class Clock(World):
    """Test-only oracle: episodes of a drawn length 3..5 that the observation shows, cut at 4; step t pays
    10 * length + t."""

    name = "clock"

    class Config(WorldConfig):
        time_limit: int = 4

    class State(NamedTuple):
        episode: Array  # int64 (N,)
        t: Array
        length: Array

    @property
    def observation_space(self) -> gymnasium.spaces.Box:
        return gymnasium.spaces.Box(0, 1_000, (3,), np.float32)

    @property
    def action_space(self) -> gymnasium.spaces.Discrete:
        return gymnasium.spaces.Discrete(2)

    def allocate(self, n: int) -> Any:
        return self.State(np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(n, np.int64))

    @rule
    def reset(s, i, c, rng):  # type: ignore[no-untyped-def]
        s.episode[i] += 1
        s.t[i] = 0
        s.length[i] = 3 + below(rng, i, 3)

    @rule
    def step(s, i, action, c, rng, reward):  # type: ignore[no-untyped-def]
        s.t[i] += 1
        reward[0] = 10 * s.length[i] + s.t[i]
        return s.t[i] >= s.length[i]

    @rule
    def observe(s, i, k, c, out):  # type: ignore[no-untyped-def]
        out[0] = s.episode[i]
        out[1] = s.t[i]
        out[2] = s.length[i]


def clock(**config: Any) -> Clock:
    return Clock(Clock.Config(**config))


@pytest.fixture
def strict() -> Any:
    """Warnings are errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# ---- other people's checkers


def test_gymnasium_check_env(single: Variant, strict: Any) -> None:
    from gymnasium.utils.env_checker import check_env

    env = gymnasium.make(gym_id(single[0]), **single[1]).unwrapped
    if single[1].get("reward") == "gaussian":  # a Gaussian reward is seen and has no bounds: Gymnasium warns of that
        warnings.filterwarnings("ignore", ".*A Box observation space m.*imum value is.*infinity.*")
    check_env(env)


def test_stable_baselines3_check_env(single: Variant, strict: Any) -> None:
    warnings.simplefilter("default")  # what importing torch and its friends warns of is not ours
    from stable_baselines3.common.env_checker import check_env

    warnings.simplefilter("error")
    # boards of 0/1 planes have three dimensions; stable-baselines3 takes them for photographs and says what its
    # CnnPolicy would want of those (0..255, 36x36 pixels at least, a channel order)
    warnings.filterwarnings("ignore", ".*(image|CnnPolicy|channel).*")
    check_env(GymView(single[0], **single[1]))


def test_pettingzoo_parallel_api(variant: Variant, strict: Any) -> None:
    parallel_api_test(ParallelView(variant[0], **variant[1]), num_cycles=300)


def test_pettingzoo_aec_api(variant: Variant, strict: Any) -> None:
    # before a first pull there is nothing to see, and a point stands at the origin: zeros are right there
    warnings.filterwarnings("ignore", "Observation numpy array is all zeros.")
    api_test(aec(variant[0], **variant[1]), num_cycles=300)


def test_pettingzoo_seeds(variant: Variant, strict: Any) -> None:
    parallel_seed_test(lambda: ParallelView(variant[0], **variant[1]), num_cycles=200)
    seed_test(lambda: aec(variant[0], **variant[1]), num_cycles=200)


# ---- registration


def test_every_world_has_its_id() -> None:
    register_all()
    ids = {*registry.worlds(), *registry.presets()}
    assert {gym_id(name) for name in ids} <= set(gymnasium.registry)
    assert set(declared_worlds()) >= {"bandit", "candy", "maze"} and set(declared_worlds()) == ids
    assert gym_id("candy") == "gumdrop/Candy-v0" and gym_id("dark_room") == "gumdrop/DarkRoom-v0"
    spec = gymnasium.spec("gumdrop/Bandit-v0")
    assert spec.max_episode_steps is None and spec.vector_entry_point == "gumdrop.envs.views.vector_view:VectorView"


@pytest.mark.parametrize(
    "code",
    [
        "import gumdrop, gymnasium; make = gymnasium.make('gumdrop/Bandit-v0', arms=3)",
        "import gymnasium, gumdrop; make = gymnasium.make('gumdrop/Bandit-v0', arms=3)",
        "import gymnasium; make = gymnasium.make('gumdrop:gumdrop/Bandit-v0', arms=3)",
        "import gumdrop; from gymnasium.envs.registration import make as m; make = m('gumdrop/Bandit-v0', arms=3)",
    ],
)
def test_make_in_whatever_order_one_imports(code: str) -> None:
    code += "; assert make.action_space.n == 3"
    subprocess.run([sys.executable, "-W", "error::UserWarning", "-c", code], check=True, timeout=60)


def test_importing_the_package_is_cheap() -> None:
    heavy = "{'numba', 'torch', 'gymnasium', 'numpy', 'pydantic'}"
    code = f"import sys, gumdrop, gumdrop.envs; assert not {heavy} & set(sys.modules), {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    code = "import gumdrop, gymnasium, sys; assert 'gumdrop/Candy-v0' in gymnasium.registry and 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_make_vec_and_options_reach_the_world() -> None:
    env = gymnasium.make_vec(
        "gumdrop/Bandit-v0", num_envs=3, vectorization_mode="vector_entry_point", arms=4, autoreset_mode="same_step"
    )
    assert isinstance(env, VectorView) and env.num_envs == 3 and env.single_action_space == gymnasium.spaces.Discrete(4)
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP and env.spec is not None
    assert VectorView("bandit").metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    env.close()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GymView("candy", agents=2), "has 2 agents here and GymView shows one: use ParallelView"),
        (lambda: VectorView("candy", agents=3), "has 3 agents here and VectorView shows one: use ParallelView"),
        (lambda: GymView("cand"), "did you mean candy"),
        (lambda: GymView("bandit", armz=3), "did you mean arms"),
        (lambda: GymView("bandit", render_mode="film"), "GymView knows ansi, rgb_array, human"),
        (lambda: VectorView("bandit", autoreset_mode="later"), "known are NEXT_STEP, SAME_STEP, DISABLED"),
        (lambda: VectorView("bandit", num_envs=0), "at least 1 environment"),
        (lambda: GymView(clock(), time_limit=3), "made already"),
        (lambda: gymnasium.make("gumdrop/Candy-v0", agents=2), "use ParallelView"),
    ],
)
def test_what_a_view_cannot_show_costs_one_line(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


# ---- GymView


def episode(env: GymView, first: Array, actions: list[int]) -> list[Any]:
    seen: list[Any] = [first.tolist()]
    for action in actions:
        obs, reward, terminated, truncated, info = env.step(action)
        assert (type(reward), type(terminated), type(truncated), info) == (float, bool, bool, {})
        seen.append((obs.tolist(), reward, terminated, truncated))
    return seen


def test_seeding_follows_gymnasium() -> None:
    env = GymView("maze")
    starts = [env.reset(seed=4)[0], env.reset()[0], env.reset()[0]]
    again = [GymView.reset(env, seed=4)[0], env.reset()[0], env.reset()[0]]
    assert all((a == b).all() for a, b in zip(starts, again, strict=True))
    fresh = [GymView("maze").reset()[0].tobytes() for _ in range(6)]
    assert len(set(fresh)) > 1  # unseeded: another world each time
    a, b = GymView("maze"), GymView("maze")
    for view in (a, b):
        view.np_random = np.random.default_rng(3)
    assert (a.reset()[0] == b.reset()[0]).all()
    a.reset(seed=9)
    assert a.np_random_seed == 9 and a.np_random.random() == np.random.default_rng(9).random()


def test_a_thousand_steps_from_the_same_seed(single: Variant) -> None:
    a, b = (GymView(single[0], **single[1]) for _ in range(2))
    a.action_space.seed(0)
    (x, _), (y, _) = a.reset(seed=123), b.reset(seed=123)
    assert x.tobytes() == y.tobytes()
    for _ in range(1_000):
        action = a.action_space.sample()
        one, two = a.step(action), b.step(action)
        assert one[0].tobytes() == two[0].tobytes() and one[1:] == two[1:]
        if one[2] or one[3]:
            assert a.reset()[0].tobytes() == b.reset()[0].tobytes()


def test_users_may_keep_and_change_what_they_get() -> None:
    env = GymView(clock())
    first, _ = env.reset(seed=0)
    second, *_ = env.step(0)
    kept = first.copy()
    second[:] = 77
    third, *_ = env.step(0)
    assert (first == kept).all() and third[1] == 2 and (second == 77).all()


def test_a_step_outside_an_episode_is_refused() -> None:
    env = GymView(clock())
    with pytest.raises(ResetNeeded):
        env.step(0)
    env.reset(seed=0)
    for _ in range(5):
        if any(env.step(0)[2:4]):
            break
    with pytest.raises(ResetNeeded, match="reset"):
        env.step(0)
    env.reset()
    env.step(0)


@pytest.mark.parametrize("action", [1.5, "left", [0], np.array([1]), None, 2, -1])
def test_actions_outside_the_space_are_refused(action: Any) -> None:
    env, pair = GymView(clock()), ParallelView(clock())
    env.reset(seed=0)
    pair.reset(seed=0)
    with pytest.raises(ValueError, match="action"):
        env.step(action)
    with pytest.raises(ValueError, match="action"):
        pair.step({"agent_0": action})


def test_actions_of_every_whole_kind_are_taken() -> None:
    env = GymView(clock())
    for action in (1, np.int64(1), np.int32(1), np.array(1), np.uint8(1), True):
        env.reset(seed=0)
        assert env.step(action)[0][1] == 1


def test_render_modes() -> None:
    text, picture = GymView("candy", render_mode="ansi"), GymView("candy", render_mode="rgb_array")
    text.reset(seed=1)
    picture.reset(seed=1)
    assert isinstance(text.render(), str) and text.render().strip()
    frame = picture.render()
    assert frame.dtype == np.uint8 and frame.ndim == 3
    both = VectorView("candy", num_envs=2, render_mode="ansi")
    both.reset(seed=1)
    frames = both.render()
    assert frames is not None and frames[0] == text.render() and len(frames) == 2
    pair = ParallelView("candy", agents=2, render_mode="ansi")
    pair.reset(seed=1)
    assert pair.render().strip()


# ---- VectorView


@pytest.mark.parametrize("mode", MODES, ids=lambda m: m.name)
def test_autoreset_oracle(mode: AutoresetMode) -> None:
    n = 7
    env = VectorView(clock(), num_envs=n, autoreset_mode=mode)
    obs, _ = env.reset(seed=1)
    steps = np.zeros(n, np.int64)  # of the running episode; -1: its last step was the one before
    ended = {3: 0, 4: 0}
    for _ in range(60):
        before = obs
        obs, reward, terminated, truncated, infos = env.step(np.zeros(n, np.int64))
        over = terminated | truncated
        assert ("_episode" in infos) == over.any() and ("final_obs" in infos) == (over.any() and mode is MODES[1])
        for i in range(n):
            number, t, length = before[i].tolist()
            if steps[i] < 0:  # NEXT_STEP: this step did nothing but reset
                assert mode is AutoresetMode.NEXT_STEP and not over[i] and reward[i] == 0
                assert obs[i].tolist()[:2] == [number + 1, 0]
                steps[i] = 0
                continue
            steps[i] += 1
            assert t == steps[i] - 1 and reward[i] == 10 * length + steps[i]
            assert terminated[i] == (steps[i] == length) and truncated[i] == (steps[i] == 4 and length == 5)
            last = [number, t + 1, length]
            if not over[i]:
                assert obs[i].tolist() == last
                continue
            count = min(int(length), 4)
            want = sum(10 * length + k for k in range(1, count + 1))
            assert infos["_episode"][i] and infos["episode"]["_r"][i] and infos["episode"]["_l"][i]
            assert (infos["episode"]["r"][i], infos["episode"]["l"][i]) == (want, count)
            ended[count] += 1
            steps[i] = 0
            if mode is AutoresetMode.SAME_STEP:
                assert infos["_final_obs"][i] and infos["final_obs"][i].tolist() == last
                assert infos["final_info"]["episode"]["r"][i] == want and infos["_final_info"][i]
                assert obs[i].tolist()[:2] == [number + 1, 0]
            else:
                assert obs[i].tolist() == last
                steps[i] = -1 if mode is AutoresetMode.NEXT_STEP else 0
        if over.any() and "final_obs" in infos:
            assert all(infos["final_obs"][i] is None for i in np.flatnonzero(~over))
        if mode is AutoresetMode.DISABLED and over.any():
            with pytest.raises(ResetNeeded, match=f"environment {int(over.argmax())}"):
                env.step(np.zeros(n, np.int64))
            kept = obs[~over]
            obs, _ = env.reset(options={"reset_mask": over})
            assert (obs[~over] == kept).all() and (obs[over, 1] == 0).all()
    assert ended[3] > 20 and ended[4] > 40


@pytest.mark.parametrize("mode", MODES, ids=lambda m: m.name)
def test_the_same_as_gymnasiums_own_vector_environment(single: Variant, mode: AutoresetMode) -> None:
    name, options = single
    options = options | {"time_limit": 9}
    sync = SyncVectorEnv([lambda: GymView(name, **options) for _ in range(4)], autoreset_mode=mode)
    ours = VectorView(name, num_envs=4, autoreset_mode=mode, statistics=False, **options)
    assert ours.observation_space == sync.observation_space and ours.action_space == sync.action_space
    ours.action_space.seed(0)
    (a, _), (b, info) = sync.reset(seed=5), ours.reset(seed=5)
    assert a.tobytes() == b.tobytes() and info == {}
    for step in range(60):
        if step == 30:
            (a, _), (b, _) = sync.reset(seed=[7, None, 9, 10]), ours.reset(seed=[7, None, 9, 10])
            assert a.tobytes() == b.tobytes()
        actions = ours.action_space.sample()
        one, two = sync.step(actions), ours.step(actions)
        assert one[0].dtype == two[0].dtype and one[0].tobytes() == two[0].tobytes()
        for x, y in zip(one[1:4], two[1:4], strict=True):
            assert (x == y).all()
        assert one[4].keys() == two[4].keys()
        for key in one[4]:
            if key == "final_obs":
                for x, y in zip(one[4][key], two[4][key], strict=True):
                    assert (x is None and y is None) or x.tobytes() == y.tobytes()
            elif isinstance(one[4][key], np.ndarray):
                assert (one[4][key] == two[4][key]).all()
        over = one[2] | one[3]
        if mode is AutoresetMode.DISABLED and over.any():
            (a, _) = sync.reset(options={"reset_mask": over.copy()})
            (b, _) = ours.reset(options={"reset_mask": over.copy()})
            assert a.tobytes() == b.tobytes()


def test_gymnasiums_statistics_wrapper_agrees_with_ours() -> None:
    from gymnasium.wrappers.vector import RecordEpisodeStatistics

    wrapped = RecordEpisodeStatistics(VectorView(clock(), num_envs=5, statistics=False))
    ours = VectorView(clock(), num_envs=5)
    wrapped.reset(seed=2)
    ours.reset(seed=2)
    for _ in range(30):
        theirs, mine = wrapped.step(np.zeros(5, np.int64))[4], ours.step(np.zeros(5, np.int64))[4]
        assert ("episode" in theirs) == ("episode" in mine)
        if "episode" in mine:
            assert (theirs["episode"]["r"] == mine["episode"]["r"]).all()
            assert (theirs["episode"]["l"] == mine["episode"]["l"]).all()


def test_vector_reset_and_actions_are_checked() -> None:
    env = VectorView(clock(), num_envs=3)
    with pytest.raises(ResetNeeded):
        env.step(np.zeros(3, np.int64))
    with pytest.raises(ValueError, match="2 seeds for 3 environments"):
        env.reset(seed=[1, 2])
    for mask in (np.zeros(3, np.bool_), np.ones(2, np.bool_), [True, False, False]):
        with pytest.raises(ValueError, match="reset_mask"):
            env.reset(options={"reset_mask": mask})
    env.reset(seed=1)
    with pytest.raises(ValueError, match="shape"):
        env.step(np.zeros((3, 1), np.int64))
    with pytest.raises(ValueError, match="whole numbers"):
        env.step(np.zeros(3))
    with pytest.raises(ValueError, match="environment 2"):
        env.step(np.array([0, 0, 2]))
    unseeded = {VectorView("maze", num_envs=2).reset()[0].tobytes() for _ in range(4)}
    assert len(unseeded) == 4
    rows = VectorView("maze", num_envs=6).reset()[0]
    assert len({row.tobytes() for row in rows}) > 1


# ---- ParallelView


def test_parallel_view_of_one_agent_is_the_gym_view() -> None:
    pair, env = ParallelView("maze"), GymView("maze")
    a, _ = pair.reset(seed=8)
    b, _ = env.reset(seed=8)
    assert (a["agent_0"] == b).all()
    for action in [0, 1, 2, 3] * 5:
        one, two = pair.step({"agent_0": action}), env.step(action)
        assert (one[0]["agent_0"] == two[0]).all()
        assert tuple(part["agent_0"] for part in one[1:]) == two[1:]


def test_parallel_view_ends_for_all_agents_together() -> None:
    env = ParallelView("candy", agents=3, time_limit=4)
    env.reset(seed=0)
    assert env.agents == env.possible_agents == ["agent_0", "agent_1", "agent_2"]
    assert env.action_space("agent_0") is env.action_space("agent_0") is not env.action_space("agent_1")
    with pytest.raises(ValueError, match="no action for agent_1"):
        env.step({"agent_0": 0, "agent_2": 0})
    for k in range(4):
        parts = env.step({agent: 4 for agent in env.agents})
        assert all(set(part) == set(env.possible_agents) for part in parts)
        assert set(parts[3].values()) == {k == 3} and not any(parts[2].values())
    assert env.agents == []
    with pytest.raises(ResetNeeded):
        env.step({})
    env.reset()
    assert len(env.agents) == 3


def test_agents_act_in_turn_through_pettingzoos_converter() -> None:
    env = aec("candy", agents=2, time_limit=3)
    env.reset(seed=3)
    order = []
    for agent in env.agent_iter():
        *_, terminated, truncated, _ = env.last()
        order.append(agent)
        env.step(None if terminated or truncated else 4)
    assert order == ["agent_0", "agent_1"] * 4  # three rounds, and one in which both are told that it is over
