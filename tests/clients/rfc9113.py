"""Runs the cases of `rfc9113_cases.py`. Prints each deviation that is known, with its reason; fails with each that is not."""

import sys
from concurrent.futures import ThreadPoolExecutor

import hyperframe

from client import Site
from frames import Closed, Peer
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
    known = {case: (outcome, reason) for reason, outcome, cases in DEVIATIONS for case in cases}
    failures, deviating = [], {}
    for (section, what, allowed, _), outcome in zip(CASES, outcomes):
        expected, reason = known.pop((section, what), (None, None))
        if outcome == expected and outcome not in allowed:
            deviating.setdefault((reason, outcome), []).append(f"{section} {what}")
        elif expected:
            failures.append(f"{section}: {what}: {outcome}, and DEVIATIONS says {expected}: strike it there?")
        elif outcome not in allowed:
            failures.append(f"{section}: {what}: {outcome}, expected {' or '.join(sorted(allowed))}")
    failures += [f"{section}: {what}: no such case, in DEVIATIONS" for section, what in known]
    if failures:
        sys.exit("\n".join(failures))
    sections = len({section for section, *_ in CASES})
    print(f"hyperframe {hyperframe.__version__}")
    for (reason, outcome), cases in deviating.items():
        print(f"deviation: {outcome}, {reason}: {'; '.join(cases)}")
    deviations = sum(map(len, deviating.values()))
    print(f"{len(CASES)} cases of {sections} sections, {deviations} of which deviate in a way that is known")


main()
