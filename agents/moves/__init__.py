"""Moves: edits of attention candidates that need no language model and keep a correct kernel correct.

The knowledge base has a note on every move, under the move's name.
"""

from agents.moves.exponentials import EXPONENTIAL_MOVES
from agents.moves.far import FAR_MOVES
from agents.moves.forced import FORCED_MOVES
from agents.moves.gradients import GRADIENT_MOVES
from agents.moves.heads import HEAD_MOVES
from agents.moves.in_gluon import GLUON_MOVES
from agents.moves.launch import LAUNCH_MOVES
from agents.moves.masks import MASK_MOVES
from agents.moves.memory import MEMORY_MOVES
from agents.moves.move import Move, Variant
from agents.moves.order import ORDER_MOVES
from agents.moves.overlap import OVERLAP_MOVES
from agents.moves.parts import PART_MOVES
from agents.moves.rescaling import RESCALING_MOVES
from agents.moves.roles import ROLE_MOVES
from agents.moves.softmax import SOFTMAX_MOVES
from agents.moves.statements import STATEMENT_MOVES

MOVES: tuple[Move, ...] = (
    *MASK_MOVES,
    *SOFTMAX_MOVES,
    *RESCALING_MOVES,
    *EXPONENTIAL_MOVES,
    *GRADIENT_MOVES,
    *LAUNCH_MOVES,
    *ORDER_MOVES,
    *OVERLAP_MOVES,
    *PART_MOVES,
    *MEMORY_MOVES,
    *ROLE_MOVES,
    *HEAD_MOVES,
    *STATEMENT_MOVES,
    *FORCED_MOVES,
    *FAR_MOVES,
    *GLUON_MOVES,
)

__all__ = ["MOVES", "Move", "Variant"]
