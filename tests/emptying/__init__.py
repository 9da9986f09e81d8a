"""An app of the tests alone: between two of them it empties tables faster than Django does."""
