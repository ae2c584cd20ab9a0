"""Data flows one way, the root names are spelled out, and importing cinefeed loads no framework."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import cinefeed

PACKAGE = Path(cinefeed.__file__).parent
# What each package holds, from upstream to downstream: a module imports only what stands before it, in its own package
# and in those around it.
ORDER = {
    "": """
        core video data transforms feed packing adapters encoders metrics models config training jobs reports doctor
        demo testing cli
    """,
    "core": """
        errors plugins arguments text files digests locks remote html charts moving cores machine pools keras_backend
        rng scratch progress kernel_cache compiled
    """,
    "core.remote": "address store ranges cache files",
    "video": """
        timestamps clips limits kinds extras embedded color orientation metadata read_options planes source regions
        pixel_levels ffmpeg value_range arrays images dicom packed readers registry
    """,
    "video.ffmpeg": """
        containers damage messages slice_headers frame_numbers decode_range pixel_formats boxes packets seek_check
        second_look probe abi compiled_loops decoder fast_decoder seek_decoder source writer
    """,
    "video.arrays": "axes array_frames frame_offsets npy hdf5 nifti in_memory",
    "video.images": "image_size tiff animation groups source",
    "video.dicom": "header fragments jpeg_lossless pixels lookup_tables geometry metadata series source encapsulated",
    "video.packed": "shards arrays frame_codec source",
    "data": "label_types split split_summary sampling manifest quality",
    "data.sampling": "strata multilabel measure shares order plan report prior base samplers",
    "data.manifest": """
        columns ids fingerprint parquet identity read_table write_table files label_keys labels grouping summary remote
        output_folders find quiet held scan discover rows pivot combine hiding in_memory display base
        group_candidates manifest
        encoded values
    """,
    "data.quality": """
        findings frame_summaries thumbnails files values exact_duplicates near_duplicates groups duplicates labels
        heterogeneity shortcuts run_checks
    """,
    "transforms": """
        base seeding call drawing temporal kernels lookup resample yuv field geometry framing elastic
        intensity_linear intensity_curves texture masks choice mixing fuse fit compose nearest
    """,
    "feed": """
        stats state batch_layout memory_budget plan_cache disk_errors decode mask clip_pipeline workers
        covariates labels describe inputs contact_sheet display batch mixing settings shard planned_uses fetch_ahead
        batch_builder replay evaluation prefetch iteration feed preview throughput
    """,
    "feed.workers": "buffers messages worker_main processes pools autotune pool_factory",
    "packing": "settings frames codecs rows worker_main workers estimate shards pack verify sample advice",
    "adapters": "tensors ahead torch keras jax",
    "encoders": """
        files preprocessing user_functions torch_encoder weights torchvision_models timm_models transformers_models
        windows load video_encoder
    """,
    "metrics": """
        basic added predictions agreement calibration weighted units bootstrap estimates thresholds subgroups assess
        compare baselines names headline display
    """,
    "models": """
        parts norm over_time spacetime pretrained_backbones cnn_rnn heads feature_rnn torch_layer pretrained
        torchvision_weights cnn3d autoencoder reference
    """,
    "config": "settings toml lines recipe starter_clips starter_training starter",
    "training": """
        auto run keras_module weights predictions losses network batches distributed ranks callbacks threads checkpoint
        stopping logging setup doubts saliency worst_cases sample_images finish baseline_models baselines fit
        known_videos trained evaluate predict folds pace frame_encoder features_journal encode export
    """,
    "jobs": "parts records files versions scan pack encode predict merge on_ray",
    "reports": """
        style formatting templates sealed figures prediction_figures agreement animation balance data folder
        part_figures baselines results methods card page check parameter_extremes transforms
    """,
    "doctor": "look advice",
    "testing": "videos sources checks samplers feeds",
    "cli": """
        inputs help show cache options messages parts data check bench pack prepare encode train evaluate merge report
        doctor demo app
    """,
}
# What a package must not import although it stands before it.
FORBIDDEN = {
    "transforms": ("data",),
    "metrics": ("feed", "adapters"),
    "models": ("feed.feed", "adapters"),
    "encoders": ("feed.feed", "adapters"),
    "reports": ("training", "models", "adapters"),
    "adapters.torch": ("adapters.keras", "adapters.jax"),
    "adapters.keras": ("adapters.torch", "adapters.jax"),
    "adapters.jax": ("adapters.torch", "adapters.keras"),
}
FRAMEWORKS = {"torch", "keras", "jax", "tensorflow", "sklearn", "matplotlib", "typer", "rich", "pandas", "jinja2"}


def imported_modules(path: Path) -> list[str]:
    """Return every module that a file imports, in any form, those inside functions too."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def module_names(package: Path) -> dict[str, Path]:
    """Return the file of each module below the root, by its dotted name; `__init__` files are their packages."""
    files = {}
    for path in sorted(package.rglob("*.py")):
        steps = path.relative_to(package).with_suffix("").parts
        files[".".join(steps[:-1] if steps[-1] == "__init__" else steps)] = path
    return {name: path for name, path in files.items() if name and not name.startswith("__")}


def unlisted(package: Path) -> list[str]:
    """Return every module and package that ORDER lacks, and every name in it that is not there."""
    names = set(module_names(package))
    listed = {f"{parent}.{name}".lstrip(".") for parent, children in ORDER.items() for name in children.split()}
    return sorted(names ^ listed)


def import_faults(package: Path) -> list[str]:
    """Return every import of a module that ORDER has after the one that imports it, or that is forbidden to it."""
    files, faults = module_names(package), []
    for name, path in files.items():
        for module in imported_modules(path):
            imported = module.removeprefix("cinefeed.")
            while imported and imported not in files:  # from a module, a name
                imported = imported.rpartition(".")[0]
            if not module.startswith("cinefeed.") or not imported or imported == name:
                continue
            if not _is_before(imported, name) or any(
                f"{name}.".startswith(f"{ours}.") and f"{imported}.".startswith(tuple(f"{each}." for each in theirs))
                for ours, theirs in FORBIDDEN.items()
            ):
                faults.append(f"{name}: {imported}")
    return faults


def _is_before(imported: str, name: str) -> bool:
    """Return whether a module stands before another one, where their paths part."""
    ours, theirs, parent = name.split("."), imported.split("."), []
    while ours and theirs and ours[0] == theirs[0]:
        parent.append(ours.pop(0))
        theirs.pop(0)
    if not ours or not theirs:  # a package and what is in it
        return True
    order = ORDER[".".join(parent)].split()
    return theirs[0] in order and ours[0] in order and order.index(theirs[0]) < order.index(ours[0])


def test_every_module_has_its_place_in_the_order():
    assert unlisted(PACKAGE) == []


def test_imports_point_upstream():
    assert import_faults(PACKAGE) == []


@pytest.mark.parametrize(
    ("file", "imported", "fault"),
    [
        ("core/rng.py", "cinefeed.feed.feed.Feed", "core.rng: feed.feed"),
        ("video/ffmpeg/boxes.py", "cinefeed.video.ffmpeg.probe.f", "video.ffmpeg.boxes: video.ffmpeg.probe"),
        ("video/ffmpeg/boxes.py", "cinefeed.video.registry.f", "video.ffmpeg.boxes: video.registry"),
        ("reports/page.py", "cinefeed.training.f", "reports.page: training"),
        ("adapters/jax.py", "cinefeed.adapters.torch.f", "adapters.jax: adapters.torch"),
    ],
)
def test_a_downstream_import_is_noticed(tmp_path, file, imported, fault):
    module, _, name = imported.rpartition(".")
    for path in (file, f"{module.removeprefix('cinefeed.').replace('.', '/')}.py"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    (tmp_path / file).write_text(f"def f():\n    from {module} import {name}\n")
    assert import_faults(tmp_path) == [fault]


def test_a_module_on_no_list_is_noticed(tmp_path):
    (tmp_path / "video").mkdir()
    (tmp_path / "video" / "yuv.py").touch()
    assert "video.yuv" in unlisted(tmp_path)


def loaded_frameworks(code: str) -> set[str]:
    script = f"{code}\nimport sys\nprint(*sorted(set(name.split('.')[0] for name in sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return FRAMEWORKS & set(done.stdout.split())


def test_import_loads_no_framework():
    assert loaded_frameworks("import cinefeed") == set()
    assert loaded_frameworks("import cinefeed; cinefeed.Feed; cinefeed.Manifest; cinefeed.Clip") == set()


def test_the_torch_adapter_needs_no_keras():
    assert not loaded_frameworks("import cinefeed.adapters.torch") & {"keras", "jax"}


def test_a_loaded_framework_is_found():
    assert loaded_frameworks("import cinefeed, rich") == {"rich"}


def test_root_names():
    assert sorted(cinefeed.__all__) == sorted(
        "Manifest Feed Inputs Workers Shard ClipsPerVideo Batch FeedSpec Clip Frame Rotate Shift Scale Flip Normalize "
        "Brightness Contrast Natural BalancedClasses UniformLabels ReadOptions ReadLimits open_video probe "
        "register_reader CinefeedError models testing transforms __version__".split()
    )
    for name in cinefeed.__all__:
        assert getattr(cinefeed, name) is not None
    assert set(cinefeed.__all__) <= set(dir(cinefeed))


def test_help_works_without_a_backend_of_keras(tmp_path):
    environment = {name: text for name, text in os.environ.items() if name != "KERAS_BACKEND"}
    environment |= {"KERAS_HOME": str(tmp_path), "PYTHONPATH": str(PACKAGE.parent)}
    command = [sys.executable, "-c", "import cinefeed; help(cinefeed)"]
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0 and "class Feed(" in done.stdout, done.stderr


def test_an_unknown_root_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="Fead"):
        cinefeed.Fead  # noqa: B018
