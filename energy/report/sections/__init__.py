"""The sections of a report, one subject a module: what was read goes in, blocks come out."""
