"""Training on two processes with Lightning: `python lightning_ranks.py manifest.parquet folder`.

Each rank writes what it was given: the targets of each training and validation epoch, padding left out.
"""

import json
import sys
import warnings
from pathlib import Path

import pytorch_lightning as pl
import torch

import cinefeed as cf
from cinefeed.adapters.torch import FeedLoader
from cinefeed.core.errors import FeedError


class Data(pl.LightningDataModule):
    def __init__(self, manifest):
        super().__init__()
        self.manifest = manifest

    def setup(self, stage):
        clip, frame = cf.Clip(frames=4), cf.Frame(height=16, width=16, channels=1)
        self.train = cf.Feed(self.manifest, target="age", clip=clip, frame=frame, batch_size=2, workers=1)
        self.val = self.train.evaluation(self.manifest)

    def train_dataloader(self):
        return FeedLoader(self.train)

    def val_dataloader(self):
        return FeedLoader(self.val)


class Model(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4 * 16 * 16, 1)
        self.labels = {"train": [], "val": []}

    def loss(self, item, kind):
        inputs, targets, weights = item
        self.labels[kind].append(targets[weights > 0].tolist())
        error = self.layer(inputs["clips"].flatten(1).float() / 255)[:, 0] - targets
        return (weights * error**2).mean()

    def training_step(self, item, index):
        return self.loss(item, "train")

    def validation_step(self, item, index):
        self.log("val_loss", self.loss(item, "val"), sync_dist=True, batch_size=2)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-6)


def trainer(epochs, **options):
    return pl.Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        max_epochs=epochs,
        num_sanity_val_steps=0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        **options,
    )


def main(path, folder):
    warnings.filterwarnings("error", module="cinefeed")
    manifest, result = cf.Manifest.read(path), {}
    frame = cf.Frame(height=16, width=16, channels=1)
    early = cf.Feed(manifest, target="age", clip=cf.Clip(frames=4), frame=frame).evaluation(manifest)
    for name, epochs, resume, options in (
        ("whole", 2, None, {}),
        ("first", 1, None, {}),
        ("again", 2, folder / "model.ckpt", {}),
        ("limited", 1, None, {"limit_train_batches": 2, "limit_val_batches": 1}),
    ):
        pl.seed_everything(0, verbose=False)
        model, fitting = Model(), trainer(epochs, **options)
        fitting.fit(model, Data(manifest), ckpt_path=resume, weights_only=True)
        if name == "first":
            fitting.save_checkpoint(folder / "model.ckpt")
        result[name] = {**model.labels, "weights": model.layer.weight.sum().item()}
    try:
        iter(FeedLoader(early))
    except FeedError as error:
        result["too early"] = str(error)
    (folder / f"rank{fitting.global_rank}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
