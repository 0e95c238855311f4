"""The C accelerators, which may fail to build; the metadata is in setup.cfg."""

from setuptools import Extension, setup  # type: ignore[import-untyped]


def accelerator(package: str) -> Extension:
    return Extension(
        f"flask_wschat.{package}._speedups",
        [f"flask_wschat/{package}/_speedups.c"],
        define_macros=[("Py_LIMITED_API", "0x030A0000")],
        extra_compile_args=["-O3"],  # below it, gcc makes no vectors of a loop
        py_limited_api=True,
        # Without a compiler the package installs, and the Python twins serve.
        optional=True,
    )


setup(
    ext_modules=[accelerator("codec"), accelerator("transports")],
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
