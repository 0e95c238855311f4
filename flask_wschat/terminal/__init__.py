"""``python -m flask_wschat connect``: the client on a terminal."""
