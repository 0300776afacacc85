//! Kernel settings below /proc/sys/net, which shows the network namespace of the calling thread.

use std::path::Path;

use crate::error::NetworkError;

/// Sets a value unless it is set already, so that a read-only /proc/sys with the right values is good enough.
pub(crate) fn ensure(name: &str, value: &str) -> Result<(), NetworkError> {
    let path = Path::new("/proc/sys/net").join(name);
    if std::fs::read_to_string(&path).is_ok_and(|now| now.trim() == value) {
        return Ok(());
    }
    std::fs::write(&path, value).map_err(|source| NetworkError::Sysctl {
        path: path.display().to_string(),
        value: value.to_owned(),
        source,
    })
}

/// Lets the host forward IPv6. The kernel then stops listening to routers on links that ask for it mildly
/// (`accept_ra` 1), and with them the host's own way out would expire: those links are told to go on (2).
pub(crate) fn forward_ipv6() -> Result<(), NetworkError> {
    const ALL: &str = "ipv6/conf/all/forwarding";
    let dir = Path::new("/proc/sys/net/ipv6/conf");
    let forwards = |name: &str| std::fs::read_to_string(dir.join(name)).is_ok_and(|now| now.trim() == "1");
    if forwards("all/forwarding") {
        return Ok(());
    }
    for link in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = link.file_name().to_string_lossy().into_owned();
        if forwards(&format!("{name}/accept_ra")) {
            ensure(&format!("ipv6/conf/{name}/accept_ra"), "2")?;
        }
    }
    ensure(ALL, "1")
}
