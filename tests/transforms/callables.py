"""Callables as users have them, in a module that worker processes can import."""

import random

import numpy as np
import torch


class Jitter(torch.nn.Module):
    """As torchvision's v2 draw: torch.empty(1).uniform_(), torch.rand, torch.randint."""

    def __init__(self, brightness=0.5, p=0.5):
        super().__init__()
        self.brightness, self.p = brightness, p

    def extra_repr(self):
        return f"brightness={self.brightness}, p={self.p}"

    def forward(self, video):
        factor = torch.empty(1).uniform_(1 - self.brightness, 1 + self.brightness)
        video = (video.float() * factor).clamp(0, 255).to(video.dtype)
        return video.flip(-1) if torch.rand(1) < self.p else video.roll(int(torch.randint(0, 8, ())), -2)


class Noisy(torch.nn.Module):
    def forward(self, video):
        return (video.float() + 5 * torch.randn_like(video, dtype=torch.float32)).clamp(0, 255).to(torch.uint8)


def with_dropout(video):
    """Of torch, but dropout takes no generator."""
    return torch.nn.functional.dropout(torch.from_numpy(video).float() / 255, 0.5).numpy()


def of_numpy(clip):
    return np.roll(clip, np.random.randint(8), axis=1)  # noqa: NPY002


def of_python(clip):
    return clip[:, ::-1] if random.random() < 0.5 else np.roll(clip, random.randrange(8), axis=1)


def shift_by_rng(clip, rng):
    return np.roll(clip, rng.integers(1, 8), axis=2)


def scaled(clip):
    return clip.astype(np.float32) / 255


own = np.random.default_rng()


def of_its_own(clip):
    return own.permutation(clip.ravel()).reshape(clip.shape)
