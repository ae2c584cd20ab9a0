"""The settings of feed, network and training of a first settings file, chosen from facts of the data."""

from collections.abc import Sequence
from pathlib import Path

from cinefeed.config.lines import Setting
from cinefeed.config.recipe import (
    FEW_VIDEOS,
    LABEL_SMOOTHING,
    WEIGHT_DECAY,
    learning_rate_of,
    num_epochs,
    recipe,
    too_few_to_choose,
)
from cinefeed.data.manifest.manifest import Parts


def training_settings(
    parts: Parts,
    *,
    frame: Sequence[Setting],
    clip: Sequence[Setting],
    classes: Sequence[str],
    features: bool,
    out: str | Path,
    folds: int,
    units: int,
) -> list[Setting]:
    """Return the settings of feed, network and training; `units` is the number of groups or rows for validation."""
    count = len(parts.train)
    batch = next(size for size in (32 if features else 16, 16, 8, 4, 2, 1) if size == 1 or count >= 4 * size)
    batches = -(-count // batch)
    epochs = num_epochs(batches)
    values = {each.name: each.value for each in (*frame, *clip)}
    choice = recipe(
        videos=count,
        frames=values["frames"],
        side=min(values["height"], values["width"]),
        features=features,
        classes=bool(classes),
        corresponding=values["position"] == "spread",
    )
    rate = learning_rate_of(choice.model, choice.options)
    whys = {
        "dropout": f"{count} training videos are {'few' if count < FEW_VIDEOS else 'enough'}",
        "filters": "small frames",
        "norm": "after each convolution",
        "pooling": "clips cover the whole video, so their frames correspond: features in their order, not their mean",
    }
    of_classes = f" for {len(classes)} classes" if len(classes) > 2 else ""
    few = f"{units} groups or rows of validation{of_classes} are too few to choose an epoch: the last ones are used"
    return [
        Setting(name="[feed]"),
        Setting(name="batch_size", value=batch, why=f"{count} training videos make {batches} batches"),
        Setting(name="seed", value=0, why="of clips, transforms, order and first weights"),
        Setting(name="workers", value="auto", why="one per core"),
        *(
            [
                Setting(name="[feed.mixing]"),
                Setting(
                    name="name", value="MixUp", why="clips and classes of a batch are blended: it hinders memorising"
                ),
                Setting(name="alpha", value=0.2, why="most clips are blended little"),
            ]
            if classes
            else []
        ),
        Setting(name="[model]"),
        Setting(name="name", value=choice.model, why=choice.why),
        *(Setting(name=name, value=value, why=whys[name]) for name, value in choice.options.items()),
        Setting(name="[train]"),
        Setting(name="out", value=str(out), why="the run folder"),
        *(
            [Setting(name="folds", value=folds, why="a cross-validation by group: each video is tested once")]
            if folds
            else []
        ),
        Setting(name="epochs", value=epochs, why=f"about {epochs * batches} steps"),
        Setting(name="learning_rate", value=rate, why="of Adam, independent of the label's unit"),
        Setting(name="warmup_epochs", value=2, why="the rate rises from 0, since the first gradients are large"),
        Setting(name="schedule", value="cosine", why="down to 0 at the last epoch"),
        Setting(name="weight_decay", value=WEIGHT_DECAY, why="AdamW"),
        *(
            [Setting(name="label_smoothing", value=LABEL_SMOOTHING, why="so that the network does not become certain")]
            if classes
            else []
        ),
        *([Setting(name="monitor", value="loss", why=few)] if too_few_to_choose(units, classes=len(classes)) else []),
        Setting(name="patience", value=0, why="the schedule needs all epochs; the best weights are kept"),
    ]
