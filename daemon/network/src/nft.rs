//! The instance's own nftables table: kept as data here, changed in the kernel by one transaction each.

mod expression;
mod firewalld;
mod flows;
mod neighbours;
mod resolver;
mod table;
mod watch;
mod wire;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use nix::errno::Errno;
use nix::sys::socket::SockProtocol;

pub(crate) use flows::{Flows, forget};
pub(crate) use resolver::ADDRESS as RESOLVER_ADDRESS;
pub(crate) use table::{BridgeRule, Change, Doorway, PortRule, RuleSet};
use watch::Heard;
pub(crate) use watch::Watch;
use wire::Batch;

use crate::error::NetworkError;
use crate::lock::lock;
use crate::netlink::{NetlinkError, Socket, messages};

/// The table and what it ought to say.
#[derive(Debug)]
pub(crate) struct Firewall {
    table: String,
    socket: Socket,
    rules: RuleSet,
    /// Whether the kernel's table is known to say `rules`.
    in_force: bool,
    instance: String,
    /// Bridges that firewalld was told of.
    trusted: BTreeSet<String>,
    /// What the user has to do about other firewalls.
    warnings: Vec<String>,
}

impl Firewall {
    /// A firewall for the calling thread's network namespace; nothing is sent yet.
    pub(crate) fn open(instance: &str) -> Result<Self, NetworkError> {
        let table = format!("berth-{instance}");
        match Socket::open(SockProtocol::NetlinkNetFilter) {
            Ok(socket) => Ok(Self {
                table,
                socket,
                rules: RuleSet::default(),
                in_force: false,
                instance: instance.to_owned(),
                trusted: BTreeSet::new(),
                warnings: Vec::new(),
            }),
            Err(errno) => Err(NetworkError::Firewall {
                table,
                source: NetlinkError::new("open a netfilter netlink socket", errno),
            }),
        }
    }

    /// What the user has to do about other firewalls, as found after the last change of either.
    pub(crate) fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Makes a way through the forward chains of other firewalls, as far as that is ours to do.
    fn settle(&mut self) {
        let none = RuleSet::default();
        let rules = if self.in_force { &self.rules } else { &none };
        let bridges: BTreeSet<&str> = rules.bridges.keys().map(String::as_str).collect();
        let settled =
            neighbours::settle(&mut self.socket, &self.table, &self.instance, &bridges, &mut self.trusted);
        match settled {
            Ok(warnings) => {
                for warning in warnings.iter().filter(|warning| !self.warnings.contains(warning)) {
                    tracing::warn!("{warning}");
                }
                self.warnings = warnings;
            }
            // Our own rules are in force all the same.
            Err(error) => {
                tracing::warn!(%error, "another firewall may drop what containers send and receive")
            }
        }
    }

    /// Watches the table and writes it anew when somebody else changes it, and settles with other firewalls that
    /// change. Must be called through the mutex that the
    /// firewall lives in.
    pub(crate) fn watch(firewall: &Arc<Mutex<Self>>) -> Result<Watch, NetworkError> {
        let (table, port) = {
            let firewall = lock(firewall);
            let port = firewall.socket.port().unwrap_or_default();
            (firewall.table.clone(), port)
        };
        let this = Arc::downgrade(firewall);
        let mend = move |heard: Heard| {
            let Some(firewall) = this.upgrade() else { return };
            let mut firewall = lock(&firewall);
            if !firewall.in_force {
                return;
            }
            if heard == Heard::Others {
                firewall.settle();
                return;
            }
            tracing::warn!(table = %firewall.table, "the nftables table was changed by others: writing it anew");
            firewall.in_force = false;
            let rules = firewall.rules.clone();
            if let Err(error) = firewall.write(rules) {
                tracing::error!(%error, "published ports and networks are without rules");
            }
        };
        Watch::start(&table, port, mend).map_err(NetworkError::Relay)
    }

    /// Makes a change; when it fails, neither the kernel's table nor the one here has it.
    ///
    /// The first change writes the whole table, and so does one that finds it missing or mutilated
    /// (`nft flush ruleset` by somebody else).
    pub(crate) fn apply(&mut self, change: &Change) -> Result<(), NetworkError> {
        self.make(change)?;
        if matches!(change, Change::AddBridge(..) | Change::RemoveBridge(_)) {
            self.settle();
        }
        Ok(())
    }

    fn make(&mut self, change: &Change) -> Result<(), NetworkError> {
        let mut after = self.rules.clone();
        let changes = after.apply(change);
        if !self.in_force && change.is_removal() {
            self.rules = after;
            return Ok(());
        }
        if self.in_force {
            if !changes {
                return Ok(());
            }
            match self.commit(table::change(&self.table, &self.rules, &after, change), "change elements") {
                Ok(()) => {
                    self.rules = after;
                    return Ok(());
                }
                Err(error) if matches!(error.errno(), Errno::ENOENT | Errno::EEXIST) => {
                    tracing::warn!(table = %self.table, %error, "the nftables table was changed by others: rewriting it");
                    self.in_force = false;
                }
                Err(source) => return Err(self.failure(source)),
            }
        }
        self.replace(after)
    }

    /// Writes the whole table in one transaction.
    pub(crate) fn write(&mut self, rules: RuleSet) -> Result<(), NetworkError> {
        self.replace(rules)?;
        self.settle();
        Ok(())
    }

    fn replace(&mut self, rules: RuleSet) -> Result<(), NetworkError> {
        match self.commit(table::replace(&self.table, &rules), "write the table") {
            Ok(()) => {
                self.rules = rules;
                self.in_force = true;
                Ok(())
            }
            Err(source) => Err(self.failure(source)),
        }
    }

    /// Deletes the table; that there is none is fine.
    pub(crate) fn delete(&mut self) -> Result<(), NetworkError> {
        self.in_force = false;
        self.rules = RuleSet::default();
        self.settle();
        self.commit(table::delete(&self.table), "delete the table").map_err(|source| self.failure(source))
    }

    fn failure(&self, source: NetlinkError) -> NetworkError {
        NetworkError::Firewall { table: self.table.clone(), source }
    }

    fn commit(&mut self, batch: Batch, operation: &str) -> Result<(), NetlinkError> {
        commit(&mut self.socket, batch, operation)
    }
}

/// Leads 127.0.0.11:53 in the calling thread's namespace to sockets of that address and these ports.
pub(crate) fn lead_to_resolver(udp: u16, tcp: u16) -> Result<(), NetlinkError> {
    let operation = "set the rules that lead to the resolver";
    let socket = Socket::open(SockProtocol::NetlinkNetFilter);
    let mut socket = socket.map_err(|errno| NetlinkError::new(operation, errno))?;
    commit(&mut socket, resolver::replace([udp, tcp]), operation)
}

/// Hands the kernel a transaction and waits for its word.
fn commit(socket: &mut Socket, batch: Batch, operation: &str) -> Result<(), NetlinkError> {
    let fail = |errno| NetlinkError::new(operation, errno);
    let (bytes, acknowledged) = batch.finish();
    socket.drain();
    socket.send(&bytes).map_err(fail)?;
    // An error ends the transaction but not the walk through it: the acknowledgement, or its lack, comes last.
    let mut first_error = None;
    let mut wait = true;
    while let Some(datagram) = socket.receive(wait).map_err(fail)? {
        for message in messages(datagram) {
            match message.error() {
                Some(Err(errno)) => {
                    first_error.get_or_insert(errno);
                }
                Some(Ok(())) if message.sequence == acknowledged => {
                    return first_error.map_or(Ok(()), |e| Err(fail(e)));
                }
                Some(Ok(())) | None => {}
            }
        }
        // Everything was answered while it was being sent.
        wait = false;
    }
    Err(fail(first_error.unwrap_or(Errno::EBADMSG)))
}
