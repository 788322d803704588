"""A process whose imports are done, which forks a child for every run it is asked for.

Protocol, a line each way: a JSON list of overrides in, the child's pid out. Each child is a real process with real
files, to be killed or signalled; its output goes to the file that the first item names.
"""

import json
import os
import signal
import sys
import traceback


def run(output: str, overrides: list[str]) -> int:
    """Train as scripts/train.py does; the exit code."""
    os.environ.pop("EXPERIMENTS_RUN_ID", None)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s", force=True)
    try:
        train(experiments.compose(*overrides), [item for item in overrides if not item.startswith("hydra.")])
    except Stopped as stopped:
        return stopped.exit_code
    except UserError as error:
        print("error:", error, flush=True)
        return 2
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    import logging

    import experiments
    from experiments.errors import Stopped, UserError
    from experiments.training.run import train

    print("ready", flush=True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    children: set[int] = set()
    for line in sys.stdin:
        request = json.loads(line)
        if isinstance(request, int):  # wait for this child: its exit code, negative for a signal
            print(os.waitstatus_to_exitcode(os.waitpid(request, 0)[1]), flush=True)
            continue
        child = os.fork()
        if not child:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os._exit(run(request[0], request[1:]))
        print(child, flush=True)
