"""Arms in traffic: the guard that takes a failing one out, shadow arms, judging, status and export."""
