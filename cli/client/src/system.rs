//! The daemon itself.

use berth_api::{
    event::Event,
    options::{CheckStore, DiskUsageKinds, Events},
    registry::{AuthConfig, AuthResponse},
    system::{DiskUsage, StoreCheck, SystemInfo, Version},
};

use crate::{Client, JsonStream, Result, query::Query, request::Call};

/// The daemon itself. Every call fails with [`crate::Error::Daemon`] when the daemon refuses it.
#[allow(clippy::missing_errors_doc, reason = "said once above for all")]
impl Client {
    /// What the daemon is and has.
    pub async fn info(&self) -> Result<SystemInfo> {
        self.fetch(Call::get("/info", &Query::new())).await
    }

    /// Versions.
    pub async fn version(&self) -> Result<Version> {
        self.fetch(Call::get("/version", &Query::new())).await
    }

    /// Events, past and to come.
    pub async fn events(&self, options: &Events) -> Result<JsonStream<Event>> {
        let query =
            Query::new().when("since", options.since).when("until", options.until).filters(&options.filters);
        Ok(JsonStream::new(self.send(Call::get("/events", &query)).await?))
    }

    /// Use of disk.
    pub async fn disk_usage(&self, kinds: DiskUsageKinds) -> Result<DiskUsage> {
        let mut query = Query::new();
        if kinds != DiskUsageKinds::default() {
            let wanted = [
                ("container", kinds.containers),
                ("image", kinds.images),
                ("volume", kinds.volumes),
                ("build-cache", kinds.build_cache),
            ];
            for (kind, _) in wanted.iter().filter(|(_, wanted)| *wanted) {
                query = query.with("type", kind);
            }
        }
        self.fetch(Call::get("/system/df", &query)).await
    }

    /// Checks credentials with their registry.
    pub async fn auth(&self, auth: &AuthConfig) -> Result<AuthResponse> {
        self.fetch(Call::post("/auth", &Query::new()).json(auth)).await
    }

    /// Proves the image store of a berthd (not of a dockerd), and mends it if asked to.
    pub async fn check_store(&self, options: CheckStore) -> Result<StoreCheck> {
        let query = Query::new().flag("repair", options.repair).flag("quick", options.quick);
        self.fetch(Call::post("/berth/check", &query)).await
    }

    /// Ends a berthd (not a dockerd); with `stop_containers` nothing of it stays behind.
    pub async fn shutdown(&self, stop_containers: bool) -> Result<()> {
        let query = Query::new().with("containers", if stop_containers { "stop" } else { "keep" });
        self.run(Call::post("/berth/shutdown", &query)).await.map(drop)
    }
}
