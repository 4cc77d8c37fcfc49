"""Lists the packages: folder ``X/`` of this repository is the package ``sparsespike.X``; and the native engine's C kernel.

The kernel is optional: where no C compiler is at hand the installation goes on without it, and the native engine uses numba.
"""

from setuptools import Extension, find_packages, setup

FOLDERS = ["common", "ann", "export", "backends", "energy", "sweeps", "cli"]
NATIVE = "backends/native"

setup(
    packages=[f"sparsespike.{name}" for name in find_packages(include=[p for f in FOLDERS for p in (f, f"{f}.*")])],
    ext_modules=[
        Extension(
            "sparsespike.backends.native._simd",
            sources=[f"{NATIVE}/simd.c"],
            depends=[f"{NATIVE}/simd_types.h", f"{NATIVE}/simd_step.h"],
            # The kernel chooses its instruction set when it runs: no -march here, so that a wheel runs anywhere.
            extra_compile_args=["-O3", "-fwrapv", "-fno-strict-aliasing"],
            optional=True,
        )
    ],
)
