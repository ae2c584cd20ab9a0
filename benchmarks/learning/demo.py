"""Training on the demo's ejection fraction by the code of the commands: videos, scan, split by patient, training."""

import json
import os
from pathlib import Path
from typing import Any

from benchmarks.learning.tasks import DEMO, DEMO_SEED, Trial
from cinefeed.cli.demo import demo_table
from cinefeed.config import parse
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.demo import write_demo
from cinefeed.training.fit import train

VIDEOS = 800


def run_demo(folder: Path, *, trial: Trial) -> dict[str, Any]:
    """Return the record of a training on the demo's videos, which are written if they do not exist."""
    table = demo_table(folder, epochs=DEMO.epochs, seed=DEMO_SEED)
    table["model"] = {"name": trial.model, **trial.options}
    table["train"]["out"] = str(folder / trial.model)
    manifest = Path(table["data"]["manifest"])
    if not manifest.exists():
        labels = folder / "videos" / "labels.csv"  # written last, so videos with a table are complete
        if not labels.exists():
            write_demo(folder / "videos", videos=VIDEOS, seed=DEMO_SEED)
        Manifest.scan(folder / "videos", labels=labels, out=manifest)
    result = train(parse(table), overwrite=True, progress=True)
    return {
        "task": "demo",
        "trial": trial.name,
        "seed": DEMO_SEED,
        "settings": DEMO.settings(trial),
        "value": result.metrics["test"]["r2"],
        "parameters": json.loads((result.folder / "run.json").read_text(encoding="utf-8"))["parameters"],
        "baselines": {"mean of the labels": 0.0},
        "backend": os.environ["KERAS_BACKEND"],
        "seconds": round(result.seconds, 1),
    }
