"""Who the partners are, and what Microsoft says about their customers."""
