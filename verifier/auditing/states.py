"""Checkpoints of the database, and the one an auditor kept: who signed them, and whether the tiles lead to them."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import Connection, select

from verifier.auditing.findings import Findings, State, Tampering, Trust
from verifier.store.rows import Row
from verifier.store.schema_log import log_checkpoint, log_cosignature, log_head, log_tile
from verifier.transparency import checkpoint, cosignature, tiles
from verifier.transparency.checkpoint import Checkpoint, Opened
from verifier.transparency.errors import LogError, NoteError, TileError, UnsignedError
from verifier.transparency.notes import Note
from verifier.transparency.tiles import TileReader


def tile_reader(connection: Connection) -> TileReader:
    """Tiles as they are stored; the last ones read are remembered."""
    known: dict[tuple[int, int], bytes] = {}
    query = select(log_tile.c.hashes)

    def read(level: int, number: int) -> bytes:
        if (level, number) not in known:
            found = connection.execute(
                query.where(log_tile.c.level == level, log_tile.c.number == number)
            ).scalar()
            if not isinstance(found, bytes):
                raise TileError(f"tile {level}/{number} is missing")
            if len(known) > tiles.TILE:
                known.clear()
            known[level, number] = found
        return known[level, number]

    return read


def newest_state(connection: Connection, trust: Trust, findings: Findings) -> Opened | None:
    """The newest checkpoint that a trusted key signed. Newer ones that none did are findings, and so is a head beyond."""
    query = select(log_checkpoint.c.size, log_checkpoint.c.root, log_checkpoint.c.at, log_checkpoint.c.note)
    found: Opened | None = None
    bad = Findings()
    for row in connection.execute(query.order_by(log_checkpoint.c.size.desc())):
        found = _opened(row, trust, bad)
        if found is not None:
            break
    # What is not vouched for begins where the last state that is ends.
    signed = 0 if found is None else found.checkpoint.size
    for one in bad:
        findings.add(replace(one, index=signed))
    size = connection.execute(select(log_head.c.size)).scalar()
    if size != signed and not bad.count:
        problem = "nothing is proven" if found is None else f"the newest signed state has {signed}"
        says = "there is no log" if size is None else f"says {size} leaves"
        findings.add(Tampering("log_head", "the log's head", f"{says}; {problem}", signed))
    return found


def _opened(row: Row, trust: Trust, findings: Findings, *, older: bool = False) -> Opened | None:
    """A stored checkpoint; an `older` one may be signed with a key that is not in use any more, and says nothing then."""
    size, root, at, note = row
    key = f"size {size}"
    try:
        state = checkpoint.opened(note, trust.keys)
    except UnsignedError as error:
        if not older:
            findings.add(Tampering("log_checkpoint", key, str(error), size, at))
        return None
    except (LogError, TypeError) as error:
        findings.add(Tampering("log_checkpoint", key, str(error), size, at))
        return None
    if (state.checkpoint.size, state.checkpoint.root) != (size, root):
        problem = "its note is that of another state"
        findings.add(Tampering("log_checkpoint", key, problem, size, at))
        return None
    return state


def cosigned(connection: Connection, state: Opened, trust: Trust, findings: Findings) -> State:
    """The state, with whose of the witnesses' cosignatures hold."""
    size = state.checkpoint.size
    query = select(log_cosignature.c.witness, log_cosignature.c.line).where(log_cosignature.c.size == size)
    held = list(cosignature.cosigned(state.note, trust.witnesses))
    for name, line in connection.execute(query):
        try:
            note = Note.parse(f"{state.note.text}\n{line.rstrip()}\n")
            held += cosignature.cosigned(note, trust.witnesses)
        except (NoteError, AttributeError) as error:
            findings.add(Tampering("log_cosignature", f"size {size}, witness {name}", str(error), size))
    latest = {each.witness.name: each.at for each in sorted(held, key=lambda each: each.at)}
    return State(
        state.checkpoint.origin,
        size,
        state.checkpoint.root,
        tuple(f"{key.name}+{key.key_id.hex()}" for key in state.signed_by),
        tuple(latest.items()),
    )


def check_growth(connection: Connection, newest: Checkpoint, trust: Trust, findings: Findings) -> None:
    """Each signed state, and the one that was kept, has to be one that the tiles went through."""
    read = tile_reader(connection)
    last = _walk_states(connection, newest, trust, findings, read)
    kept = trust.kept
    if kept is None:
        return
    key = f"kept checkpoint of {kept.size} leaves"
    if kept.origin != newest.origin:
        problem = f"is of the log {kept.origin!r}, the database of {newest.origin!r}"
        findings.add(Tampering("log_checkpoint", key, problem))
    elif kept.size > newest.size:
        problem = f"the log had {kept.size} leaves and has {newest.size}: the database was rolled back"
        findings.add(Tampering("log_checkpoint", key, problem, newest.size))
    elif (root := _root(kept.size, read)) is None:
        problem = "cannot be held against the log: tiles of that time are missing; keep a newer one"
        findings.add(Tampering("log_checkpoint", key, problem, last))
    elif root != kept.root:
        problem = f"the log does not begin with what it was: one of the leaves {last} to {kept.size - 1} was changed"
        findings.add(Tampering("log_checkpoint", key, problem, last))


def _walk_states(
    connection: Connection, newest: Checkpoint, trust: Trust, findings: Findings, read: TileReader
) -> int:
    """Signed states in their order, up to the first that the tiles do not lead to; the size of the last they do."""
    query = select(log_checkpoint.c.size, log_checkpoint.c.root, log_checkpoint.c.at, log_checkpoint.c.note)
    last = 0
    for row in connection.execute(
        query.where(log_checkpoint.c.size <= newest.size).order_by(log_checkpoint.c.size)
    ).all():
        state = _opened(row, trust, findings, older=True)
        # Where tiles of that time are not kept any more, nothing is known of it.
        root = None if state is None else _root(state.checkpoint.size, read)
        if state is None or root is None:
            continue
        size = state.checkpoint.size
        if root != state.checkpoint.root:
            problem = (
                f"the tiles do not lead to the root that was signed for {size} leaves: one of the leaves {last} to"
                f" {size - 1} was changed"
            )
            findings.add(Tampering("log_tile", f"leaves {last} to {size - 1}", problem, last, row[2]))
            break
        last = size
    return last


def _root(size: int, read: TileReader) -> bytes | None:
    try:
        return tiles.root(size, read)
    except TileError:
        return None
