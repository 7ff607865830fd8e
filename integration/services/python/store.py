"""Notes in a SQLite database with a write-ahead log, one connection a thread."""
import sqlite3
import threading

PATH = "/srv/app/data/notes.db"
local = threading.local()


def db():
    if not hasattr(local, "db"):
        local.db = sqlite3.connect(PATH, timeout=20, isolation_level=None)
        local.db.execute("pragma journal_mode=wal")
        local.db.execute("create table if not exists notes (id integer primary key, text text not null)")
    return local.db


def add(text):
    return db().execute("insert into notes (text) values (?)", (text,)).lastrowid


def get(key):
    row = db().execute("select text from notes where id = ?", (key,)).fetchone()
    return row and row[0]


def remove(key):
    return db().execute("delete from notes where id = ?", (key,)).rowcount == 1


def latest():
    return db().execute("select id, text from notes order by text desc limit 20").fetchall()


def tidy():
    db().execute("delete from notes where id < (select max(id) - 5000 from notes)")
    db().execute("pragma wal_checkpoint(truncate)")
    db().execute("vacuum")


def close():
    if hasattr(local, "db"):
        local.db.close()
        del local.db
