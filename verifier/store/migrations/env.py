"""Alembic's entry: runs on the connection `verifier.store.migrate` hands over, in its transaction."""

from __future__ import annotations

from alembic import context

from verifier.store import schema_watched  # noqa: F401 - its tables are in the metadata too
from verifier.store.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
