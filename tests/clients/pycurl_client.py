"""libcurl with an OpenSSL that knows X25519MLKEM768."""

import io

import pycurl

from client import Site, done, expect


def fetch(site, path, **options):
    """Status, fields and body of a GET by TLS."""
    body, head = io.BytesIO(), []
    curl = pycurl.Curl()
    curl.setopt(pycurl.URL, f"https://{site.name}:{site.port(site.tls)}{path}")
    curl.setopt(pycurl.RESOLVE, [f"{site.name}:{site.port(site.tls)}:127.0.0.1"])
    curl.setopt(pycurl.CAINFO, site.ca)
    curl.setopt(pycurl.WRITEDATA, body)
    curl.setopt(pycurl.HEADERFUNCTION, lambda line: head.append(line.decode().rstrip()))
    curl.setopt(pycurl.TIMEOUT, 30)
    for name, value in options.items():
        curl.setopt(getattr(pycurl, name), value)
    curl.perform()
    fields = dict(line.split(": ", 1) for line in head if ": " in line)
    version = curl.getinfo(pycurl.INFO_HTTP_VERSION)
    expect(curl.getinfo(pycurl.RESPONSE_CODE), 200, path)
    curl.close()
    return version, fields, body.getvalue()


def main():
    site = Site()
    for group in ["X25519MLKEM768", "X25519", "P-256"]:
        options = {"SSL_EC_CURVES": group, "HTTP_VERSION": pycurl.CURL_HTTP_VERSION_2TLS}
        version, fields, body = fetch(site, "/", **options)
        expect((version, body), (pycurl.CURL_HTTP_VERSION_2_0, b"hello"), "HTTP/2")
        name = {"P-256": "secp256r1"}.get(group, group)
        expect(fields["x-tls"], f"TLSv1.3 {name} resumed=no", "what the gateway tells of TLS")
    # Without a list, the client offers it by itself.
    _, fields, body = fetch(site, "/large", HTTP_VERSION=pycurl.CURL_HTTP_VERSION_1_1)
    expect(fields["x-tls"].split()[1], "X25519MLKEM768", "the group by default")
    expect(len(body), 1 << 20, "bytes")
    versions = pycurl.version.split()
    own, tls = versions[0].removeprefix("PycURL/"), next(it for it in versions if it.startswith("OpenSSL"))
    done(f"{own} ({versions[1]}, {tls})", "HTTP/2 and 1.1 with X25519MLKEM768 by default, X25519 and P-256 where it wants them")


main()
