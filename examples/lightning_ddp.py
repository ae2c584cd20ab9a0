"""Lightning on one process or several, on one machine or several; here two processes of one machine.

    python lightning_ddp.py manifest.parquet --target age --group patient --out runs/lightning --devices 2

Run the same command again after an interruption, on the same number of processes or another: Lightning's checkpoint
holds the place of the feed.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from torch import distributed

import cinefeed as cf
from cinefeed.adapters.torch import FeedLoader
from cinefeed.metrics import regression_metrics


class Videos(pl.LightningDataModule):
    """The feeds of a manifest; `setup` runs on every rank, after Lightning has set up the ranks."""

    def __init__(self, options):
        super().__init__()
        self.options = options

    def setup(self, stage):
        """Make the feeds."""
        options = self.options
        parts = cf.Manifest.read(options.manifest).split(val=0.2, test=0.1, group=options.group, seed=7)
        self.train = cf.Feed(
            parts.train,
            target=options.target,
            clip=cf.Clip(frames=options.frames),
            frame=cf.Frame(height=options.size, width=options.size, channels=1),
            transforms=[cf.Rotate(degrees=10)],
            sampler=cf.UniformLabels(),  # balances the batch of each process, hence every global batch
            batch_size=options.batch_size,
            seed=7,
            **({} if options.workers is None else {"workers": options.workers}),
        )
        self.val = self.train.evaluation(parts.val)

    def train_dataloader(self):
        """Return the loader of this rank's part of every batch."""
        return FeedLoader(self.train, layout="BCTHW")

    def val_dataloader(self):
        """Return the loader of this rank's rows."""
        return FeedLoader(self.val, layout="BCTHW")


class Model(pl.LightningModule):
    """A small 3-D network for a regression."""

    def __init__(self, out):
        super().__init__()
        self.out = out
        self.network = torch.nn.Sequential(
            torch.nn.Conv3d(1, 8, 3, padding=1),
            torch.nn.ReLU(),
            torch.nn.AdaptiveAvgPool3d(1),
            torch.nn.Flatten(),
            torch.nn.Linear(8, 1),
        )
        self.pairs = []  # targets and scores of the rows that this rank validates

    def forward(self, inputs):
        """Return one score per clip."""
        return self.network(inputs["clips"].float() / 255)[:, 0]

    def training_step(self, item, index):
        """Return the loss of this rank's part of a batch; Lightning averages gradients over ranks."""
        inputs, targets, weights = item
        return (weights * (self(inputs) - targets) ** 2).mean()  # rows of padding have weight 0

    def validation_step(self, item, index):
        """Score this rank's part of a batch."""
        inputs, targets, weights = item
        real = weights > 0
        self.pairs += zip(targets[real].tolist(), self(inputs)[real].tolist(), strict=True)

    def on_validation_epoch_end(self):
        """Merge the rows of all ranks before any metric is computed: their mean would not be the metric of all rows."""
        ranks = self.trainer.world_size
        parts = [self.pairs]
        if ranks > 1:
            parts = [None] * ranks
            distributed.all_gather_object(parts, self.pairs)
        self.pairs = []
        targets, scores = np.array(sorted(pair for part in parts for pair in part)).T
        metrics = regression_metrics(targets=targets, scores=scores)
        self.log("val_rmse", metrics["rmse"], rank_zero_only=True)
        if self.global_rank == 0:
            content = {"epoch": self.current_epoch + 1, "metrics": metrics, "targets": targets.tolist()}
            (self.out / "validation.json").write_text(json.dumps(content))

    def configure_optimizers(self):
        """Return the optimizer."""
        return torch.optim.SGD(self.parameters(), lr=1e-4)


def main():
    """Run the command line."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("manifest")
    arguments.add_argument("--target", required=True, help="column of numbers")
    arguments.add_argument("--group", default=None, help="column of the patient")
    arguments.add_argument("--out", type=Path, required=True)
    arguments.add_argument("--devices", type=int, default=1, help="processes on each machine")
    arguments.add_argument("--nodes", type=int, default=1, help="machines")
    arguments.add_argument("--epochs", type=int, default=10)
    arguments.add_argument("--batch-size", type=int, default=8, help="clips of a step on each process")
    arguments.add_argument("--frames", type=int, default=16)
    arguments.add_argument("--size", type=int, default=112)
    arguments.add_argument("--workers", type=int, default=None, help="of each process")
    options = arguments.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    pl.seed_everything(7, verbose=False)
    last = options.out / "last.ckpt"
    trainer = pl.Trainer(
        accelerator="auto" if torch.cuda.is_available() else "cpu",
        devices=options.devices,
        num_nodes=options.nodes,
        strategy="ddp" if options.devices * options.nodes > 1 else "auto",
        max_epochs=options.epochs,
        num_sanity_val_steps=0,
        logger=False,
        enable_progress_bar=False,
        callbacks=[pl.callbacks.ModelCheckpoint(options.out, filename="best", save_last=True, every_n_train_steps=100)],
    )
    resume = str(last) if last.exists() else None
    trainer.fit(Model(options.out), Videos(options), ckpt_path=resume, weights_only=True)


if __name__ == "__main__":
    main()
