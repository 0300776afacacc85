//! engine.db: what was promised. SQLite in WAL mode; a commit is not synced to disk before it returns
//! (`synchronous=NORMAL`), so a power cut may lose the last moments but never consistency.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OptionalExtension as _, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::containers::{Definition, Status};
use crate::error::{EngineError, Result};
use crate::pods::{ContainerRecord, SandboxRecord};
use crate::volumes::VolumeRecord;

/// Format of the tables; raised when they change.
const FORMAT: i64 = 1;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS containers (
        id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, definition TEXT NOT NULL, status TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS sandboxes (id TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS pod_containers (id TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS volumes (name TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID;
";

/// The database.
#[derive(Debug)]
pub(crate) struct Db(Mutex<Connection>);

fn failed(operation: &'static str) -> impl FnOnce(rusqlite::Error) -> EngineError {
    move |error| EngineError::internal(format!("engine database: {operation}: {error}"))
}

fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("records have text keys and serialise")
}

fn read<T: DeserializeOwned>(what: &str, text: &str) -> Result<T> {
    serde_json::from_str(text)
        .map_err(|error| EngineError::internal(format!("engine database: {what} cannot be read: {error}")))
}

impl Db {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let connection = Connection::open(path)
            .map_err(|error| EngineError::internal(format!("open {}: {error}", path.display())))?;
        connection.busy_timeout(Duration::from_secs(5)).map_err(failed("set the timeout"))?;
        let unusable = |error: rusqlite::Error| {
            let what = match error.sqlite_error_code() {
                Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
                    "; bring it back from a backup, or move it and its -wal and -shm away: containers and volumes' \
                     properties are forgotten then, images and the contents of volumes stay"
                }
                _ => "",
            };
            EngineError::internal(format!("{}: {error}{what}", path.display()))
        };
        connection
            .execute_batch("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA foreign_keys=ON;")
            .and_then(|()| connection.execute_batch(SCHEMA))
            .map_err(unusable)?;
        let db = Self(Mutex::new(connection));
        match db.meta("format")?.map(|found| found.parse::<i64>()) {
            None => db.set_meta("format", &FORMAT.to_string())?,
            Some(Ok(FORMAT)) => {}
            Some(found) => {
                return Err(EngineError::internal(format!(
                    "{} has format {found:?}, but this Berth knows only {FORMAT}; use the newer Berth",
                    path.display()
                )));
            }
        }
        Ok(db)
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn execute(&self, operation: &'static str, sql: &str, values: impl rusqlite::Params) -> Result<usize> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached(sql).map_err(failed(operation))?;
        statement.execute(values).map_err(failed(operation))
    }

    fn pairs(&self, operation: &'static str, sql: &str) -> Result<Vec<(String, String)>> {
        let connection = self.lock();
        let mut statement = connection.prepare(sql).map_err(failed(operation))?;
        let rows =
            statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).map_err(failed(operation))?;
        rows.collect::<rusqlite::Result<_>>().map_err(failed(operation))
    }

    pub(crate) fn meta(&self, key: &str) -> Result<Option<String>> {
        self.lock()
            .query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0))
            .optional()
            .map_err(failed("read a property"))
    }

    pub(crate) fn set_meta(&self, key: &str, value: &str) -> Result<()> {
        let sql = "INSERT INTO meta VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value";
        self.execute("write a property", sql, params![key, value]).map(drop)
    }

    /// Writes a container down, or over.
    pub(crate) fn put_container(&self, definition: &Definition, status: &Status) -> Result<()> {
        let sql = "INSERT INTO containers VALUES (?1, ?2, ?3, ?4) ON CONFLICT (id) DO UPDATE SET \
                   name = excluded.name, definition = excluded.definition, status = excluded.status";
        let values = params![definition.id, definition.name, json(definition), json(status)];
        self.execute("write a container", sql, values).map(drop)
    }

    pub(crate) fn set_status(&self, id: &str, status: &Status) -> Result<()> {
        let sql = "UPDATE containers SET status = ?2 WHERE id = ?1";
        self.execute("write a container's state", sql, params![id, json(status)]).map(drop)
    }

    pub(crate) fn delete_container(&self, id: &str) -> Result<()> {
        self.execute("delete a container", "DELETE FROM containers WHERE id = ?1", params![id]).map(drop)
    }

    pub(crate) fn containers(&self) -> Result<Vec<(Definition, Status)>> {
        let rows = self.pairs("read the containers", "SELECT definition, status FROM containers")?;
        rows.iter()
            .map(|(definition, status)| Ok((read("a container", definition)?, read("a state", status)?)))
            .collect()
    }

    /// Writes a sandbox down, or over.
    pub(crate) fn put_sandbox(&self, record: &SandboxRecord) -> Result<()> {
        let sql =
            "INSERT INTO sandboxes VALUES (?1, ?2) ON CONFLICT (id) DO UPDATE SET record = excluded.record";
        self.execute("write a sandbox", sql, params![record.id, json(record)]).map(drop)
    }

    pub(crate) fn delete_sandbox(&self, id: &str) -> Result<()> {
        self.execute("delete a sandbox", "DELETE FROM sandboxes WHERE id = ?1", params![id]).map(drop)
    }

    pub(crate) fn sandboxes(&self) -> Result<Vec<SandboxRecord>> {
        let rows = self.pairs("read the sandboxes", "SELECT id, record FROM sandboxes")?;
        rows.iter().map(|(_, record)| read("a sandbox", record)).collect()
    }

    /// Writes a container of a pod down, or over.
    pub(crate) fn put_pod_container(&self, record: &ContainerRecord) -> Result<()> {
        let sql = "INSERT INTO pod_containers VALUES (?1, ?2) ON CONFLICT (id) DO UPDATE SET record = excluded.record";
        self.execute("write a container of a pod", sql, params![record.id, json(record)]).map(drop)
    }

    pub(crate) fn delete_pod_container(&self, id: &str) -> Result<()> {
        let sql = "DELETE FROM pod_containers WHERE id = ?1";
        self.execute("delete a container of a pod", sql, params![id]).map(drop)
    }

    pub(crate) fn pod_containers(&self) -> Result<Vec<ContainerRecord>> {
        let rows = self.pairs("read the containers of pods", "SELECT id, record FROM pod_containers")?;
        rows.iter().map(|(_, record)| read("a container of a pod", record)).collect()
    }

    pub(crate) fn put_volume(&self, volume: &VolumeRecord) -> Result<()> {
        let sql =
            "INSERT INTO volumes VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET record = excluded.record";
        self.execute("write a volume", sql, params![volume.name, json(volume)]).map(drop)
    }

    pub(crate) fn delete_volume(&self, name: &str) -> Result<()> {
        self.execute("delete a volume", "DELETE FROM volumes WHERE name = ?1", params![name]).map(drop)
    }

    pub(crate) fn volumes(&self) -> Result<Vec<VolumeRecord>> {
        let rows = self.pairs("read the volumes", "SELECT name, record FROM volumes")?;
        rows.iter().map(|(_, record)| read("a volume", record)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_is_named_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("engine.db");
        std::fs::write(&path, "no database".repeat(1000)).unwrap();
        let error = Db::open(&path).unwrap_err().to_string();
        assert!(error.starts_with(path.to_str().unwrap()) && error.contains("from a backup"), "{error}");
    }

    #[test]
    fn rows_survive_reopening_and_names_are_unique() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("engine.db");
        let db = Db::open(&path).unwrap();
        let definition =
            |id: &str, name: &str| Definition { id: id.into(), name: name.into(), ..Definition::default() };
        db.put_container(&definition("a", "web"), &Status::default()).unwrap();
        assert!(db.put_container(&definition("b", "web"), &Status::default()).is_err());
        db.set_status("a", &Status { exit_code: 3, ..Status::default() }).unwrap();
        drop(db);
        let db = Db::open(&path).unwrap();
        let rows = db.containers().unwrap();
        assert_eq!((rows[0].0.name.as_str(), rows[0].1.exit_code), ("web", 3));
        db.delete_container("a").unwrap();
        assert!(db.containers().unwrap().is_empty());
        db.set_meta("format", "99").unwrap();
        drop(db);
        assert!(Db::open(&path).unwrap_err().message().contains("newer Berth"));
    }
}
