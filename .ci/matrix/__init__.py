"""The whole test matrix, in sections that can be resumed; only the standard library."""
