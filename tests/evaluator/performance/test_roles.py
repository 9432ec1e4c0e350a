"""Roles of a warp-specialised kernel are read off its control flow; how often they pass their loops, off mbarriers."""

from avo.evaluator.performance.pipes import Costs
from avo.evaluator.performance.roles import Role, find_roles, leading, passes_in_step
from avo.evaluator.performance.structure import Graph, Loop, Structure
from avo.evaluator.targets import get_target
from tests.evaluator.performance.test_structure import assemble

ARRIVE = "SYNCS.ARRIVE.TRANS64.A1T0 RZ, [UR9+0x100], RZ"
WAIT = "SYNCS.PHASECHK.TRANS64.TRYWAIT P0, [UR9+0x100], R2"
PERSISTENT = f"""
    SYNCS.EXCH.64 URZ, [UR9+0x100], UR4
    .dispatch:
    USETMAXREG
    @P0 BRA `(.first)
    @P1 BRA `(.second)
    EXIT
    .first:
    {ARRIVE}
    .first_inner:
    FFMA
    {ARRIVE}
    @P2 BRA `(.first_inner)
    {ARRIVE}
    @P3 BRA `(.first)
    BRA `(.dispatch)
    .second:
    {WAIT}
    .second_inner:
    MUFU.EX2
    {WAIT}
    @P2 BRA `(.second_inner)
    .second_masked:
    MUFU.EX2
    {WAIT}
    @P2 BRA `(.second_masked)
    @P3 BRA `(.second)
    BRA `(.dispatch)
"""


STARTED_EACH_TIME = """
    @P0 BRA `(.own)
    .dispatch:
    USETMAXREG
    BAR.SYNC.DEFER_BLOCKING 0x1
    LDS.U8 R2, [R2+UR49+0x28154]
    @P1 BRA `(.role)
    EXIT
    .role:
    MUFU.EX2
    @P2 BRA `(.role)
    BAR.SYNC.DEFER_BLOCKING 0x1
    BRA `(.dispatch)
    .own:
    USETMAXREG
    BAR.SYNC.DEFER_BLOCKING 0x1
    .own_inner:
    FFMA
    @P2 BRA `(.own_inner)
    BAR.SYNC.DEFER_BLOCKING 0x1
    @P3 BRA `(.own)
    EXIT
"""


def read(text: str) -> tuple[Structure, Costs]:
    code = assemble(text)
    return Graph(code).structure(0), Costs(code.instructions, get_target("b200"))


def test_a_role_is_what_is_passed_without_a_new_dispatch() -> None:
    structure, costs = read(PERSISTENT)
    first, second = find_roles(structure, 8)
    assert [len(role.paths()) for role in (first, second)] == [2, 3]
    assert [role.warps for role in (first, second)] == [1, 4]
    assert leading([first, second], costs) is second


def test_while_a_role_with_more_loops_passes_one_of_them_another_passes_its_last_one() -> None:
    inner, masked, only = (Loop(address, (), False) for address in range(3))
    second = Role((Loop(3, (inner, masked), False),), 4)
    first = Role((Loop(4, (only,), False),), 1)
    assert list(second.paths()) == [(0,), (0, 0), (0, 1)]
    assert [first.beside(path) for path in second.paths()] == [first.loops[0], only, only]
    assert first.beside((0, 0, 0)) is None


def test_a_role_that_is_started_in_a_loop_has_that_loop_around_its_own() -> None:
    structure, _ = read(STARTED_EACH_TIME)
    own, role = find_roles(structure, 8)
    assert [len(each.paths()) for each in (own, role)] == [2, 2]
    assert [i.base for i in role.loops[0].own] == ["USETMAXREG", "BAR", "LDS", "BRA", "BAR", "BRA"]
    assert role.loops[0].lines == own.loops[0].lines
    assert role.started is role.loops[0]
    assert own.started is own.loops[0]
    assert [loop.own[0].base for each in (own, role) for loop in each.leaves] == ["FFMA", "MUFU"]
    before, after = STARTED_EACH_TIME.split(".own:")
    once, _ = read(f"{before}.own:{after.replace('USETMAXREG', '').replace('0x1', '0x2, 0x80')}")
    assert [(len(each.paths()), each.started) for each in find_roles(once, 8)] == [(2, None), (1, None)]


def test_a_role_that_peels_a_pass_off_passes_its_loop_once_less() -> None:
    structure, costs = read(PERSISTENT)
    roles = find_roles(structure, 8)
    passes = passes_in_step(roles, costs, 6)
    first, second = (role.loops[0] for role in roles)
    assert [passes[loop] for loop in second.inner] == [6, 6]
    assert passes[first.inner[0]] == 11  # with two arrivals outside for one wait there


def test_roles_without_nested_loops_or_known_mbarriers_are_left_alone() -> None:
    structure, costs = read(PERSISTENT.replace(ARRIVE, "FADD"))
    only_the_leading_one = passes_in_step(find_roles(structure, 8), costs, 6)
    assert set(only_the_leading_one.values()) == {6}
    assert passes_in_step([Role((Loop(0, (), False),), 4)], costs, 6) == {}
