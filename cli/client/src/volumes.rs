//! Volumes.

use berth_api::{
    Filters,
    volume::{PruneVolumesResponse, Volume, VolumeCreateRequest, VolumeList},
};

use crate::{
    Client, Result,
    query::{Query, segment},
    request::Call,
};

/// Volumes. Every call fails with [`crate::Error::Daemon`] when the daemon refuses it.
#[allow(clippy::missing_errors_doc, reason = "said once above for all")]
impl Client {
    /// Lists volumes.
    pub async fn volume_list(&self, filters: &Filters) -> Result<VolumeList> {
        self.fetch(Call::get("/volumes", &Query::new().filters(filters))).await
    }

    /// Shows a volume.
    pub async fn volume_inspect(&self, name: &str) -> Result<Volume> {
        self.fetch(Call::get(format!("/volumes/{}", segment(name)), &Query::new())).await
    }

    /// The same as the daemon sent it.
    pub async fn volume_inspect_raw(&self, name: &str) -> Result<serde_json::Value> {
        self.fetch(Call::get(format!("/volumes/{}", segment(name)), &Query::new())).await
    }

    /// Makes a volume; an existing one with the same name is answered as it is.
    pub async fn volume_create(&self, request: &VolumeCreateRequest) -> Result<Volume> {
        self.fetch(Call::post("/volumes/create", &Query::new()).json(request)).await
    }

    /// Removes a volume.
    pub async fn volume_remove(&self, name: &str, force: bool) -> Result<()> {
        let call = Call::delete(format!("/volumes/{}", segment(name)), &Query::new().flag("force", force));
        self.run(call).await.map(drop)
    }

    /// Removes volumes that nobody uses.
    pub async fn volume_prune(&self, filters: &Filters) -> Result<PruneVolumesResponse> {
        self.fetch(Call::post("/volumes/prune", &Query::new().filters(filters))).await
    }
}
