//! The rule set of one instance, as data, and the transactions that put it into the kernel. Pure.
//!
//! ```text
//! table inet berth-<instance> {
//!   sets   bridges, internal, masquerade, unprotected: link names      pairs, talk: link name . the same name
//!          open: address . protocol . port                           (published without translation)
//!          own: address . the same address                           (containers with published ports)
//!   maps   ports:     protocol . port           : address . port      (published on every address)
//!          addressed: address . protocol . port : address . port      (published on one)
//!          own, open, masquerade, unprotected, ports and addressed are there for each family of addresses
//!
//!   guard    raw prerouting    from bridges to 127/8 drop          (route_localnet is on for answers only)
//!   inbound  dstnat            from internal, or to 127/8: accept untranslated; to this host: translate
//!   local    nat output        to ::1: accept untranslated (the relay has it); to this host: translate
//!   outbound srcnat            back into its bridge or to itself and translated, or from 127/8, or leaving: masquerade
//!   through  filter forward    ongoing accept; talk accept; internal drop; open accept; to unprotected, not from
//!                              bridges: accept; to bridges: translated accept, else drop
//! }
//! ```
//!
//! Rules never change: networks and ports come and go as set elements, at a cost that does not grow with their
//! number. `accept` ends only this table's chain; other tables on the host keep their say.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::expression::{IpFamily, NAME_WORDS, Rule, Verdict};
use super::wire::{Attributes, Batch, Family};
use crate::types::Protocol;

const BRIDGES: &str = "bridges";
const INTERNAL: &str = "internal";
const PAIRS: &str = "pairs";
const TALK: &str = "talk";
/// The sets of one family of addresses.
struct FamilySets {
    own: &'static str,
    masquerade: &'static str,
    unprotected: &'static str,
    open: &'static str,
    ports: &'static str,
    addressed: &'static str,
}

const IPV4: FamilySets = FamilySets {
    own: "own",
    masquerade: "masquerade",
    unprotected: "unprotected",
    open: "open",
    ports: "ports",
    addressed: "addressed",
};
const IPV6: FamilySets = FamilySets {
    own: "own6",
    masquerade: "masquerade6",
    unprotected: "unprotected6",
    open: "open6",
    ports: "ports6",
    addressed: "addressed6",
};

const fn sets_of(family: IpFamily) -> &'static FamilySets {
    match family {
        IpFamily::V4 => &IPV4,
        IpFamily::V6 => &IPV6,
    }
}

const fn family_of(address: &IpAddr) -> IpFamily {
    match address {
        IpAddr::V4(_) => IpFamily::V4,
        IpAddr::V6(_) => IpFamily::V6,
    }
}

/// Elements of one message: an attribute's length has 16 bits.
const CHUNK: usize = 256;

/// How packets of one family get out of a bridge and into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Doorway {
    /// Traffic that leaves takes the host's address.
    pub(crate) masquerade: bool,
    /// Everybody may come in, but for other bridges.
    pub(crate) unprotected: bool,
}

/// How a bridge is treated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BridgeRule {
    /// No way out or in.
    pub(crate) internal: bool,
    pub(crate) ipv4: Doorway,
    pub(crate) ipv6: Doorway,
    /// Containers on it may talk to each other.
    pub(crate) talk: bool,
}

/// A published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PortRule {
    pub(crate) protocol: Protocol,
    /// `None`: every address of the host.
    pub(crate) host_ip: Option<IpAddr>,
    pub(crate) host_port: u16,
    pub(crate) container_ip: IpAddr,
    pub(crate) container_port: u16,
    /// Reached under its own address, without translation.
    pub(crate) routed: bool,
}

/// Everything that the table says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RuleSet {
    pub(crate) bridges: BTreeMap<String, BridgeRule>,
    pub(crate) ports: BTreeSet<PortRule>,
}

/// One change of a [`RuleSet`].
#[derive(Debug, Clone)]
pub(crate) enum Change {
    AddBridge(String, BridgeRule),
    RemoveBridge(String),
    AddPorts(Vec<PortRule>),
    RemovePorts(Vec<PortRule>),
}

impl Change {
    pub(super) fn is_removal(&self) -> bool {
        matches!(self, Self::RemoveBridge(_) | Self::RemovePorts(_))
    }
}

impl RuleSet {
    /// Containers with published ports.
    fn publishers(&self) -> BTreeSet<IpAddr> {
        self.ports.iter().map(|port| port.container_ip).collect()
    }

    /// Applies the change; `false` when nothing changes.
    pub(super) fn apply(&mut self, change: &Change) -> bool {
        match change {
            Change::AddBridge(name, rule) => {
                self.bridges.insert(name.clone(), rule.clone()).as_ref() != Some(rule)
            }
            Change::RemoveBridge(name) => self.bridges.remove(name).is_some(),
            Change::AddPorts(ports) => {
                let before = self.ports.len();
                self.ports.extend(ports);
                self.ports.len() != before
            }
            Change::RemovePorts(ports) => {
                let before = self.ports.len();
                self.ports.retain(|port| !ports.contains(port));
                self.ports.len() != before
            }
        }
    }
}

/// What a set holds: its name, the kernel's view of key and value, and the types that `nft` shows them as.
struct SetShape {
    name: &'static str,
    key_words: u32,
    key_types: &'static [u32],
    value_words: u32,
    value_types: &'static [u32],
}

const TYPE_IPV4: u32 = 7;
const TYPE_IPV6: u32 = 8;
const TYPE_PROTOCOL: u32 = 12;
const TYPE_PORT: u32 = 13;
const TYPE_LINK: u32 = 41;

/// nft's own note on a set, without which it cannot show names: key byte order (0), 4 bytes, host endian (1).
const HOST_ENDIAN_KEY: [u8; 6] = [0, 4, 1, 0, 0, 0];

const fn set(name: &'static str, key_words: u32, key_types: &'static [u32]) -> SetShape {
    SetShape { name, key_words, key_types, value_words: 0, value_types: &[] }
}

const fn map(
    name: &'static str,
    key_words: u32,
    key_types: &'static [u32],
    value_words: u32,
    value_types: &'static [u32],
) -> SetShape {
    SetShape { name, key_words, key_types, value_words, value_types }
}

const SETS: [SetShape; 16] = [
    set(BRIDGES, NAME_WORDS, &[TYPE_LINK]),
    set(INTERNAL, NAME_WORDS, &[TYPE_LINK]),
    set(IPV4.masquerade, NAME_WORDS, &[TYPE_LINK]),
    set(IPV6.masquerade, NAME_WORDS, &[TYPE_LINK]),
    set(IPV4.unprotected, NAME_WORDS, &[TYPE_LINK]),
    set(IPV6.unprotected, NAME_WORDS, &[TYPE_LINK]),
    set(PAIRS, 2 * NAME_WORDS, &[TYPE_LINK, TYPE_LINK]),
    set(TALK, 2 * NAME_WORDS, &[TYPE_LINK, TYPE_LINK]),
    set(IPV4.own, 2, &[TYPE_IPV4, TYPE_IPV4]),
    set(IPV4.open, 3, &[TYPE_IPV4, TYPE_PROTOCOL, TYPE_PORT]),
    set(IPV6.open, 6, &[TYPE_IPV6, TYPE_PROTOCOL, TYPE_PORT]),
    map(IPV4.ports, 2, &[TYPE_PROTOCOL, TYPE_PORT], 2, &[TYPE_IPV4, TYPE_PORT]),
    map(IPV4.addressed, 3, &[TYPE_IPV4, TYPE_PROTOCOL, TYPE_PORT], 2, &[TYPE_IPV4, TYPE_PORT]),
    set(IPV6.own, 8, &[TYPE_IPV6, TYPE_IPV6]),
    map(IPV6.ports, 2, &[TYPE_PROTOCOL, TYPE_PORT], 5, &[TYPE_IPV6, TYPE_PORT]),
    map(IPV6.addressed, 6, &[TYPE_IPV6, TYPE_PROTOCOL, TYPE_PORT], 5, &[TYPE_IPV6, TYPE_PORT]),
];

/// nft's id of a concatenated type: six bits for each part.
fn type_id(parts: &[u32]) -> u32 {
    parts.iter().fold(0, |id, part| id << 6 | part)
}

pub(super) struct ChainShape {
    pub(super) name: &'static str,
    pub(super) kind: &'static str,
    pub(super) hook: libc::c_int,
    pub(super) priority: libc::c_int,
    pub(super) rules: Vec<Rule>,
}

fn chains() -> [ChainShape; 5] {
    let rule = Rule::default;
    let publish = || {
        [IpFamily::V4, IpFamily::V6].into_iter().flat_map(move |family| {
            let sets = sets_of(family);
            let here = || rule().family(family).bound_for_this_host();
            [
                here().translate_by_address(family, sets.addressed),
                here().translate_by_port(family, sets.ports),
            ]
        })
    };
    let mut inbound = vec![
        rule().from(INTERNAL).verdict(Verdict::Accept),
        rule().ipv4().bound_for_loopback().verdict(Verdict::Accept),
    ];
    inbound.extend(publish());
    let mut local = vec![rule().family(IpFamily::V6).bound_for_ipv6_loopback().verdict(Verdict::Accept)];
    local.extend(publish());
    [
        ChainShape {
            name: "guard",
            kind: "filter",
            hook: libc::NF_INET_PRE_ROUTING,
            priority: libc::NF_IP_PRI_RAW,
            rules: vec![rule().ipv4().bound_for_loopback().from(BRIDGES).verdict(Verdict::Drop)],
        },
        ChainShape {
            name: "inbound",
            kind: "nat",
            hook: libc::NF_INET_PRE_ROUTING,
            priority: libc::NF_IP_PRI_NAT_DST,
            rules: inbound,
        },
        ChainShape {
            name: "local",
            kind: "nat",
            hook: libc::NF_INET_LOCAL_OUT,
            priority: libc::NF_IP_PRI_NAT_DST,
            rules: local,
        },
        ChainShape {
            name: "outbound",
            kind: "nat",
            hook: libc::NF_INET_POST_ROUTING,
            priority: libc::NF_IP_PRI_NAT_SRC,
            rules: vec![
                rule().translated().between(PAIRS).masquerade(),
                // Where bridged packets pass netfilter too (br_netfilter), the incoming link is not known here.
                rule().ipv4().translated().bound_for_itself(IpFamily::V4, IPV4.own).masquerade(),
                rule()
                    .family(IpFamily::V6)
                    .translated()
                    .bound_for_itself(IpFamily::V6, IPV6.own)
                    .masquerade(),
                rule().ipv4().sent_by_loopback().to(BRIDGES).masquerade(),
                rule().ipv4().from(IPV4.masquerade).not_to(BRIDGES).masquerade(),
                rule().family(IpFamily::V6).from(IPV6.masquerade).not_to(BRIDGES).masquerade(),
            ],
        },
        ChainShape {
            name: "through",
            kind: "filter",
            hook: libc::NF_INET_FORWARD,
            priority: libc::NF_IP_PRI_FILTER,
            rules: through(),
        },
    ]
}

/// What is forwarded, and what is not.
fn through() -> Vec<Rule> {
    let rule = Rule::default;
    vec![
        rule().ongoing().verdict(Verdict::Accept),
        rule().between(TALK).verdict(Verdict::Accept),
        rule().from(INTERNAL).verdict(Verdict::Drop),
        rule().to(INTERNAL).verdict(Verdict::Drop),
        rule().ipv4().bound_for_service(IpFamily::V4, IPV4.open).verdict(Verdict::Accept),
        rule().family(IpFamily::V6).bound_for_service(IpFamily::V6, IPV6.open).verdict(Verdict::Accept),
        rule().ipv4().to(IPV4.unprotected).not_from(BRIDGES).verdict(Verdict::Accept),
        rule().family(IpFamily::V6).to(IPV6.unprotected).not_from(BRIDGES).verdict(Verdict::Accept),
        rule().translated().to(BRIDGES).verdict(Verdict::Accept),
        rule().to(BRIDGES).verdict(Verdict::Drop),
    ]
}

/// The transaction that makes the table say exactly `rules`, whatever it said before.
pub(super) fn replace(table: &str, rules: &RuleSet) -> Batch {
    let mut batch = delete(table);
    batch.message(libc::NFT_MSG_NEWTABLE, libc::NLM_F_CREATE, &named_table(table));
    for (id, set) in (1..).zip(&SETS) {
        batch.message(libc::NFT_MSG_NEWSET, libc::NLM_F_CREATE, &set_attributes(table, set, id));
    }
    for chain in chains() {
        push_chain(&mut batch, table, &chain);
    }
    for (name, rule) in &rules.bridges {
        push_bridge(&mut batch, libc::NFT_MSG_NEWSETELEM, table, name, rule);
    }
    push_ports(&mut batch, libc::NFT_MSG_NEWSETELEM, table, rules.ports.iter().copied());
    push_publishers(&mut batch, libc::NFT_MSG_NEWSETELEM, table, &rules.publishers());
    batch
}

/// The transaction that deletes the table; that there is none is fine.
pub(super) fn delete(table: &str) -> Batch {
    let mut batch = Batch::new(Family::Inet);
    // Creating is idempotent and deleting is not: together they are.
    batch.message(libc::NFT_MSG_NEWTABLE, libc::NLM_F_CREATE, &named_table(table));
    batch.message(libc::NFT_MSG_DELTABLE, 0, &named_table(table));
    batch
}

/// The transaction for one change, given the rules before and after it.
pub(super) fn change(table: &str, before: &RuleSet, after: &RuleSet, change: &Change) -> Batch {
    let mut batch = Batch::new(Family::Inet);
    let (add, remove) = (libc::NFT_MSG_NEWSETELEM, libc::NFT_MSG_DELSETELEM);
    match change {
        Change::AddBridge(name, rule) => {
            if let Some(old) = before.bridges.get(name) {
                push_bridge(&mut batch, remove, table, name, old);
            }
            push_bridge(&mut batch, add, table, name, rule);
        }
        Change::RemoveBridge(name) => {
            if let Some(old) = before.bridges.get(name) {
                push_bridge(&mut batch, remove, table, name, old);
            }
        }
        Change::AddPorts(ports) => {
            let new = ports.iter().copied().filter(|port| !before.ports.contains(port));
            push_ports(&mut batch, add, table, new);
            push_publishers(&mut batch, add, table, &(&after.publishers() - &before.publishers()));
        }
        Change::RemovePorts(ports) => {
            let old = ports.iter().copied().filter(|port| before.ports.contains(port));
            push_ports(&mut batch, remove, table, old);
            push_publishers(&mut batch, remove, table, &(&before.publishers() - &after.publishers()));
        }
    }
    batch
}

pub(super) fn named_table(table: &str) -> Attributes {
    const NAME: u16 = 1;
    let mut attributes = Attributes::default();
    attributes.text(NAME, table);
    attributes
}

fn set_attributes(table: &str, set: &SetShape, id: u32) -> Attributes {
    const TABLE: u16 = 1;
    const NAME: u16 = 2;
    const FLAGS: u16 = 3;
    const KEY_TYPE: u16 = 4;
    const KEY_LEN: u16 = 5;
    const DATA_TYPE: u16 = 6;
    const DATA_LEN: u16 = 7;
    const ID: u16 = 10;
    const USERDATA: u16 = 13;
    let mut attributes = Attributes::default();
    attributes.text(TABLE, table).text(NAME, set.name).number(ID, id);
    attributes.number(KEY_TYPE, type_id(set.key_types)).number(KEY_LEN, 4 * set.key_words);
    if set.key_types == [TYPE_LINK] {
        attributes.bytes(USERDATA, &HOST_ENDIAN_KEY);
    }
    if set.value_words > 0 {
        attributes.number(FLAGS, libc::NFT_SET_MAP as u32);
        attributes.number(DATA_TYPE, type_id(set.value_types)).number(DATA_LEN, 4 * set.value_words);
    }
    attributes
}

pub(super) fn push_chain(batch: &mut Batch, table: &str, chain: &ChainShape) {
    const TABLE: u16 = 1;
    const NAME: u16 = 3;
    const HOOK: u16 = 4;
    const POLICY: u16 = 5;
    const TYPE: u16 = 7;
    const HOOK_NUM: u16 = 1;
    const HOOK_PRIORITY: u16 = 2;
    let mut attributes = Attributes::default();
    attributes.text(TABLE, table).text(NAME, chain.name).text(TYPE, chain.kind);
    attributes.number(POLICY, Verdict::Accept as u32).nested(HOOK, |hook| {
        hook.number(HOOK_NUM, chain.hook as u32).number(HOOK_PRIORITY, chain.priority as u32);
    });
    batch.message(libc::NFT_MSG_NEWCHAIN, libc::NLM_F_CREATE, &attributes);
    for rule in &chain.rules {
        const TABLE: u16 = 1;
        const CHAIN: u16 = 2;
        const EXPRESSIONS: u16 = 4;
        let mut attributes = Attributes::default();
        attributes.text(TABLE, table).text(CHAIN, chain.name).nested(EXPRESSIONS, |list| {
            list.append(rule.expressions());
        });
        batch.message(libc::NFT_MSG_NEWRULE, libc::NLM_F_CREATE | libc::NLM_F_APPEND, &attributes);
    }
}

/// An element's key and, for a map, its value.
struct Element {
    key: Vec<u8>,
    value: Option<Vec<u8>>,
}

fn push_elements(batch: &mut Batch, message: libc::c_int, table: &str, set: &str, elements: &[Element]) {
    const TABLE: u16 = 1;
    const SET: u16 = 2;
    const ELEMENTS: u16 = 3;
    const LIST_ELEM: u16 = 1;
    const KEY: u16 = 1;
    const DATA: u16 = 2;
    const DATA_VALUE: u16 = 1;
    let flags = if message == libc::NFT_MSG_NEWSETELEM { libc::NLM_F_CREATE } else { 0 };
    for chunk in elements.chunks(CHUNK) {
        let mut attributes = Attributes::default();
        attributes.text(TABLE, table).text(SET, set).nested(ELEMENTS, |list| {
            for element in chunk {
                list.nested(LIST_ELEM, |entry| {
                    entry.nested(KEY, |key| {
                        key.bytes(DATA_VALUE, &element.key);
                    });
                    if let Some(value) = &element.value {
                        entry.nested(DATA, |data| {
                            data.bytes(DATA_VALUE, value);
                        });
                    }
                });
            }
        });
        batch.message(message, flags, &attributes);
    }
}

fn push_bridge(batch: &mut Batch, message: libc::c_int, table: &str, name: &str, rule: &BridgeRule) {
    let mut one = name.as_bytes().to_vec();
    one.resize(libc::IFNAMSIZ, 0);
    let two = [one.clone(), one.clone()].concat();
    let memberships = [
        (BRIDGES, &one, true),
        (INTERNAL, &one, rule.internal),
        (IPV4.masquerade, &one, rule.ipv4.masquerade && !rule.internal),
        (IPV6.masquerade, &one, rule.ipv6.masquerade && !rule.internal),
        (IPV4.unprotected, &one, rule.ipv4.unprotected),
        (IPV6.unprotected, &one, rule.ipv6.unprotected),
        (PAIRS, &two, true),
        (TALK, &two, rule.talk),
    ];
    for (set, key, _) in memberships.into_iter().filter(|(_, _, member)| *member) {
        push_elements(batch, message, table, set, &[Element { key: key.clone(), value: None }]);
    }
}

fn push_ports(batch: &mut Batch, message: libc::c_int, table: &str, ports: impl Iterator<Item = PortRule>) {
    let mut by_set: BTreeMap<&str, Vec<Element>> = BTreeMap::new();
    for port in ports {
        let sets = sets_of(family_of(&port.container_ip));
        let set = match port.host_ip {
            _ if port.routed => sets.open,
            Some(_) => sets.addressed,
            None => sets.ports,
        };
        by_set.entry(set).or_default().push(port_element(&port));
    }
    for (set, elements) in by_set {
        push_elements(batch, message, table, set, &elements);
    }
}

fn push_publishers(batch: &mut Batch, message: libc::c_int, table: &str, addresses: &BTreeSet<IpAddr>) {
    for address in addresses {
        let one = octets(address);
        let twice = Element { key: [one.clone(), one].concat(), value: None };
        push_elements(batch, message, table, sets_of(family_of(address)).own, &[twice]);
    }
}

fn octets(address: &IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// Every part of a key or value fills its words from the left, the rest is zero.
fn port_element(port: &PortRule) -> Element {
    let word = |bytes: [u8; 2]| [bytes[0], bytes[1], 0, 0];
    if port.routed {
        let mut key = octets(&port.container_ip);
        key.extend(word([port.protocol.number(), 0]));
        key.extend(word(port.container_port.to_be_bytes()));
        return Element { key, value: None };
    }
    let mut key = port.host_ip.as_ref().map_or_else(Vec::new, octets);
    key.extend(word([port.protocol.number(), 0]));
    key.extend(word(port.host_port.to_be_bytes()));
    let mut value = octets(&port.container_ip);
    value.extend(word(port.container_port.to_be_bytes()));
    Element { key, value: Some(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(host_ip: Option<[u8; 4]>, host_port: u16) -> PortRule {
        PortRule {
            protocol: Protocol::Udp,
            host_ip: host_ip.map(IpAddr::from),
            host_port,
            container_ip: IpAddr::from([172, 17, 0, 2]),
            container_port: 53,
            routed: false,
        }
    }

    #[test]
    fn keys_and_values_fill_words_from_the_left() {
        let everywhere = port_element(&port(None, 0x1234));
        assert_eq!(everywhere.key, [17, 0, 0, 0, 0x12, 0x34, 0, 0]);
        assert_eq!(everywhere.value.unwrap(), [172, 17, 0, 2, 0, 53, 0, 0]);
        assert_eq!(port_element(&port(Some([127, 0, 0, 1]), 1)).key, [127, 0, 0, 1, 17, 0, 0, 0, 0, 1, 0, 0]);
        let six = PortRule { container_ip: "fd00::2".parse().unwrap(), ..port(None, 80) };
        assert_eq!(port_element(&six).value.unwrap().len(), 20);
        let routed = port_element(&PortRule { routed: true, ..six });
        assert!(routed.key.len() == 24 && routed.value.is_none());
        for set in &SETS {
            assert!(set.key_words <= 16, "{}: registers have 16 words", set.name);
        }
    }

    #[test]
    fn changes_that_change_nothing_are_told_apart() {
        let mut rules = RuleSet::default();
        let door = Doorway { masquerade: true, unprotected: false };
        let bridge = || BridgeRule { internal: false, ipv4: door, ipv6: door, talk: true };
        assert!(rules.apply(&Change::AddBridge("b".into(), bridge())));
        assert!(!rules.apply(&Change::AddBridge("b".into(), bridge())));
        assert!(rules.apply(&Change::AddBridge("b".into(), BridgeRule { internal: true, ..bridge() })));
        assert!(rules.apply(&Change::AddPorts(vec![port(None, 1), port(None, 2)])));
        assert!(!rules.apply(&Change::AddPorts(vec![port(None, 2)])));
        assert!(rules.apply(&Change::RemovePorts(vec![port(None, 2), port(None, 3)])));
        assert!(!rules.apply(&Change::RemovePorts(vec![port(None, 3)])));
        assert!(rules.apply(&Change::RemoveBridge("b".into())));
        assert_eq!(rules.ports, BTreeSet::from([port(None, 1)]));
    }
}
