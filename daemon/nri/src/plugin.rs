//! A plugin.

use std::sync::Arc;
use std::time::Duration;

use prost::Message;

use crate::api;
use crate::connection::{CallError, Connection};

/// A plugin that was admitted.
#[derive(Debug)]
pub(crate) struct Plugin {
    /// Two digits; plugins are asked in their order.
    pub(crate) index: String,
    /// Its name.
    pub(crate) name: String,
    /// A bit for each event it wants to know of.
    events: i32,
    pub(crate) connection: Arc<Connection>,
}

/// The bits of all events there are.
const ALL_EVENTS: i32 = (1 << (api::Event::Last as i32 - 1)) - 1;

impl Plugin {
    /// None when it asks for events that nobody knows.
    pub(crate) fn new(
        asked: api::RegisterPluginRequest,
        events: i32,
        connection: Arc<Connection>,
    ) -> Option<Self> {
        let known = events & !ALL_EVENTS == 0;
        known.then_some(Self { index: asked.plugin_idx, name: asked.plugin_name, events, connection })
    }

    /// Index and name, as it is called in messages and as owner of adjustments.
    pub(crate) fn full_name(&self) -> String {
        format!("{}-{}", self.index, self.name)
    }

    pub(crate) fn wants(&self, event: api::Event) -> bool {
        self.events & (1 << (event as i32 - 1)) != 0
    }

    /// Asks it. None: it is of no use any more and was dropped.
    pub(crate) async fn ask<A: Message + Default>(
        &self,
        method: &str,
        request: &impl Message,
        limit: Duration,
    ) -> Result<Option<A>, CallError> {
        match self.connection.call(method, request, limit).await {
            Ok(answer) => Ok(Some(answer)),
            Err(error) if error.is_fatal() => {
                tracing::warn!(plugin = self.full_name(), method, %error, "a plugin is dropped");
                self.connection.close();
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// What is wrong with a registration.
pub(crate) fn check(asked: &api::RegisterPluginRequest) -> Result<(), String> {
    let name = &asked.plugin_name;
    if name.is_empty() || name.contains('/') {
        return Err(format!("{name:?} is no name of a plugin"));
    }
    let index = asked.plugin_idx.as_bytes();
    if index.len() != 2 || !index.iter().all(u8::is_ascii_digit) {
        return Err(format!("index {:?} of plugin {name} is not made of two digits", asked.plugin_idx));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registration_needs_a_name_and_two_digits() {
        let asked = |name: &str, index: &str| {
            check(&api::RegisterPluginRequest {
                plugin_name: name.into(),
                plugin_idx: index.into(),
                ..Default::default()
            })
        };
        assert!(asked("a", "07").is_ok());
        for (name, index) in [("", "07"), ("a/b", "07"), ("a", "7"), ("a", "007"), ("a", "x1")] {
            assert!(asked(name, index).is_err(), "{name} {index}");
        }
    }
}
