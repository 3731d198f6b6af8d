"""The one thing pyproject.toml cannot say: kernels in C, for those who have a compiler."""

import os

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

FOLDER = "src/lowland/control/packing/"


class BuildKernels(build_ext):
    """Compile with OpenMP where the compiler knows it, else without."""

    def build_extension(self, ext: Extension) -> None:
        """Try the flags of gcc and clang first, then plain ones."""
        if os.name == "nt":
            ext.extra_compile_args = ["/O2", "/openmp"]
            return super().build_extension(ext)
        ext.extra_compile_args = ["-O3", "-g0", "-std=c99", "-fopenmp"]
        ext.extra_link_args = ["-fopenmp"]
        try:
            return super().build_extension(ext)
        except Exception:  # whatever a compiler's absence or refusal raises; the second try counts
            ext.extra_compile_args = ["-O3", "-g0", "-std=c99"]
            ext.extra_link_args = []
            return super().build_extension(ext)


setup(
    cmdclass={"build_ext": BuildKernels},
    ext_modules=[
        Extension(
            "lowland.control.packing._kernels",
            sources=[FOLDER + "kernels.c"],
            depends=[FOLDER + name for name in ("vector.h", "columns.h", "gaps.h")],
            py_limited_api=True,
            optional=True,
        )
    ],
    exclude_package_data={"": ["*.c", "*.h"]},
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
