"""Runs the cases of `rfc9113_cases.py`. Prints each deviation that is known, with its reason; fails with each that is not."""

from concurrent.futures import ThreadPoolExecutor

import hyperframe

from client import Site
from frames import Closed, Peer
from report import report
from rfc9113_cases import CASES, DEVIATIONS


def run(address, act):
    peer = Peer(address)
    try:
        told = act(peer)
        return told if isinstance(told, str) else peer.outcome()
    except Closed:
        return "closed"
    except TimeoutError:
        return "nothing"
    finally:
        peer.socket.close()


def main():
    site = Site()
    address = site.endpoint(site.plain)
    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(lambda case: run(address, case[3]), CASES))
    cases = [
        (section, what, outcome, outcome in allowed, " or ".join(sorted(allowed)))
        for (section, what, allowed, _), outcome in zip(CASES, outcomes)
    ]
    report(f"hyperframe {hyperframe.__version__}", cases, DEVIATIONS)


main()
