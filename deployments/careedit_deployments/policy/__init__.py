"""The content policy: what checks get and answer, the hook that asks them, and the checks that come with careedit."""
