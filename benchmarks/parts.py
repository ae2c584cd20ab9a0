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
            text=self.text.strip(),
            why=self.why.strip(),
            result=Result(),
        )
        object.__setattr__(self, "section", section)


PARTS = (
    Part(
        name="decoding",
        module="sources",
        title="Live decoding",
        text="""
Clips of 16 frames, every second one, from random places, to 112 x 112, on one thread. `pocus`: ultrasound of many
sizes; `lips`: small frames; long GOP: generated H.264 with two B-frames between others.
""",
    ),
    Part(
        name="scan",
        module="scanning",
        title="Scan",
        text="""
A scan of a folder, beside loops that find the number of frames of each file and nothing else. By default a scan decodes
all frames, the only way to detect damage; `verify="packets"` counts packets.
""",
        why="""
A scan does more than the loop, in Python: it groups files into series, finds the reader of each file, and records its
size, times and key frames, which later spare each clip of a feed this work. It runs once.
""",
    ),
    Part(
        name="packed",
        module="packing",
        title="Packed",
        text="""
RGB clips of 16 x 112 x 112 with stride 2, rotated and shifted, in batches of 16, by 1 worker. The source has 16 videos
of 240 frames, 240 x 320, with one key frame each; packed ones have a shorter side of 128. WebDataset reads the same
shards; `.npy` files and LitData's chunks hold the same pixels as `raw`. Peers turn clips with OpenCV.
""",
    ),
    Part(
        name="remote",
        module="remote",
        title="Remote",
        text="""
One S3 server on loopback behind a proxy with a latency of 20 ms for each request, both in Python on the same cores.
Packed shards of 32 videos for cinefeed and WebDataset, chunks of the same size for LitData.
""",
        why="""
WebDataset and LitData fetch a whole shard or chunk at once and read its videos in their order; cinefeed requests videos
in the order of a plan that mixes all shards, and only neighbours share a request ("in order" is an evaluation, in which
all are neighbours). The peers do not shuffle here, and WebDataset stores nothing: its second epoch is from the network
again.
""",
    ),
    Part(
        name="transforms",
        module="catalogue",
        title="Transforms",
        text="""
First row: the batches of the 2020 system, a plain generator with SciPy, divided by the maximum. Second row: a colour
clip from decoded frames to 112 x 112, affine, crop, brightness, contrast, and normalised floats. One thread.
""",
    ),
    Part(
        name="transport",
        module="feeding",
        title="Transport",
        text="""
The time of a batch whose clips cost nothing but writing each byte: what is left is moving it from the workers to the
program. Every contestant does the same NumPy work, in a process of its own.
""",
        limit=500,
    ),
    Part(
        name="whole",
        module="whole_path",
        title="Whole path",
        text="""
From files to batches of 16 clips of 16 x 112 x 112, rotated and shifted: the same clips, sizes, angles and shifts. The
peer is torch's DataLoader with torchcodec and grid_sample; torchcodec resizes, or it does not.
""",
        why="""
A gain is relative to each library's own single worker, and says nothing about speed. The program that receives the
batches shares the two cores with two workers; the less time a clip takes, the more this counts.
""",
        limit=500,
    ),
    Part(
        name="start",
        module="starting",
        title="Start",
        text="""
Time to the first batch, and memory, of two workers on `lips`; each contestant in a process of its own. The clock starts
when everything is imported and the files are listed, for the peer also its clips, and ends with the first batch; a feed
makes its plan and loads its compiled code from the cache on disk in this time. Each process has imported both
libraries. Memory is that of all processes after 20 batches, shared pages counted once.
""",
        why="""
Nearly all of it is loading compiled code from its cache, once per process: a feed of a process that has loaded it had
its first batch after 0.04 s.
""",
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
        title="Busy machine",
        text="""
The demo's training by the command line, with the threads and the waiting that cinefeed sets, and with those that
PyTorch's OpenMP has by default.
""",
    ),
    Part(
        name="step",
        module="models",
        title="Training step",
        text="""
The network of the 2020 system, with batch norm as one call and feature maps channels first, beside the same layers in
`TimeDistributed` and beside plain PyTorch.
""",
        why="""
Layers and weights are the same, so the difference is Keras' own code around the layers.
""",
    ),
    Part(
        name="encode",
        module="encoding",
        title="Encode",
        text="Training on features that `cinefeed encode` has stored, beside training the whole network on frames.",
    ),
)
