"""The table of a measurement, as text."""

import math
import statistics

from avo.evaluator.measurement import Entrant, Measurement
from avo.evaluator.units import figure


def table(found: Measurement) -> str:
    """Return what every entrant reached: the fastest first, then those without figures and why."""
    cases = [case.name for case in found.cases]
    means = {each.name: of.tflops if (of := found.reached(each.name)) else 0.0 for each in found.entrants}
    ranked = sorted(found.entrants, key=lambda each: -means[each.name])
    measured = [each for each in ranked if each.status == "correct" and found.times_us(each.name)]
    width = max([len(each.name + " " + each.release) for each in found.entrants] + [14])
    head = [f"{'TFLOPS, median':{width}}", *(f"{name:>14}" for name in cases)]
    lines = ["".join([*head, f"{'mean':>9}{'x ' + found.start:>17}{'predicted':>22}{'runs':>6}"])]
    for each in measured:
        speeds = found.speeds(each.name)
        figures = "".join(f"{figure(speeds[case].tflops) if case in speeds else '-':>14}" for case in cases)
        mean, of = means[each.name], each.predicted_range
        predicted = f"{figure(of.tflops)} ({figure(of.low)} to {figure(of.high)})" if of else "-"
        runs = min((speed.runs for speed in speeds.values()), default=0)
        lines.append(
            f"{(each.name + ' ' + each.release).strip():{width}}{figures}"
            f"{figure(mean) if mean else '-':>9}{_ratio(found, each):>17}{predicted:>22}{runs:>6}"
        )
    lines += [f"{each.name}: {each.status}: {each.message}" for each in found.entrants if each.message]
    return "\n".join([found.conditions(), *lines])


def _ratio(found: Measurement, entrant: Entrant) -> str:
    """Return how many times as fast as the start it is, with the standard error over rounds."""
    logs = found.ratios(entrant.name)
    if not logs or entrant.name == found.start:
        return "-" if entrant.name != found.start else "1"
    ratio = math.exp(statistics.fmean(logs))
    return f"{ratio:.3f}" + (f" ± {ratio * statistics.stdev(logs) / math.sqrt(len(logs)):.3f}" if logs[1:] else "")
