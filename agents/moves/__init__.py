"""Moves: edits of attention candidates that need no language model and keep a correct kernel correct.

The knowledge base has a note on every move, under the move's name.
"""

from avo.agents.moves.ahead import AHEAD_MOVES
from avo.agents.moves.exponentials import EXPONENTIAL_MOVES
from avo.agents.moves.far import FAR_MOVES
from avo.agents.moves.forced import FORCED_MOVES
from avo.agents.moves.gradients import GRADIENT_MOVES
from avo.agents.moves.heads import HEAD_MOVES
from avo.agents.moves.in_gluon import GLUON_MOVES
from avo.agents.moves.launch import LAUNCH_MOVES
from avo.agents.moves.masks import MASK_MOVES
from avo.agents.moves.memory import MEMORY_MOVES
from avo.agents.moves.move import Move, Variant
from avo.agents.moves.order import ORDER_MOVES
from avo.agents.moves.overlap import OVERLAP_MOVES
from avo.agents.moves.parts import PART_MOVES
from avo.agents.moves.rescaling import RESCALING_MOVES
from avo.agents.moves.roles import ROLE_MOVES
from avo.agents.moves.softmax import SOFTMAX_MOVES
from avo.agents.moves.statements import STATEMENT_MOVES
from avo.agents.moves.union import UNION_MOVES

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
    *AHEAD_MOVES,
    *MEMORY_MOVES,
    *ROLE_MOVES,
    *HEAD_MOVES,
    *STATEMENT_MOVES,
    *FORCED_MOVES,
    *FAR_MOVES,
    *UNION_MOVES,
    *GLUON_MOVES,
)

__all__ = ["MOVES", "Move", "Variant"]
