"""A loop under Hugging Face's accelerate: `python accelerated.py manifest.parquet folder`, or one rank of several."""

import json
import sys
from pathlib import Path

import torch
from accelerate import Accelerator

import cinefeed as cf
from cinefeed.adapters.torch import FeedLoader


def main(path, folder):
    accelerator = Accelerator(cpu=True)
    clip, frame = cf.Clip(frames=4), cf.Frame(height=16, width=16, channels=1)
    feed = cf.Feed(cf.Manifest.read(path), target="age", clip=clip, frame=frame, batch_size=2, workers=1)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4 * 16 * 16, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    loader = FeedLoader(feed, device=accelerator.device)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    batches = []
    for _ in range(2):
        for inputs, targets, weights in loader:
            error = model(inputs["clips"].float() / 255)[:, 0] - targets
            accelerator.backward((weights * error**2).mean())
            optimizer.step()
            optimizer.zero_grad()
            ages = accelerator.gather(torch.where(weights > 0, targets, torch.nan))
            batches.append(ages[~ages.isnan()].tolist())
    weight = accelerator.unwrap_model(model)[1].weight.sum().item()
    (folder / f"rank{accelerator.process_index}.json").write_text(json.dumps([batches, weight]))
    accelerator.end_training()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
