"""External environments against plain Gymnasium loops, exact resume by replay, and what is refused."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from gumdrop.envs.batch import BatchEnv
from gumdrop.envs.checks.conformance import check_world, play, random_actions, require_same
from gumdrop.envs.external.batch import ExternalBatch, ReplayMismatch
from gumdrop.envs.external.loop import EnvironmentFailed
from gumdrop.envs.make import make
from gumdrop.envs.names import UnknownName
from gumdrop.envs.rng import copy_seeds
from gumdrop.store.arrays import Array

Box, Discrete = gymnasium.spaces.Box, gymnasium.spaces.Discrete


class Probe(gymnasium.Env[Any, Any]):
    """Shows what reaches an environment: observation = [steps, last action...]; `spaces` chooses the
    kinds."""

    metadata = {"render_modes": ["rgb_array"]}
    count = 0  # resets in this process: what a replay cannot repeat

    def __init__(
        self, action: Any = None, observation: Any = None, end: int = 5, both: bool = False, luck: bool = False,
        render_mode: str | None = None,
    ) -> None:  # fmt: skip
        self.action_space = action or Discrete(3)
        self.kind = observation
        self.observation_space = observation or Box(-np.inf, np.inf, (2,), np.float64)
        self.end, self.both, self.luck, self.render_mode = end, both, luck, render_mode
        self.t, self.last = 0, 0.0

    def look(self) -> Any:
        if isinstance(self.kind, Discrete):
            return int(self.kind.start) + self.t
        if isinstance(self.kind, gymnasium.spaces.Dict):
            return {"a": np.array([self.t, -self.t], np.float64), "b": self.t % 3}
        return np.array([self.t + (Probe.count if self.luck else 0), self.last])

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        Probe.count += 1
        self.t, self.last = 0, 0.0
        return self.look(), {}

    def step(self, action: Any) -> Any:
        self.t, self.last = self.t + 1, float(np.ravel(action)[0])
        assert self.action_space.contains(action), action
        over = self.t == self.end
        return self.look(), 0.1 * self.t, over, over and self.both, {}

    def render(self) -> Any:
        return np.full((2, 3, 3), self.t, np.uint8)


class NoRenderer(Probe):
    def render(self) -> Any:
        raise gymnasium.error.DependencyNotInstalled("pygame is not installed")


@pytest.fixture(autouse=True, scope="module")
def _ids() -> Any:
    gymnasium.register("tests/Probe-v0", Probe)
    gymnasium.register("tests/NoRenderer-v0", NoRenderer)
    yield
    for name in ("Probe", "NoRenderer"):
        del gymnasium.registry[f"tests/{name}-v0"]


@pytest.fixture(autouse=True)
def _strange(monkeypatch: pytest.MonkeyPatch) -> None:
    """`strange.py` beside this file can be imported."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def probe(n: int = 2, **options: Any) -> ExternalBatch:
    return ExternalBatch("tests/Probe-v0", options, num_envs=n)


def splitmix(x: int) -> int:
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
    return x ^ (x >> 31)


def episode_seed(copy_seed: int, episode: int) -> int:
    return splitmix((copy_seed + (episode + 1) * 0x9E3779B97F4A7C15) % 2**64) >> 33


@pytest.mark.parametrize(
    ("id", "options"),
    [("CartPole-v1", {}), ("CartPole-v1", {"max_episode_steps": 15}), ("Pendulum-v1", {"max_episode_steps": 30}),
     ("MountainCarContinuous-v0", {"max_episode_steps": 40})],
)  # fmt: skip
def test_the_same_as_plain_gymnasium_loops(id: str, options: dict[str, Any]) -> None:
    batch = ExternalBatch(id, options, num_envs=8, seed=3)
    actions = random_actions(batch, 150)
    seeds = copy_seeds(3, 8)
    t = play(batch, actions)
    for i in range(8):
        env = gymnasium.make(id, **options)
        episode, total, length = 0, 0.0, 0
        obs, _ = env.reset(seed=episode_seed(int(seeds[i]), 0))
        assert (t.obs[0, i, 0] == obs).all()
        for k in range(150):
            action = actions[k, i, 0]
            obs, reward, terminated, truncated, _ = env.step(action)
            total, length = total + float(np.float32(reward)), length + 1
            assert t.reward[k, i, 0] == np.float32(reward)
            assert t.terminated[k, i] == terminated and t.truncated[k, i] == (truncated and not terminated)
            if terminated or truncated:
                assert (t.final_obs[k, i, 0] == obs.astype(np.float32)).all()
                assert (t.ended_return[k, i, 0], t.ended_length[k, i]) == (total, length)
                episode, total, length = episode + 1, 0.0, 0
                obs, _ = env.reset(seed=episode_seed(int(seeds[i]), episode))
            assert (t.obs[k + 1, i, 0] == obs.astype(np.float32)).all()
        assert episode >= 3
    assert t.truncated.any() == bool(options)


@pytest.mark.parametrize(
    ("id", "options"), [("CartPole-v1", {}), ("FrozenLake-v1", {}), ("Pendulum-v1", {"max_episode_steps": 70})]
)
def test_replay_resumes_bit_by_bit(id: str, options: dict[str, Any]) -> None:
    a, b = (ExternalBatch(id, options, num_envs=4, seed=seed) for seed in (1, 2))
    actions = random_actions(a, 260)
    for start in range(0, 200, 67):  # several moments, the log grown beyond its first length among them
        play(a, actions[start : start + 67])
        state = a.get_state()
        assert all(isinstance(v, np.ndarray) and v.dtype != object for v in state.values())
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            b.set_state(state)
        assert (b.obs == a.obs).all()
        after = play(b, actions[-60:])
        b.set_state(state)
        require_same(after, play(b, actions[-60:]), "resumed twice", "")
        c = ExternalBatch(id, options, num_envs=4)
        c.set_state(state)
        require_same(after, play(c, actions[-60:]), "resumed elsewhere", "")
    require_same(after, play(a, actions[-60:]), "never stopped", "")


def test_an_environment_that_is_not_deterministic_is_named() -> None:
    a = probe(luck=True)
    play(a, random_actions(a, 3))
    with pytest.warns(ReplayMismatch, match="not deterministic: 2 of 2 environments resume elsewhere"):
        a.set_state(a.get_state())


def test_a_replay_that_ends_early_goes_on_with_the_next_episode() -> None:
    long, short = probe(end=50), probe(end=4)
    actions = random_actions(long, 6)
    play(long, actions)
    with pytest.warns(ReplayMismatch):
        short.set_state(long.get_state())
    t = play(short, actions[:4])
    assert (t.terminated == [[False], [False], [False], [True]]).all() and (t.ended_length[3] == 4).all()


@pytest.mark.parametrize("workers", [0, 2])
def test_an_episode_that_has_ended_is_put_back_as_it_ended(workers: int) -> None:
    """Evaluation leaves finished environments as they are: a replay ends there too, which is no difference."""
    a = ExternalBatch("CartPole-v1", num_envs=3, seed=2, workers=workers)
    b = ExternalBatch("CartPole-v1", num_envs=3, seed=3, workers=workers)
    for _ in range(60):
        step = a.step(np.ones((3, 1), np.int64), autoreset=False)
        if step.terminated.any():
            break
    state = a.get_state()
    assert state["over"].any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        b.set_state(state)
    again = b.get_state()
    for name, array in state.items():
        np.testing.assert_array_equal(again[name], array, err_msg=name)
    np.testing.assert_array_equal(b.reset(), a.reset())
    for env in (a, b):
        env.close()


def test_states_that_do_not_fit_are_refused() -> None:
    a = probe()
    state = a.get_state()
    with pytest.raises(ValueError, match="other arrays"):
        a.set_state({k: v for k, v in state.items() if k != "episode"})
    with pytest.raises(ValueError, match="holds"):
        probe(n=3).set_state(state)
    with pytest.raises(ValueError, match="does not fit"):
        a.set_state(state | {"elapsed": np.array([0, 9])})


def test_reset_goes_on_with_the_seed_or_begins_anew() -> None:
    env = ExternalBatch("CartPole-v1", num_envs=3, seed=5)
    first = env.obs.copy()
    second = env.reset().copy()
    assert (first != second).any(axis=(1, 2)).all()
    assert (env.reset(5) == first).all() and (env.reset() == second).all()
    assert (env.reset(copy_seeds(5, 3)) == first).all()
    assert len({row.tobytes() for row in first}) == 3
    with pytest.raises(ValueError, match="seed has shape"):
        env.reset(copy_seeds(5, 2))


def test_spaces_and_protocol() -> None:
    env = make("CartPole-v1", {}, num_envs=2)
    assert isinstance(env, BatchEnv) and env.num_agents == 1 and env.obs.shape == (2, 1, 4)
    assert env.scene(0) is None and env.yardstick() is None and env.id == "CartPole-v1"
    out = env.step(np.zeros((2, 1), np.int64))
    assert out.final_mask is None and [x.dtype for x in out[:-1]] == [np.float32, np.float32, np.bool_, np.bool_, np.float32]
    assert ExternalBatch("CartPole-v1").time_limit == 500 and probe().time_limit == 0
    assert probe().observation_space.dtype == np.float32  # Probe's own is float64


def test_without_autoreset_a_finished_copy_stays_as_it_ended() -> None:
    env, auto = probe(), probe()
    for action in random_actions(env, 5):
        out, other = env.step(action, autoreset=False), auto.step(action)
    assert out.terminated.all() and (out.obs == other.final_obs).all() and (other.obs[:, 0, 0] == 0).all()
    assert env.elapsed.tolist() == [5, 5] and env.episodes().length.tolist() == [5, 5]
    assert (env.get_state()["running_return"] == env.episodes().return_).all()
    assert env.reset()[:, 0, 0].tolist() == [0, 0]


def test_discrete_observations_are_one_hot() -> None:
    env = probe(observation=Discrete(7, start=-2))
    t = play(env, random_actions(env, 7))
    assert env.observation_space == Box(0, 1, (7,), np.float32)
    assert t.obs[:, 0, 0].argmax(axis=1).tolist() == [0, 1, 2, 3, 4, 0, 1, 2] and (t.obs.sum(axis=-1) == 1).all()
    assert t.final_obs[4, 0, 0].argmax() == 5


def test_dict_observations_are_flattened() -> None:
    env = probe(observation=gymnasium.spaces.Dict(a=Box(-9, 9, (2,), np.float64), b=Discrete(3)))
    t = play(env, random_actions(env, 2))
    assert t.obs.dtype == np.float32 and t.obs[2, 1, 0].tolist() == [2, -2, 0, 0, 1]


def test_actions_are_shifted_by_start_and_clipped_into_the_box() -> None:
    env = probe(action=Discrete(3, start=5))
    assert env.action_space == Discrete(3)
    assert env.step(np.array([[0], [2]])).obs[:, 0, 1].tolist() == [5, 7]
    box = probe(action=Box(np.array([-1.0, 0.0]), np.array([1.0, 0.5]), dtype=np.float64))
    assert box.action_space.dtype == np.float32
    assert box.step(np.array([[[-3, 9]], [[0.25, 0]]])).obs[:, 0, 1].tolist() == [-1, 0.25]
    state = box.get_state()
    assert state["actions"].tolist() == [[[-3, 9]], [[0.25, 0]]]
    other = probe(action=box._theirs)
    other.set_state(state)
    assert other.obs[:, 0, 1].tolist() == [-1, 0.25]


def test_both_flags_at_once_mean_terminated() -> None:
    env = probe(both=True)
    t = play(env, random_actions(env, 12))
    assert t.terminated[4].all() and t.terminated[9].all() and not t.truncated.any()
    assert t.ended_return[4, 0, 0] == pytest.approx(1.5) and t.ended_length[9].tolist() == [5, 5]


@pytest.mark.parametrize(
    ("id", "options", "error", "message"),
    [
        ("CartPol-v1", {}, UnknownName, "'CartPol-v1': did you mean CartPole-v1"),
        ("CartPole-v77", {}, UnknownName, "did you mean CartPole-v1"),
        ("Zzzzzzzzz-v0", {}, UnknownName, "module:Id"),
        ("no_such_module:X-v0", {}, ValueError, "cannot import no_such_module"),
        ("strange:Nothing-v0", {}, UnknownName, "no environment 'Nothing-v0': did you mean|parallel_env"),
        ("strange:nothing_at_all", {}, UnknownName, "did you mean strange:parallel_env"),
        ("strange:number", {}, ValueError, "gives a int: a gymnasium.Env or a ParallelEnv is wanted"),
        ("strange:Turns", {}, ValueError, r"takes turns \(AEC\): name its parallel_env"),
        ("strange:Nobody", {}, ValueError, "has no possible_agents"),
        ("strange:Together", {"sizes": (3, 2, 3)}, ValueError, "observation spaces of ann and bob differ"),
        ("strange:Together", {"choices": (4, 4, 5)}, ValueError, r"action spaces of ann and cyd differ, Discrete\(4\) and"),
        ("strange:Together", {"ends": 3}, ValueError, "cannot be made: TypeError"),
        ("strange:Together", {"render_mode": "human"}, ValueError, "leave render_mode out"),
        ("CartPole-v1", {"workers": "two"}, ValueError, "workers is 'two'"),
        ("CartPole-v1", {"gravity": 3}, ValueError, "unexpected keyword argument 'gravity'"),
        ("CartPole-v1", {"render_mode": "human"}, ValueError, "leave render_mode out"),
        ("tests/Probe-v0", {"action": gymnasium.spaces.MultiDiscrete([2, 3])}, ValueError, "not supported"),
        ("tests/Probe-v0", {"action": gymnasium.spaces.MultiBinary(3)}, ValueError, "not supported"),
        ("tests/Probe-v0", {"action": Box(0, 9, (2,), np.int64)}, ValueError, "not supported"),
        ("tests/Probe-v0", {"observation": gymnasium.spaces.Sequence(Discrete(2))}, ValueError, "fixed size"),
    ],
)  # fmt: skip
def test_what_cannot_be_made_costs_one_line(id: str, options: dict[str, Any], error: Any, message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        make(id, options)
    assert "\n" not in str(caught.value) and len(str(caught.value)) <= 300


def test_illegal_actions_name_the_copy() -> None:
    env = probe(n=4)
    for bad in (-1, 3):
        with pytest.raises(ValueError, match=rf"action \[{bad}\] of environment 2 is outside Discrete"):
            env.step(np.array([[0], [1], [bad], [0]]))
    assert (env.elapsed == 0).all()
    with pytest.raises(ValueError, match="wants"):
        env.step(np.zeros(4, np.int64))


def test_pictures_come_from_a_second_environment_at_the_same_state() -> None:
    env = probe(n=2)
    trained = env._loop._envs[0].env
    actions = random_actions(env, 8)
    for k in range(8):
        env.step(actions[k])
        for i in (0,) if k < 4 else (0, 1):  # following one environment, then jumping between two
            picture: Array | None = env.rgb(i)
            assert picture is not None and picture.shape == (2, 3, 3) and (picture == (k + 1) % 5).all()
    assert trained.render_mode is None  # the training environments never draw
    assert ExternalBatch("tests/NoRenderer-v0").rgb(0) is None
    env.close()


def zoo(n: int = 2, **options: Any) -> ExternalBatch:
    return ExternalBatch("strange:parallel_env", options, num_envs=n)


def test_several_agents_in_the_order_of_possible_agents() -> None:
    env = zoo(start=10)
    assert isinstance(env, BatchEnv) and env.num_agents == 3 and env.obs.shape == (2, 3, 3)
    assert env.action_space == Discrete(4) and env.observation_space == Box(-100, 100, (3,), np.float32)
    assert env.obs[:, :, :2].tolist() == [[[0, -1]] * 3] * 2 and (env.obs[:, :1, 2] == env.obs[:, :, 2]).all()
    out = env.step(np.array([[0, 1, 2], [3, 0, 3]]))
    assert out.reward.tolist() == [[11, 12, 13], [14, 11, 14]]
    assert out.obs[:, :, 1].tolist() == [[10, 11, 12], [13, 10, 13]] and not (out.terminated | out.truncated).any()
    given = env._loop._envs[1].env.given
    assert given == [{"ann": 13, "bob": 10, "cyd": 13}]
    with pytest.raises(ValueError, match=r"action \[0, 4, 0\] of environment 1 is outside"):
        env.step(np.array([[0, 0, 0], [0, 4, 0]]))
    with pytest.raises(ValueError, match=r"wants \(2, 3\)"):
        env.step(np.zeros((2, 1), np.int64))


def test_agents_that_leave_are_padded_until_nobody_is_left() -> None:
    """ann leaves after 2 steps, bob after 3, cyd after 4: by hand."""
    env = zoo(n=1, ends=(2, 3, 4))
    t = play(env, np.full((5, 1, 3), 2))
    assert t.reward[:, 0].tolist() == [[3, 3, 3], [3, 3, 3], [0, 3, 3], [0, 0, 3], [3, 3, 3]]
    assert t.obs[1:4, 0, :, 0].tolist() == [[1, 1, 1], [2, 2, 2], [2, 3, 3]]  # ann's and bob's last look
    assert t.final_obs[3, 0, :, 0].tolist() == [2, 3, 4] and t.obs[4, 0, :, 0].tolist() == [0, 0, 0]
    assert t.terminated[:, 0].tolist() == [False, False, False, True, False] and not t.truncated.any()
    assert t.ended_return[3, 0].tolist() == [6, 9, 12] and t.ended_length[3, 0] == 4
    # what those who left are told to do reaches nobody
    assert [sorted(given) for given in env._loop._envs[0].env.given[2:4]] == [["bob", "cyd"], ["cyd"]]


@pytest.mark.parametrize(
    ("ends", "cut", "truncated"),
    [((3, 3, 3), "ann+bob+cyd", True), ((3, 3, 3), "cyd", False), ((2, 3, 3), "bob+cyd", True), ((2, 3, 3), "ann", False)],
)
def test_an_episode_is_truncated_where_all_who_were_left_were_cut(ends: Any, cut: str, truncated: bool) -> None:
    t = play(zoo(n=1, ends=ends, cut=cut), np.zeros((3, 1, 3), np.int64))
    assert (t.truncated[2, 0], t.terminated[2, 0]) == (truncated, not truncated)
    assert not t.terminated[:2].any() and not t.truncated[:2].any()


def test_several_agents_resume_bit_by_bit_and_are_drawn() -> None:
    a, b = zoo(n=3), ExternalBatch("strange:Together", num_envs=3, seed=8)
    actions = random_actions(a, 40)
    play(a, actions[:19])  # in the middle of an episode, ann has left
    assert a.elapsed.tolist() == [3, 3, 3]
    state = a.get_state()
    assert state["actions"].shape == (3, 3, 3) and state["running_return"].shape == (3, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        b.set_state(state)
    require_same(play(a, actions[19:]), play(b, actions[19:]), "resumed", "")
    picture = a.rgb(2)
    assert picture is not None and (picture == a.elapsed[2]).all()
    c = zoo(n=3, luck=True)
    play(c, actions[:3])
    with pytest.warns(ReplayMismatch, match="not deterministic: 3 of 3"):
        c.set_state(c.get_state())


def test_a_mismatch_is_one_line_for_people() -> None:
    a = probe(luck=True)
    play(a, random_actions(a, 3))
    with pytest.warns(ReplayMismatch) as caught:
        a.set_state(a.get_state())
    w = caught[0]
    shown = warnings.formatwarning(w.message, w.category, w.filename, w.lineno)  # as Python prints it
    assert shown.count("\n") == 1 and "environment tests/Probe-v0 is not deterministic: 2 of 2 environments" in shown


def test_a_function_may_give_a_gymnasium_environment() -> None:
    assert (ExternalBatch("strange:fine", num_envs=2).obs == ExternalBatch("strange:Fine-v0", num_envs=2).obs).all()


def test_pettingzoos_own_environments() -> None:
    """Rock, paper, scissors by the rules: paper (1) beats rock (0)."""
    pytest.importorskip("pygame", reason="pettingzoo.classic.rps_v2 imports pygame")
    env = make("pettingzoo.classic.rps_v2:parallel_env", {"max_cycles": 4}, num_envs=2)
    assert env.num_agents == 2 and env.observation_space.shape == (4,)
    assert env.step(np.array([[1, 0], [2, 2]])).reward.tolist() == [[1, -1], [0, 0]]


def test_minigrid() -> None:
    pytest.importorskip("minigrid", reason="minigrid is not installed")
    env = make("minigrid:MiniGrid-Empty-8x8-v0", num_envs=2)
    assert env.observation_space.shape == (4 + 7 * 7 * 3,)  # direction and image; the mission is text without a fixed size
    for move in (2, 2, 2, 2, 2, 1, 2, 2, 2, 2, 2):  # from corner to corner: a turn to the right after five steps
        assert not env.episodes().env.size
        out = env.step(np.array([[move], [6]]))
    assert out.terminated.tolist() == [True, False] and out.reward[0, 0] == np.float32(1 - 0.9 * 11 / 256)


BROKEN = [
    ("Float64-v0", {}, "raw observation", r"at step 0 is float64 \(2,\), not in Box"),
    ("WrongShape-v0", {}, "raw observation", r"at step 0 is float32 \(1,\), not in Box"),
    ("Outside-v0", {}, "observations", r"has 21.0 at \[1\], space says 0.0 to 20.0: clip it or correct the space"),
    ("Outside-v0", {}, "raw observation", r"is 21.0 at \[1\], not in Box"),
    ("NotANumber-v0", {}, "rewards and flags", r"reward at environment \d+, step 2 is nan"),
    ("RewardArray-v0", {}, "raw observation", r"reward at step 1 is float64 \(2,\): give one number"),
    ("Luck-v0", {}, "seeds", "reward differs at environment .*draw random numbers from self.np_random"),
    ("Luck-v0", {}, "state", "not deterministic: .* let everything follow from reset"),
    ("Raises-v0", {}, "observations", r"environment \d+ failed in step 2 of episode \d: KeyError: .no.ndoor. \(strange.py"),
    ("Raises-v0", {}, "raw observation", "KeyError"),
    ("ZooRaises", {}, "pettingzoo's own check", "RuntimeError: the zoo is closed .*: run pettingzoo.test.parallel_api_test"),
    ("ZooRaises", {}, "seeds", "environment 0 failed in step 1 of episode 0: RuntimeError: the zoo is closed"),
    ("ZooOutside", {}, "raw observation", r"at step 3 of agent (bob|cyd) is 1003.0 at \[0\]"),
    ("Together", {"luck": True}, "seeds", "obs differs"),
]


@pytest.mark.parametrize(("id", "options", "name", "message"), BROKEN, ids=[f"{b[0]}-{b[2]}" for b in BROKEN])
def test_broken_environments_fail_a_check_by_name(id: str, options: dict[str, Any], name: str, message: str) -> None:
    rows = {row.name: row for row in check_world(f"strange:{id}", options)}
    assert len(rows) == 11 and not rows[name].ok and re.search(message, rows[name].detail), rows[name]
    assert not any("\n" in row.detail for row in rows.values())


@pytest.mark.parametrize("id", ["strange:Fine-v0", "strange:fine", "strange:Together"])
def test_environments_that_keep_their_promises_pass(id: str) -> None:
    rows = check_world(id)
    assert len(rows) == 11 and not [row for row in rows if not row.ok]
    assert rows[-1].name == ("pettingzoo's own check" if "Together" in id else "gymnasium's own check")


def test_a_failing_copy_is_named_without_workers() -> None:
    env = ExternalBatch("strange:ZooRaises", num_envs=2)
    with pytest.raises(EnvironmentFailed, match="environment 0 failed in step 1 of episode 0") as caught:
        env.step(np.zeros((2, 3), np.int64))
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_checks_survive_what_ends_a_process_where_workers_are_wanted() -> None:
    rows = {row.name: row for row in check_world("strange:Exits-v0", {"workers": 1})}
    assert rows["spaces"].ok and not rows["observations"].ok
    assert "ended the process it was in: exit status 7" in rows["raw observation"].detail
    assert re.search(r"environment \d+ ended its process in step 2 of episode \d: exit status 7", rows["observations"].detail)
