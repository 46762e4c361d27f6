"""SOAP by pyVmomi's serialisers, from the server's side: a request to a call, a result or a fault to an answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from xml.parsers.expat import ParserCreate
from xml.sax.saxutils import escape

from pyVmomi import vmodl
from pyVmomi.SoapAdapter import (
    NS_SEP,
    SOAP_ENVELOPE_END,
    SOAP_ENVELOPE_START,
    SOAP_NSMAP,
    XML_HEADER,
    ExpatDeserializerNSHandlers,
    GetHandlers,
    Serialize,
    SerializeFaultDetail,
    SetHandlers,
    SoapDeserializer,
)
from pyVmomi.VmomiSupport import GetWsdlMethod, GetWsdlName, GetWsdlNamespace, ManagedObject, Object

_ENVELOPE = "http://schemas.xmlsoap.org/soap/envelope/"


@dataclass(frozen=True)
class Call:
    """A method called on an object."""

    method: str
    this: Any
    arguments: dict[str, Any]
    info: Any


class _RequestParser(ExpatDeserializerNSHandlers):
    """Envelope, body, method element; then each parameter by the type the API gives it."""

    def __init__(self, version: str) -> None:
        super().__init__()
        self._parser = ParserCreate(namespace_separator=NS_SEP)
        self._version = version
        self._path: list[str] = []
        self._pending: tuple[str, bool, SoapDeserializer] | None = None
        self.method: Any = None
        self.this: Any = None
        self.arguments: dict[str, Any] = {}
        SetHandlers(self._parser, GetHandlers(self))

    def parse(self, body: bytes) -> Call:
        self._parser.Parse(body, True)
        self._collect()
        return Call(self.method.info.wsdlName, self.this, self.arguments, self.method.info)

    def StartElementHandler(self, tag, attributes):  # noqa: N802 - expat's name
        self._collect()
        namespace, _, name = tag.rpartition(NS_SEP)
        if len(self._path) == 2:
            self.method = GetWsdlMethod(namespace, name)
        elif len(self._path) == 3:
            kinds = {param.name: param.type for param in self.method.info.params}
            kind = ManagedObject if name == "_this" else kinds[name]
            reader = SoapDeserializer(None, self._version)
            self._pending = (name, issubclass(kind, list), reader)
            # A list comes as one element an item, and the reader would take its siblings for more of them.
            reader.Deserialize(self._parser, kind.Item if issubclass(kind, list) else kind, nsMap=self.nsMap)
            reader.StartElementHandler(tag, attributes)
            return
        self._path.append(name)

    def EndElementHandler(self, _tag):  # noqa: N802 - expat's name
        self._collect()
        if self._path:
            self._path.pop()

    def CharacterDataHandler(self, data):  # noqa: N802 - expat's name
        pass

    def _collect(self) -> None:
        if self._pending is None:
            return
        name, many, reader = self._pending
        self._pending = None
        value = reader.GetResult()
        if name == "_this":
            self.this = value
        elif many:
            self.arguments.setdefault(name, []).append(value)
        else:
            self.arguments[name] = value


def parse_call(body: bytes, version: str) -> Call:
    return _RequestParser(version).parse(body)


def write_result(call: Call, result: Any, version: str) -> bytes:
    namespaces = {**SOAP_NSMAP, GetWsdlNamespace(version): ""}
    field = Object(name="returnval", type=call.info.result, version=version, flags=call.info.resultFlags)
    inner = b"" if result is None else Serialize(result, field, version, namespaces)
    name, space = call.method, GetWsdlNamespace(version)
    return _envelope(f'<{name}Response xmlns="{space}">'.encode() + inner + f"</{name}Response>".encode())


def write_fault(fault: Any, version: str) -> bytes:
    namespaces = {**SOAP_NSMAP, GetWsdlNamespace(version): ""}
    kind = type(fault)
    # Of the base type, so that the element says which fault it is.
    name = GetWsdlName(kind) + "Fault"
    field = Object(name=name, type=vmodl.MethodFault, version=version, flags=0)
    detail = SerializeFaultDetail(fault, field, version, namespaces)
    detail = detail.replace(f"<{name} ", f'<{name} xmlns="{GetWsdlNamespace(version)}" ', 1)
    text = escape(str(fault.msg or ""))
    return _envelope(
        "<soapenv:Fault><faultcode>ServerFaultCode</faultcode>"
        f"<faultstring>{text}</faultstring><detail>{detail}</detail></soapenv:Fault>".encode()
    )


def runtime_fault(text: str) -> Any:
    return vmodl.RuntimeFault(msg=text)


def _envelope(inner: bytes) -> bytes:
    start = f"{XML_HEADER}\n{SOAP_ENVELOPE_START}<soapenv:Body>".encode()
    return start + inner + f"</soapenv:Body>{SOAP_ENVELOPE_END}".encode()
