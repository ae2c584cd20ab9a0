"""Versions of the libraries that decide the bytes of a part."""

import av

import cinefeed
from cinefeed.core.plugins import plugin_versions


def versions_of_decoder() -> dict[str, str]:
    """Return the versions that decide what a scan or a packing writes."""
    return {"cinefeed": cinefeed.__version__, "av": av.__version__, **plugin_versions("readers", "codecs")}


def versions_of_network() -> dict[str, str]:
    """Return the versions, and the device, that decide the last digits of what a network computes."""
    from cinefeed.training.run import READER_PACKAGES, versions

    other_names = ("python", "platform", *READER_PACKAGES)  # machines may have other readers, without any use
    return {name: version for name, version in versions().items() if name not in other_names}
