"""What people look at: figures, and the report of an evaluation. Defines no metric and no statistic."""
