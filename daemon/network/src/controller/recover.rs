//! After a restart, and at the end.

use std::collections::HashSet;

use crate::error::NetworkError;
use crate::lock::lock;
use crate::nft::RuleSet;
use crate::ports;
use crate::types::{Driver, Endpoint, Network};

use super::NetworkController;
use super::endpoints::{Unplug, port_rules};
use super::networks::bridge_rule;

/// What [`NetworkController::recover`] found.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Endpoints of live containers, in force again.
    pub kept: Vec<Endpoint>,
    /// Endpoints whose containers are gone, undone.
    pub released: Vec<Endpoint>,
    /// What did not succeed on the way.
    pub errors: Vec<NetworkError>,
}

impl NetworkController {
    /// After a restart of the daemon: endpoints of the live containers keep their links, which never went away, and
    /// get rules and host ports again; all others are released. To be called once, before anything is attached.
    pub fn recover(&self, live: &[String]) -> Recovered {
        let live: HashSet<&str> = live.iter().map(String::as_str).collect();
        let mut found = Recovered::default();
        let endpoints: Vec<Endpoint> = lock(&self.books).endpoints().cloned().collect();
        let (kept, dead): (Vec<_>, Vec<_>) =
            endpoints.into_iter().partition(|endpoint| live.contains(endpoint.container_id.as_str()));
        // One transaction replaces the rules of the run before, which may name ports of containers that died since;
        // those of the living are never away in between.
        let rewritten = if kept.is_empty() {
            lock(&self.firewall).delete()
        } else {
            self.rules_of(&kept).and_then(|rules| lock(&self.firewall).write(rules))
        };
        found.errors.extend(rewritten.err());
        for endpoint in dead {
            found.errors.extend(self.release(&endpoint, Unplug::Soon));
            found.released.push(endpoint);
        }
        for endpoint in kept {
            found.errors.extend(self.resume(&endpoint));
            found.kept.push(endpoint);
        }
        found
    }

    fn rules_of(&self, endpoints: &[Endpoint]) -> Result<RuleSet, NetworkError> {
        let books = lock(&self.books);
        let mut rules = RuleSet::default();
        for endpoint in endpoints {
            let network = books.network(&endpoint.network)?;
            if network.driver != Driver::Bridge {
                continue;
            }
            rules.bridges.insert(network.bridge.clone(), bridge_rule(network)?);
            rules.ports.extend(port_rules(endpoint));
        }
        Ok(rules)
    }

    /// Puts a live container's endpoint in force again. A port that somebody took meanwhile stays translated, as it
    /// was all the time, but is not held.
    fn resume(&self, endpoint: &Endpoint) -> Vec<NetworkError> {
        let mut errors = Vec::new();
        let network = lock(&self.books).network(&endpoint.network).cloned();
        let up = network.and_then(|network| match network.driver {
            Driver::Bridge => self.bridge_of(&network).map(drop),
            _ => Ok(()),
        });
        if let Err(error) = up {
            return vec![error];
        }
        let mut held = Vec::new();
        for port in endpoint.ports.iter().filter(|port| port.host_port != ports::ROUTED) {
            match ports::hold(*port) {
                Ok(port) => held.push(port),
                Err(source) => errors.push(NetworkError::Publish {
                    container: endpoint.container_name.clone(),
                    endpoint: endpoint.id.clone(),
                    source: Box::new(source),
                }),
            }
        }
        errors.extend(self.publish(endpoint, held).err());
        errors
    }

    /// Undoes every endpoint, bridge and rule.
    pub(super) fn remove_all(&self) -> Vec<NetworkError> {
        let endpoints: Vec<Endpoint> = lock(&self.books).endpoints().cloned().collect();
        let mut errors: Vec<_> =
            endpoints.iter().flat_map(|endpoint| self.release(endpoint, Unplug::Soon)).collect();
        self.reaper.finish();
        let networks: Vec<Network> = self.networks();
        errors.extend(networks.iter().flat_map(|network| self.unmake_bridge(network)));
        errors.extend(lock(&self.firewall).delete().err());
        errors
    }
}
