"""What a round was like, in a few lines."""

from collections import Counter

from tests.chaos.seats import Transport
from tests.chaos.verdict import History


def table(histories: list[History], kills: Counter[str], appended: int, jobs: int) -> str:
    lines = [f"{appended} events appended to the streams of {jobs} jobs and the ledger"]
    lines += [f"{count:5d} {name}" for name, count in kills.most_common()]
    head = ("transport", "viewers", "events", "links", "cut", "whims", "lag p99", "longest")
    lines.append("{:<12}{:>8}{:>9}{:>7}{:>6}{:>7}{:>9}{:>9}".format(*head))
    for transport in Transport:
        of = [found for found in histories if found.seat.transport is transport]
        lags = sorted(lag for found in of for lag in found.lags) or [0.0]
        lines.append(
            f"{transport:<12}{len(of):>8}{sum(f.received for f in of):>9}"
            f"{sum(f.links for f in of):>7}{sum(f.cuts for f in of):>6}"
            f"{sum(f.whims for f in of):>7}"
            f"{lags[int(len(lags) * 0.99)]:>8.2f}s{lags[-1]:>8.2f}s"
        )
    return "\n".join(lines)
