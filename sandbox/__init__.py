"""The pretended Microsoft cloud for development and tests. A process of its own; it imports nothing of the product."""
