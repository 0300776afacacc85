//! The table inside a container's namespace that leads 127.0.0.11:53 to the resolver's sockets. Pure.
//!
//! ```text
//! table ip berth-dns {
//!   ports  raw output   to 127.0.0.11 port 53: write the socket's port; from 127.0.0.11 that port: write 53
//! }
//! ```
//!
//! The sockets do not sit on port 53 themselves: a container may run a name server of its own on every address.
//! Nothing is tracked, so queries do not meet in the connection tracker and get lost there.

use super::expression::{End, Rule};
use super::table::{ChainShape, named_table, push_chain};
use super::wire::{Batch, Family};

const TABLE: &str = "berth-dns";
/// The name server of user-defined networks, as in Docker.
pub(crate) const ADDRESS: [u8; 4] = [127, 0, 0, 11];
const PORT: u16 = 53;
/// Where the checksum is in the transport's header.
const PROTOCOLS: [(u8, u32, usize); 2] = [(libc::IPPROTO_UDP as u8, 6, 0), (libc::IPPROTO_TCP as u8, 16, 1)];

/// The transaction that makes the table, whatever it said before; the ports are those of the UDP socket and of the
/// TCP listener.
pub(super) fn replace(sockets: [u16; 2]) -> Batch {
    let mut batch = Batch::new(Family::Ipv4);
    batch.message(libc::NFT_MSG_NEWTABLE, libc::NLM_F_CREATE, &named_table(TABLE));
    batch.message(libc::NFT_MSG_DELTABLE, 0, &named_table(TABLE));
    batch.message(libc::NFT_MSG_NEWTABLE, libc::NLM_F_CREATE, &named_table(TABLE));
    let rules = PROTOCOLS.into_iter().flat_map(|(protocol, checksum, which)| {
        let socket = sockets[which];
        let there = Rule::default().local_service(End::Destination, protocol, ADDRESS, PORT);
        let back = Rule::default().local_service(End::Source, protocol, ADDRESS, socket);
        [
            there.set_port(End::Destination, socket, checksum).untracked(),
            back.set_port(End::Source, PORT, checksum).untracked(),
        ]
    });
    push_chain(
        &mut batch,
        TABLE,
        &ChainShape {
            name: "ports",
            kind: "filter",
            hook: libc::NF_INET_LOCAL_OUT,
            priority: libc::NF_IP_PRI_RAW,
            rules: rules.collect(),
        },
    );
    batch
}
