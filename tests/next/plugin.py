"""``pytest -p tests.next.plugin``: tests on the simulated next Flask and Werkzeug."""

from .simulated import simulate

simulate()
