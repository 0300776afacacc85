//! Signals that belong to the container, and the size of its window.

use berth_client::Client;
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
        let (client, id, name) = (client.clone(), id.to_owned(), *name);
        Some(Guard(tokio::spawn(async move {
            while arrivals.recv().await.is_some() {
                // The container may have ended between the signal and us.
                client.container_kill(&id, name).await.ok();
            }
        })))
    };
    PROXIED.iter().filter_map(spawn).collect()
}

/// Whose window has the size of ours.
#[derive(Debug)]
pub(crate) enum Window {
    /// A container's.
    Container(String),
    /// An exec's.
    Exec(String),
}

/// Tells the size of our window, now and whenever it changes, until dropped.
pub(crate) fn follow_size(client: &Client, window: Window) -> Option<Guard> {
    terminal::size()?;
    let mut changes = signal(SignalKind::window_change()).ok()?;
    let client = client.clone();
    Some(Guard(tokio::spawn(async move {
        loop {
            if let Some((rows, columns)) = terminal::size() {
                let told = match &window {
                    Window::Container(id) => client.container_resize(id, rows, columns).await,
                    Window::Exec(id) => client.exec_resize(id, rows, columns).await,
                };
                // What has just ended has no window.
                told.ok();
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
