"""Human votes: a blind A/B page, the table of votes, and the strengths that follow from them."""

from careedit_eval.voting.analysis import VoteReport, analyse_votes, exported
from careedit_eval.voting.ballots import Ballots
from careedit_eval.voting.server import make_vote_server
from careedit_eval.voting.table import VoteTable
from careedit_eval.voting.traffic import votes_of_traffic
from careedit_eval.voting.votes import Vote

__all__ = [
    "Ballots",
    "Vote",
    "VoteReport",
    "VoteTable",
    "analyse_votes",
    "exported",
    "make_vote_server",
    "votes_of_traffic",
]
