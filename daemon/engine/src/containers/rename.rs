//! Rename.

use std::sync::Arc;

use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::names;

impl Engine {
    /// Gives a container another name.
    ///
    /// # Errors
    /// A name that is bad, taken or the same.
    pub async fn rename_container(self: &Arc<Self>, name: &str, new: &str) -> Result<()> {
        if name.is_empty() || new.is_empty() {
            return Err(EngineError::invalid("Neither old nor new names may be empty"));
        }
        let container = self.containers.find(name)?;
        let new = names::container(new)?.to_owned();
        let _operation = container.operation.lock().await;
        let old = container.name();
        if old == new {
            return Err(EngineError::invalid("Renaming a container with the same name as its current name"));
        }
        let renamed = self.containers.rename(&container, &new, || {
            container.redefine(&self.db, |definition| definition.name.clone_from(&new))
        });
        renamed.map_err(|error| EngineError::conflict(format!("Error when allocating new name: {error}")))?;
        let this = Arc::clone(&container);
        self.blocking(move |engine| engine.announce_again(&this)).await?;
        let attributes = container.attributes(&[("oldName", format!("/{old}"))]);
        self.events.publish("container", "rename", &container.id, attributes);
        Ok(())
    }
}
