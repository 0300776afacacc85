//! Which program has a port: for the message that it is taken.

use std::fs;
use std::net::SocketAddr;

use crate::types::Protocol;

/// State of a socket that listens, in the kernel's tables (proc_pid_net(5)).
const LISTEN: &str = "0A";

/// `name (pid)` of the program that has this port, if it can be seen from here.
pub(crate) fn of(address: SocketAddr, protocol: Protocol) -> Option<String> {
    let suffix = if address.is_ipv4() { "" } else { "6" };
    let table = fs::read_to_string(format!("/proc/net/{protocol}{suffix}")).ok()?;
    let sockets: Vec<String> = table
        .lines()
        .skip(1)
        .filter_map(|line| inode(line, address.port(), protocol == Protocol::Tcp))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    let pids = fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        name.parse::<u32>().ok()
    });
    let has_one = |pid: &u32| {
        let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
        descriptors
            .flatten()
            .filter_map(|entry| fs::read_link(entry.path()).ok())
            .any(|link| sockets.iter().any(|socket| link.as_os_str() == socket.as_str()))
    };
    let pid = pids.into_iter().find(has_one)?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(format!("{} (process {pid})", name.trim_end()))
}

/// The inode of a line's socket, if it has this port; of TCP only sockets that listen count.
fn inode(line: &str, port: u16, listening: bool) -> Option<&str> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (_, local) = fields.get(1)?.rsplit_once(':')?;
    let matches = u16::from_str_radix(local, 16) == Ok(port) && (!listening || *fields.get(3)? == LISTEN);
    matches.then(|| fields.get(9).copied()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_sockets_are_ours() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let holder = of(listener.local_addr().unwrap(), Protocol::Tcp).unwrap();
        assert!(holder.ends_with(&format!("(process {})", std::process::id())), "{holder}");
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        assert!(of(address, Protocol::Udp).unwrap().contains("process"));
        drop(socket);
        assert_eq!(of(address, Protocol::Udp), None);
    }
}
