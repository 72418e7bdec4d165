"""Local metrics are the truth; whatever W&B's servers do, the run goes on and closing stays short."""

from __future__ import annotations

import gzip
import json
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gumdrop.experiments.run import tracking
from gumdrop.experiments.run.tracking import Tracker
from gumdrop.store.json_files import read_rows, require_rows
from gumdrop.store.json_lines import TrackingError
from gumdrop.store.names import METRICS, TIMING
from gumdrop.store.run_folder import RunFolder

LIMIT = 15.0  # seconds that W&B may cost a run, start to end
KEY = "a" * 40


def row(update: int) -> tuple[dict[str, Any], dict[str, Any]]:
    metrics = {"updates": update, "env_steps": update * 100, "return_mean": update / 3}
    return metrics, {"updates": update, "env_steps": update * 100, "seconds": update * 0.5}


def track(tracker: Tracker, first: int, last: int) -> None:
    for update in range(first, last + 1):
        tracker.log(*row(update))


def local(folder: Path) -> list[int]:
    """Updates in both local files, which must agree."""
    updates = [[entry["updates"] for entry in require_rows(folder / name)] for name in (METRICS, TIMING)]
    assert updates[0] == updates[1]
    return updates[0]


# --- the local files


def test_rows_are_strict_json_in_the_given_order(tmp_path: Path) -> None:
    tracker = Tracker(RunFolder(tmp_path / "run"), {}, [])
    values: dict[str, Any] = {"z": 0.1, "a": math.nan, "inf": -math.inf, "f32": np.float32(0.5), "i": np.int64(3)}
    tracker.log(values | {"b": np.bool_(True), "l": [math.nan, (1, np.float64(2))], "none": None, "t": "é\n"}, {})
    tracker.close()
    text = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert text == (
        '{"z": 0.1, "a": null, "inf": null, "f32": 0.5, "i": 3, "b": true, "l": [null, [1, 2.0]], "none": null, '
        '"t": "\\u00e9\\n"}\n'
    )


def test_rows_are_on_disk_at_once_and_bit_identical(tmp_path: Path) -> None:
    for name in "ab":
        tracker = Tracker(RunFolder(tmp_path / name), {}, [])
        track(tracker, 1, 5)
        assert local(tmp_path / name) == [1, 2, 3, 4, 5]  # before close
    assert (tmp_path / "a" / "metrics.jsonl").read_bytes() == (tmp_path / "b" / "metrics.jsonl").read_bytes()


def test_resume_cuts_to_the_checkpoint_and_ends_as_if_unbroken(tmp_path: Path) -> None:
    whole = Tracker(RunFolder(tmp_path / "whole"), {}, [])
    track(whole, 1, 6)
    broken = Tracker(RunFolder(tmp_path / "run"), {}, [])
    track(broken, 1, 3)
    offsets = json.loads(json.dumps(broken.offset()))
    track(broken, 4, 5)
    with open(tmp_path / "run" / "metrics.jsonl", "ab") as file:
        file.write(b'{"updates": 6, "env_st')  # killed while writing
    resumed = Tracker(RunFolder(tmp_path / "run"), {}, [], resume=True)
    resumed.truncate(offsets)
    assert local(tmp_path / "run") == [1, 2, 3] and resumed.offset() == offsets
    track(resumed, 4, 6)
    for name in (METRICS, TIMING):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize("fault", ["short", "edited", "gone", "missing", "negative", "text", "bool"])
def test_truncate_refuses_and_cuts_nothing(tmp_path: Path, fault: str) -> None:
    tracker = Tracker(RunFolder(tmp_path), {}, [])
    track(tracker, 1, 4)
    offsets: dict[str, Any] = tracker.offset()
    track(tracker, 5, 6)
    timing = tmp_path / "timing.jsonl"
    if fault == "short":
        os.truncate(timing, offsets["timing.jsonl"] - 1)
    elif fault == "edited":
        timing.write_bytes(b"x" + timing.read_bytes())
    elif fault == "gone":
        timing.unlink()
    elif fault == "missing":
        del offsets["timing.jsonl"]
    else:
        offsets["timing.jsonl"] = {"negative": -1, "text": "12", "bool": True}[fault]
    before = (tmp_path / "metrics.jsonl").read_bytes()
    with pytest.raises(TrackingError, match="^[^\n]*timing.jsonl[^\n]*$"):
        Tracker(RunFolder(tmp_path), {}, [], resume=True).truncate(offsets)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_a_fresh_run_never_overwrites(tmp_path: Path) -> None:
    track(Tracker(RunFolder(tmp_path), {}, []), 1, 2)
    with pytest.raises(TrackingError, match="holds another run"):
        Tracker(RunFolder(tmp_path), {}, [])
    assert local(tmp_path) == [1, 2]


def test_rows_are_read_in_two_tempers(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    assert read_rows(path) == require_rows(path) == []
    for tail in [b"", b'{"a": 3', b"{", b"\x00\x00", b"3"]:  # a last line without its end does not count
        path.write_bytes(b'{"a": 1}\n{"a": 2}\n' + tail)
        assert read_rows(path) == require_rows(path) == [{"a": 1}, {"a": 2}], tail
    path.write_bytes(b'{"a": 1}\n{"a"\n{"a": 3}\n')
    assert read_rows(path) == [{"a": 1}, {"a": 3}]
    with pytest.raises(ValueError, match="line 2: damaged, not JSON"):
        require_rows(path)
    path.write_bytes(b'{"a": 1}\n\xff\n')
    with pytest.raises(ValueError, match="damaged, not text"):
        require_rows(path)


# --- TensorBoard


def scalars(folder: Path) -> dict[int, float]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    return {event.step: event.value for event in events.Scalars("return_mean")}


def test_tensorboard_is_a_copy_and_a_resume_continues_it(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    tracker = Tracker(RunFolder(tmp_path), {}, ["tensorboard"])
    track(tracker, 1, 2)
    offsets = tracker.offset()
    tracker.log(*row(9))  # after the checkpoint: to be forgotten
    assert tracker.close() == []
    resumed = Tracker(RunFolder(tmp_path), {}, ["tensorboard"], resume=True)
    resumed.truncate(offsets)
    track(resumed, 3, 4)
    assert resumed.close() == []
    assert scalars(tmp_path) == {step * 100: pytest.approx(step / 3) for step in (1, 2, 3, 4)}


def test_tensorboard_not_installed_costs_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    tracker = Tracker(RunFolder(tmp_path), {}, ["tensorboard"])
    track(tracker, 1, 3)
    (line,) = tracker.news()
    assert "pip install" in line and "\n" not in line
    assert tracker.close() == [] and local(tmp_path) == [1, 2, 3]


def test_a_sink_that_raises_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def fail(*args: Any) -> None:
        calls.append(args)
        raise OSError("disk\non fire")

    monkeypatch.setattr(tracking.TensorBoard, "start", lambda *args: None)
    monkeypatch.setattr(tracking.TensorBoard, "log", fail)
    tracker = Tracker(RunFolder(tmp_path), {}, ["tensorboard"])
    track(tracker, 1, 3)
    (line,) = tracker.close()
    assert line.startswith("TensorBoard is off (disk)") and len(calls) == 1 and local(tmp_path) == [1, 2, 3]


def test_unknown_sink(tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match="'wandbb'.*tensorboard, wandb"):
        Tracker(RunFolder(tmp_path), {}, ["wandbb"])


# --- W&B, against servers on the loopback interface only


class Server(ThreadingHTTPServer):
    """As much of W&B's server as its client needs. `history` holds the rows per run, `resume` its last known step."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.history: dict[str, list[dict[str, Any]]] = {}
        self.configs: list[str] = []
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def steps(self) -> list[int]:
        (rows,) = self.history.values()
        return [entry["_step"] for entry in rows]

    def graphql(self, query: str, values: dict[str, Any]) -> dict[str, Any]:
        name = values.get("name", "")
        project = {"id": "P", "name": "p", "entity": {"id": "E", "name": "me"}}
        if "RunResumeStatus" in query:
            rows = self.history.get(name)
            if not rows:
                return {"model": {"id": "P", "name": "p", "entity": project["entity"], "bucket": None}}
            bucket = {"id": "X", "name": name, "summaryMetrics": "{}", "displayName": "n", "logLineCount": 0}
            bucket |= {"historyLineCount": len(rows), "eventsLineCount": 0, "eventsTail": "[]", "config": "{}"}
            bucket |= {"historyTail": json.dumps([json.dumps(rows[-1])]), "tags": [], "notes": None}
            bucket |= {"wandbConfig": '{"t": 1}'}
            return {"model": {"id": "P", "name": "p", "entity": project["entity"], "bucket": bucket}}
        if "upsertBucket" in query:
            self.configs.append(values.get("config") or "")
            bucket = {"id": "X", "name": name, "displayName": "n", "description": "", "config": "{}"}
            bucket |= {"sweepName": None, "project": project, "historyLineCount": 0}
            return {"upsertBucket": {"bucket": bucket, "inserted": name not in self.history}}
        if "createRunFiles" in query:
            files = [{"name": file, "uploadUrl": f"{self.url}/upload/{file}"} for file in values["files"]]
            return {"createRunFiles": {"runID": "X", "uploadHeaders": [], "files": files}}
        return {}

    def stream(self, run: str, body: dict[str, Any]) -> None:
        part = body.get("files", {}).get("wandb-history.jsonl")
        if part:
            rows = self.history.setdefault(run, [])
            rows[part["offset"] :] = [json.loads(line) for line in part["content"]]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *args: Any) -> None: ...

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        answer: dict[str, Any] = {}
        if self.path == "/graphql":
            request = json.loads(body)
            answer = {"data": self.server.graphql(request["query"], request.get("variables") or {})}
        elif self.path.endswith("/file_stream"):
            self.server.stream(self.path.split("/")[-2], json.loads(body))
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_PUT = do_POST


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def _no_account(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody's real W&B account or settings, and no server but the tests' own."""
    for name in [name for name in os.environ if name.startswith("WANDB") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    home = str(tmp_path_factory.mktemp("home"))
    monkeypatch.setenv("HOME", home)
    monkeypatch.setenv("NETRC", f"{home}/netrc")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.chdir(home)


def wait_for(what: Any, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def alive(folder: Path) -> list[int]:
    """Processes of wandb that work for this run: our child and wandb's own service below it."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command = (path / "cmdline").read_bytes().decode("utf-8", "replace")
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError):
            continue
        if str(folder) in command or ("wandb-core" in command and parent in found):
            found.append(int(path.name))
    return found


def short_run(folder: Path) -> str:
    """A run of ten updates with W&B: the whole delay is bounded, all is local, exactly one line comes back."""
    begin = time.monotonic()
    tracker = Tracker(RunFolder(folder), {"seed": 1}, ["wandb"], project="p", name="n")
    track(tracker, 1, 10)
    assert time.monotonic() - begin < 1.0, "tracking slowed the run"
    (line,) = tracker.close()
    assert time.monotonic() - begin < LIMIT
    assert local(folder) == list(range(1, 11)) and "\n" not in line
    wait_for(lambda: not alive(folder))
    return line


def offline_folders(folder: Path) -> list[Path]:
    return sorted(folder.glob("wandb/offline-run-*/*.wandb"))


def test_wandb_disabled_means_no_sink(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    tracker = Tracker(RunFolder(tmp_path), {}, ["wandb"])
    track(tracker, 1, 3)
    assert tracker.close() == [] and sorted(os.listdir(tmp_path)) == ["metrics.jsonl", "timing.jsonl"]


def test_wandb_no_key(tmp_path: Path) -> None:
    line = short_run(tmp_path)
    assert "no API key" in line and line.endswith(f"wandb sync {tmp_path}/wandb")
    assert len(offline_folders(tmp_path)) == 1


def test_wandb_key_but_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    line = short_run(tmp_path)
    assert "no answer from http://127.0.0.1:9" in line and "wandb sync" in line
    assert len(offline_folders(tmp_path)) == 1


def test_wandb_mode_that_does_not_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "ofline")
    assert "'ofline' does not exist" in short_run(tmp_path)


def test_wandb_child_that_cannot_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    tracker = Tracker(RunFolder(tmp_path), {}, ["wandb"])
    track(tracker, 1, 3)
    (line,) = tracker.close()
    assert line.startswith("W&B is off (") and local(tmp_path) == [1, 2, 3]


def test_wandb_online(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    run = (tmp_path / "run").absolute()
    line = short_run(run)
    identity = (run / "wandb_id").read_text().strip()
    assert line == f"W&B: {server.url}/me/p/runs/{identity}"
    assert server.steps() == list(range(1, 11))
    last = server.history[identity][-1]
    assert last["return_mean"] == 10 / 3 and last["timing/seconds"] == 5.0 and last["env_steps"] == 1000
    assert '"seed"' in server.configs[0]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["offline", "dryrun"])
def test_wandb_mode_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server, mode: str) -> None:
    monkeypatch.setenv("WANDB_MODE", mode)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    assert "set to offline" in short_run(tmp_path)
    assert server.history == {} and len(offline_folders(tmp_path)) == 1


@pytest.mark.slow
def test_wandb_key_of_the_wrong_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "short")
    assert "WANDB_API_KEY invalid" in short_run(tmp_path)


@pytest.mark.slow
def test_wandb_server_that_accepts_and_never_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert "no answer from" in short_run(tmp_path)
    assert len(offline_folders(tmp_path)) == 1


@pytest.mark.slow
def test_wandb_server_that_answers_and_then_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    monkeypatch.setattr(server, "graphql", lambda query, values: time.sleep(60))
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    line = short_run(tmp_path)
    assert "W&B is offline: " in line and "wandb sync" in line
    assert len(offline_folders(tmp_path)) == 1


@pytest.mark.slow
def test_wandb_network_lost_midway_and_synced_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    """The run goes on, closing is bounded, and the command in the line uploads what is missing."""
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    monkeypatch.setenv("WANDB__FILE_STREAM_TRANSMIT_INTERVAL", "0.2")  # 15 s otherwise
    run = tmp_path / "run"
    tracker = Tracker(RunFolder(run), {}, ["wandb"], project="p")
    track(tracker, 1, 5)
    wait_for(lambda: server.history and server.steps() == [1, 2, 3, 4, 5], 20)
    monkeypatch.setattr(server, "stream", lambda *args: time.sleep(60))
    monkeypatch.setattr(server, "graphql", lambda *args: time.sleep(60))
    track(tracker, 6, 500)
    begin = time.monotonic()
    (line,) = tracker.close()
    assert time.monotonic() - begin < LIMIT
    assert local(run) == list(range(1, 501)) and server.steps() == [1, 2, 3, 4, 5]
    assert line == f"W&B has not received everything; to upload the rest: wandb sync --include-online {run}/wandb"
    wait_for(lambda: not alive(run))

    again = Server()  # the network is back
    again.history = {name: list(rows) for name, rows in server.history.items()}
    wandb = Path(sys.executable).with_name("wandb")
    command = [str(wandb), *line.partition(": wandb ")[2].split()]
    environment = os.environ | {"WANDB_BASE_URL": again.url}
    subprocess.run(command, env=environment, check=True, timeout=60, capture_output=True)
    again.shutdown()
    assert again.steps() == list(range(1, 501))


@pytest.mark.slow
def test_wandb_resume_continues_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    """Rows 3 and 4 are repeated by the resumed run, row 5 on is new, and each arrives once."""
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    tracker = Tracker(RunFolder(tmp_path), {}, ["wandb"], project="p")
    track(tracker, 1, 2)
    offsets = tracker.offset()
    track(tracker, 3, 4)
    tracker.close()
    identity = (tmp_path / "wandb_id").read_text()
    assert server.steps() == [1, 2, 3, 4]
    resumed = Tracker(RunFolder(tmp_path), {}, ["wandb"], project="p", resume=True)
    resumed.truncate(offsets)
    track(resumed, 3, 7)
    (line,) = resumed.close()
    assert (tmp_path / "wandb_id").read_text() == identity and line.startswith("W&B: http")
    assert server.steps() == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.slow
def test_wandb_offline_resume_and_sync_of_all_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    tracker = Tracker(RunFolder(tmp_path), {}, ["wandb"], project="p")
    track(tracker, 1, 2)
    offsets = tracker.offset()
    track(tracker, 3, 4)
    tracker.close()
    resumed = Tracker(RunFolder(tmp_path), {}, ["wandb"], project="p", resume=True)
    resumed.truncate(offsets)
    track(resumed, 3, 7)
    (line,) = resumed.close()
    assert len(offline_folders(tmp_path)) == 2
    command = [str(Path(sys.executable).with_name("wandb")), *line.partition(": wandb ")[2].split()]
    environment = os.environ | {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY}
    subprocess.run(command, env=environment, check=True, timeout=60, capture_output=True)
    assert server.steps() == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.slow
def test_wandb_killed_in_the_middle(tmp_path: Path) -> None:
    tracker = Tracker(RunFolder(tmp_path), {}, ["wandb"])
    track(tracker, 1, 2)
    wait_for(lambda: len(alive(tmp_path)) == 2, 20)  # the child and wandb's service
    os.kill(min(alive(tmp_path)), signal.SIGKILL)
    track(tracker, 3, 9)
    begin = time.monotonic()
    (line,) = tracker.close()
    assert time.monotonic() - begin < 1.0 and "W&B" in line and "\n" not in line
    assert local(tmp_path) == list(range(1, 10))
    wait_for(lambda: not alive(tmp_path))


RUN = """
import sys, time
from pathlib import Path
from gumdrop.experiments.run.tracking import Tracker
tracker = Tracker(Path(sys.argv[1]), {}, ["wandb"])
for update in range(1, 100_000):
    tracker.log({"updates": update, "env_steps": update}, {"updates": update})
    if update == 20:
        print("logged", flush=True)
    time.sleep(0.05)
"""


@pytest.mark.slow
def test_wandb_survives_ctrl_c_and_ends_with_a_killed_run(tmp_path: Path) -> None:
    """Ctrl-C reaches the foreground process group: not the child. A killed run leaves no process behind."""
    run = subprocess.Popen([sys.executable, "-c", RUN, str(tmp_path)], stdout=subprocess.PIPE, process_group=0)
    assert run.stdout is not None and run.stdout.readline() == b"logged\n"
    wait_for(lambda: json.loads((tmp_path / "wandb/status.json").read_text())["state"] == "running", 20)
    (child,) = [pid for pid in alive(tmp_path) if pid != run.pid and os.getpgid(pid) == pid][:1]
    assert os.getpgid(child) != os.getpgid(run.pid)
    os.kill(child, signal.SIGINT)
    os.kill(child, signal.SIGTERM)
    time.sleep(0.5)
    assert child in alive(tmp_path)
    run.kill()
    run.wait()
    run.stdout.close()
    wait_for(lambda: not alive(tmp_path), 15)
    status = json.loads((tmp_path / "wandb/status.json").read_text())
    assert status["state"] == "finished" and status["sent"] == local(tmp_path)[-1]
