"""Measurements of the evaluation itself: how much its pipeline costs beside the edits and scores that it makes.

Nothing is imported here: a child whose memory is measured must not hold torch because its sibling needs it.
"""
