"""The parts of the benchmarks page: the module that measures each, its title and text, and why peers may win in it."""

from dataclasses import dataclass, field

from benchmarks.page import Section
from benchmarks.rows import Result


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part: `rows(quick=...)` of a module of benchmarks yields its rows.

    limit:  seconds after which it is ended
    """

    name: str
    module: str
    title: str
    text: str
    why: str = ""
    limit: int = 400
    section: Section = field(init=False)

    def __post_init__(self) -> None:
        section = Section(
            title=self.title,
            command=f"python -m benchmarks {self.name}",
            text=self.text,
            why=self.why,
            result=Result(),
        )
        object.__setattr__(self, "section", section)


PARTS = (
    Part(
        name="decoding",
        module="sources",
        title="Live decoding",
        text="Clips of 16 frames, every second one, from random places, to 112 x 112, on one thread. `pocus`: ultrasound "
        "with large frames; `lips`: small frames; long GOP: generated H.264 with two B-frames between others.",
        why="Frames of `lips` need no resizing, so that cinefeed gains nothing by skipping frames or by its resampling, "
        "and opening a file in Python is a large share of a clip.",
    ),
    Part(
        name="scan",
        module="scanning",
        title="Scan",
        text="A scan of a folder, beside a plain loop that finds the number of frames of each file and nothing else.",
        why="A scan does more than the loop: it looks for series and sidecar files, tries the readers, keeps size, times "
        "and key frames of each file, and tests that it can be decoded. It runs once; its manifest is read later.",
    ),
    Part(
        name="packed",
        module="packing",
        title="`.npy`, packed data sets and their source",
        text="Clips of 16 frames with stride 2, rotated and shifted, in batches of 16. The source has 16 videos of 240 "
        "frames, 240 x 320, with one key frame each; packed ones have a shorter side of 128. WebDataset reads the same "
        "shards; `.npy` files and LitData's chunks have the same pixels as `raw`. Peers turn clips with OpenCV.",
        why="Workers of a DataLoader are processes, which do not share Python's lock.",
    ),
    Part(
        name="remote",
        module="remote",
        title="Remote",
        text="One S3 server on loopback behind a proxy with a latency of 20 ms for each request. Packed shards of 32 "
        "videos for cinefeed and WebDataset, chunks of the same size for LitData.",
        why="WebDataset makes one request per shard and reads videos in the order of the shard; cinefeed fetches each "
        "video by a request of its own, in the order of a plan that mixes all shards, and stores it in a cache. "
        "WebDataset has no cache, so its second epoch is from the network again.",
    ),
    Part(
        name="transforms",
        module="catalogue",
        title="Transforms",
        text="The 2020 system made batches of `.npy` files by SciPy, in a plain generator. The second row is the chain of "
        "a colour clip from decoded frames to normalised floats.",
    ),
    Part(
        name="transport",
        module="feeding",
        title="Transport",
        text="The time of a batch whose clips cost nothing but writing each byte: what is left is moving it from the "
        "workers. Every contestant does the same NumPy work, in a process of its own.",
        limit=500,
    ),
    Part(
        name="whole",
        module="whole_path",
        title="Whole path, scaling, and a busy machine",
        text="From files to batches of 16 clips of 16 x 112 x 112, rotated and shifted: the same clips, sizes, angles and "
        "shifts. The peer is torch's DataLoader with torchcodec and grid_sample, with torchcodec's resize and without.",
        why="A gain over one worker says nothing about speed: cinefeed with one worker already uses more of the machine.",
        limit=500,
    ),
    Part(
        name="start",
        module="starting",
        title="Time to first batch, and memory",
        text="Two workers on `lips`, each contestant in a process of its own. The clock starts when everything is imported "
        "and the files are listed. Memory is that of all processes after 20 batches, shared pages counted once.",
        why="A feed plans an epoch and starts its workers before the first batch.",
    ),
    Part(
        name="manifest",
        module="manifests",
        title="A large manifest",
        text="Reading the manifest, making the feed, and its first batch.",
    ),
    Part(
        name="busy",
        module="busy",
        title="Training on a busy machine",
        text="The demo's training by the command line, with the threads and the waiting that cinefeed sets, and with those "
        "that PyTorch's OpenMP has by default.",
    ),
    Part(
        name="step",
        module="models",
        title="Training step",
        text="The network of the 2020 system, with batch norm as one call and feature maps channels first, beside the same "
        "layers in `TimeDistributed` and beside plain PyTorch.",
        why="Keras' layers cost time that plain PyTorch does not have: shape checks, and a graph of Python calls.",
    ),
    Part(
        name="encode",
        module="encoding",
        title="Encode",
        text="Training on features that `cinefeed encode` has stored, beside training the whole network on frames.",
    ),
)
