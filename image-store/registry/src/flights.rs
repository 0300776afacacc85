//! Layers under way: two pulls that need the same layer share one download and one unpack.
//!
//! ```text
//!  first ── Lead ──▶ fetches, its progress is told to all ──▶ gone
//!  later ── Follow ─▶ shows that progress; when the leader is gone, looks whether the layer is there, else leads
//! ```

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use berth_oci::DiffId;
use tokio::sync::watch;

use crate::types::LayerState;

type Under = Arc<Mutex<HashMap<DiffId, watch::Receiver<LayerState>>>>;

/// The layers that are being fetched.
#[derive(Clone, Default)]
pub(crate) struct Flights(Under);

/// What is to be done about a layer.
pub(crate) enum Role {
    /// Fetch it.
    Lead(Lead),
    /// Somebody does; here is how far that is. It closes when there is nobody any more.
    Follow(watch::Receiver<LayerState>),
}

/// The right to fetch a layer; ends when dropped.
pub(crate) struct Lead {
    under: Under,
    layer: DiffId,
    state: watch::Sender<LayerState>,
}

impl Flights {
    pub(crate) fn join(&self, layer: &DiffId) -> Role {
        let mut under = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = under.get(layer) {
            return Role::Follow(state.clone());
        }
        let (state, receiver) = watch::channel(LayerState::Waiting);
        under.insert(layer.clone(), receiver);
        Role::Lead(Lead { under: Arc::clone(&self.0), layer: layer.clone(), state })
    }
}

impl Lead {
    /// Tells those who follow.
    pub(crate) fn teller(&self) -> watch::Sender<LayerState> {
        self.state.clone()
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.under.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.layer);
    }
}
