"""Measurements of the evaluation itself: how much its pipeline costs in addition to the edits and scores.

Nothing is imported here: a child whose memory is measured must not hold torch because its sibling needs it.
"""
