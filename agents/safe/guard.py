"""The detector slot: a detector that watches running episodes, and learns from rollouts what is usual."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import gymnasium
import numpy as np

from ...core_ml.component import DetectorPart
from ...store.arrays import Array
from ..protocol import Rollout, Spaces
from ..slots.spec import observation_of, resolve

if TYPE_CHECKING:
    from ...core_ml.detectors.protocol import Detector, ObservedSteps

EvidenceName = Literal["cusum", "mean", "max"]
TOLERANCE = 0.01  # of evidence, whose unit is a deviation of step scores: a network's last bits depend on the batch


def make_detector(name: str, options: dict[str, Any], spaces: Spaces, alpha: float, seed: int) -> Detector:
    """An untrained detector of core_ml for what an agent sees. Raises ValueError, one line, for options that cannot be."""
    space, action = spaces.observation, spaces.action
    assert isinstance(space, gymnasium.spaces.Box)
    given = {"alpha": alpha} | options
    if name == "linear-surprise":
        discrete = isinstance(action, gymnasium.spaces.Discrete)
        given |= {"actions": int(action.n)} if discrete else {"action_size": int(np.prod(action.shape or ()))}  # type: ignore[attr-defined]
    found, config = resolve("detector", DetectorPart(name=name, untrained=False, **given))
    made: Detector = found.cls(config, observation_of(space, f"detector {name}"), seed)
    return made


class Guard:
    """A detector, the evidence it gathers in each running episode, and the threshold of it.

    It learns in three steps, each from rollouts that the ones before did not see: `fit` the detector, `measure` the scores of
    usual steps, `collect` the peak of evidence of whole episodes, one number each; then `calibrate`. The promise is about
    episodes: of those that are played alike, `alpha` at most are ever flagged. With several agents in an environment the
    highest of their peaks counts. The step that ends an episode is not judged: nobody acts on it.
    """

    def __init__(
        self, name: str, options: dict[str, Any], evidence: dict[str, Any], alpha: float, spaces: Spaces, seed: int
    ) -> None:
        from ...core_ml.detectors.evidence import Evidence

        self.spaces = spaces
        self.detector = make_detector(name, options, spaces, alpha, seed)
        self.detector.threshold.tolerance = TOLERANCE
        self.evidence = Evidence(Evidence.Config(**evidence))
        self.version = np.array(0, np.int64)  # of detector and measure: evidence across a change means nothing
        self.envs, self.peaks = np.zeros(0, np.int64), np.zeros(0)  # collected episodes: their environment and peak
        self.num_envs = 0  # N of those rollouts

    def initial(self, n: int) -> dict[str, Array]:
        """Carry of n environments that begin an episode."""
        space, action, agents = self.spaces.observation, self.spaces.action, self.spaces.num_agents
        kind = np.float32 if isinstance(action, gymnasium.spaces.Box) else np.int64
        running = self.evidence.initial(n * agents)
        return {name: array.reshape(n, agents) for name, array in running.items()} | {
            "before": np.zeros((n, agents, *(space.shape or ())), space.dtype),
            "action": np.zeros((n, agents, *(action.shape or ())), kind),
            "begun": np.zeros(n, np.bool_),
            "version": np.full(n, self.version),
        }

    def watch(self, obs: Array, carry: dict[str, Array]) -> tuple[Array, dict[str, Array]]:
        """Judge what is seen now, (N, A, ...): scores (N, A) and the carry with their evidence."""
        lead = obs.shape[:2]
        first = np.repeat(~carry["begun"], lead[1])
        scores = self.detector.score(self._seen(obs, carry["before"], carry["action"], first))
        running = self.evidence.add(scores, {name: carry[name].reshape(-1) for name in ("evidence", "peak", "scores")})
        return scores.reshape(lead), carry | {name: array.reshape(lead) for name, array in running.items()}

    def acted(self, obs: Array, action: Array, carry: dict[str, Array]) -> dict[str, Array]:
        """Remember what was seen and done, for the next step."""
        done = action.astype(carry["action"].dtype)
        return carry | {"before": obs.copy(), "action": done, "begun": np.ones(len(obs), np.bool_)}

    def alarm(self, carry: dict[str, Array]) -> Array:
        """Environments flagged in the running episode, bool (N,); they stay flagged until it ends."""
        return self.detector.flag(carry["peak"].max(1))

    def fit(self, batch: Rollout, seed: int) -> dict[str, float]:
        """The detector learns from what came after each step of a rollout."""
        import torch

        now = np.concatenate((batch.obs[1:], batch.last_obs[None]))
        ended = np.repeat((batch.terminated | batch.truncated).reshape(-1), now.shape[2])
        merged = (now.reshape(-1, *now.shape[2:]), batch.obs.reshape(-1, *now.shape[2:]))
        action = batch.action.reshape(len(merged[0]), *batch.action.shape[2:])
        self.version += 1
        return self.detector.update(self._seen(*merged, action, ended), torch.Generator().manual_seed(seed))

    def measure(self, batch: Rollout) -> None:
        """Scores of a rollout that the detector did not learn from."""
        self.evidence.measure(batch.extras["score"])
        self.version += 1

    def collect(self, batch: Rollout) -> None:
        """Peaks of the episodes that ended in a rollout and began after the last `fit` or `measure`."""
        t, env = np.nonzero((batch.terminated | batch.truncated) & (batch.extras["version"] == self.version))
        self.envs = np.concatenate([self.envs, env])
        self.peaks = np.concatenate([self.peaks, batch.extras["peak"].max(2)[t, env]])
        self.num_envs = batch.reward.shape[1]

    def calibrate(self) -> int:
        """Set the threshold by the first k episodes of every environment, k the number that the slowest has finished; returns
        how many they are.

        All episodes that ended within a time would be biased towards short ones.
        """
        order = np.argsort(self.envs, kind="stable")
        counts = np.bincount(self.envs, minlength=self.num_envs)
        rank = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
        used = order[rank < counts.min(initial=len(order))]
        self.detector.calibrate(self.peaks[used])
        return len(used)

    def _seen(self, obs: Array, before: Array, action: Array, is_first: Array) -> ObservedSteps:
        """(N, A, ...) -> steps of N A streams."""
        import torch

        from ...core_ml.detectors.protocol import ObservedSteps

        shape, acted = self.spaces.observation.shape or (), self.spaces.action.shape or ()
        return ObservedSteps(
            torch.from_numpy(np.ascontiguousarray(obs).reshape(-1, *shape)),
            torch.from_numpy(np.ascontiguousarray(before).reshape(-1, *shape)),
            torch.from_numpy(np.ascontiguousarray(action).reshape(-1, *acted)),
            torch.from_numpy(is_first),
        )

    def state_dict(self) -> dict[str, Array]:
        parts = {"detector": self.detector.state_dict(), "evidence": self.evidence.state_dict()}
        state = {f"{part}/{name}": array for part, arrays in parts.items() for name, array in arrays.items()}
        return state | {"episodes/copy": self.envs, "episodes/peak": self.peaks, "version": self.version.copy()}

    def load_state_dict(self, state: dict[str, Array]) -> None:
        from ...store.arrays import check_growing

        own = {name: array for name, array in state.items() if not name.startswith(("detector/", "evidence/"))}
        mine = {"episodes/copy": self.envs, "episodes/peak": self.peaks, "version": self.version}
        check_growing(own, mine, "guard")
        for prefix, part in (("detector/", self.detector), ("evidence/", self.evidence)):
            part.load_state_dict(under(state, prefix))
        self.envs, self.peaks = state["episodes/copy"].copy(), state["episodes/peak"].copy()
        self.version[...] = state["version"]


def under(state: dict[str, Array], prefix: str) -> dict[str, Array]:
    """The arrays whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): array for name, array in state.items() if name.startswith(prefix)}
