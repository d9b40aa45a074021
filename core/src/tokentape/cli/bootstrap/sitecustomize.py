"""Starts recording in every Python process under `tokentape run`: Python imports this module at start-up.

Any Python 3 may meet it, with or without tokentape, and nothing in it may keep the program from running.
"""

# ruff: noqa: INP001  # a folder for PYTHONPATH, no package

import atexit
import importlib.machinery
import importlib.util
import json
import logging
import os
import pathlib
import sys

NOTES = "TOKENTAPE_RUN_NOTES"
HERE = pathlib.Path(__file__).resolve().parent


def run_next_sitecustomize() -> None:
    """Run the module of this name that Python would have found without us, and let it take our place."""
    sys.path[:] = [entry for entry in sys.path if pathlib.Path(entry).resolve() != HERE]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize")
    if spec is None or spec.loader is None:
        return
    module = importlib.util.module_from_spec(spec)
    sys.modules["sitecustomize"] = module
    spec.loader.exec_module(module)


def start_recording() -> None:
    """Turn recording on; whatever goes wrong is said in one line."""
    leave_note()
    try:
        import tokentape
    except ImportError as problem:
        python = sys.executable
        leave_note(f"{python} was not recorded ({problem}); install it there: {python} -m pip install tokentape")
        return
    try:
        tokentape.enable()
    except Exception as problem:
        logging.getLogger("tokentape").warning("tokentape: not recording: %s", problem)
        return
    # Run before recording stops at exit, which undoes the patches that the note goes by.
    atexit.register(note_missing_adapters)


def note_missing_adapters() -> None:
    """Tell `tokentape run` which SDKs this process has used unrecorded."""
    import tokentape

    for missing in tokentape.status()["missing_adapters"]:
        leave_note(f"{missing['sdk']} was used, but not recorded; {missing['install']}")


def leave_note(text: str = "") -> None:
    """Append to the file that `tokentape run` reads when the program has ended; it exists if we were here at all."""
    path = os.environ.get(NOTES)
    if path:
        try:
            # One short write to a file opened for appending: lines of several processes do not mix.
            with pathlib.Path(path).open("a", encoding="ascii") as file:
                file.write(json.dumps(text) + "\n" if text else "")
        except OSError:
            pass  # the run is over; nobody reads notes any more


try:
    run_next_sitecustomize()
finally:
    # Also when that module has failed: Python then says so, as it would without us.
    start_recording()
