"""Start worker processes on this machine, and share its cores and GPUs out."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

WORKER = "EXPERIMENTS_WORKER"  # set in a worker process
SECONDS_BETWEEN_LOOKS = 0.5


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpus() -> list[str]:
    """The CUDA devices that this process may use, found without torch."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name for name in chosen.split(",") if name.strip()]
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True)
    return [str(index) for index, line in enumerate(listed.stdout.splitlines()) if line.startswith("GPU ")]


def share(index: int, workers: int) -> dict[str, str]:
    """A worker's environment: its part of the cores, and a GPU of its own where there are several."""
    threads = str(max(1, cores() // workers))
    devices = gpus()
    return {
        WORKER: str(index),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads),
        "MKL_NUM_THREADS": os.environ.get("MKL_NUM_THREADS", threads),
        **({"CUDA_VISIBLE_DEVICES": devices[index % len(devices)]} if len(devices) > 1 else {}),
    }


def end_with_parent() -> None:
    """Stop this worker, as SIGTERM does, when the process that started it is gone."""

    def wait() -> None:
        while os.read(0, 1):  # nothing is ever written: it returns at the end of file
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


def run_workers(workers: int, override: str, logs: Path, look: Callable[[], None]) -> list[Path]:
    """Start this command, with one more override, as worker processes; return the logs of those that ended early.

    ``look`` is called while they work. Ctrl-C stops them all after their current step, a second one at once.
    """
    logs.mkdir(exist_ok=True)
    command = [sys.executable, os.path.abspath(sys.argv[0]), *sys.argv[1:], override]
    files = [logs / f"{os.getpid()}-{index}.log" for index in range(workers)]
    processes = []
    for index, file in enumerate(files):
        with file.open("wb") as output:
            processes.append(
                subprocess.Popen(
                    command,
                    env={**os.environ, **share(index, workers)},
                    stdin=subprocess.PIPE,  # it closes when this process ends, however it does
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C in the terminal reaches this process alone
                )
            )
    # a flag, not an exception that could be raised, and lost, anywhere in Optuna
    asked: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: asked.append(number))
    try:
        while not asked and any(process.poll() is None for process in processes):
            time.sleep(SECONDS_BETWEEN_LOOKS)
            look()
    finally:
        signal.signal(signal.SIGINT, before)
    if asked:
        _stop(processes)
        raise KeyboardInterrupt
    return [file for file, process in zip(files, processes, strict=True) if process.returncode]


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    print("stopping the workers after their current step; Ctrl-C again stops them at once", flush=True)
    for process in processes:
        process.send_signal(signal.SIGINT if os.name == "posix" else signal.SIGTERM)
    try:
        for process in processes:
            process.wait()
    except KeyboardInterrupt:
        for process in processes:
            process.kill()
