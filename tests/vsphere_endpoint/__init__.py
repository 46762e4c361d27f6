"""A vCenter as far as an inventory sees one: an HTTPS server that speaks the vSphere Web Services API.

Requests are parsed and answers written by pyVmomi's own (de)serialisers, so that what crosses the wire is what
the API's types say; what the server does with them is written here after the programming guide. It is not a mock:
a client needs TLS, a login, a property filter and pages to learn anything.
"""

from tests.vsphere_endpoint.estate import API_VERSION, Estate, Machine
from tests.vsphere_endpoint.server import Endpoint
from tests.vsphere_endpoint.tls import TlsFiles, make_tls

__all__ = ["API_VERSION", "Endpoint", "Estate", "Machine", "TlsFiles", "make_tls"]
