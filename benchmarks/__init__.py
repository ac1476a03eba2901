"""What aioext costs, and what it gains: ``python -m benchmarks``."""
