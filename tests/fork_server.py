"""Scripts started as forks of a process that has its imports done, which a test would wait longest for otherwise.

Each is a real process with real files, to be killed or signalled, and what it starts itself is forked alike: the
ranks of a run, the workers of a sweep. Without fork, as on Windows, they are started as usual.

All tests share one, however many processes run them. Protocol, a line of JSON each way: what to start in, its pid
out; a pid in, its exit code out, or null.
"""

import gc
import json
import logging
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import time
import traceback
from copy import deepcopy
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def wait_until(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


class Process:
    """A script that was started, known by its pid; what it prints goes to a file."""

    def __init__(self, pid: int, output: Path, poll) -> None:
        self.pid, self.output, self._poll, self.returncode = pid, output, poll, None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._poll()
        return self.returncode

    def wait(self, timeout: float = 300) -> int:
        """The exit code; negative for the signal that killed it."""
        wait_until(lambda: self.poll() is not None, timeout)
        return self.returncode

    def printed(self) -> str:
        return self.output.read_text()

    def wait_for(self, words: str) -> None:
        """Wait until it has printed these words."""
        wait_until(lambda: words in self.printed() or self.poll() is not None, 120)
        assert words in self.printed()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


class ForkServer:
    """Starts scripts, all of them as children of one process."""

    def __init__(self) -> None:
        self.server = None
        if sys.platform != "linux":  # macOS does not let a process with threads fork, Windows not at all
            return
        # an abstract address, which is no file and ends with its process
        address = f"\0experiments-tests-{os.environ.get('PYTEST_XDIST_TESTRUNUID', os.getpid())}"
        if not self._connects(address):
            command = [sys.executable, "-m", "tests.fork_server", address[1:]]
            threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
            subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, env={**os.environ, **threads})
            wait_until(lambda: self._connects(address))

    def _connects(self, address: str) -> bool:
        door = socket.socket(socket.AF_UNIX)
        try:
            door.connect(address)
        except ConnectionRefusedError:
            door.close()
            return False
        self.server = door.makefile("rw")
        door.close()  # with its file
        return True

    def _ask(self, request) -> int | None:
        self.server.write(json.dumps(request) + "\n")
        self.server.flush()
        return json.loads(self.server.readline())

    def start(self, folder: Path, output: Path, script: str, *arguments: str, errors: Path | None = None) -> Process:
        """``python <script> *arguments`` in the folder, in a session of its own; errors go to the output too."""
        kept = [key for key in os.environ if not key.startswith("EXPERIMENTS_") or key == "EXPERIMENTS_CONF"]
        environment = {key: os.environ[key] for key in kept}
        command = [sys.executable, str(ROOT / script), *arguments]
        asked = {"args": command, "cwd": str(folder), "env": {**environment, "OMP_NUM_THREADS": "1"}}
        files = str(output), str(errors or output)
        if self.server is None:
            started = begin(subprocess.Popen, *files, **asked)
            return Process(started.pid, output, started.poll)
        pid = self._ask([*files, asked])
        return Process(pid, output, lambda: self._ask(pid))

    def close(self) -> None:
        if self.server:
            self.server.close()


def begin(popen, output: str, errors: str, **asked) -> subprocess.Popen:
    with open(output, "ab") as out, open(errors, "ab") as err:
        return popen(**asked, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True)


class Fork(subprocess.Popen):
    """Python scripts and modules as forks of this process, other programs as usual."""

    def _execute_child(self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, *others):
        words = [word for word in args if word != "-u"] if args[0] == sys.executable else []
        if not words or not (words[1] == "-m" or words[1].endswith(".py")):
            super()._execute_child(args, executable, preexec_fn, close_fds, pass_fds, cwd, env, *others)
            return
        pipes, (*_, start_new_session, _) = others[3:9], others
        sys.stdout.flush()  # what this process has yet to write is not the child's
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            for ours, theirs in zip((pipes[0], pipes[3], pipes[5]), (0, 1, 2), strict=True):
                if ours != -1:
                    os.dup2(ours, theirs)
            os.closerange(3, os.sysconf("SC_OPEN_MAX"))
            if start_new_session:
                os.setsid()
            os._exit(run_script(words[1:], cwd, env))
        self._child_created = True
        self._close_pipe_fds(*pipes)


def run_script(arguments: list[str], folder: str | None, environment: dict[str, str] | None) -> int:
    """Run a script, or ``-m`` and a module, in this process, as if it had begun with it; the exit code."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    Singleton.set_state(deepcopy(BEFORE))
    logging.getLogger().handlers.clear()
    if environment is not None:
        os.environ.clear()
        os.environ.update(environment)
    rank_zero.rank_zero_only.rank = rank_zero._get_rank() or 0  # which is looked up when it is imported
    os.chdir(folder or ".")
    run = runpy.run_path
    if arguments[0] == "-m":
        arguments, run = arguments[1:], runpy.run_module
    sys.argv = arguments
    try:
        run(arguments[0], run_name="__main__")
        return 0
    except SystemExit as ending:
        if not isinstance(ending.code, str):
            return ending.code or 0
        print(ending.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 1


def serve(door: socket.socket) -> None:
    """Answer every test process, until the last has gone."""
    clients, started = [door.accept()[0]], {}
    while clients:
        for ready in select.select([door, *clients], [], [])[0]:
            if ready is door:
                clients.append(door.accept()[0])
            elif not (line := ready.makefile("r").readline()):  # one at a time: each waits for its answer
                clients.remove(ready)
            else:
                ready.sendall(f"{json.dumps(answer(json.loads(line), started))}\n".encode())


def answer(request, started: dict[int, subprocess.Popen]) -> int | None:
    if isinstance(request, int):
        return started[request].poll()
    output, errors, asked = request
    process = begin(Fork, output, errors, **asked)
    started[process.pid] = process
    return process.pid


if __name__ == "__main__":
    door = socket.socket(socket.AF_UNIX)
    try:
        door.bind(f"\0{sys.argv[1]}")
    except OSError:
        sys.exit()  # another test process was as fast
    door.listen()
    gc.disable()  # imports make millions of objects that stay

    from hydra.core.singleton import Singleton
    from lightning.fabric.utilities import rank_zero

    import experiments.training.run  # noqa: F401  # with torch and lightning
    from experiments.config.checks.check import validated
    from experiments.config.compose import compose
    from tests.quick_compose import compose_quickly

    compose_quickly()
    validated(compose())  # what is read of files is kept
    gc.freeze()  # a fork copies what it collects
    gc.enable()
    BEFORE = Singleton.get_state()
    subprocess.Popen = Fork
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    serve(door)
    os._exit(0)  # letting go of all that was imported takes seconds
