"""A plain PyTorch loop on one process or several, on one machine or several; here two processes of one machine.

    torchrun --nproc-per-node 2 ddp.py manifest.parquet --target age --group patient --out runs/ddp

Run the same command again after an interruption, on the same number of processes or another: it continues with the
batch after the last checkpoint.
"""

import argparse
import json
import os
from pathlib import Path

import numpy as np
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

import cinefeed as cf
from cinefeed.adapters.torch import FeedLoader
from cinefeed.core.files import write_atomically
from cinefeed.metrics import regression_metrics


def network(channels):
    """Return a small 3-D network for clips (batch, channels, frames, height, width)."""
    return torch.nn.Sequential(
        torch.nn.Conv3d(channels, 8, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool3d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(8, 1),
    )


def train_steps(model, optimizer, loader, *, save, save_steps, stop_after):
    """Train for the rest of an epoch, and return the number of steps; `save` is called between steps."""
    model.train()
    for step, (inputs, targets, weights) in enumerate(loader, start=1):
        optimizer.zero_grad()
        scores = model(inputs["clips"].float() / 255)[:, 0]
        loss = (weights * (scores - targets) ** 2).mean()  # rows of padding have weight 0
        loss.backward()  # DDP averages gradients over processes
        optimizer.step()
        if step % save_steps == 0 or step == stop_after:
            save()
        if step == stop_after:
            return step
    return len(loader)


@torch.no_grad()
def evaluate(model, feed, *, target):
    """Return the metrics and the scores of all rows on rank 0, None on other ranks.

    Each rank scores its part of every batch. The rows of all ranks are merged before any metric is computed, because a
    mean of the metrics of parts is not the metric of the whole.
    """
    model.eval()
    own = {}
    for batch in feed:
        clips = torch.from_numpy(batch.clips).movedim(-1, 1).to(next(model.parameters()).device)
        scores = model(clips.float() / 255)[:, 0].tolist()
        own |= {name: score for name, score in zip(batch.ids.tolist(), scores, strict=True) if name}  # "" is padding
    parts = [None] * distributed.get_world_size() if distributed.get_rank() == 0 else None
    distributed.gather_object(own, parts)
    if parts is None:
        return None
    scores = {name: score for part in parts for name, score in part.items()}
    ids = feed.manifest.column("id").to_pylist()
    assert sum(map(len, parts)) == len(ids) and scores.keys() == set(ids), "each row once, on one rank"
    targets = feed.manifest.column(target).to_numpy()
    metrics = regression_metrics(targets=targets, scores=np.array([scores[name] for name in ids]))
    return dict(metrics), {name: scores[name] for name in ids}


def main():
    """Run the command line."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("manifest")
    arguments.add_argument("--target", required=True, help="column of numbers")
    arguments.add_argument("--group", default=None, help="column of the patient")
    arguments.add_argument("--out", type=Path, required=True)
    arguments.add_argument("--epochs", type=int, default=10)
    arguments.add_argument("--batch-size", type=int, default=8, help="clips of a step on each process")
    arguments.add_argument("--frames", type=int, default=16)
    arguments.add_argument("--size", type=int, default=112)
    arguments.add_argument("--workers", type=int, default=None, help="of each process")
    arguments.add_argument("--save-steps", type=int, default=100)
    arguments.add_argument("--stop-after", type=int, default=None, help="steps, such as before a job's time limit")
    options = arguments.parse_args()

    cuda = torch.cuda.is_available()
    distributed.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo")
    rank = distributed.get_rank()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else torch.device("cpu")

    # Feeds are made after the process group, from which they take their rank.
    parts = cf.Manifest.read(options.manifest).split(val=0.2, test=0.1, group=options.group, seed=7)
    feed = cf.Feed(
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
    val, loader = feed.evaluation(parts.val), FeedLoader(feed, layout="BCTHW", device=device)

    torch.manual_seed(7)
    model = DistributedDataParallel(network(channels=1).to(device))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    checkpoint = options.out / "checkpoint.pt"

    def save():
        """Write a checkpoint on rank 0; its state of the feed is valid for all ranks."""
        if rank == 0:
            content = {"model": model.module.state_dict(), "optimizer": optimizer.state_dict()}
            content["loader"] = loader.state_dict()
            write_atomically(checkpoint, lambda partial: torch.save(content, partial))

    options.out.mkdir(parents=True, exist_ok=True)
    if checkpoint.exists():
        content = torch.load(checkpoint, map_location=device, weights_only=True)
        model.module.load_state_dict(content["model"])
        optimizer.load_state_dict(content["optimizer"])
        loader.load_state_dict(content["loader"])
    steps = 0
    while (epoch := feed.next_epoch) < options.epochs:
        left = None if options.stop_after is None else options.stop_after - steps
        steps += train_steps(model, optimizer, loader, save=save, save_steps=options.save_steps, stop_after=left)
        if steps == options.stop_after:
            break
        save()
        result = evaluate(model.module, val, target=options.target)
        if result is not None:
            metrics, scores = result
            print(f"epoch {epoch + 1}: rmse {metrics['rmse']:.4g}, {len(scores)} videos", flush=True)
            content = {"epoch": epoch + 1, "metrics": metrics, "scores": scores}
            (options.out / "validation.json").write_text(json.dumps(content))
    distributed.barrier()
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
