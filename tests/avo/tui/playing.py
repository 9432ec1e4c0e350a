"""How tests wait for the terminal UI, and read it."""

from collections.abc import Callable

from textual.pilot import Pilot


async def until(pilot: Pilot[None], condition: Callable[[], bool]) -> None:
    """Wait for the polling thread; the limit only ends a broken test."""
    for _ in range(2_400):
        if condition():
            await pilot.pause()
            return
        await pilot.pause(0.05)
    raise AssertionError(f"it did not happen:\n{page(pilot)}")


def page(pilot: Pilot[None]) -> str:
    """What the screen shows, without colour."""
    strips = pilot.app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip) for strip in strips)
