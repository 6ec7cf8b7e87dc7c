"""The oracle: whether an edited picture is right, judged against the exact truth."""
