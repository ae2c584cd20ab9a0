"""`pytest --quick`: the tests without Keras, video decoding or another process, and proof that they are without.

A test file that needs one of these is listed in `KINDS`. With `--quick` these are left out, and any other test that
loads a framework, opens an encoded video or starts a process fails and says where to list it.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import pytest

TESTS = Path(__file__).parent
KINDS = {  # places of tests, each the beginning of a node id
    "keras": """
        adapters models training cli encoders/test_user_encoders.py encoders/test_original_libraries.py
        reports/test_assessed.py reports/test_browser.py reports/test_card.py reports/test_data.py
        reports/test_figures.py reports/test_methods.py reports/test_page.py test_benchmark_learning.py
        video/test_two_hospitals.py test_benchmark_models.py test_docs.py test_example_settings.py
        jobs/test_sharded_commands.py jobs/test_on_ray.py
        test_examples.py test_layers.py doctor test_plugin_example.py
        feed/test_other_ranks.py::test_the_torch_loader feed/test_other_ranks.py::test_the_jax_iterator
    """,
    "video": """
        packing
        data/quality/test_alike.py data/quality/test_check_files.py data/manifest/test_times.py video/test_boxes.py
        video/test_damage.py
        video/test_changed_files.py video/test_dicom_video.py video/test_display.py video/test_encoded.py
        video/test_every_source.py video/test_formats.py video/test_kinds.py video/test_limits.py
        video/test_matrix.py video/test_memory_growth.py video/test_native.py video/test_open.py
        video/test_packets.py video/test_picture_numbers.py video/test_private.py video/test_real_videos.py
        video/test_swscale.py
        video/test_values.py feed/test_mask_video.py test_demo.py test_security.py test_testing.py
        feed/test_decoder_stats.py
        feed/test_clips_per_video.py::test_what_is_decoded_once feed/test_mixing_feed.py::test_masks
    """,
    "process": """
        video/test_readers.py feed/test_chaos.py jobs/test_slurm_script.py
        feed/test_identity.py feed/test_interrupt.py feed/test_processes.py feed/test_resume.py
        feed/test_soak.py feed/test_workers_stay.py remote transforms/test_call.py fuzz kills test_check_feed.py
        test_cores.py test_errors.py reports/test_preview.py
        test_demo_environment.py test_locks.py test_machine.py test_quick.py
        feed/test_iteration.py feed/test_feed.py::test_a_backend_by_trial
        feed/test_replace.py::test_what_was_fed_before_changes_no_byte
        feed/test_buffers.py::test_shared_memory_is_seen
    """,
}
FRAMEWORKS = {"keras", "torch", "jax", "tensorflow", "pytorch_lightning"}
PROCESSES = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system"}


_running = False


class NotQuickError(AssertionError):
    """A quick test did what quick tests must not do."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="only tests without Keras, video decoding or processes")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    if (
        config.getoption("--quick")
        and collection_path.suffix == ".py"
        and _kind_of(collection_path.relative_to(TESTS).as_posix())
    ):
        return True
    return None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--quick"):
        slower = [item for item in items if _is_slower(item)]
        config.hook.pytest_deselected(items=slower)
        items[:] = [item for item in items if item not in slower]


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--quick"):
        sys.addaudithook(_watch)
        av.open = _open_video


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    global _running
    _running = item.config.getoption("--quick")
    try:
        return (yield)
    finally:
        _running = False


def _is_slower(item: Any) -> bool:
    name = item.path.relative_to(TESTS).as_posix() + "::" + item.name
    slower = item.get_closest_marker("slow") or "data" in item.fixturenames or "process" in item.name
    return bool(slower or _kind_of(name))


def _kind_of(place: str) -> str | None:
    return next((kind for kind, places in KINDS.items() if place.startswith(tuple(places.split()))), None)


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if not _running:
        return
    if event == "import" and arguments[0].partition(".")[0] in FRAMEWORKS and arguments[0] not in sys.modules:
        raise NotQuickError(f"a quick test imports {arguments[0]}; list its file under 'keras' in {__file__}")
    if event in PROCESSES:
        raise NotQuickError(f"a quick test starts a process; list its file under 'process' in {__file__}")


def _open_video(*arguments: Any, **options: Any) -> Any:
    raise NotQuickError(f"a quick test opens a video; list its file under 'video' in {__file__}")
