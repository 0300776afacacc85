//! Other firewalls on the host, whose forward chains may drop what ours lets through.
//!
//! In nftables an accept ends one chain only, and a drop ends everything. Where iptables' own table has a forward chain that
//! drops (ufw, dockerd, a policy), a chain of ours is put before its rules, as dockerd does it with its own:
//!
//! ```text
//! table ip filter {                                     (and ip6 filter)
//!   FORWARD          jump BERTH-<instance>, first
//!   BERTH-<instance> for each bridge: from it accept, to it accept
//! }
//! ```
//!
//! That opens nothing: our own table still drops what is not published, and its drop is final. Rules that `iptables` shows
//! and saves must be such as it knows, so that sets are out of the question. firewalld is asked to trust the bridges
//! ([`super::firewalld`]). Other tables (an administrator's) are not touched; who has one is told what to do.

use std::collections::BTreeSet;

use nix::errno::Errno;

use super::expression::{Rule, Verdict};
use super::firewalld;
use super::wire::{Attributes, Batch, Family};
use crate::netlink::{NetlinkError, Socket, messages};

const TABLE: &str = "filter";
const FORWARD: &str = "FORWARD";
const FIREWALLD: &str = "firewalld";
/// What firewalld puts in its own place while it reloads.
const FIREWALLD_RELOADS: &str = "firewalld_policy_drop";
/// `NF_DROP`.
const DROP: u32 = 0;

/// A forward chain in a table that is not ours.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ForwardChain {
    family: u8,
    table: String,
    chain: String,
    drops: bool,
}

impl ForwardChain {
    /// Whether it is one that `iptables` made, into which rules may go.
    fn family_of_iptables(&self) -> Option<Family> {
        let known = self.table == TABLE && self.chain == FORWARD;
        match i32::from(self.family) {
            libc::NFPROTO_IPV4 if known => Some(Family::Ipv4),
            libc::NFPROTO_IPV6 if known => Some(Family::Ipv6),
            _ => None,
        }
    }

    /// As `nft` names it.
    fn place(&self) -> String {
        format!("{} {} {}", self.family_name(), self.table, self.chain)
    }

    fn family_name(&self) -> &'static str {
        match i32::from(self.family) {
            libc::NFPROTO_IPV4 => "ip",
            libc::NFPROTO_IPV6 => "ip6",
            _ => "inet",
        }
    }
}

/// The name of the chain in others' tables.
fn chain_name(instance: &str) -> String {
    format!("BERTH-{instance}")
}

/// All forward chains of tables but `own`.
fn forward_chains(socket: &mut Socket, own: &str) -> Result<Vec<ForwardChain>, NetlinkError> {
    let mut found = Vec::new();
    dump(socket, libc::NFT_MSG_GETCHAIN, 0, &Attributes::default(), |family, payload| {
        const TABLE: u16 = 1;
        const NAME: u16 = 3;
        const HOOK: u16 = 4;
        const POLICY: u16 = 5;
        const TYPE: u16 = 7;
        const HOOK_NUM: u16 = 1;
        let hook = attribute(payload, HOOK).and_then(|hook| attribute(hook, HOOK_NUM));
        let table = attribute(payload, TABLE).map(text).unwrap_or_default();
        let forward = hook.map(number) == Some(libc::NF_INET_FORWARD as u32);
        let filter = attribute(payload, TYPE).map(text).as_deref() == Some("filter");
        if forward && filter && table != own && table != FIREWALLD_RELOADS {
            found.push(ForwardChain {
                family,
                table,
                chain: attribute(payload, NAME).map(text).unwrap_or_default(),
                drops: attribute(payload, POLICY).map(number) == Some(DROP),
            });
        }
    })?;
    Ok(found)
}

/// A rule as the kernel lists it: its handle and everything it says.
struct Listed {
    handle: Vec<u8>,
    chain: String,
    bytes: Vec<u8>,
}

fn rules_of(socket: &mut Socket, family: u8, table: &str) -> Result<Vec<Listed>, NetlinkError> {
    const TABLE: u16 = 1;
    const CHAIN: u16 = 2;
    const HANDLE: u16 = 3;
    let mut filter = Attributes::default();
    filter.text(TABLE, table);
    let mut found = Vec::new();
    dump(socket, libc::NFT_MSG_GETRULE, family, &filter, |_, payload| {
        // Kernels before 5.0 list all tables whatever is asked for.
        if attribute(payload, TABLE).map(text).as_deref() == Some(table) {
            found.push(Listed {
                handle: attribute(payload, HANDLE).unwrap_or_default().to_vec(),
                chain: attribute(payload, CHAIN).map(text).unwrap_or_default(),
                bytes: payload.to_vec(),
            });
        }
    })?;
    Ok(found)
}

/// Makes a way for the bridges through the forward chains of others, or takes it away when there is no bridge. Answers
/// what is left for the user to do. `trusted` are the links that firewalld was told of, and is told of afterwards.
pub(super) fn settle(
    socket: &mut Socket,
    own_table: &str,
    instance: &str,
    bridges: &BTreeSet<&str>,
    trusted: &mut BTreeSet<String>,
) -> Result<Vec<String>, NetlinkError> {
    let mut warnings = Vec::new();
    for chain in forward_chains(socket, own_table)? {
        let rules = rules_of(socket, chain.family, &chain.table)?;
        if let Some(family) = chain.family_of_iptables() {
            open_way(socket, family, &chain, instance, bridges, &rules)?;
        } else if chain.table == FIREWALLD {
            warnings.extend(through_firewalld(&chain, bridges, &rules, trusted));
        } else if !bridges.is_empty() {
            warnings.extend(warning(&chain, bridges, &rules));
        }
    }
    Ok(warnings)
}

/// Brings the chain in iptables' table to what it must say, in one transaction; nothing is sent if it says it already.
fn open_way(
    socket: &mut Socket,
    family: Family,
    forward: &ForwardChain,
    instance: &str,
    bridges: &BTreeSet<&str>,
    rules: &[Listed],
) -> Result<(), NetlinkError> {
    let own = chain_name(instance);
    let others = rules.iter().any(|rule| rule.chain == FORWARD && !mentions(&rule.bytes, &own));
    let needed = !bridges.is_empty() && (forward.drops || others);
    let jumps: Vec<&Listed> =
        rules.iter().filter(|rule| rule.chain == FORWARD && mentions(&rule.bytes, &own)).collect();
    let inside: Vec<&Listed> = rules.iter().filter(|rule| rule.chain == own).collect();
    let said = |bridge: &&str| inside.iter().filter(|rule| mentions(&rule.bytes, bridge)).count() == 2;
    if needed && jumps.len() == 1 && inside.len() == 2 * bridges.len() && bridges.iter().all(said) {
        return Ok(());
    }
    if !needed && jumps.is_empty() && inside.is_empty() {
        return Ok(());
    }
    let mut batch = Batch::new(family);
    if needed {
        batch.message(libc::NFT_MSG_NEWCHAIN, libc::NLM_F_CREATE, &chain_attributes(&own));
    }
    for rule in jumps.iter().chain(&inside) {
        batch.message(libc::NFT_MSG_DELRULE, 0, &old_rule(rule));
    }
    if needed {
        for bridge in bridges {
            for rule in [Rule::default().entered_on(bridge), Rule::default().leaving_on(bridge)] {
                let rule = rule.counted().verdict(Verdict::Accept);
                batch.message(
                    libc::NFT_MSG_NEWRULE,
                    libc::NLM_F_CREATE | libc::NLM_F_APPEND,
                    &new_rule(&own, &rule),
                );
            }
        }
        let jump = Rule::default().counted().jump(&own);
        // Without NLM_F_APPEND it comes first.
        batch.message(libc::NFT_MSG_NEWRULE, libc::NLM_F_CREATE, &new_rule(FORWARD, &jump));
    } else {
        batch.message(libc::NFT_MSG_DELCHAIN, 0, &chain_attributes(&own));
    }
    super::commit(socket, batch, "let containers through the forward chain of iptables")
}

/// Bridges that no rule names.
fn unknown<'a>(bridges: &BTreeSet<&'a str>, rules: &[Listed]) -> Vec<&'a str> {
    let known = |bridge: &&&str| rules.iter().any(|rule| mentions(&rule.bytes, bridge));
    bridges.iter().filter(|bridge| !known(bridge)).copied().collect()
}

/// Has firewalld trust the bridges that it does not know, and forget those that are gone; who it does not listen to
/// is told what to do.
fn through_firewalld(
    chain: &ForwardChain,
    bridges: &BTreeSet<&str>,
    rules: &[Listed],
    trusted: &mut BTreeSet<String>,
) -> Option<String> {
    let new = unknown(bridges, rules);
    let gone: Vec<String> = trusted.iter().filter(|link| !bridges.contains(link.as_str())).cloned().collect();
    if new.is_empty() && gone.is_empty() {
        return None;
    }
    match firewalld::trust(new.iter().copied(), gone.iter().map(String::as_str)) {
        Ok(()) => {
            trusted.retain(|link| !gone.contains(link));
            trusted.extend(new.into_iter().map(str::to_owned));
            None
        }
        Err(error) => {
            if !firewalld::is_absent(&error) {
                tracing::warn!(%error, "firewalld does not take the bridges into its zone trusted");
            }
            told_of_firewalld(chain, &new)
        }
    }
}

fn told_of_firewalld(chain: &ForwardChain, unknown: &[&str]) -> Option<String> {
    let options: Vec<String> = unknown.iter().map(|bridge| format!("--add-interface={bridge}")).collect();
    (!unknown.is_empty()).then(|| {
        format!(
            "firewalld (table {}) rejects what containers on {} send and receive; let them through: \
             firewall-cmd --permanent --zone=trusted {} && firewall-cmd --reload",
            chain.place(),
            unknown.join(", "),
            options.join(" ")
        )
    })
}

/// What is told of a chain that drops and that is not ours to change.
fn warning(chain: &ForwardChain, bridges: &BTreeSet<&str>, rules: &[Listed]) -> Option<String> {
    let unknown = unknown(bridges, rules);
    let (place, list) = (chain.place(), unknown.join(", "));
    (chain.drops && !unknown.is_empty()).then(|| {
        format!(
            "the forward chain {place} drops what containers on {list} send and receive, and an accept elsewhere does \
             not help; let them through: nft insert rule {place} iifname \"{0}\" accept, nft insert rule {place} \
             oifname \"{0}\" accept",
            unknown[0]
        )
    })
}

/// Whether a text with its terminating zero stands among what a rule says.
fn mentions(bytes: &[u8], name: &str) -> bool {
    let mut wanted = name.as_bytes().to_vec();
    wanted.push(0);
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

fn chain_attributes(chain: &str) -> Attributes {
    const TABLE_NAME: u16 = 1;
    const NAME: u16 = 3;
    let mut attributes = Attributes::default();
    attributes.text(TABLE_NAME, TABLE).text(NAME, chain);
    attributes
}

fn new_rule(chain: &str, rule: &Rule) -> Attributes {
    const TABLE_NAME: u16 = 1;
    const CHAIN: u16 = 2;
    const EXPRESSIONS: u16 = 4;
    let mut attributes = Attributes::default();
    attributes.text(TABLE_NAME, TABLE).text(CHAIN, chain).nested(EXPRESSIONS, |list| {
        list.append(rule.expressions());
    });
    attributes
}

fn old_rule(rule: &Listed) -> Attributes {
    const TABLE_NAME: u16 = 1;
    const CHAIN: u16 = 2;
    const HANDLE: u16 = 3;
    let mut attributes = Attributes::default();
    attributes.text(TABLE_NAME, TABLE).text(CHAIN, &rule.chain).bytes(HANDLE, &rule.handle);
    attributes
}

/// Walks through what the kernel lists of one kind; each time with the family and the attributes.
fn dump(
    socket: &mut Socket,
    kind: libc::c_int,
    family: u8,
    filter: &Attributes,
    mut each: impl FnMut(u8, &[u8]),
) -> Result<(), NetlinkError> {
    let operation = "list the rules of other firewalls";
    let fail = |errno| NetlinkError::new(operation, errno);
    let kind = (libc::NFNL_SUBSYS_NFTABLES as u16) << 8 | kind as u16;
    // A change in the middle of a list makes it begin anew.
    for _ in 0..DUMP_TRIES {
        socket.drain();
        let sequence = socket.next_sequence();
        socket.send(&filter.dump_message(kind, family, sequence)).map_err(fail)?;
        let mut found = Vec::new();
        let (mut done, mut interrupted) = (false, false);
        while !done {
            let datagram = socket.receive(true).map_err(fail)?.unwrap_or_default();
            for message in messages(datagram).filter(|message| message.sequence == sequence) {
                interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
                match message.error() {
                    // No table of that name, or no netfilter at all.
                    Some(Err(Errno::ENOENT)) => done = true,
                    Some(Err(errno)) => return Err(fail(errno)),
                    _ if i32::from(message.kind) == libc::NLMSG_DONE => done = true,
                    _ => found.push(message.payload.to_vec()),
                }
            }
        }
        if !interrupted {
            for payload in &found {
                each(payload.first().copied().unwrap_or_default(), payload.get(4..).unwrap_or_default());
            }
            return Ok(());
        }
    }
    Err(fail(Errno::EAGAIN))
}

const DUMP_TRIES: u32 = 8;
/// `NLM_F_DUMP_INTR` of linux/netlink.h.
const NLM_F_DUMP_INTR: u16 = 0x10;

/// The value of an attribute among others.
fn attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    const TYPE_MASK: u16 = 0x3fff;
    while let Some((header, _)) = bytes.split_first_chunk::<4>() {
        let [l0, l1, k0, k1] = *header;
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = bytes.get(4..length)?;
        if u16::from_ne_bytes([k0, k1]) & TYPE_MASK == wanted {
            return Some(value);
        }
        bytes = bytes.get(length.next_multiple_of(4)..)?;
    }
    None
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned()
}

fn number(value: &[u8]) -> u32 {
    value.first_chunk::<4>().map_or(u32::MAX, |bytes| u32::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(chain: &str, said: &[u8]) -> Listed {
        Listed { handle: vec![0; 8], chain: chain.to_owned(), bytes: said.to_vec() }
    }

    fn chain(family: libc::c_int, table: &str, chain: &str, drops: bool) -> ForwardChain {
        ForwardChain { family: family as u8, table: table.into(), chain: chain.into(), drops }
    }

    #[test]
    fn attributes_are_found_in_place() {
        let mut attributes = Attributes::default();
        attributes.text(1, "filter").nested(4, |inner| {
            inner.number(1, 2);
        });
        let bytes = attributes.as_bytes();
        assert_eq!(attribute(bytes, 1).map(text).as_deref(), Some("filter"));
        assert_eq!(attribute(bytes, 4).and_then(|hook| attribute(hook, 1)).map(number), Some(2));
        assert_eq!(attribute(bytes, 9), None);
        assert_eq!(attribute(&bytes[..6], 1), None, "cut off");
    }

    #[test]
    fn whole_names_are_meant() {
        assert!(mentions(b"..br-1\0..", "br-1") && !mentions(b"br-12\0", "br-1"));
    }

    #[test]
    fn who_drops_is_told_what_to_do() {
        let bridges = BTreeSet::from(["br-1", "br-2"]);
        let ufw = chain(libc::NFPROTO_IPV4, "filter", "FORWARD", true);
        assert!(ufw.family_of_iptables().is_some());
        let own = chain(libc::NFPROTO_INET, "mine", "forward", true);
        let told = warning(&own, &bridges, &[]).unwrap();
        assert!(told.contains("nft insert rule inet mine forward iifname \"br-1\" accept"), "{told}");
        assert_eq!(warning(&chain(libc::NFPROTO_INET, "mine", "forward", false), &bridges, &[]), None);
        let firewalld = chain(libc::NFPROTO_INET, "firewalld", "filter_FORWARD", false);
        let new = unknown(&bridges, &[listed("x", b"br-1\0")]);
        let told = told_of_firewalld(&firewalld, &new).unwrap();
        assert!(told.contains("--zone=trusted --add-interface=br-2 &&"), "{told}");
        let all = [listed("x", b"br-1\0"), listed("y", b"br-2\0")];
        assert_eq!(told_of_firewalld(&firewalld, &unknown(&bridges, &all)), None);
    }
}
