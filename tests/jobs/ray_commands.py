"""Run commands in a process that is connected to a Ray with two workers: JSON in, JSON out, a line per command.

Words are those of the command line; "dies" names a function that makes parts: the process that makes part 1 by it is
killed, once if "marker" names a file. A process of its own, because Ray leaves threads and signal handlers behind.
"""

import contextlib
import io
import json
import logging
import os
import sys
import tempfile
from functools import partial
from importlib import import_module
from pathlib import Path

os.environ |= {"KERAS_BACKEND": "torch", "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
os.environ |= {"RAY_worker_niceness": "0"}  # by default 15: too slow beside other tests
paths = [str(Path(__file__).parent), str(Path(__file__).parents[2] / "src"), os.environ.get("PYTHONPATH", "")]
os.environ["PYTHONPATH"] = os.pathsep.join(paths)  # of the workers

import ray  # noqa: E402
from dying import die  # noqa: E402

from cinefeed.cli import main  # noqa: E402


def run(words, *, dies="", marker=""):
    output, errors = io.StringIO(), io.StringIO()
    module, _, name = dies.partition(":")
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        if dies:
            function = getattr(import_module(module), name)
            setattr(sys.modules[module], name, partial(die, dies, Path(marker) if marker else None))
        status = main(words)
        if dies:
            setattr(sys.modules[module], name, function)
    return {"status": status, "out": output.getvalue(), "err": errors.getvalue()}


if __name__ == "__main__":
    answers, sys.stdout = sys.stdout, sys.stderr  # where Ray reports lost workers, at any time
    with tempfile.TemporaryDirectory(prefix="ray") as folder:  # a short path: Ray's sockets are in it
        ray.init(
            address="local",
            num_cpus=2,
            object_store_memory=80_000_000,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _temp_dir=folder,
        )
        for line in sys.stdin:
            print(json.dumps(run(**json.loads(line))), file=answers, flush=True)
        ray.shutdown()
