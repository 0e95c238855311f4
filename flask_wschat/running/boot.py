"""Runs a program as Python would, in a process that gevent has patched before.

    python boot.py {script,module,code} TARGET ARGUMENTS...

Run by its path, so that nothing else of this package is imported first. Unlike
``python -m gevent.monkey`` it leaves ``sys.path`` and ``__main__`` as the program would
find them without it: Flask looks for ``static/`` beside the file of ``__main__``.
"""

from __future__ import annotations


def main() -> None:
    # Here, as the names in this file's `__main__` are the program's.
    import os
    import sys

    _, kind, target, *arguments = sys.argv
    path = os.path.abspath(target)
    if not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
        first = {"script": os.path.dirname(os.path.realpath(path)), "code": ""}
        sys.path[0] = first.get(kind, os.getcwd())
    try:
        from gevent import monkey
    except ImportError:
        pass  # the program adds to `sys.path` by itself; `chat.run` says the rest
    else:
        monkey.patch_all()
    namespace = vars(sys.modules["__main__"])
    for name in ("__annotations__", "__cached__", "__file__", "annotations", "main"):
        namespace.pop(name, None)
    namespace["__doc__"] = None
    if kind == "module":
        import runpy

        sys.argv = ["-m", *arguments]
        runpy._run_module_as_main(target)  # type: ignore[attr-defined]  # Python's own
    elif kind == "code":
        sys.argv = ["-c", *arguments]
        code = compile(target, "<string>", "exec", dont_inherit=True)
        exec(code, namespace)  # nosec B102  # what the user started
    else:
        from importlib.machinery import SourceFileLoader

        sys.argv = [target, *arguments]
        loader = SourceFileLoader("__main__", path)
        namespace.update(__file__=path, __cached__=None, __loader__=loader)
        with open(path, "rb") as file:
            code = compile(file.read(), path, "exec", dont_inherit=True)
        exec(code, namespace)  # nosec B102  # what the user started


if __name__ == "__main__":
    main()
