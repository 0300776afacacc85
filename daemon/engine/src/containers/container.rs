//! The live container: its record, its locks, its shim.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use berth_runtime_client::Shim;
use berth_runtime_client::protocol::Attach;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::machine::{Change, Phase};
use super::record::{Definition, Status};
use super::weight::Weight;
use crate::db::Db;
use crate::error::{EngineError, Result};

/// A container that exists.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) id: String,
    definition: RwLock<Arc<Definition>>,
    /// What became of it; a watch, so that nobody can come too late for a change.
    status: watch::Sender<Status>,
    live: Mutex<Live>,
    /// Held by whoever starts, stops, changes or removes it. The end of its process is noted without it.
    pub(crate) operation: tokio::sync::Mutex<()>,
    /// What its writable layer weighs.
    pub(crate) weight: Arc<Weight>,
}

/// What a daemon holds of a container, and the next one does not.
#[derive(Debug, Default)]
pub(crate) struct Live {
    /// The shim of the current run.
    pub(crate) shim: Option<Shim>,
    /// Clients that attached before the start.
    pub(crate) waiting: Vec<WaitingAttach>,
    /// Calls off the restart that is due.
    pub(crate) restart: Option<CancellationToken>,
}

/// A client that attached before the start.
#[derive(Debug)]
pub(crate) struct WaitingAttach {
    pub(crate) attach: Attach,
    pub(crate) stream: OwnedFd,
}

impl Container {
    pub(crate) fn new(definition: Definition, status: Status) -> Self {
        Self {
            id: definition.id.clone(),
            definition: RwLock::new(Arc::new(definition)),
            status: watch::Sender::new(status),
            live: Mutex::default(),
            operation: tokio::sync::Mutex::default(),
            weight: Arc::default(),
        }
    }

    pub(crate) fn definition(&self) -> Arc<Definition> {
        Arc::clone(&self.definition.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn name(&self) -> String {
        self.definition().name.clone()
    }

    pub(crate) fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    pub(crate) fn phase(&self) -> Phase {
        self.status.borrow().phase
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    pub(crate) fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The shim of a container that runs.
    pub(crate) fn shim(&self) -> Result<Shim> {
        let shim = self.live().shim.clone();
        shim.filter(|_| self.phase().is_alive()).ok_or_else(|| self.not_running())
    }

    pub(crate) fn not_running(&self) -> EngineError {
        EngineError::conflict(format!("container {} is not running", self.id))
    }

    /// Changes the definition and writes it down.
    pub(crate) fn redefine(&self, db: &Db, change: impl FnOnce(&mut Definition)) -> Result<()> {
        let mut slot = self.definition.write().unwrap_or_else(PoisonError::into_inner);
        let mut definition = Definition::clone(&slot);
        change(&mut definition);
        db.put_container(&definition, &self.status.borrow())?;
        *slot = Arc::new(definition);
        Ok(())
    }

    /// Takes a change of phase and what goes with it, writes it down and tells those who wait.
    pub(crate) fn change(&self, db: &Db, change: Change, with: impl FnOnce(&mut Status)) -> Result<()> {
        let mut result = Ok(());
        self.status.send_if_modified(|status| match status.phase.after(change) {
            Ok(phase) => {
                status.phase = phase;
                with(status);
                result = db.set_status(&self.id, status);
                true
            }
            Err(impossible) => {
                result = Err(EngineError::conflict(format!("container {}: {impossible}", self.id)));
                false
            }
        });
        result
    }

    /// Changes what goes with the phase, but not the phase.
    pub(crate) fn note(&self, db: &Db, with: impl FnOnce(&mut Status)) -> Result<()> {
        let mut result = Ok(());
        self.status.send_modify(|status| {
            with(status);
            result = db.set_status(&self.id, status);
        });
        result
    }

    /// Tells those who wait that it is gone; there is no row any more.
    pub(crate) fn gone(&self) {
        self.status.send_modify(|status| status.removed = true);
    }

    /// Tells those who wait that it could not be removed.
    pub(crate) fn removal_failed(&self, db: &Db, error: &EngineError) -> Result<()> {
        self.change(db, Change::RemovalFailed, |status| status.removal_error = Some(error.to_string()))
    }

    /// Attributes of its events: image, name, labels, and what is special to one.
    pub(crate) fn attributes(&self, special: &[(&str, String)]) -> BTreeMap<String, String> {
        let definition = self.definition();
        let mut attributes = definition.config.labels.clone();
        attributes.insert("image".to_owned(), definition.config.image.clone());
        attributes.insert("name".to_owned(), definition.name.clone());
        attributes.extend(special.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        attributes
    }
}
