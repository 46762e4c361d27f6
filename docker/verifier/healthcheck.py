"""Exit code 0 while the service in this container is ready to judge: `GET /readyz`, asked over loopback."""

import http.client
import os
import ssl
import sys

PORT = int(os.environ.get("VTPM_ATTEST_VERIFIER_LISTEN_PORT", "8443"))


def main() -> int:
    """0 or 1."""
    # Over loopback nobody stands between, and nothing secret is sent: which CA signed does not matter.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    connection = http.client.HTTPSConnection("127.0.0.1", PORT, timeout=4, context=context)
    try:
        connection.request("GET", "/readyz")
        reply = connection.getresponse()
        sys.stdout.write(f"{reply.status} {reply.read(500).decode(errors='replace')}\n")
    except OSError as error:
        sys.stdout.write(f"no answer on port {PORT}: {error}\n")
        return 1
    return 0 if reply.status == http.client.OK else 1


if __name__ == "__main__":
    sys.exit(main())
