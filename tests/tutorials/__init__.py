"""Programs in the style of old tutorials, and what must hold for them."""
