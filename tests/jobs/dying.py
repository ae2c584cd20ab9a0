"""A part whose process is killed in the middle of its work: imported by worker processes of Ray."""

import os
import signal
import sys
from importlib import import_module


def die(name, marker, *arguments, part, out, **options):
    """Do a part by the function `name`, such as "module:function"; kill -9 this process at a write if it is part 1.

    `marker` is a file with the number of the killed process: the next one is not killed. None: each one is.
    """
    if part.number == 1 and not (marker and marker.exists()):
        if marker:
            marker.write_text(str(os.getpid()))
        _kill_at_write(out, 3)
    module, _, function = name.partition(":")
    return getattr(import_module(module), function)(*arguments, part=part, out=out, **options)


def _kill_at_write(folder, count):
    writes = []

    def hook(event, arguments):
        if event == "open" and str(arguments[0]).startswith(str(folder)) and (arguments[2] or 0) & os.O_ACCMODE:
            writes.append(arguments[0])
            if len(writes) == count:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
