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
