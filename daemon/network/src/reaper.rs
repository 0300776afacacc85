//! Deletes links of ended containers in the background.
//!
//! Deleting a link takes it down at once, but then waits tens of milliseconds for RCU grace periods. Nobody needs to
//! wait for that when the container is gone: its namespace is about to take the link along anyway.

use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};

use crate::lock::lock;
use crate::netlink::{NetlinkError, RouteSocket};

/// The thread, once there was something to delete.
#[derive(Debug, Default)]
pub(crate) struct Reaper {
    worker: Mutex<Option<Worker>>,
}

#[derive(Debug)]
struct Worker {
    names: Sender<String>,
    thread: JoinHandle<()>,
}

impl Reaper {
    /// Deletes the link soon.
    pub(crate) fn bury(&self, name: &str) -> Result<(), NetlinkError> {
        let mut worker = lock(&self.worker);
        let gone = match &*worker {
            Some(worker) => worker.names.send(name.to_owned()).is_err(),
            None => true,
        };
        if gone {
            *worker = start(name)?;
        }
        Ok(())
    }

    /// Waits until all is deleted.
    pub(crate) fn finish(&self) {
        let worker = lock(&self.worker).take();
        if let Some(Worker { names, thread }) = worker {
            drop(names);
            if thread.join().is_err() {
                tracing::warn!("the thread that deletes links panicked");
            }
        }
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Starts the thread with its first name; where there can be no thread, deletes here.
fn start(name: &str) -> Result<Option<Worker>, NetlinkError> {
    let mut socket = RouteSocket::open()?;
    let (names, receiver) = channel::<String>();
    let work = move || {
        for name in receiver {
            if let Err(error) = socket.delete_link(&name) {
                tracing::warn!(%error, "a link of an ended container stays");
            }
        }
    };
    match thread::Builder::new().name("berth-reaper".into()).spawn(work) {
        Ok(thread) => {
            names.send(name.to_owned()).ok(); // the thread was just started and holds the other end
            Ok(Some(Worker { names, thread }))
        }
        Err(_) => RouteSocket::open()?.delete_link(name).map(|()| None),
    }
}
