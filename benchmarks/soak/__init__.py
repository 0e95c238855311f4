"""A server under everything at once, for long: does it stay as small as it was?"""
