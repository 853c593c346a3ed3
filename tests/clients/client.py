"""What the scripts share: where the gateway is, expectations, the lines they end with."""

import json
import sys


class Site:
    """Addresses of the gateway and paths of certificates, from the file that the first argument names."""

    def __init__(self):
        with open(sys.argv[1]) as file:
            facts = json.load(file)
        self.name, self.ca, self.dir = facts["name"], facts["ca"], facts["dir"]
        self.plain, self.tls, self.frames = facts["plain"], facts["tls"], facts["frames"]

    def endpoint(self, address):
        host, port = address.rsplit(":", 1)
        return host, int(port)

    def port(self, address):
        return self.endpoint(address)[1]


def expect(got, wanted, what):
    """Ends the script unless both are the same."""
    if got != wanted:
        sys.exit(f"{what}: expected {wanted!r}, got {got!r}")


def done(version, did):
    print(version)
    print(did, flush=True)
