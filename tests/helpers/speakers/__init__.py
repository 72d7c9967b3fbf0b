"""Miners and pools of every dialect, spoken from the specifications: no code shared with the parsers.

A speaker knows the words of one dialect; ``conversing.converse`` lets it mine at a known rate.
"""

from speakers import bitcoin, browsers, cryptonote, ethereum, graphs, mining, nodes, odd, solo, stratum2

SPEAKERS = (
    *bitcoin.SPEAKERS, *cryptonote.SPEAKERS, *ethereum.SPEAKERS, *mining.SPEAKERS, *odd.SPEAKERS,
    *graphs.SPEAKERS, *solo.SPEAKERS, *browsers.SPEAKERS, *stratum2.SPEAKERS,
    *nodes.SPEAKERS,
)  # fmt: skip
