"""Schema history. A released revision is never edited; a change is a new one at the end.

| revision | since | what changed | reversible online |
|---|---|---|---|
| 0001 | 0.1 | tenants everywhere; tokens, enrolments, attesters with endorsement and attestation keys, blobs, judgements, attestations, boots, the fleet view `latest`, spent nonces, policies, the health probe | first |
| 0002 | 0.1 | policies assigned to attesters by label | yes, new table |
| 0003 | 0.1 | trust anchor sets and their assignment to tenants | yes, new tables |
| 0004 | 0.1 | lines of TPM states and open incidents, beside the latest verdict | yes, columns with constant defaults |
| 0005 | 0.1 | enrolments that wait for a person, attesters that another one replaced, the audit log | yes, columns with constant defaults and a new table |
| 0006 | 0.1 | alarms of what ends, each told once | yes, new table |
| 0007 | 0.1 | which log of systemd is held of a boot | yes, nullable column |
| 0008 | 0.1 | samples of the fleet over time | yes, new table |
| 0009 | 0.1 | what inventories said last, and what happened to their machines | yes, new tables |
| 0010 | 0.1 | events, webhooks and what is on its way to them | yes, new tables |
| 0011 | 0.1 | IMA lists: where the proven part of a boot's list ends, and the pieces it was sent in | yes, nullable column and a new table |
| 0012 | 0.1 | when a verdict was judged again from stored evidence | yes, nullable columns |
| 0014 | 0.1 | secrets for machines, encrypted, and who may have them | yes, new tables |
| 0016 | 0.1 | `attestation` divided by time on PostgreSQL; which older versions can work on the schema | yes: the old table becomes a partition, and no row is moved |
| 0018 | 0.1 | on PostgreSQL an index of trigrams for searches, where `pg_trgm` may be used | yes, an index made beside replicas at work |

A database of an unknown revision was made by a newer version. `schema_support` says from which revision on the code can go
on; older code refuses it. The rules, and what a revision has to declare, are in docs/upgrading.md.
"""
