"""The demos, as a foreign client and as a real browser see them."""
