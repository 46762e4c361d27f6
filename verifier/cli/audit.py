"""`attestctl audit`: what was decided, and proof that neither that nor a verdict was changed since."""

from __future__ import annotations

from cyclopts import App
from rich.markup import escape

from verifier.cli import audit_proofs, audit_verify, audit_witness, output
from verifier.cli.decisions import decision_table, plain
from verifier.cli.fleet import Where

app = App(
    name="audit",
    help="What people decided, and proof that no decision and no verdict was changed or dropped since.",
    help_format="plaintext",
)
app.command(audit_verify.verify)
app.command(audit_proofs.proof)
app.command(audit_proofs.checkpoint)
app.command(audit_witness.witness)
app.command(audit_witness.witness_key)


@app.default
def listing(
    *, subject: str | None = None, limit: int = 50, before: int | None = None, where: Where | None = None
) -> int:
    """List what people decided, newest first; the commands below prove it.

    Example:
        attestctl audit --subject att-k4zdsmjqgizdgmbrgaytembr

    Args:
        subject: only about this enrolment, attester or incident.
        limit: rows of one page.
        before: only entries with a lower number.
    """
    at = where or Where()
    query = {"subject": subject, "limit": limit, "before": before}
    reply = at.ask(lambda remote: remote.get("/v1/audit", query))
    if at.json:
        output.print_json(reply)
        return 0
    table = decision_table("number", "when", "who", "what", "subject", "reason", "detail")
    for item in reply["entries"]:
        detail = ", ".join(f"{key}={plain(value)}" for key, value in item["detail"].items())
        table.add_row(
            str(item["sequence"]),
            output.when(item["at"]),
            escape(item["actor"]),
            item["action"],
            item["subject"],
            escape(item["reason"]),
            escape(detail),
        )
    output.out.print(table)
    if reply.get("before"):
        output.err.print(f"[dim]more: --before {reply['before']}[/]")
    return 0
