//! Telling the caller how a layer gets on, often enough for a bar and not more.

use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_oci::Digest;
use tokio::sync::watch;

use crate::types::{Event, LayerState};

/// Who listens.
pub(crate) type Listener = Arc<dyn Fn(Event) + Send + Sync>;

/// Byte counts of one layer are told at most this often, as Docker does.
const INTERVAL: Duration = Duration::from_millis(100);

/// Tells about one layer.
#[derive(Clone)]
pub(crate) struct LayerProgress {
    listener: Listener,
    id: String,
    last: Instant,
    /// Those who wait for the same layer.
    followers: Option<watch::Sender<LayerState>>,
}

impl LayerProgress {
    pub(crate) fn new(listener: &Listener, layer: &Digest) -> Self {
        let last = Instant::now().checked_sub(INTERVAL).unwrap_or_else(Instant::now);
        Self { listener: Arc::clone(listener), id: layer.short().to_owned(), last, followers: None }
    }

    /// The same, heard by others too.
    pub(crate) fn followed(mut self, followers: watch::Sender<LayerState>) -> Self {
        self.followers = Some(followers);
        self
    }

    /// Tells of a new state.
    pub(crate) fn tell(&self, state: LayerState) {
        if let Some(followers) = &self.followers {
            followers.send_replace(state.clone());
        }
        (self.listener)(Event::Layer { id: self.id.clone(), state });
    }

    /// Tells of bytes, unless that was done a moment ago.
    pub(crate) fn tell_bytes(&mut self, state: LayerState) {
        if self.last.elapsed() >= INTERVAL {
            self.last = Instant::now();
            self.tell(state);
        }
    }
}
