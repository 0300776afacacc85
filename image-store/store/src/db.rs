//! The database: one connection behind one mutex, write-ahead logged.
//!
//! `synchronous=NORMAL` makes every transaction atomic but leaves the last ones to the page cache; the store's
//! durability points ([`crate::Store::sync`], a tag) flush the log explicitly, if anything was written since the last time.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};

use crate::error::{DbContext, IoContext, Result, StoreError};

/// The format that this code writes; a store of a newer one is not opened.
const FORMAT: i64 = 2;

const SCHEMA: &str = "
CREATE TABLE layers (
    diff_id TEXT PRIMARY KEY,
    size INTEGER NOT NULL,
    tar_size INTEGER NOT NULL,
    canonical INTEGER NOT NULL,      -- the canonical tar of the tree has this diff-id
    implicit TEXT NOT NULL,          -- JSON: directories that the tar did not name; '' is the root
    synced INTEGER NOT NULL DEFAULT 0,
    boot TEXT NOT NULL
) STRICT;
CREATE TABLE layer_blobs (
    diff_id TEXT NOT NULL,
    digest TEXT NOT NULL,
    descriptor TEXT NOT NULL,
    PRIMARY KEY (diff_id, digest)
) STRICT;
CREATE TABLE images (
    id TEXT PRIMARY KEY,
    created TEXT NOT NULL,
    tagged TEXT,
    size INTEGER NOT NULL,
    parent TEXT,
    manifest TEXT
) STRICT;
CREATE INDEX images_parent ON images (parent);
CREATE TABLE image_layers (
    id TEXT NOT NULL REFERENCES images ON DELETE CASCADE,
    position INTEGER NOT NULL,
    diff_id TEXT NOT NULL,
    PRIMARY KEY (id, position)
) STRICT;
CREATE TABLE image_blobs (
    id TEXT NOT NULL REFERENCES images ON DELETE CASCADE,
    digest TEXT NOT NULL,
    PRIMARY KEY (id, digest)
) STRICT;
CREATE TABLE tags (
    reference TEXT PRIMARY KEY,
    id TEXT NOT NULL REFERENCES images ON DELETE CASCADE
) STRICT;
CREATE INDEX tags_id ON tags (id);
CREATE TABLE repo_digests (
    reference TEXT NOT NULL,
    id TEXT NOT NULL REFERENCES images ON DELETE CASCADE,
    PRIMARY KEY (reference, id)
) STRICT;
CREATE INDEX repo_digests_id ON repo_digests (id);
CREATE TABLE snapshots (key TEXT PRIMARY KEY) STRICT;
CREATE TABLE snapshot_layers (
    key TEXT NOT NULL REFERENCES snapshots ON DELETE CASCADE,
    position INTEGER NOT NULL,
    diff_id TEXT NOT NULL,
    PRIMARY KEY (key, position)
) STRICT;
CREATE TABLE held (digest TEXT PRIMARY KEY, until INTEGER NOT NULL) STRICT;
";

/// Format 2: the indexes that images were chosen from.
const INDEXES: &str = "
CREATE TABLE image_indexes (
    id TEXT NOT NULL REFERENCES images ON DELETE CASCADE,
    digest TEXT NOT NULL,
    descriptor TEXT NOT NULL,
    PRIMARY KEY (id, digest)
) STRICT;
";

/// The database of one store.
#[derive(Debug)]
pub(crate) struct Db {
    connection: Mutex<Connection>,
    path: PathBuf,
    /// How many rows this connection had changed when the log was flushed last; none: it was not yet.
    flushed: Mutex<Option<u64>>,
}

impl Db {
    /// Opens or makes it.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let connection = Connection::open(path).during_db("open")?;
        connection
            .execute_batch(
                "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA foreign_keys=ON;
                 PRAGMA busy_timeout=10000;",
            )
            .map_err(|source| match source.sqlite_error_code() {
                Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
                    StoreError::Damaged { path: path.to_owned(), source }
                }
                _ => StoreError::Database { operation: "configure", source },
            })?;
        connection.set_prepared_statement_cache_capacity(64);
        let found: i64 =
            connection.query_row("PRAGMA user_version", [], |row| row.get(0)).during_db("read format")?;
        let make = |tables: &str| {
            connection
                .execute_batch(&format!("BEGIN; {tables} PRAGMA user_version={FORMAT}; COMMIT;"))
                .during_db("create tables")
        };
        match found {
            0 => make(&format!("{SCHEMA} {INDEXES}"))?,
            1 => make(INDEXES)?,
            FORMAT => {}
            _ => return Err(StoreError::Format { found, known: FORMAT }),
        }
        Ok(Self { connection: Mutex::new(connection), path: path.to_owned(), flushed: Mutex::default() })
    }

    /// Reads, or writes with a single statement.
    pub(crate) fn with<T>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        work(&connection).during_db(operation)
    }

    /// Writes with several statements, all or none.
    pub(crate) fn transaction<T>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let transaction =
            connection.transaction_with_behavior(TransactionBehavior::Immediate).during_db(operation)?;
        let value = work(&transaction).during_db(operation)?;
        transaction.commit().during_db(operation)?;
        Ok(value)
    }

    /// Writes with a single statement something that nobody misses after a power cut: no flush has to wait for it.
    pub(crate) fn note(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Connection) -> rusqlite::Result<usize>,
    ) -> Result<()> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let mut flushed = self.flushed.lock().unwrap_or_else(PoisonError::into_inner);
        let nothing_else_waits = *flushed == Some(connection.total_changes());
        work(&connection).during_db(operation)?;
        if nothing_else_waits {
            *flushed = Some(connection.total_changes());
        }
        Ok(())
    }

    /// Makes every finished transaction durable.
    pub(crate) fn flush(&self) -> Result<()> {
        let changes = self.connection.lock().unwrap_or_else(PoisonError::into_inner).total_changes();
        if self.flushed.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|done| done >= changes) {
            return Ok(());
        }
        self.sync_log()?;
        let mut flushed = self.flushed.lock().unwrap_or_else(PoisonError::into_inner);
        *flushed = (*flushed).max(Some(changes));
        Ok(())
    }

    fn sync_log(&self) -> Result<()> {
        let mut log = self.path.clone().into_os_string();
        log.push("-wal");
        let log = PathBuf::from(log);
        match File::open(&log) {
            Ok(file) => file.sync_data().during("sync", &log),
            // Checkpointed and removed: the database itself was synced then.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error).during("open", &log),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_is_named_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.db");
        std::fs::write(&path, "no database".repeat(1000)).unwrap();
        let error = Db::open(&path).unwrap_err().to_string();
        assert!(error.starts_with(path.to_str().unwrap()) && error.contains("from a backup"), "{error}");
    }

    fn format_of(path: &Path) -> i64 {
        Connection::open(path).unwrap().query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn format_1_is_brought_up_to_date_with_all_that_it_holds() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.db");
        let old = Connection::open(&path).unwrap();
        old.execute_batch(&format!("BEGIN; {SCHEMA} PRAGMA user_version=1; COMMIT;")).unwrap();
        old.execute(
            "INSERT INTO images (id, created, size) VALUES ('sha256:a', '1970-01-01T00:00:00Z', 7)",
            [],
        )
        .unwrap();
        old.execute("INSERT INTO tags (reference, id) VALUES ('docker.io/library/a:1', 'sha256:a')", [])
            .unwrap();
        drop(old);
        for _ in 0..2 {
            let db = Db::open(&path).unwrap();
            let size: i64 = db
                .with("read", |db| {
                    db.query_row("SELECT size FROM images JOIN tags USING (id)", [], |row| row.get(0))
                })
                .unwrap();
            assert_eq!((size, format_of(&path)), (7, FORMAT));
            db.with("write", |db| {
                db.execute("INSERT OR REPLACE INTO image_indexes VALUES ('sha256:a', 'sha256:b', '{}')", [])
            })
            .unwrap();
        }
    }

    #[test]
    fn a_newer_format_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.db");
        Connection::open(&path).unwrap().execute_batch("PRAGMA user_version=1000").unwrap();
        assert!(matches!(Db::open(&path), Err(StoreError::Format { found: 1000, known: FORMAT })));
        assert_eq!(format_of(&path), 1000);
    }
}
