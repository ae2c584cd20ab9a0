"""`cinefeed encode`: features of videos by the CNN of a run, or by a pretrained network."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from cinefeed.cli.options import Json, Window, frame_table, window_of
from cinefeed.cli.parts import Address, Division, Engine, Parts, Shard, emit_part
from cinefeed.cli.show import choose_backend, emit, list_failures, note
from cinefeed.config import read_transforms
from cinefeed.core.errors import SettingError
from cinefeed.core.progress import shown_progress
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.encoders.load import split_name
from cinefeed.encoders.video_encoder import VideoEncoder, pretrained_encoder
from cinefeed.encoders.windows import Windows
from cinefeed.jobs.records import DonePart
from cinefeed.training.encode import encode as encode_videos
from cinefeed.video.clips import Frame


def encode(
    sources: Annotated[
        list[Path], typer.Argument(help="Run folder and manifest (Parquet); with --encoder the manifest alone.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the features and their manifest, features.parquet.")],
    encoder: Annotated[
        str | None,
        typer.Option(
            help="Pretrained network in place of a run: torchvision:NAME, timm:NAME, transformers:FOLDER, keras:NAME "
            "or python:MODULE:FUNCTION."
        ),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Local file with the weights of the encoder; none is downloaded.")
    ] = None,
    frame: Annotated[
        str | None,
        typer.Option(help="Frame, such as 96x96x1: HEIGHTxWIDTHxCHANNELS. By default that of the encoder, in colour."),
    ] = None,
    window: Window = None,
    frames: Annotated[int | None, typer.Option(help="Frames of a window, for encoders of clips.")] = None,
    stride: Annotated[int, typer.Option(help="Use every n-th frame in a window.")] = 1,
    rate: Annotated[float | None, typer.Option(help="Frames per second of a window, in place of --stride.")] = None,
    hop: Annotated[
        int | None, typer.Option(help="Frames from one window to the next. By default windows do not overlap.")
    ] = None,
    dtype: Annotated[
        str, typer.Option(help="Number format of the features: float32, or float16 for half the size.")
    ] = "float32",
    precision: Annotated[
        str, typer.Option(help="Precision of the network: float32 or bfloat16; not of a run or keras:NAME.")
    ] = "float32",
    device: Annotated[
        str | None, typer.Option(help="Device of PyTorch, such as cpu. By default a GPU if there is one.")
    ] = None,
    augmented: Annotated[
        int, typer.Option(help="Augmented versions of each video besides the original, for training.")
    ] = 0,
    transforms: Annotated[
        Path | None, typer.Option(help="Settings file (TOML) whose transforms make the augmented versions.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the augmented versions.")] = 0,
    shard: Shard = None,
    engine: Engine = None,
    address: Address = None,
    parts: Parts = None,
    as_json: Json = False,
) -> None:
    """Compute features of all videos once with the CNN of a run or a pretrained network, to train the rest faster."""
    division = Division(shard=shard, engine=engine, address=address, parts=parts)
    if len(sources) != (1 if encoder is not None else 2):
        raise SettingError(
            "encode needs a run folder and a manifest, or with --encoder a manifest alone; found "
            f"{' '.join(map(str, sources))}"
        )
    if dtype not in ("float32", "float16"):
        raise SettingError(f"--dtype {dtype!r} is not a choice; use float16 or float32")
    windows = None
    if any(each is not None for each in (frames, rate, hop)) or stride != 1:
        if frames is None:
            raise SettingError("--stride, --rate and --hop need --frames, the number of frames in a window")
        windows = Windows(frames=frames, stride=stride, rate_hz=rate, hop=hop)
    options: dict[str, Any] = {"weights": weights, "windows": windows, "precision": precision, "device": device}
    options |= {"transforms": () if transforms is None else read_transforms(transforms)}
    make_network = (
        partial(
            _encoder_of_run, sources[0], augmented=bool(augmented), options=options | {"frame": frame, "window": window}
        )
        if encoder is None
        else partial(_pretrained, encoder, frame=_frame(frame, window), options=options)
    )
    if division.flag is not None:
        work = partial(_encode_part, make_network, sources[-1], dtype=dtype, augmented=augmented, seed=seed)
    if division.engine is not None:
        make_network()  # checks the options before Ray starts
        division.run_all(
            work,
            out=out,
            units=lambda: len(Manifest.read(sources[-1])),
            network=device != "cpu",
            as_json=as_json,
        )
        return
    if division.part is not None:
        with shown_progress(None, what="encoding") as tick:
            done = work(part=division.part, out=out, tick=tick)
        emit_part(done, as_json=as_json)
        if done.job.whole["warning"]:
            note(f"warning: {done.job.whole['warning']}")
        return
    network = make_network()
    with shown_progress(None, what="encoding") as tick:
        features = encode_videos(
            sources[-1],
            out=out,
            encoder=network,
            dtype=dtype,  # type: ignore[arg-type]  # checked above
            augmented=augmented,
            seed=seed,
            tick=tick,
        )
    of_what = "window" if network.windows is not None else "frame"
    pace = features.num_features / max(features.seconds, 1e-9)
    emit(
        {
            "manifest": str(features.path),
            "encoded_from": network.name,
            "dimension": features.dimension,
            "computed": features.num_encoded,
            "kept": features.num_reused,
            "features_per_second": round(pace, 2) if features.num_encoded else None,
            "failures": features.failures,
        },
        as_json=as_json,
        text=f"{features.num_encoded} videos encoded by {network.name}, {features.num_reused} unchanged: "
        f"{features.dimension} features per {of_what}"
        + (f", {pace:.1f} {of_what}s/s" if features.num_encoded else "")
        + f" -> {features.path}",
    )
    if features.warning:
        note(f"warning: {features.warning}")
    list_failures(features.failures)


def _encode_part(make_network: Callable[[], VideoEncoder], manifest: Path, **options: Any) -> DonePart:
    """Encode one part of a manifest, in any process."""
    from cinefeed.jobs.encode import encode_part

    return encode_part(manifest, encoder=make_network(), **options)


def _encoder_of_run(run: Path, *, augmented: bool, options: dict[str, Any]) -> VideoEncoder:
    """Return the encoder of a run. Raises SettingError for options of pretrained networks."""
    extra_options = [name for name, value in options.items() if value not in (None, "float32", ())]
    if extra_options:
        names = ", ".join(f"--{name}" for name in extra_options)
        raise SettingError(f"{names} need --encoder; a run has its own, so leave them out")
    choose_backend()
    from cinefeed.training.frame_encoder import encoder_of_run

    return encoder_of_run(run, augmented=augmented)


def _pretrained(encoder: str, *, frame: Frame | None, options: dict[str, Any]) -> VideoEncoder:
    """Return a pretrained encoder: a Keras network on Keras' backend, others on PyTorch."""
    if split_name(encoder)[0] != "keras":
        return pretrained_encoder(encoder, frame=frame, **options)
    if options["windows"] is not None or options["precision"] != "float32" or options["device"] is not None:
        raise SettingError(f"--frames, --precision and --device are not for {encoder}; leave them out")
    choose_backend()
    from cinefeed.training.frame_encoder import encoder_of_keras

    return encoder_of_keras(encoder, weights=options["weights"], frame=frame, transforms=options["transforms"])


def _frame(size: str | None, window: str | None) -> Frame | None:
    if size is None:
        if window is not None:
            raise SettingError("--window needs --frame HEIGHTxWIDTHxCHANNELS, such as 224x224x3")
        return None
    table: dict[str, Any] = dict(frame_table(size))  # Frame checks its values
    return Frame(**table, window=None if window is None else window_of(window))
