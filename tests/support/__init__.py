"""What several tests need: each module is named by what it holds.

Nothing here imports a test, or a conftest; see tests/test_support.py.
"""
