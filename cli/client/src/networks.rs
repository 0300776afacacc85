//! Networks.

use berth_api::{
    Filters,
    network::{
        Network, NetworkConnectRequest, NetworkCreateRequest, NetworkCreateResponse,
        NetworkDisconnectRequest, PruneNetworksResponse,
    },
};

use crate::{
    Client, Result,
    query::{Query, segment},
    request::Call,
};

fn at(network: &str, what: &str) -> String {
    format!("/networks/{}{what}", segment(network))
}

/// Networks. Every call fails with [`crate::Error::Daemon`] when the daemon refuses it.
#[allow(clippy::missing_errors_doc, reason = "said once above for all")]
impl Client {
    /// Lists networks.
    pub async fn network_list(&self, filters: &Filters) -> Result<Vec<Network>> {
        self.fetch(Call::get("/networks", &Query::new().filters(filters))).await
    }

    /// Shows a network.
    pub async fn network_inspect(&self, network: &str, verbose: bool) -> Result<Network> {
        self.fetch(Call::get(at(network, ""), &Query::new().flag("verbose", verbose))).await
    }

    /// The same as the daemon sent it.
    pub async fn network_inspect_raw(&self, network: &str, verbose: bool) -> Result<serde_json::Value> {
        self.fetch(Call::get(at(network, ""), &Query::new().flag("verbose", verbose))).await
    }

    /// Makes a network.
    pub async fn network_create(&self, request: &NetworkCreateRequest) -> Result<NetworkCreateResponse> {
        self.fetch(Call::post("/networks/create", &Query::new()).json(request)).await
    }

    /// Removes a network.
    pub async fn network_remove(&self, network: &str) -> Result<()> {
        self.run(Call::delete(at(network, ""), &Query::new())).await.map(drop)
    }

    /// Connects a container to a network.
    pub async fn network_connect(&self, network: &str, request: &NetworkConnectRequest) -> Result<()> {
        self.run(Call::post(at(network, "/connect"), &Query::new()).json(request)).await.map(drop)
    }

    /// Disconnects a container from a network.
    pub async fn network_disconnect(&self, network: &str, request: &NetworkDisconnectRequest) -> Result<()> {
        self.run(Call::post(at(network, "/disconnect"), &Query::new()).json(request)).await.map(drop)
    }

    /// Removes networks that nobody uses.
    pub async fn network_prune(&self, filters: &Filters) -> Result<PruneNetworksResponse> {
        self.fetch(Call::post("/networks/prune", &Query::new().filters(filters))).await
    }
}
