"""The drawn world for `careedit eval`: a benchmark with exact truths, and the oracle as a metric."""
