//! Signals that belong to the container, and the size of its window.

use berth_client::{Client, Query};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

use super::terminal;

/// The signals `run` and `attach` pass on, with their names.
const PROXIED: &[(i32, &str)] = &[
    (nix::libc::SIGINT, "INT"),
    (nix::libc::SIGTERM, "TERM"),
    (nix::libc::SIGHUP, "HUP"),
    (nix::libc::SIGQUIT, "QUIT"),
    (nix::libc::SIGUSR1, "USR1"),
    (nix::libc::SIGUSR2, "USR2"),
];

/// Passes our signals on to a container until dropped.
pub(crate) fn proxy(client: &Client, id: &str) -> Vec<Guard> {
    let spawn = |(number, name): &(i32, &'static str)| {
        let mut arrivals = signal(SignalKind::from_raw(*number)).ok()?;
        let (client, path, name) = (client.clone(), format!("/containers/{id}/kill"), *name);
        Some(Guard(tokio::spawn(async move {
            while arrivals.recv().await.is_some() {
                // The container may have ended between the signal and us.
                client.act(&path, &Query::new().with("signal", name)).await.ok();
            }
        })))
    };
    PROXIED.iter().filter_map(spawn).collect()
}

/// Tells the size of our window to `path` (a resize endpoint), now and whenever it changes, until dropped.
pub(crate) fn follow_size(client: &Client, path: String) -> Option<Guard> {
    terminal::size()?;
    let mut changes = signal(SignalKind::window_change()).ok()?;
    let client = client.clone();
    Some(Guard(tokio::spawn(async move {
        loop {
            if let Some((rows, columns)) = terminal::size() {
                let size = Query::new().with("h", rows).with("w", columns);
                // A container that has just ended has no window.
                client.act(&path, &size).await.ok();
            }
            if changes.recv().await.is_none() {
                return;
            }
        }
    })))
}

/// A task that ends with it.
#[derive(Debug)]
pub(crate) struct Guard(JoinHandle<()>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.abort();
    }
}
