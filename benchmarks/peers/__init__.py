"""The servers of others under the same load; each prints the port it listens on.

They run in environments of their own, so what they import is not installed here.
"""
