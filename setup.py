"""The C accelerators, which may fail to build; the metadata is in setup.cfg."""

from setuptools import Extension, setup  # type: ignore[import-untyped]

# What gcc and clang both know. Below -O3, gcc makes no vectors of a loop. Without -U, a
# Python that fortifies on another level would give a warning.
FLAGS = [
    "-O3",
    "-Wall",
    "-Wextra",
    "-Wformat-security",
    "-Wno-unused-parameter",
    "-Wno-cast-function-type",
    "-Wno-missing-field-initializers",
    "-fstack-protector-strong",
    "-U_FORTIFY_SOURCE",
    "-D_FORTIFY_SOURCE=2",
]


def accelerator(package: str) -> Extension:
    return Extension(
        f"flask_wschat.{package}._speedups",
        [f"flask_wschat/{package}/_speedups.c"],
        define_macros=[("Py_LIMITED_API", "0x030A0000")],
        extra_compile_args=FLAGS,
        py_limited_api=True,
        # Without a compiler the package installs, and the Python twins serve.
        optional=True,
    )


setup(
    ext_modules=[accelerator("codec"), accelerator("transports")],
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
