"""Data flows one way, the root names are spelled out, and importing cinefeed loads no framework."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import cinefeed

PACKAGE = Path(cinefeed.__file__).parent
ROOMS = (
    "errors text files digests locks cores pools machine keras_backend rng scratch kernel_cache kernels clips sources "
    "label_types split balance manifest transforms check feed pack adapters metrics models config training report "
    "demo testing doctor cli"
).split()
FOLDERS = {
    "sources": (
        "kinds extras limits embedded boxes colour display base regions damage layout values packets messages "
        "second_look index runs structures libav decoder native ladder encoded axes plain stored arrays memory hdf5 "
        "nifti tiff image_size animation image_groups images jpeg_lossless dicom_header dicom_fragments dicom_pixels "
        "dicom_tables dicom_facts dicom_planes dicom dicom_video dicom_series packed readers open"
    ).split(),
    "balance": "strata rarest measure shares order plan report prior sampler samplers".split(),
    "manifest": (
        "columns ids fingerprint parquet identity reading writing files label_keys labels grouping summary find "
        "progress quiet scan rows pivot combine hiding base in_memory table encoded values"
    ).split(),
    "transforms": (
        "base seeding call drawing temporal warp field geometry framing elastic levels intensity curves texture masks "
        "choice mixing fuse compose nearest"
    ).split(),
    "check": "findings look files values content alike groups duplicates labels mixed shortcuts run".split(),
    "feed": (
        "stats state layout slots memory plans disk decode mask clip wire child processes workers choose crews "
        "covariates targets describe batch mixing settings inputs ranks assemble replay evaluating line iteration feed "
        "measure"
    ).split(),
    "metrics": (
        "basic predictions agreement calibration weighted units bootstrap estimates subgroups assess compare"
    ).split(),
    "config": "settings toml lines group_candidates starter".split(),
    "report": (
        "style words figures results agreement moving balance data folder drawn assessed templates methods page "
        "check strength transforms"
    ).split(),
    "doctor": "look advice".split(),
    "testing": "videos sources checks samplers feeds".split(),
    "adapters": "ahead torch keras jax".split(),
    "models": "parts norm over_time spacetime backbones cnn_rnn feature_rnn cnn3d autoencoder reference".split(),
    "training": (
        "run weights scores losses network batches callbacks checkpoint logging flow doubts saliency worst pictures "
        "finish distributed threads fit evaluate folds encode export"
    ).split(),
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


def upstream_faults(package: Path) -> list[str]:
    """Return every import that points downstream."""
    faults = []
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        if parts == ("__init__",) or parts == ("__main__",):
            continue
        for module in imported_modules(path):
            steps = module.split(".")
            if steps[0] != "cinefeed" or len(steps) < 2:
                continue
            if ROOMS.index(steps[1]) > ROOMS.index(parts[0]):
                faults.append(f"{path.name}: {module}")
            order = FOLDERS.get(parts[0], [])
            both = [parts[-1], *steps[2:3]]
            same_room = steps[1] == parts[0] and len(both) == 2 and set(both) <= set(order)
            if same_room and order.index(both[1]) >= order.index(both[0]):
                faults.append(f"{parts[0]}/{path.name}: {module}")
    return faults


def test_imports_point_upstream():
    assert upstream_faults(PACKAGE) == []


def test_a_downstream_import_is_found(tmp_path):
    (tmp_path / "rng.py").write_text("def f():\n    from cinefeed.feed.feed import Feed\n")
    assert upstream_faults(tmp_path) == ["rng.py: cinefeed.feed.feed.Feed"]


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
        "Brightness Contrast Natural BalancedClasses UniformLabels Reading ReadLimits open_source probe "
        "register_reader CinefeedError models testing transforms __version__".split()
    )
    for name in cinefeed.__all__:
        assert getattr(cinefeed, name) is not None
    assert set(cinefeed.__all__) <= set(dir(cinefeed))


def test_an_unknown_root_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="Fead"):
        cinefeed.Fead  # noqa: B018
