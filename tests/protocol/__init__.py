"""docs/protocol.md, its JSON Schema and the ready-made chat say the same."""
