"""Numbers that judge a mask or a list of scores. Metrics know no models, no files and no reports."""
