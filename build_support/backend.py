"""The build backend: setuptools, building against the PyTorch that the extension will run with.

A compiled extension only works with the PyTorch version it was built for. In an isolated build
environment pip would fetch some PyTorch of its own, with "undefined symbol" as the result. So where
the interpreter that runs the build already has one installed, that one is used; only where there is
none is PyTorch asked for as a build requirement.
"""

import importlib.util
import sys
import sysconfig

from setuptools.build_meta import *  # noqa: F403 (the rest of the backend is setuptools')

if importlib.util.find_spec("torch") is None:
    # Last on the path, so that the build environment's own packages win.
    sys.path.append(sysconfig.get_path("platlib"))


def get_requires_for_build_wheel(config_settings=None):
    return [] if importlib.util.find_spec("torch") else ["torch>=2.11,<2.14"]


get_requires_for_build_editable = get_requires_for_build_wheel
get_requires_for_build_sdist = get_requires_for_build_wheel
