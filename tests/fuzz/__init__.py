"""What nobody thought of: Hypothesis, with foreign implementations as oracles.

`make test` tries some hundred of each, `make fuzz` thousands.
"""
