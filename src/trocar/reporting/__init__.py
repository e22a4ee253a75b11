"""What people look at: figures, and the report of an evaluation. Computes no metric."""
